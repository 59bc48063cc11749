"""Redis servers on TCP ports, and the Sentinels that watch them, for the tests of Redis beyond one server."""

import contextlib
import os
import subprocess

from parts import PATIENCE, Process, wait_until
from port import Port

MASTER = "mymaster"
# Valkey is the same to taskproxy; REDIS_SERVER=valkey-server runs these tests with it.
SERVER = os.environ.get("REDIS_SERVER") or "redis-server"


class Server(Process):
    """A server without persistence on a port of 127.0.0.1. `tls`: the options that redis-cli needs."""

    def __init__(self, stack, name: str, tls: tuple = ()):
        self.name, self.tls = name, tls
        super().__init__(stack)
        self.port = Port()
        self.address = f"127.0.0.1:{self.port.number}"

    def start(self, *options) -> None:
        port = ["--port", 0, "--tls-port", self.port.number] if self.tls else ["--port", self.port.number]
        self.launch(*port, "--bind", "127.0.0.1", "--save", "", "--dbfilename", f"{self.name}.rdb",
                    "--repl-diskless-sync-delay", 0, *options)

    def launch(self, *words) -> None:
        self.spawn([SERVER, *map(str, words), "--dir", str(self.stack.folder)])
        self.wait_ready(lambda: self.cli("PING") == "PONG")

    def cli(self, *command) -> str:
        done = subprocess.run(["redis-cli", "-p", str(self.port.number), *self.tls, *map(str, command)], capture_output=True,
                              text=True, timeout=PATIENCE)
        return done.stdout.removesuffix("\n")

    def stop(self) -> None:
        super().stop()
        self.port.close()


class Sentinel(Server):
    def start(self, master: Server) -> None:
        file = self.stack.folder / f"{self.name}.conf"
        file.write_text(
            f"port {self.port.number}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {master.port.number} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 4000\n")
        self.launch(file, "--sentinel")

    def named(self) -> str:
        return ":".join(self.cli("SENTINEL", "get-master-addr-by-name", MASTER).split("\n"))

    def facts(self) -> dict:
        words = self.cli("SENTINEL", "master", MASTER).split("\n")
        return dict(zip(words[::2], words[1::2], strict=False))


class Guarded:
    """A master with two replicas, and three Sentinels."""

    def __init__(self, stack):
        self.servers = [Server(stack, f"redis-{i}") for i in range(3)]
        self.sentinels = [Sentinel(stack, f"sentinel-{i}") for i in range(3)]

    def start(self) -> None:
        first, *replicas = self.servers
        first.start()
        for replica in replicas:
            replica.start("--replicaof", "127.0.0.1", first.port.number)
        for sentinel in self.sentinels:
            sentinel.start(first)
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
        """Until each Sentinel knows the others, and two replicas that are in contact with the master."""
        def whole():
            facts = [sentinel.facts() for sentinel in self.sentinels]
            known = all(f.get("num-slaves") == "2" and f.get("num-other-sentinels") == "2" for f in facts)
            return known and self.master().cli("INFO", "replication").count("state=online") == 2
        wait_until(whole, 3 * PATIENCE, "two replicas and three Sentinels")


@contextlib.contextmanager
def guarded(stack):
    servers = Guarded(stack)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
