"""Workers can only make the system calls and read the files that they need, so an intruder in a worker is confined."""

import os
import re
import secrets
import signal
import socket
import struct
import threading
from pathlib import Path

import pytest

import needs
from helpers import PLAIN_BINARY, preload, status_of

SOURCE = Path(__file__).parent / "intruder.c"
ATTEMPTS = re.findall(r"ATTEMPT\((\w+)\)[,}]", SOURCE.read_text())
ALLOWED = {"read_a_file", "start_a_thread"}
UNREADABLE = {"read_a_program", "list_a_folder"}
DEADLY = {"exec_a_program", "trace_the_master", "leave_the_namespace"}
REFUSED = "Function not implemented"  # as a kernel without this system call does


@pytest.fixture
def intruded(make_stack, monkeypatch, tmp_path):
    """A running stack with an intruder in its one worker."""
    preload(monkeypatch, tmp_path, SOURCE)

    def make(**config):
        return make_stack(binary=PLAIN_BINARY, config={"workers": 1, **config}, redis=False, nginx=False)

    return make


def attempt(stack, name: str) -> str:
    """The result of the operation."""
    (worker,) = stack.wait_until(stack.daemon.workers, what="a worker")
    os.kill(worker, signal.SIGRTMIN + ATTEMPTS.index(name))
    return stack.wait_log(f"intruder: {name}: ").rpartition(": ")[2]


@pytest.mark.parametrize("name", [name for name in ATTEMPTS if name not in DEADLY | ALLOWED | UNREADABLE])
def test_unneeded_system_calls_are_not_implemented(intruded, name):
    stack = intruded()
    assert attempt(stack, name) == REFUSED
    assert stack.ask_worker("/sora/v1/videos/t").status == 200


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_other_files_cannot_be_read(intruded, name):
    needs.landlock()
    stack = intruded()
    assert attempt(stack, name) == "Permission denied"
    assert stack.ask_worker("/sora/v1/videos/t").status == 200
    assert "Landlock" not in stack.daemon.log()


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_needed_operations_work(intruded, name):
    assert attempt(intruded(), name) == "done"


@pytest.mark.parametrize("name", sorted(DEADLY))
def test_forbidden_operation_kills_the_worker_and_it_is_replaced(intruded, name):
    stack = intruded()
    (worker,) = stack.daemon.workers()
    os.kill(worker, signal.SIGRTMIN + ATTEMPTS.index(name))
    stack.wait_log(f"worker 0 exited on signal {signal.SIGSYS.value}")
    stack.wait_until(lambda: stack.ask_worker("/sora/v1/videos/t").status == 200, what="another worker")
    assert f"intruder: {name}: " not in stack.daemon.log()


def test_without_the_sandbox_the_operation_succeeds(intruded):
    stack = intruded(sandbox="off")
    assert attempt(stack, "start_a_process") == attempt(stack, "read_a_program") == "done"
    assert status_of(stack.daemon.workers()[0], "Seccomp_filters") == [["1"]]  # which refuses io_uring


# io_uring, whose operations bypass seccomp

RING_BEFORE_THE_LOOP = r"""
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int uv_loop_init(void *loop)
{
    int (*init)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "uv_loop_init");
    errno = 0;
    syscall(SYS_io_uring_setup, 0, NULL);
    dprintf(STDERR_FILENO, "a ring for process %d: %s\n", (int)getpid(), strerror(errno));
    return init(loop);
}
"""


def test_no_process_can_use_io_uring_when_it_creates_its_loop(make_stack, monkeypatch, tmp_path):
    preload(monkeypatch, tmp_path, RING_BEFORE_THE_LOOP)
    stack = make_stack(binary=PLAIN_BINARY, redis=False, nginx=False)
    for pid in (stack.daemon.pid, *stack.daemon.workers()):
        assert stack.wait_log(f"a ring for process {pid}: ").endswith(REFUSED)
    stack.daemon.stop()
    cgi = stack.daemon.run(GATEWAY_INTERFACE="CGI/1.1", TASKPROXY_CONFIG=str(stack.daemon.config_file),
                           REQUEST_METHOD="GET", REQUEST_URI="/sora/v1/videos/t")
    assert "NOT_START" in cgi.stdout and REFUSED in cgi.stderr


