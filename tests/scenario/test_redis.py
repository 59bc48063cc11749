"""Redis is optional: its failures do not affect clients, and each is logged once."""

import contextlib
import os
import re
import socketserver
import threading
import time

import pytest

from clock import slow_writes
from helpers import REDIS_KEY, mark, restart_daemon, said, wait_stored

ONE_WORKER = {"workers": 1}


def assert_one_query_for_all(stack, task_id):
    """Sends 200 requests that all arrive before the upstream answers."""
    collapsed = stack.metric("collapsed_total")
    with stack.standin.hold(task_id):
        asked = [stack.background(stack.task, task_id) for _ in range(200)]
        stack.wait_metric("collapsed_total", collapsed + 199)
    answers = [answer.result() for answer in asked]
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert stack.standin.count(task_id) == 1


@contextlib.contextmanager
def something_else_in_place_of_redis(stack, answer):
    """Listens on Redis's socket, answers each connection with these bytes and closes it; yields the list of connections."""
    count = []

    class Answerer(socketserver.StreamRequestHandler):
        def handle(self):
            count.append(1)
            self.request.recv(1000)
            self.request.sendall(answer)

    with socketserver.UnixStreamServer(stack.redis.socket, Answerer) as server:
        os.chmod(stack.redis.socket, 0o777)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield count
        finally:
            server.shutdown()
            os.unlink(stack.redis.socket)


