"""Hosts that pass requests on to each other, with nginx/cluster.conf and the certificates of README.md."""

import itertools
import os
import re
import signal
import subprocess

from parts import PATIENCE, children_of, process_state, wait_until
from port import Port
from stack import PATIENT, ROOT
from watching import NATIVE, status

HOSTS = ("first", "second", "third")
ADDRESSES = {"first": "10.0.0.1", "second": "10.0.0.2", "third": "10.0.0.3",  # as in cluster.conf
             "redis": "10.0.0.100", "upstream": "10.0.0.200"}
INTERVAL = 20  # seconds, of the tasks
POLL = {"sora": {"poll": {"min": f"{INTERVAL}s", "max": f"{INTERVAL}s"}}}
numbers = itertools.count()  # of the tasks of task_of
STEP, REAL_SECONDS = 0.5, 0.2
SKEW = (0, 10, 20)  # seconds, of the hosts' clocks: not behind, because the certificates are valid from now on
QUICKER = {"proxy_read_timeout 25s": "proxy_read_timeout 1s"}
TLS_FILES = {"ca": "/etc/ssl/certs/taskproxy-hosts-ca.pem", "cert": "/etc/ssl/certs/taskproxy-host.pem",
             "key": "/etc/ssl/private/taskproxy-host.key"}