# The daemon itself


def test_every_worker_is_sandboxed_even_after_a_reload(stack):
    for _ in range(2):
        stack.wait_metric("workers_ready", 2)
        for pid in stack.daemon.workers():
            assert status_of(pid, "Seccomp_filters", "NoNewPrivs", "CapEff") == [["2"], ["1"], [16 * "0"]]
        stack.daemon.reload()


PROCESSES = ["status server", "worker 0"]


def test_missing_seccomp_is_logged_and_requests_are_served(make_stack, monkeypatch, tmp_path):
    preload(monkeypatch, tmp_path, "int seccomp_load(void *filter) { return -22; }")
    stack = make_stack(binary=PLAIN_BINARY, config={"workers": 1})
    assert stack.task("t").status == 200
    said = [line for line in stack.daemon.log().splitlines() if "seccomp" in line]
    assert sorted(line.split(": ")[0].partition(" warn ")[2] for line in said) == PROCESSES
    assert all("running without seccomp: " in line for line in said)


def test_sandbox_is_on_or_off(make_stack):
    stack = make_stack(config={"sandbox": "maybe"}, daemon=False, nginx=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode != 0 and "/sandbox" in done.stderr and "on" in done.stderr and "off" in done.stderr


NO_LANDLOCK = r"""
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

long syscall(long number, ...)
{
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_landlock_create_ruleset) {
        errno = ENOSYS;
        return -1;
    }
    long (*call)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""


def test_missing_landlock_is_logged_and_tolerated(make_stack, monkeypatch, tmp_path):
    needs.landlock()
    preload(monkeypatch, tmp_path, NO_LANDLOCK)
    stack = make_stack(binary=PLAIN_BINARY, config={"workers": 1})
    assert stack.task("t").status == 200
    said = [line for line in stack.daemon.log().splitlines() if "Landlock" in line]
    assert sorted(line.partition(" warn ")[2] for line in said) == [
        f"{process}: running without Landlock: Function not implemented" for process in PROCESSES]
    assert status_of(stack.daemon.workers()[0], "Seccomp_filters") == [["2"]]


# Names


def serve_name(server: socket.socket, name: bytes, address: str) -> None:
    """A name server that knows one name; an empty datagram ends it."""
    wanted = b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"
    while (query := server.recvfrom(512))[0]:
        data, client = query
        question = data[12 : data.index(b"\0", 12) + 5]
        known = question == wanted + struct.pack("!HH", 1, 1)
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address) if known else b""
        server.sendto(data[:2] + struct.pack("!HHHHH", 0x8180, 1, int(known), 0, 0) + question + answer, client)


@pytest.fixture
def name_server():
    """The address of a name server that resolves upstream.test to 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        address = socket.inet_ntoa(b"\x7f" + secrets.token_bytes(2) + b"\1")
        server.bind((address, 53))
        thread = threading.Thread(target=serve_name, args=(server, b"upstream.test", "127.0.0.1"))
        thread.start()
        yield address
        server.sendto(b"", (address, 53))
        thread.join()


@needs.root
def test_names_are_resolved_in_the_sandbox(make_stack, name_server):
    needs.namespaces("--mount")
    stack = make_stack(daemon=False, nginx=False)
    file = stack.folder / "resolv.conf"
    file.write_text(f"nameserver {name_server}\n")
    url = stack.standin.url.replace("127.0.0.1", "upstream.test")
    stack.configure(upstreams={"main": {"base_url": url, "addresses": "any"}})
    mount = f'mount --bind {file} /etc/resolv.conf && exec "$@"'
    stack.daemon.wrapper = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    stack.daemon.start()
    assert stack.ask_worker("/sora/v1/videos/t").status == 200