def test_requests_succeed_without_redis_and_use_it_when_it_returns(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    stack.redis.stop()
    stack.daemon.start()
    stack.nginx.start()

    stack.wait_log("is unavailable")
    assert [stack.task("task_1").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    assert_one_query_for_all(stack, "task_2")
    assert stack.metric("redis_up") == 0

    stack.redis.start()
    stack.wait_metric("redis_up", 2)
    assert sorted(re.sub("Redis at .*: ", "", line) for line in said(stack)) == sorted(
        line for worker in (0, 1) for line in (
            f"warn worker {worker}: No such file or directory; continuing without it",
            f"info worker {worker}: Redis at unix:{stack.redis.socket} is available again",
        )
    )
    stack.standin.switch("task_3", state="SUCCESS")
    body = stack.task("task_3").body
    wait_stored(stack, "task_3")
    restart_daemon(stack)
    hit = stack.task("task_3")
    assert (hit.body, hit.headers["x-cache"]) == (body, "HIT")
    assert hit.headers["cache-status"].endswith("detail=redis")
    assert stack.standin.count("task_3") == 1


@pytest.mark.problem("Redis is lost")
def test_stopped_redis_is_logged_once_and_causes_no_query_storm(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.wait_metric("redis_up", 1)
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert_one_query_for_all(stack, "task_1")
    for number in range(20):
        assert stack.task(f"other_{number}").status == 200
    stack.redis.start()
    stack.wait_log("is available again")
    assert len(said(stack)) == len(set(said(stack)))
    assert stack.metric("redis_commands_total") == 0

    stack.task("task_2")
    wait_stored(stack, "task_2")


@pytest.mark.problem("Redis is lost")
@pytest.mark.parametrize("frozen", ["from the start", "under way"])
def test_frozen_redis_delays_one_request_by_its_timeout_and_later_ones_not_at_all(make_stack, frozen):
    stack = make_stack(daemon=False, nginx=False, config={"workers": 1, "redis": {"timeout": "1s"}})
    if frozen == "from the start":
        stack.redis.freeze()
    stack.daemon.start()
    stack.nginx.start()
    if frozen == "under way":
        stack.wait_metric("redis_up", 1)
        stack.redis.freeze()

    begun = time.time()
    answers = [stack.background(stack.task, f"first_{number}") for number in range(50)]
    assert {answer.result().status for answer in answers} == {200}
    assert all(query.at - begun < 5 for query in stack.standin.seen())
    stack.wait_log("no reply in time; continuing without it")
    asked = stack.metric("redis_commands_total", command="get")
    assert stack.metric("redis_failures_total") == 3 * asked  # each with those for the age and the lease
    for number in range(20):
        assert stack.task(f"later_{number}").status == 200
    assert_one_query_for_all(stack, "task_1")
    assert stack.metric("redis_commands_total", command="get") == asked
    assert len(said(stack)) == 1

    stack.redis.thaw()
    stack.wait_log("is available again")
    stack.task("task_2")
    wait_stored(stack, "task_2")


def test_slow_redis_is_awaited_within_its_timeout(make_stack):
    stack = make_stack(config={"workers": 1, "redis": {"timeout": "10s"}})
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", 1)
    body = stack.task("task_1").body
    wait_stored(stack, "task_1")
    restart_daemon(stack)

    stack.redis.freeze()
    answer = stack.background(stack.task, "task_1")
    stack.wait_metric("waiters", 1)
    stack.redis.thaw()
    assert answer.result().body == body
    assert answer.result().headers["x-cache"] == "HIT"
    assert stack.metric("redis_failures_total") == 0
    assert stack.standin.count("task_1") == 1


def test_worker_busy_for_longer_than_the_timeout_finds_the_reply(make_stack):
    stack = make_stack(daemon=False, clock=True, config={"workers": 1, "redis": {"timeout": "2s"}})
    stack.daemon.variables |= slow_writes(40, stack.clock)
    stack.daemon.start()
    stack.wait_metric("redis_up", 1)
    stack.clock.freeze()
    stack.standin.hold("others")
    others = [stack.background(stack.task, "others") for _ in range(15)]
    stack.wait_metric("waiters", 15)
    stack.standin.wait_arrived("others")
    stack.redis.freeze()
    answer = stack.background(stack.task, "task_1")
    stack.wait_metric("redis_commands_total", 2, command="get")
    stack.standin.release("others")
    stack.wait_until(lambda: any(other.done() for other in others), what="the first of many answers")
    stack.redis.thaw()
    assert stack.redis.cli("PING") == "PONG"  # Redis has also replied to the worker
    stack.clock.step(2.5)  # less than the time of a lease
    assert {other.result().status for other in [answer, *others]} == {200}
    wait_stored(stack, "task_1")
    assert stack.metric("redis_failures_total") == 0
    assert said(stack) == []


def test_command_queued_in_a_long_loop_iteration_has_its_whole_timeout(make_stack):
    """One iteration queues the command that stores the result and writes the answers; only the next one sends it."""
    stack = make_stack(config={"workers": 1, "redis": {"timeout": "1s"}}, daemon=False)
    stack.daemon.variables |= slow_writes(40)
    stack.daemon.start()
    stack.wait_metric("redis_up", 1)
    with stack.standin.hold("task_1"):
        asked = [stack.background(stack.task, "task_1") for _ in range(40)]
        stack.wait_metric("collapsed_total", 39)
    assert {answer.result().status for answer in asked} == {200}
    wait_stored(stack, "task_1")
    assert stack.metric("redis_failures_total") == 0
    assert said(stack) == []


def test_full_redis_is_logged_once_and_still_read(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", 1)
    kept = stack.task("task_1").body
    wait_stored(stack, "task_1")
    stack.redis.cli("CONFIG", "SET", "maxmemory", "1")
    since = mark(stack)

    for number in range(10):
        assert stack.task(f"other_{number}").headers["x-cache"] == "MISS"
        assert stack.task(f"other_{number}").headers["x-cache"] == "HIT"
    assert_one_query_for_all(stack, "task_2")
    stack.wait_metric("redis_failures_total", 11)
    assert said(stack, since) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} rejected SET: OOM; results are not shared"
    ]
    assert stack.redis.stored() == [REDIS_KEY + "task_1"]
    restart_daemon(stack)
    assert stack.task("task_1").body == kept
    assert stack.standin.count("task_1") == 1

    stack.redis.cli("CONFIG", "SET", "maxmemory", "0")
    stack.task("task_3")
    wait_stored(stack, "task_3")


@pytest.mark.problem("Redis rejects the password")
def test_rejected_password_is_logged_once_and_never_shown(make_stack):
    stack = make_stack(daemon=False, nginx=False, config=ONE_WORKER)
    secret = stack.folder / "redis-password"

    def configure(password, username=None):
        secret.write_text(password)
        secret.chmod(0o600)
        stack.configure(redis={"password_file": str(secret), "username": username})

    stack.redis.stop()
    stack.redis.start(password="the-right-password")
    stack.redis.cli("ACL", "SETUSER", "proxy", "on", ">the-proxys-password", "~*", "+@all")
    stack.daemon.start()  # without any password
    stack.nginx.start()
    stack.wait_log("connection rejected: NOAUTH")
    assert stack.get("/readyz").json()["why"] == ["Redis requires a password"]

    configure("some-wrong-password")
    stack.daemon.reload()
    stack.wait_log("connection rejected: WRONGPASS")
    assert_one_query_for_all(stack, "task_1")
    assert stack.metric("redis_up") == 0
    assert stack.get("/readyz").json()["why"] == ["Redis rejects our password"]
    assert len(said(stack)) == len(set(said(stack))) == 2

    for password, username in (("the-right-password", None), ("the-proxys-password", "proxy")):
        configure(password, username)
        stack.daemon.reload()
        stack.wait_metric("redis_up", 1)
        stack.task(f"task_of_{username}")
        wait_stored(stack, f"task_of_{username}")
    assert "password" not in stack.daemon.log()


def test_key_of_another_type_is_logged_once_and_harmless(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.wait_metric("redis_up", 1)
    for number in range(3):
        stack.redis.cli("LPUSH", f"{REDIS_KEY}list_{number}", "a")
        assert_one_query_for_all(stack, f"list_{number}")
    assert stack.metric("redis_failures_total") >= 3
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} rejected GET: WRONGTYPE; results are not shared"
    ]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-LOADING not yet\r\n", b"$99999999999\r\n"])
def test_other_server_in_place_of_redis_is_retried_but_logged_once(make_stack, answer):
    stack = make_stack(daemon=False, nginx=False, config=ONE_WORKER)
    stack.redis.stop()
    with something_else_in_place_of_redis(stack, answer) as connections:
        stack.daemon.start()
        stack.nginx.start()
        assert stack.task("task_1").status == 200
        stack.wait_until(lambda: len(connections) >= 4, what="four connections")
        assert len(said(stack)) == 1
        assert_one_query_for_all(stack, "task_2")
