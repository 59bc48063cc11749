"""Redis servers on TCP ports, with or without TLS, the Sentinels that watch them, and clusters: Redis beyond one server."""

import binascii
import contextlib
import os
import re
import socket
import subprocess
import threading

from parts import PATIENCE, Process, wait_until
from port import Port
from sharing import wait_hearing
from standin import authority

MASTER = "mymaster"
SLOTS = 16384  # of a cluster
# Valkey is the same to taskproxy; REDIS_SERVER=valkey-server runs these tests with it.
SERVER = os.environ.get("REDIS_SERVER") or "redis-server"
HAS_TLS = subprocess.run(["pkg-config", "--exists", "hiredis_ssl"]).returncode == 0


def with_tls(test):
    """Not a skip: the other release runs the test."""
    return test if HAS_TLS else None


class Certificates:
    """Of a private CA: one for servers with the name redis.test, and one for clients, which servers require."""

    def __init__(self, stack):
        self.folder = stack.folder / "tls"
        self.folder.mkdir()
        authority.make_ca(self.folder)
        authority.issue(self.folder, "server", "DNS:redis.test")
        authority.issue(self.folder, "client", "DNS:client.test", usage="clientAuth")

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def _pair(self, cert: str, key: str, name: str) -> tuple:
        return cert, self.file(f"{name}.pem"), key, self.file(f"{name}.key")

    @property
    def for_cli(self) -> tuple:
        return "--tls", "--sni", "redis.test", "--cacert", self.file("ca.pem"), *self._pair("--cert", "--key", "client")

    @property
    def for_server(self) -> tuple:
        """Replicas and Sentinels connect with the client's certificate."""
        return ("--tls-replication", "yes", "--tls-ca-cert-file", self.file("ca.pem"),
                *self._pair("--tls-cert-file", "--tls-key-file", "server"),
                *self._pair("--tls-client-cert-file", "--tls-client-key-file", "client"))

    @property
    def for_daemon(self) -> dict:
        return {"ca_file": self.file("ca.pem"), "cert_file": self.file("client.pem"), "key_file": self.file("client.key"),
                "server_name": "redis.test"}


class Server(Process):
    """A server without persistence on a port of 127.0.0.1."""

    def __init__(self, stack, name: str, tls: Certificates | None = None):
        self.name, self.tls = name, tls
        super().__init__(stack)
        self.port = Port()
        self.address = f"127.0.0.1:{self.port.number}"

    def start(self, *options) -> None:
        self.launch(*self.listening(), "--bind", "127.0.0.1", "--save", "", "--dbfilename", f"{self.name}.rdb",
                    "--repl-diskless-sync-delay", 0, *options)

    def listening(self) -> tuple:
        """The options for the port."""
        return ("--port", 0, "--tls-port", self.port.number, *self.tls.for_server) if self.tls else ("--port", self.port.number)

    def launch(self, *words) -> None:
        self.spawn([SERVER, *map(str, words), "--dir", str(self.stack.folder)])
        self.wait_ready(lambda: self.cli("PING") == "PONG")

    def cli(self, *command) -> str:
        tls = self.tls.for_cli if self.tls else ()
        done = subprocess.run(["redis-cli", "-p", str(self.port.number), *tls, *map(str, command)], capture_output=True,
                              text=True, timeout=PATIENCE)
        return done.stdout.removesuffix("\n")

    def stop(self) -> None:
        super().stop()
        self.port.close()


class Sentinel(Server):
    def start(self, master: int, quorum: int) -> None:
        """`master` is the port."""
        file = self.stack.folder / f"{self.name}.conf"
        file.write_text(
            f"sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 4000\n")
        self.launch(file, "--sentinel", "--bind", "127.0.0.1", *self.listening())

    def named(self) -> str:
        return ":".join(self.cli("SENTINEL", "get-master-addr-by-name", MASTER).split("\n"))

    def facts(self) -> dict:
        words = self.cli("SENTINEL", "master", MASTER).split("\n")
        return dict(zip(words[::2], words[1::2], strict=False))


def bulk(text: str) -> str:
    return f"${len(text)}\r\n{text}\r\n"


