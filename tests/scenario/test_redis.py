"""Redis is a help, not a part: what is kept there, and that none of its troubles reaches a client."""

import contextlib
import os
import re
import socketserver
import threading
import time

import pytest

KEY = "taskproxy:main:sora:"  # and the task's id
ONE_WORKER = {"workers": 1}


def said(stack, since=0):
    """What the workers have logged of Redis since then, without the time of day."""
    lines = stack.daemon.log()[since:].splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if "Redis" in line]


def mark(stack):
    return len(stack.daemon.log())


def restart_daemon(stack):
    stack.daemon.stop()
    stack.daemon.start()
    stack.wait_metric("redis_up", stack.config["workers"])


def ask_together(stack, task_id, count=200):
    """So many requests that are all there before the upstream says a word."""
    with stack.standin.hold(task_id) as barrier:
        before = stack.metric("collapsed_total")
        answers = [stack.background(stack.task, task_id) for _ in range(count)]
        barrier.wait_arrived(1)
        stack.wait_metric("collapsed_total", before + count - 1)
        stack.standin.release(task_id)
        return [answer.result() for answer in answers]


def assert_one_query_for_all(stack, task_id):
    answers = ask_together(stack, task_id)
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert stack.standin.count(task_id) == 1


def wait_stored(stack, task_id):
    """Until the task is in Redis: its value there."""
    return stack.wait_until(lambda: stack.redis.cli("GET", KEY + task_id), what=f"{task_id} in Redis")


@contextlib.contextmanager
def something_else_in_place_of_redis(stack, answer):
    """Listens where Redis should, answers each connection with these bytes and closes; gives the count of connections."""
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


