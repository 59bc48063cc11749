"""Helpers for several of the scenario tests."""

import ast
import contextlib
import json
import re
import shlex
import subprocess
import threading
from pathlib import Path

import fastcgi
from fastcgi import Connection, request, task_params
from parts import ROOT, process_state
from stack import Metrics, Stack

TASK = "/sora/v1/videos/task_1"
GOOD_REQUEST = request(task_params(TASK))
NOT_TAKEN = "refused, its previous content stays in use: "
PLAIN_BINARY = ROOT / "build" / "taskproxy"  # no sanitizers: they must be loaded first, and change core dumps and mlock()
REDIS_KEY = "taskproxy:main:sora:"  # and the task's id
IDS_OF_A_PROXY_IN_FRONT = {  # what taskproxy-http.conf tells to change
    "map $upstream_cache_status $taskproxy_nginx_id": "map $http_x_request_id $taskproxy_nginx_id",
    '#"~^[0-9A-Za-z._-]{1,64}$" $http_x_request_id;': '"~^[0-9A-Za-z._-]{1,64}$" $http_x_request_id;',
    "_status $taskproxy_nginx_id ": "_status $msec ",
    "#fastcgi_param REQUEST_ID": "fastcgi_param REQUEST_ID",
}


# nginx


def use_tls(stack) -> str:
    """From its next start on, nginx has the TLS configuration that is commented out in site.conf; returns that file's text."""
    site = (ROOT / "nginx" / "site.conf").read_text()
    block = "".join(line[5:] + "\n" for line in site.splitlines() if line.startswith("#    "))
    folder = stack.standin.folder
    block = block.replace("listen [::]:443 ssl http2;", "").replace("listen 443 ", f"listen 127.0.0.1:{stack.nginx.port} ")
    block = block.replace("/etc/ssl/certs/taskproxy.pem", f"{folder}/server.pem")
    block = block.replace("/etc/ssl/private/taskproxy.key", f"{folder}/server.key")
    stack.nginx.changes["listen 80;"] = block
    return site


# Requests to the sockets, without nginx


def readiness(stack) -> dict:
    return json.loads(fastcgi.ask(stack.status_socket, "/readyz")[2])


def wait_ready(stack) -> None:
    """Until nothing is degraded. On a busy machine, a worker may be late to report that it is ready, or that it responds."""
    stack.wait_until(lambda: readiness(stack)["status"] == "ready", what="/readyz being ready")


def worker_states(stack) -> list:
    return [worker["state"] for worker in json.loads(fastcgi.ask(stack.status_socket, "/status")[2])["workers"]]


def one_without_nginx():
    """A stack shared by a whole file; checks at the end that no worker has died."""
    with Stack(nginx=False) as running:
        running.standin.switch(state="SUCCESS")
        yield running
        assert running.daemon.log().count(" exited ") == 0  # no worker has died


def metric(stack, name, **labels):
    """Like stack.metric, but without nginx."""
    return Metrics(fastcgi.ask(stack.status_socket, "/metrics")[2].decode()).sum(name, **labels)


def wait_metric(stack, name, good):
    stack.wait_until(lambda: good(metric(stack, name)), what=name)


def wait_connections(stack, count):
    """Waits until this many FastCGI connections are open besides the one for the metric. The stack must have no nginx."""
    wait_metric(stack, "connections", lambda now: now == count + 1)


def assert_served(stack, index=0):
    """Asserts that other clients get answers: on a new connection, and twice on a kept one."""
    assert stack.ask_worker(TASK, index).status == 200
    with Connection(stack.worker_socket(index)) as connection:
        assert [connection.ask(task_params(TASK))[0] for _ in range(2)] == [200, 200]


# Time


def step_until(stack, condition, what, seconds=1):
    """Steps the clock by this many seconds at a time until condition() is true."""

    def step():
        stack.step(seconds)
        return condition()

    stack.wait_until(step, what=what)


def beat_until(stack, condition, what):
    """Steps the clock by a second at a time, each with a heartbeat of a worker, until condition() is true."""

    def beat():
        beats = metric(stack, "loop_lag_seconds_count")
        stack.step(1)
        stack.wait_until(lambda: metric(stack, "loop_lag_seconds_count") > beats, what="a heartbeat")
        return condition()

    stack.wait_until(beat, what=what)


def time_out(stack, seconds, *asks):
    """Steps the clock over the time-out of the queries for these requests. A query that is late fails only after its worker
    has polled once more, hence the further steps of a millisecond."""
    stack.step(seconds)
    step_until(stack, lambda: all(ask.done() for ask in asks), "the time-outs", 0.001)


# Processes


@contextlib.contextmanager
def clients(stack, count=2, tasks=8):
    """Starts this many clients that send requests without pause, each on a kept connection; yields the list of failures."""
    stop, asked, failures = threading.Event(), [0] * count, []

    def ask(number):
        connection = stack.nginx.connection()
        while not stop.is_set():
            try:
                connection.request("GET", f"/sora/v1/videos/task_{asked[number] % tasks}")
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or not body.endswith(b"}"):
                    failures.append((response.status, body))
            except OSError as trouble:
                failures.append(trouble)
                connection.close()
            asked[number] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        stack.wait_until(lambda: min(asked) > tasks, what="running clients")
        yield failures
        at = list(asked)
        stack.wait_until(lambda: all(now > then + tasks for now, then in zip(asked, at)), what="clients that still get answers")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def finished_tasks(make_stack, **settings):
    """A stack whose tasks have all ended, so each is queried once."""
    stack = make_stack(**settings)
    stack.standin.switch(state="SUCCESS")
    return stack


def worker_pid(stack, index):
    """The pid of the worker that listens on this socket; None if there is none."""
    for pid in reversed(stack.daemon.workers()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:3] == [b"--worker", str(index).encode()]:
                return pid
    return None