def make_certificates(folder) -> None:
    """Executes the commands of the README: hosts-ca.pem, hosts-ca.key, host.pem, host.key."""
    chapter = (ROOT / "README.md").read_text().partition("### Several hosts\n")[2].partition("\n### ")[0]
    commands = re.findall(r"^    (openssl (?:.*\\\n)*.*)", chapter, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-ec", command], cwd=folder, check=True, capture_output=True)


def connect(stack, certificates, **changes) -> None:
    """From its next start on, nginx is that of a host of the cluster."""
    stack.nginx.sites = ["site.conf", "cluster.conf"]
    stack.nginx.changes.update({
        TLS_FILES["ca"]: f"{certificates}/hosts-ca.pem",
        TLS_FILES["cert"]: f"{certificates}/host.pem",
        TLS_FILES["key"]: f"{certificates}/host.key",
        "/var/log/nginx/taskproxy-peers.log": f"{stack.folder}/peers.log",
        "#include taskproxy/taskproxy-cluster.conf;": "include taskproxy/taskproxy-cluster.conf;",
    })


def on_loopback(certificates, *stacks) -> None:
    """From its next start on, the nginx of each stack is that of a host of one cluster, on a port of 127.0.0.1."""
    ports = [Port() for _ in stacks]
    others = [ADDRESSES[name] for name in HOSTS[len(stacks):]]
    places = {ADDRESSES[name]: f"127.0.0.1:{port.number}" for name, port in zip(HOSTS, ports)}
    for stack, port in zip(stacks, ports):
        connect(stack, certificates)
        stack.nginx.ports.append(port)
        stack.peer_port = port.number
        stack.nginx.changes |= {
            f"listen {ADDRESSES[HOSTS[0]]}:9443": f"listen 127.0.0.1:{port.number}",
            **{f"    server {address}:9443 max_fails=1 fail_timeout=10s;\n": "" for address in others},
            **{f"{address}:9443": place for address, place in places.items()},
            **{f"    {ADDRESSES[name]} 0;\n": "" for name in HOSTS[1:]},
            f"{ADDRESSES[HOSTS[0]]} 0": "127.0.0.1 0", "10.0.0.0/24": "127.0.0.0/8",
        }


def passed_on(stack, request_id: str) -> list:
    """The lines about this request in the log of what this host has got from others, or from itself."""
    log = stack.folder / "peers.log"
    return [line for line in log.read_text().splitlines() if f" id={request_id} " in line] if log.exists() else []


def task_of(host) -> str:
    """A new task that this host serves."""
    while True:
        task = f"t{next(numbers)}"
        request_id = host.task(task, method="OPTIONS").headers["x-request-id"]
        host.wait_until(lambda: request_id in (host.folder / "access.log").read_text(), what="a line in the log")
        if passed_on(host, request_id):
            return task


def received(host, task: str) -> list:
    """The statuses of the requests for this task in the same log, except for those that found its owner."""
    return [int(found) for found in re.findall(rf'"GET {NATIVE}{task} HTTP/1.1" (\d+) ', (host.folder / "peers.log").read_text())]


class Cluster:
    """Three hosts on a network, one Redis, and the stand-in upstream, each with an address of its own. The hosts' clocks are
    10 s apart. All clocks are frozen, and step together."""

    def __init__(self, make_stack, network, certificates):
        self.network = network
        self.center = make_stack(clock=True, redis=False, standin=False, daemon=False, nginx=False)
        self.standin, self.redis = self.center.standin, self.center.redis
        self.silent = []  # hosts that do not get replies from Redis, or are stopped
        self.ended = set()  # tasks that clients have seen to have ended
        self.redis.inside = network.inside("redis")
        self.redis.start("--port", "6379", "--bind", ADDRESSES["redis"], "--protected-mode", "no")
        self.standin.move(ADDRESSES["upstream"], lambda: network.socket("upstream"))
        self.standin.start()
        self.hosts = [self._make_host(make_stack, name, certificates) for name in HOSTS]
        self._start()

    def _make_host(self, make_stack, name: str, certificates):
        upstream = {"base_url": self.standin.url, "key_file": str(self.center.key_file), "ca_file": self.standin.ca_file}
        config = {"upstreams": {"main": {**PATIENT, "addresses": "private"}},
                  "redis": {"address": f"{ADDRESSES['redis']}:6379", "plaintext": True, "timeout": "1s"}}
        host = make_stack(clock=True, redis=False, daemon=False, nginx=False, upstream=upstream, config=config, providers=POLL)
        host.name = name
        connect(host, certificates)
        host.nginx.changes |= {f"listen {ADDRESSES['first']}:": f"listen {ADDRESSES[name]}:", **QUICKER}
        host.daemon.inside = host.nginx.inside = self.network.inside(name)
        return host

    def _start(self) -> None:
        self._in_all(self._start_again)
        for host in self.hosts:
            host.freeze()
        self.center.clock.freeze()
        for host, seconds in zip(self.hosts, SKEW):
            host.clock.set_wall(self.center.clock.time() + seconds - host.clock.time())

    # Faults

    def cut_off(self, host, *others: str) -> None:
        """From now on, packets between the host and the others, which include Redis, are lost; its workers have noticed."""
        self.network.cut(host.name, *others)
        self.silent.append(host)
        asks = [host.background(host.ask_worker, f"{NATIVE}unreachable_{index}", index) for index in range(host.config["workers"])]
        self.step_until(lambda: all(ask.done() for ask in asks), "the end of the commands to Redis")

    def stop(self, host) -> None:
        self.silent.append(host)
        for process in (host.daemon, host.nginx):
            os.killpg(process.pid, signal.SIGSTOP)
        wait_until(lambda: {process_state(pid)[0] for pid in processes_of(host)} == {"T"}, what="the host to be stopped")

    def kill(self, host) -> None:
        host.nginx.kill()
        host.daemon.kill()

    def restore(self) -> None:
        """Ends all faults; returns when the workers of all hosts have connected to Redis. nginx starts anew, and so does not
        remember which hosts have failed."""
        self.network.mend()
        for host in self.hosts:
            host.nginx.variables = {}
            host.nginx.changes |= QUICKER
        self._in_all(self._start_again)
        self.silent = self.hosts  # for a moment
        self.step_until(lambda: all(host.redis_is_connected() for host in self.hosts), "the connections to Redis")
        self.silent = []

    def use_clock(self) -> None:
        """Until restore(), the time-outs of nginx are the shipped ones, and expire when the clocks step."""
        for host in self.hosts:
            host.nginx.variables = host.clock.environment
            for shipped in QUICKER:
                del host.nginx.changes[shipped]
        self._in_all(self._start_again)

    def _start_again(self, host) -> None:
        if host.daemon.process is None:
            host.daemon.start()
        os.killpg(host.daemon.pid, signal.SIGCONT)
        if host.nginx.process is not None:
            host.nginx.kill()
        host.nginx.start()

    def _in_all(self, function) -> None:
        """Calls the function with each host, at the same time."""
        for call in [host.background(function, host) for host in self.hosts]:
            call.result()

    # Time

    def step(self, seconds: float) -> None:
        for host in self.hosts:
            if host not in self.silent:
                host.wait_redis_answered()
        for stack in (self.center, *self.hosts):
            stack.clock.step(seconds)

    def step_until(self, condition, what: str) -> float:
        """Gives connections and commands some real time before each step. Returns the sum of the steps in seconds."""
        for count in range(PATIENCE * 3):
            try:
                wait_until(condition, REAL_SECONDS, what)
                return count * STEP
            except TimeoutError:
                self.step(STEP)
        raise TimeoutError(f"timed out waiting for {what}")

    # Requests

    def owner(self, task: str):
        """The host that serves the task; finds out with a request that causes no query, while nothing is broken."""
        request_id = self.hosts[0].task(task, method="OPTIONS").headers["x-request-id"]
        return wait_until(lambda: next((host for host in self.hosts if passed_on(host, request_id)), None), what="a line in a log")

    def tasks(self, name: str) -> list:
        """New tasks, one of each host, in the order of the hosts."""
        found = {}
        for number in itertools.count():
            task = f"{name}_{number}"
            found.setdefault(self.owner(task).name, task)
            if len(found) == len(HOSTS):
                return [found[host] for host in HOSTS]

    def ask(self, entries: list, tasks: list) -> list:
        """Asks each of these hosts for each task; the answers must be right. Returns the number of queries for each task."""
        before = [self.standin.count(task) for task in tasks]
        for task in tasks:
            for entry in entries:
                self._ask(entry, task)
        return [self.standin.count(task) - count for task, count in zip(tasks, before)]

    def _ask(self, entry, task: str) -> None:
        answer = entry.task(task)
        assert answer.status == 200, (entry.name, task, answer)
        assert answer.json()["data"]["task_id"] == task
        if status(answer) == "SUCCESS":
            self.ended.add(task)
        assert (status(answer) == "SUCCESS") == (task in self.ended), f"{task}, asked at the {entry.name} host, runs again"


def processes_of(host) -> list:
    return [pid for process in (host.daemon, host.nginx) for pid in (process.pid, *children_of(process.pid))]