def test_without_redis_all_goes_on_and_with_its_return_it_is_used_again(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    stack.redis.stop()
    stack.daemon.start()
    stack.nginx.start()

    stack.wait_log("is away")
    assert [stack.task("task_1").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    assert_one_query_for_all(stack, "task_2")
    assert stack.metric("redis_up") == 0

    stack.redis.start()
    stack.wait_metric("redis_up", 2)
    assert sorted(re.sub("Redis at .*: ", "", line) for line in said(stack)) == sorted(
        line for worker in (0, 1) for line in (
            f"warn worker {worker}: No such file or directory; going on without it",
            f"info worker {worker}: Redis at unix:{stack.redis.socket} is back",
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


def test_redis_stopped_under_way_is_said_once_and_makes_no_storm_of_misses(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.wait_metric("redis_up", 1)
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert_one_query_for_all(stack, "task_1")
    for number in range(20):
        assert stack.task(f"other_{number}").status == 200
    stack.redis.start()
    stack.wait_log("is back")
    assert len(said(stack)) == len(set(said(stack)))
    assert stack.metric("redis_commands_total") == 0

    stack.task("task_2")
    wait_stored(stack, "task_2")


@pytest.mark.parametrize("frozen", ["from the start", "under way"])
def test_a_frozen_redis_holds_up_a_request_for_its_timeout_and_the_next_ones_not_at_all(make_stack, frozen):
    stack = make_stack(daemon=False, nginx=False, config={"workers": 1, "redis": {"timeout": "300ms"}})
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
    stack.wait_log("it does not answer in time; going on without it")
    asked = stack.metric("redis_commands_total", command="get")
    assert stack.metric("redis_failures_total") == asked
    for number in range(20):
        assert stack.task(f"later_{number}").status == 200
    assert_one_query_for_all(stack, "task_1")
    assert stack.metric("redis_commands_total", command="get") == asked
    assert len(said(stack)) == 1

    stack.redis.thaw()
    stack.wait_log("is back")
    stack.task("task_2")
    wait_stored(stack, "task_2")


def test_a_slow_redis_is_waited_for_within_its_timeout(make_stack):
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


def test_a_full_redis_is_complained_of_once_and_still_read(make_stack):
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
        f"warn worker 0: Redis at unix:{stack.redis.socket} refused a SET (OOM); going on without it"
    ]
    assert stack.redis.keys() == [KEY + "task_1"]
    restart_daemon(stack)
    assert stack.task("task_1").body == kept
    assert stack.standin.count("task_1") == 1

    stack.redis.cli("CONFIG", "SET", "maxmemory", "0")
    stack.task("task_3")
    wait_stored(stack, "task_3")


def test_a_refused_password_is_said_once_and_never_shown(make_stack):
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
    stack.wait_log("it refused the connection (NOAUTH)")

    configure("some-wrong-password")
    stack.daemon.reload()
    stack.wait_log("it refused the connection (WRONGPASS)")
    assert_one_query_for_all(stack, "task_1")
    assert stack.metric("redis_up") == 0
    assert len(said(stack)) == len(set(said(stack))) == 2

    for password, username in (("the-right-password", None), ("the-proxys-password", "proxy")):
        configure(password, username)
        stack.daemon.reload()
        stack.wait_metric("redis_up", 1)
        stack.task(f"task_of_{username}")
        wait_stored(stack, f"task_of_{username}")
    assert "password" not in stack.daemon.log()


def test_a_value_that_cannot_be_used_is_said_once_and_replaced(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", 1)
    stack.task("good")
    good = wait_stored(stack, "good")
    form, digest, rest = good.split(" ", 2)
    for name, value, words in (
        ("other", f"taskproxy/999 {digest} {rest}", "another format"),
        ("digest", f"{form} {'0' * len(digest)} {rest}", "another provider file"),
        ("cut", good[:-1], "a value that is not whole"),
        ("garbage", "\x01\x02\n" * 1000, "another format"),
        ("head", f"{form} {digest} succeeded -1 99999999999999999999 x 3 3\nabcdef", "a malformed head"),
        ("empty", "", "another format"),
        ("longer", good + "x", "a value that is not whole"),
        ("state", f"{form} {digest} none 1 1 0 1 1\nxx", "a malformed head"),
        ("lengths", f"{form} {digest} succeeded 1 1 0 9223372036854775807 9223372036854775807\n", "a value that is not whole"),
    ):
        since = mark(stack)
        for task_id in (f"{name}_1", f"{name}_2"):
            stack.redis.cli("SET", KEY + task_id, value)
            answer = stack.task(task_id)
            assert (answer.status, answer.headers["x-cache"]) == (200, "MISS"), name
            assert stack.standin.count(task_id) == 1
            stack.wait_until(lambda: stack.redis.cli("GET", KEY + task_id).startswith(f"{form} {digest} succeeded"), what=name)
        assert [words in line for line in said(stack, since)] == [True], name


def test_a_key_of_another_type_is_said_once_and_harms_nobody(make_stack):
    stack = make_stack(config=ONE_WORKER)
    stack.wait_metric("redis_up", 1)
    for number in range(3):
        stack.redis.cli("LPUSH", f"{KEY}list_{number}", "a")
        assert_one_query_for_all(stack, f"list_{number}")
    assert stack.metric("redis_failures_total") >= 3
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} refused a GET (WRONGTYPE); going on without it"
    ]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-LOADING not yet\r\n", b"$99999999999\r\n"])
def test_something_else_in_place_of_redis_is_tried_again_but_said_once(make_stack, answer):
    stack = make_stack(daemon=False, nginx=False, config=ONE_WORKER)
    stack.redis.stop()
    with something_else_in_place_of_redis(stack, answer) as connections:
        stack.daemon.start()
        stack.nginx.start()
        assert stack.task("task_1").status == 200
        stack.wait_until(lambda: len(connections) >= 4, what="four tries")
        assert len(said(stack)) == 1
        assert_one_query_for_all(stack, "task_2")


def test_what_is_stored_and_for_how_long(make_stack):
    stack = make_stack(
        config={"workers": 1, "cache": {"terminal_ttl": "2h", "stale_for": "20m"}, "redis": {"database": 3, "prefix": "ours/"}},
    )
    standin = stack.standin
    standin.switch("unknown", state="DANCING")
    standin.switch("error", status=500)
    standin.switch("garbage", garbage=True)
    standin.switch("running", state="IN_PROGRESS")
    standin.switch("failed", state="FAILURE")
    standin.switch("expiring", state="SUCCESS", expires=time.time() + 660)
    standin.switch("succeeded", state="SUCCESS")
    stack.wait_metric("redis_up", 1)
    for task_id in ("missing", "unknown", "error", "garbage", "running", "failed", "expiring", "succeeded"):
        stack.task(task_id)

    def lifetime(task_id):
        key = f"ours/main:sora:{task_id}"
        return stack.wait_until(lambda: max(0, int(stack.redis.cli("-n", 3, "PTTL", key))), what=key) / 1000

    assert 7100 < lifetime("succeeded") <= 7200
    assert 500 < lifetime("expiring") <= 600  # a minute less than its URLs
    assert 7100 < lifetime("failed") <= 7200
    assert 1100 < lifetime("running") <= 1200
    # Commands reach Redis in order: what is not there by now was never sent.
    kept = {f"ours/main:sora:{task_id}" for task_id in ("succeeded", "expiring", "failed", "running")}
    assert set(stack.redis.cli("-n", 3, "--scan").splitlines()) == kept
    assert stack.redis.keys() == []
    assert stack.key not in stack.redis.cli("-n", 3, "GET", "ours/main:sora:succeeded")


def test_workers_share_a_running_task_while_it_is_fresh_and_fall_back_on_it_when_it_is_not(make_stack):
    stack = make_stack(providers={"sora": {"poll": {"min": "3s", "max": "3s"}}})
    stack.wait_metric("redis_up", 2)
    first = stack.ask_worker("/sora/v1/videos/task_1", index=0)
    wait_stored(stack, "task_1")
    shared = stack.ask_worker("/sora/v1/videos/task_1", index=1)
    assert (shared.body, shared.headers["x-cache"]) == (first.body, "HIT")
    assert stack.metric("cache_hits_total", level="redis") == 1
    assert stack.standin.count("task_1") == 1

    restart_daemon(stack)  # what is known of the task is in Redis alone now, and grows old
    stack.standin.switch(status=500)
    stale = stack.wait_until(
        lambda: (answer := stack.ask_worker("/sora/v1/videos/task_1")).headers["x-cache"] == "STALE" and answer,
        what="the end of the interval",
    )
    assert (stale.status, stale.body) == (200, first.body)
    assert stale.headers["cache-status"] == "taskproxy; fwd=stale; detail=upstream-error"
