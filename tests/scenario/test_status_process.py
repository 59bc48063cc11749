"""The status server, a process without privileges and secrets, answers on the status socket; the master reads no request."""

import contextlib
import os
import pwd
import signal
from pathlib import Path

import fastcgi
import needs
from fastcgi import Connection, task_params
from helpers import (
    PLAIN_BINARY, STATUS_REQUEST, assert_status_answered, half_sent, memory, metric, status_of, step_until, wait_connections, wait_gone, worker_states,
)
from hooking import SECRET as HOOK_SECRET
from parts import children_of, open_files
from teaming import SECRET as LINK_SECRET
from teaming import teams_stack


def status_server(stack) -> int:
    (pid,) = stack.daemon.status_servers()
    return pid


def answers(stack) -> dict:
    """The pages, by path."""
    return {path: fastcgi.ask(stack.status_socket, path) for path in ("/healthz", "/readyz", "/metrics", "/status")}


def test_status_server_is_sandboxed_and_runs_as_the_user(make_stack):
    stack = make_stack(nginx=False, redis=False)
    pid = status_server(stack)
    user = pwd.getpwnam(stack.config["user"]).pw_uid if os.geteuid() == 0 else os.geteuid()
    assert status_of(pid, "Uid", "NoNewPrivs", "Seccomp_filters") == [4 * [str(user)], ["1"], ["2"]]
    assert status_of(pid, "CapPrm", "CapEff", "CapInh", "CapAmb") == 4 * [[16 * "0"]]
    assert "status server" not in stack.daemon.log()


@needs.root
def test_status_server_has_no_secrets_and_no_descriptor_of_the_configuration(make_stack):
    redis_password = "redis-canary-0123456789abcdef"
    stack = teams_stack(make_stack, binary=PLAIN_BINARY, redis=False, daemon=False)
    for name, secret in {"redis-password": redis_password, "hook-secret": HOOK_SECRET}.items():
        stack.write_key(secret, file=stack.folder / name)
    routes = [{**route, "hook_secret_file": "hook-secret"} for route in stack.config["routes"]]
    stack.configure(routes=routes, redis={"address": "127.0.0.1:1", "password_file": "redis-password"})
    stack.daemon.start()
    secrets = {stack.key, redis_password, HOOK_SECRET, LINK_SECRET}

    def found(pid):
        return {secret for _, _, data in memory(pid) for secret in secrets if secret.encode() in data}

    pid = status_server(stack)
    assert {status for status, _, _ in answers(stack).values()} == {200}
    assert (found(stack.daemon.pid), found(pid)) == (secrets, set())
    assert "taskproxy-files" not in " ".join(open_files(pid).values())
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:" in line]
    assert len(maps) == 1 and maps[0][1] == "rw-s" and int(maps[0][2], 16) > 0  # its own counters, not the master's


def test_page_may_be_longer_than_a_socket_buffer(make_stack):
    stack = make_stack(nginx=False, redis=False, daemon=False)
    upstreams = {f"{'u' * 60}-{number}": stack.config["upstreams"]["main"] for number in range(70)}
    stack.configure(upstreams={**stack.config["upstreams"], **upstreams})
    stack.daemon.start()
    assert len(answers(stack)["/metrics"][2]) > 212992


def test_half_sent_requests_do_not_stop_the_others_or_grow_the_master(make_frozen):
    stack = make_frozen(binary=PLAIN_BINARY, nginx=False, redis=False, config={"hung_after": "1h"})
    master = stack.daemon.pid
    children = children_of(master)
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(Connection(stack.status_socket)).send(STATUS_REQUEST[:20])
        wait_connections(stack, 200)
        assert fastcgi.ask(stack.status_socket, "/healthz")[0] == 200
        assert children_of(master) == children
        assert len(open_files(master)) < 100
    wait_connections(stack, 0)


def test_page_is_not_sent_for_other_methods_and_paths(make_stack):
    stack = make_stack(nginx=False, redis=False)
    with Connection(stack.status_socket) as connection:
        assert connection.ask(task_params("/healthz", "POST"), b"text")[0] == 405
        assert connection.ask(task_params("/health"))[0] == 404
        assert connection.ask(task_params("/readyz?verbose"))[0] == 200
        status, headers, body = connection.ask(task_params("/metrics", "HEAD"))
        assert (status, body) == (200, b"") and headers["content-type"].startswith("text/plain")


def test_dead_status_server_is_replaced(make_stack):
    stack = make_stack(nginx=False, redis=False)
    before = metric(stack, "requests_received_total")
    pid = status_server(stack)
    with half_sent(stack) as connection:
        os.kill(pid, signal.SIGKILL)
        connection.wait_closed()
    stack.wait_log("error master: the status server exited on signal 9")
    assert fastcgi.ask(stack.status_socket, "/readyz")[0] == 200
    assert status_server(stack) != pid
    assert metric(stack, "requests_received_total") > before
    assert (metric(stack, "worker_deaths_total"), metric(stack, "worker_starts_total")) == (0, 2)


def test_hung_status_server_is_killed_and_replaced(make_frozen):
    stack = make_frozen(nginx=False, redis=False, config={"hung_after": "1m"})
    pid = status_server(stack)
    os.kill(pid, signal.SIGSTOP)
    step_until(stack, lambda: "the status server unresponsive for 60 s; killed" in stack.daemon.log(), what="the end of the process")
    assert fastcgi.ask(stack.status_socket, "/readyz")[0] == 200
    assert metric(stack, "worker_hangs_total") == 0


def test_reload_replaces_the_status_server_and_closes_no_request(make_stack):
    stack = make_stack(nginx=False, redis=False)
    pid = status_server(stack)
    with half_sent(stack) as connection:
        stack.daemon.reload()
        stack.wait_until(lambda: len(stack.daemon.status_servers()) == 2, what="the next status server")
        assert_status_answered(connection)
    wait_gone(stack, pid)
    assert " error " not in stack.daemon.log()


def test_status_pages_show_the_drain_of_workers_and_end_with_it(make_stack):
    stack = make_stack(nginx=False, redis=False, config={"workers": 1})
    pid = status_server(stack)
    with stack.standin.hold("t") as barrier:
        with half_sent(stack) as connection:
            held = stack.background(stack.ask_worker, "/sora/v1/videos/t")
            barrier.wait_arrived(1)
            stack.daemon.signal(signal.SIGTERM)
            stack.wait_log("info master: stopping")
            stack.wait_until(lambda: worker_states(stack) == ["leaving"], what="the worker to leave")
            assert_status_answered(connection)
            barrier.release()
            assert held.result().status == 200
            connection.wait_closed()
    assert stack.daemon.process.wait(20) == 0
    wait_gone(stack, pid)


def test_status_server_exits_with_its_master(make_stack):
    stack = make_stack(nginx=False, redis=False)
    pid = status_server(stack)
    with half_sent(stack) as connection:
        stack.daemon.kill()
        connection.wait_closed()
    wait_gone(stack, pid)
