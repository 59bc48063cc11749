"""Clients' data is neither passed on nor logged, and other users cannot inspect the processes."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from helpers import PLAIN_BINARY, wait_metric
from parts import WEB_GROUP
from test_canary import TROUBLES, assert_nowhere, files, make_nosy_stack, pages, printed, processes, redis_values
from test_ingress import send

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
WEB_USER = {"user": WEB_GROUP, "group": WEB_GROUP, "extra_groups": []}
UNLIMITED_CORES = ["sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh"]

# Client data


def test_client_data_is_not_forwarded_or_written_anywhere(make_stack):
    canary = "sig-0123456789abcdef-client"
    stack = make_nosy_stack(make_stack, None)
    for task_id, switches in TROUBLES.items():
        stack.standin.switch(task_id, **switches)
    theirs = {"Authorization": f"Bearer {canary}", "X-Api-Key": canary, "Cookie": f"session={canary}",
              "Referer": f"https://web.example/?{canary}", "X-Forwarded-For": canary, "Proxy-Authorization": canary}
    link = f"?team=web&exp=1900000000&sig={canary}&wait=1"
    asks = [stack.background(stack.get, f"{path}{task_id}{link}", theirs)
            for task_id in TROUBLES for path in ("/sora/v1/videos/", "/v1/tasks/sora/")]
    answers = [("an answer", repr(ask.result()) + ask.result().body.decode()) for ask in asks]
    answers += [("a refusal", repr(send(stack, malformed))) for malformed in malformed_requests(canary.encode())]
    stack.get(f"/v1/hooks/sora/{canary}", method="POST", body=json.dumps({"token": canary}).encode())
    stack.daemon.cgi(f"/sora/v1/videos/succeeded{link}", HTTP_AUTHORIZATION=canary, HTTP_COOKIE=canary)

    assert not [query for query in stack.standin.seen() if canary in repr(query)]
    for places in (answers, files(stack), processes(stack), printed(stack), pages(stack), redis_values(stack)):
        assert_nowhere(places, canary)


def malformed_requests(canary: bytes):
    """Requests that nginx itself rejects."""
    rest = b"Host: localhost\r\nConnection: close\r\n\r\n"
    for line in (b"GET /../%s HTTP/1.1", b"GET /%%zz?%s HTTP/1.1", b"GET /%s HTTP/9.0", b"TRACE /?%s HTTP/1.1", b"%s"):
        yield line % canary + b"\r\n" + rest
    yield b"GET / HTTP/1.1\r\nX-Long: " + canary * 1000 + b"\r\n" + rest


# The processes


def cores(stack) -> list:
    return [file.name for file in stack.folder.glob("*core*")]


@pytest.fixture
def make_unprivileged(make_stack):
    """A stack whose daemon is started as the web server's user: no change of user makes the kernel protect it."""

    def make(**settings):
        stack = make_stack(redis=False, daemon=False, nginx=False, **settings)
        for file in (stack.folder, *stack.folder.rglob("*")):
            shutil.chown(file, WEB_GROUP, WEB_GROUP)
        become = ["setpriv", f"--reuid={WEB_GROUP}", f"--regid={WEB_GROUP}", "--clear-groups"]
        stack.daemon.wrapper = [*become, *UNLIMITED_CORES]
        stack.daemon.start()
        wait_metric(stack, "workers_ready", lambda ready: ready == 2)  # each is protected before it is ready
        return stack

    return make


@needs_root
def test_aborted_process_leaves_no_core_file_whatever_the_limits(make_unprivileged):
    stack = make_unprivileged(binary=PLAIN_BINARY)
    os.kill(stack.daemon.workers()[0], signal.SIGABRT)
    stack.wait_log(f"exited on signal {signal.SIGABRT.value}")
    stack.daemon.signal(signal.SIGABRT)
    assert stack.daemon.process.wait(10) == -signal.SIGABRT
    stack.daemon.kill()
    assert cores(stack) == []

    others = subprocess.run([*UNLIMITED_CORES, "sh", "-c", "kill -ABRT $$"], cwd=stack.folder, **WEB_USER)
    assert others.returncode == -signal.SIGABRT
    if not open("/proc/sys/kernel/core_pattern").read().startswith(("/", "|")):
        assert cores(stack) != []  # where this system writes core files


LOOK = """
import ctypes, os, sys
for pid in sys.argv[1:]:
    for name in ("environ", "maps", "smaps", "mem", "auxv", "io"):
        try:
            open(f"/proc/{pid}/{name}", "rb").close()
            print(pid, name)
        except PermissionError:
            pass
    for name in ("fd", "map_files"):
        try:
            print(pid, name, os.listdir(f"/proc/{pid}/{name}"))
        except PermissionError:
            pass
    if ctypes.CDLL(None).ptrace(16, int(pid), 0, 0) == 0:  # PTRACE_ATTACH
        print(pid, "ptrace")
"""


def seen(*pids) -> str:
    """What the web server's user can read of these processes."""
    command = [sys.executable, "-c", LOOK, *map(str, pids)]
    return subprocess.run(command, **WEB_USER, check=True, capture_output=True, text=True).stdout


@needs_root
def test_own_user_cannot_inspect_a_process(make_unprivileged, stack):
    unprivileged = make_unprivileged()
    stack.wait_metric("workers_ready", 2)
    for daemon in (stack.daemon, unprivileged.daemon):
        assert seen(daemon.pid, *daemon.workers()) == ""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **WEB_USER) as another:
        assert f"{another.pid} environ\n" in seen(another.pid)
        another.kill()