def status_of(pid, *names):
    """The fields with these names in /proc/PID/status, each as a list of words."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return [lines[name].split() for name in names]


def memory(pid):
    """The memory of the process, mapping by mapping: address range, whether it is locked, and the bytes."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    mapping = r"^(([0-9a-f]+)-([0-9a-f]+) r.*)\n(?:.*\n)*?VmFlags: (.*)$"
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for place, first, last, flags in re.findall(mapping, smaps, re.MULTILINE):
            with contextlib.suppress(OSError, OverflowError):  # a kernel mapping, or past the end of a file
                mem.seek(int(first, 16))
                yield place, "lo" in flags.split(), mem.read(int(last, 16) - int(first, 16))


def wait_gone(stack, *pids):
    stack.wait_until(lambda: all(process_state(pid)[0] in "ZX" for pid in pids), what=f"the end of {pids}")


def sockets(stack):
    return sorted(path.name for path in stack.socket_dir.iterdir())


# Status pages


STATUS_REQUEST = request(task_params("/healthz"))


@contextlib.contextmanager
def half_sent(stack):
    """A connection whose request the status server has begun to read."""
    with Connection(stack.status_socket) as connection:
        connection.send(STATUS_REQUEST[:20])
        wait_connections(stack, 1)
        yield connection


def assert_status_answered(connection) -> None:
    connection.send(STATUS_REQUEST[20:])
    status, _, body = connection.read_answer()
    assert status == 200 and b'"alive"' in body


# Marks


def marked(name):
    """The tests with the mark of this name: {argument of the mark: names of the tests}."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        text = file.read_text()
        for test in ast.parse(text).body if f"mark.{name}(" in text else ():
            for mark in getattr(test, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{name}":
                    for argument in mark.args:
                        found.setdefault(ast.literal_eval(argument), []).append(test.name)
    assert all(test.startswith("test_") for tests in found.values() for test in tests)
    return found


# Files


def put(file, text, mode=0o600):
    """Replaces a file atomically."""
    fresh = file.with_name(".fresh")
    fresh.touch(mode=0o600)
    fresh.write_bytes(text if isinstance(text, bytes) else text.encode())
    fresh.chmod(mode)
    fresh.rename(file)


# Redis


def said(stack, since=0):
    """What the workers have logged about Redis since then, without timestamps."""
    lines = stack.daemon.log()[since:].splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if "Redis" in line]


def mark(stack):
    return len(stack.daemon.log())


def restart_daemon(stack):
    stack.daemon.stop()
    stack.daemon.start()
    stack.wait_metric("redis_up", stack.config["workers"])


def redis_key(stack, task_id):
    """Instances with other rules for access use other keys."""
    access = stack.config.get("access", {"mode": "open"})
    owned = "-owned" if access.get("ownership", "none") != "none" else ""
    scope = "" if access["mode"] == "open" else f"{access['mode']}{owned}#"
    return f"taskproxy:{scope}main:sora:{task_id}"


def wait_stored(stack, task_id):
    """Waits until the task is in Redis, and returns its value."""
    return stack.wait_until(lambda: stack.redis.cli("GET", redis_key(stack, task_id)), what=f"{task_id} in Redis")


@contextlib.contextmanager
def rejecting_writes(stack, error):
    """Within this context, Redis rejects writes with this error: OOM, MISCONF, NOREPLICAS, READONLY or MASTERDOWN, which
    rejects reads, too. The clock must run."""
    begin, end = {
        "OOM": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
        "MISCONF": (["CONFIG SET save '3600 1000000'", "BGSAVE"], ["CONFIG SET save ''"]),
        "NOREPLICAS": (["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"]),
        "READONLY": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
        "MASTERDOWN": (["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    }[error]
    write = ["GET", "x"] if error == "MASTERDOWN" else ["SET", "x", "1", "XX"]
    (stack.folder / "dump.rdb").mkdir(exist_ok=True)  # so that BGSAVE fails
    try:
        for command in begin:
            stack.redis.cli(*shlex.split(command))
        stack.wait_until(lambda: stack.redis.cli(*write).startswith(error), what=error)
        yield
    finally:
        for command in end:
            stack.redis.cli(*shlex.split(command))


def use_documented_rights(stack, nodes=(), **redis) -> None:
    """The daemon's user in Redis, or in these nodes, has the rights of the manual's ACL line, and no others."""
    page = (ROOT / "conf" / "man" / "taskproxy.8").read_text()
    words = re.search(r"^ACL SETUSER (.*?)\n\.EE", page, re.MULTILINE | re.DOTALL)[1]
    name, *rules = words.replace("\\-", "-").replace("\\e\n", " ").replace("PASSWORD", "the-proxys-password").split()
    rules += re.search(r'^\.BR "(\+cluster.*?)"', page, re.MULTILINE)[1].split() if nodes else []
    for server in nodes or [stack.redis]:
        assert server.cli("ACL", "SETUSER", name, *rules) == "OK"
    stack.write_key("the-proxys-password", file=stack.folder / "redis-password")
    stack.configure(redis={"username": name, "password_file": "redis-password", **redis})


def preload(monkeypatch, tmp_path, source: str | Path) -> None:
    """Preloads this C code into daemons that start from now on."""
    library = tmp_path / "preloaded.so"
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-x", "c", "-D_GNU_SOURCE", "-o", library, "-"], check=True,
                   input=source if isinstance(source, str) else source.read_text(), text=True)
    for folder in (library, *list(tmp_path.parents)[:-2], tmp_path):  # workers are not root
        folder.chmod(folder.stat().st_mode | 0o055)
    monkeypatch.setenv("LD_PRELOAD", str(library))