class Scripted:
    """A server in this process. Subclasses define its replies."""

    def __init__(self):
        self._listening = []
        self.address = self._listen(self._serve)

    def _listen(self, serve) -> str:
        """Serves connections to a new address, which it returns."""
        listening = socket.create_server(("127.0.0.1", 0))
        self._listening.append(listening)
        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return "127.0.0.1:{}".format(listening.getsockname()[1])

    def _serve(self, connection) -> None:
        for words in self._commands(connection):
            subscribing = words[0] == b"SUBSCRIBE"
            reply = self._subscribed(words[1].decode()) if subscribing else self._reply(words)
            connection.sendall(reply.encode())

    def _subscribed(self, channel: str) -> str:
        return f"*3\r\n{bulk('subscribe')}{bulk(channel)}:1\r\n"

    @staticmethod
    def _commands(connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
            while count := file.readline():
                yield [file.read(int(file.readline()[1:]) + 2)[:-2] for _ in range(int(count[1:]))]

    def stop(self):
        for listening in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()


class Node(Server):
    """A member of a cluster."""

    def __init__(self, stack, name: str, tls: Certificates | None):
        super().__init__(stack, name, tls)
        self.bus = Port()

    def start(self, *options) -> None:
        self.options = options
        super().start("--cluster-enabled", "yes", "--cluster-config-file", f"{self.name}.nodes", "--cluster-port",
                      self.bus.number, *options)

    def stop(self) -> None:
        super().stop()
        self.bus.close()

    def restart(self) -> None:
        """With the slots that it had."""
        self.start(*self.options)

    @property
    def id(self) -> str:
        return self.cli("CLUSTER", "MYID")

    def has(self, key: str) -> bool:
        return self.cli("EXISTS", key) == "1"

    def is_master(self) -> bool:
        return self.cli("ROLE").startswith("master")

    def calls(self, command: str) -> int:
        """How often the server has executed the command."""
        found = re.search(rf"cmdstat_{command}:calls=(\d+)", self.cli("INFO", "commandstats"))
        return int(found[1]) if found else 0


def slot_of(key: str) -> int:
    """Of a key with a hash tag."""
    return binascii.crc_hqx(key.partition("{")[2].partition("}")[0].encode(), 0) % SLOTS


class Cluster:
    """Three masters, which share the slots evenly, and a replica of each."""

    RANGES = ((0, 5460), (5461, 10922), (10923, SLOTS - 1))

    def __init__(self, stack, tls: Certificates | None):
        self.nodes = [Node(stack, f"node-{i}", tls) for i in range(6)]
        self.masters, self.replicas = self.nodes[:3], self.nodes[3:]

    def start(self, *options) -> None:
        for node in self.nodes:
            node.start("--cluster-replica-validity-factor", 0, *options)
        first = self.nodes[0]
        for epoch, node in enumerate(self.nodes, 1):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            assert first.cli("CLUSTER", "MEET", "127.0.0.1", node.port.number, node.bus.number) == "OK"
        for master, slots in zip(self.masters, self.RANGES, strict=True):
            assert master.cli("CLUSTER", "ADDSLOTSRANGE", *slots) == "OK"
        wait_until(lambda: all(node.cli("CLUSTER", "NODES").count(" connected") == 6 for node in self.nodes),
                   3 * PATIENCE, "nodes that know each other")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            assert replica.cli("CLUSTER", "REPLICATE", master.id) == "OK"
        self.wait_whole()

    def wait_whole(self) -> None:
        """Until each node knows owners of all slots, and each master has a replica."""
        def whole():
            ok = all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in self.nodes)
            masters = [node for node in self.nodes if node.is_master()]
            return ok and len(masters) == 3 and all("state=online" in node.cli("INFO", "replication") for node in masters)
        wait_until(whole, 6 * PATIENCE, "three masters, each with a replica")

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def owner(self, key: str) -> Node:
        """The master that has the key's slot; in the cluster as it was started."""
        slot = slot_of(key)
        return next(m for m, (first, last) in zip(self.masters, self.RANGES, strict=True) if first <= slot <= last)


@contextlib.contextmanager
def clustered(stack, *options, tls: Certificates | None = None):
    cluster = Cluster(stack, tls)
    try:
        cluster.start(*options)
        yield cluster
    finally:
        cluster.stop()


class Guarded:
    """A master and replicas, and as many Sentinels."""

    def __init__(self, stack, count: int, tls: Certificates | None):
        self.servers = [Server(stack, f"redis-{i}", tls) for i in range(count)]
        self.sentinels = [Sentinel(stack, f"sentinel-{i}", tls) for i in range(count)]
        self._tls = tls

    def settings(self, **more) -> dict:
        """The daemon's settings for Redis."""
        return {"address": None, "sentinels": [sentinel.address for sentinel in self.sentinels], "master_name": MASTER,
                **({"tls": self._tls.for_daemon} if self._tls else {}), **more}

    def start(self) -> None:
        first, *replicas = self.servers
        first.start()
        for replica in replicas:
            replica.start("--replicaof", "127.0.0.1", first.port.number)
        for sentinel in self.sentinels:
            sentinel.start(first.port.number, len(self.sentinels) // 2 + 1)
        self.wait_whole()

    def stop(self) -> None:
        for process in (*self.sentinels, *self.servers):
            process.stop()

    def master(self, other_than: Server | None = None) -> Server:
        """Waits until all Sentinels name the same server, which accepts writes and is not the one that may be frozen."""
        def common():
            named = {sentinel.named() for sentinel in self.sentinels}
            found = [server for server in self.servers if named == {server.address} and server is not other_than]
            return found[0] if found and found[0].cli("ROLE").startswith("master") else None
        return wait_until(common, 3 * PATIENCE, "a common master")

    def wait_whole(self) -> None:
        """Until each Sentinel knows the others, and the replicas, which are in contact with the master."""
        others = len(self.servers) - 1

        def whole():
            facts = [sentinel.facts() for sentinel in self.sentinels]
            known = all(f.get("num-slaves") == f.get("num-other-sentinels") == str(others) for f in facts)
            return known and self.master().cli("INFO", "replication").count("state=online") == others
        wait_until(whole, 3 * PATIENCE, "the replicas and Sentinels")


@contextlib.contextmanager
def guarded(stack, count: int = 3, tls: Certificates | None = None):
    servers = Guarded(stack, count, tls)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def servers_in_use(stack) -> dict:
    """{address: number of workers whose commands go there}, without 0."""
    return {server["address"]: server["workers"] for server in stack.get("/status").json()["now"]["redis_servers"]}


def wait_uses(stack, server) -> None:
    stack.wait_until(lambda: servers_in_use(stack) == {server.address: stack.config["workers"]}, 60, f"use of {server.address}")
    wait_hearing(stack)
