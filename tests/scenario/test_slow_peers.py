"""Peers that are many, do not read, or use up all descriptors, while other clients are still served."""

import contextlib
import itertools
import json
import os
import pwd
import resource
import socket

import pytest

from fastcgi import Connection, request, task_params
from helpers import (
    GOOD_REQUEST,
    TASK,
    assert_served,
    metric,
    one_without_nginx,
    readiness,
    step_until,
    wait_connections,
    wait_metric,
    worker_pid,
)
from teaming import given, teams_stack

MANY = 300_000  # bytes: more than any socket buffers


@pytest.fixture(scope="module")
def stack():
    yield from one_without_nginx()


@pytest.fixture
def worker(stack):
    return stack.worker_socket(0)


def test_thousand_connections_come_and_go(stack, worker):
    for _ in range(500):
        Connection(worker).close()
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(worker)) for _ in range(500)]
        wait_connections(stack, 500)
        for connection in connections:
            connection.send(GOOD_REQUEST)
        assert {connection.read_answer()[0] for connection in connections} == {200}
    wait_connections(stack, 0)
    assert_served(stack)


def large_task(stack, task_id, status="SUCCESS"):
    """A task whose view is too large for a socket buffer; returns its text."""
    prompt = "".join(itertools.islice(itertools.cycle("0123456789 äöü "), MANY))
    inner = {"id": "gen", "prompt": prompt}
    raw = {"code": "success", "message": "", "data": {"task_id": task_id, "status": status, "data": inner}}
    stack.standin.switch(task_id, raw=json.dumps(raw))
    return raw


def test_client_that_does_not_read_blocks_no_other_and_gets_the_whole_answer_later(stack, worker):
    expected = large_task(stack, "large")
    asked = request(task_params("/sora/v1/videos/large"))
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(Connection(worker)) for _ in range(20)]
        for connection in slow:
            connection.send(asked)
            connection.socket.recv(1, socket.MSG_PEEK)  # the answer has begun
        for _ in range(20):
            assert_served(stack)
        for connection in slow[:10]:
            status, headers, body = connection.read_answer()
            assert (status, json.loads(body)) == (200, expected)
            assert int(headers["content-length"]) == len(body) > MANY
            assert connection.ask(task_params(TASK))[0] == 200
    wait_connections(stack, 0)  # including those that never read
    assert_served(stack)


def test_client_that_does_not_read_does_not_delay_the_exit(make_stack):
    stack = make_stack(nginx=False, config={"drain": "300ms"})
    large_task(stack, "large")
    with Connection(stack.worker_socket(0)) as slow:
        slow.send(request(task_params("/sora/v1/videos/large")))
        slow.socket.recv(1, socket.MSG_PEEK)
        assert stack.daemon.term() == 0


# Answers that are not read


def list_of(prefix):
    return "/v1/tasks?ids=" + ",".join(f"sora/{prefix}_{number}" for number in range(100))


LIST = list_of("task")
MIB = 1024 * 1024


SMALL = {"workers": 1, "limits": {"unsent": "2MiB"}}


def talkative(stack):
    """Lists have 600 KB, and the stack keeps 2 MiB of them."""
    data = {"status": "FAILURE", "fail_reason": 6000 * "x"}
    stack.standin.switch(raw=json.dumps({"code": "success", "message": "", "data": data}))
    return stack


def unread(stack, opened, target=LIST, **params):
    """A connection whose answer has begun."""
    connection = opened.enter_context(Connection(stack.worker_socket(0)))
    connection.send(request(task_params(target, **params)))
    connection.socket.recv(1, socket.MSG_PEEK)
    return connection


def test_unread_answers_are_counted_and_limited(make_stack):
    stack = talkative(make_stack(nginx=False, redis=False, config=SMALL))
    with contextlib.ExitStack() as opened:
        slow = [unread(stack, opened, list_of(f"slow{number}")) for number in range(3)]
        wait_metric(stack, "unsent_bytes", lambda now: now > 3 * 300_000)
        late = [unread(stack, opened, list_of(f"late{number}")) for number in range(5)]
        answers = [connection.read_answer() for connection in late]
        assert answers[-1][0] == 503
        assert_overloaded(answers[-1])
        assert metric(stack, "unsent_bytes") <= 2 * MIB
        assert stack.ask_worker("/sora/v1/videos/task_1").status == 200
        assert len(slow[0].read_answer()[2]) > 600_000
        slow[1].close()
        stack.wait_until(lambda: stack.ask_worker(LIST).status == 200, what="room")
    wait_metric(stack, "unsent_bytes", lambda now: now == 0)


def test_unread_answers_of_one_team_leave_room_for_others(make_stack):
    stack = talkative(teams_stack(make_stack, redis=False, config=SMALL))
    assert stack.ask_worker(LIST, **given("film")).status == 200
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            unread(stack, opened, **given("film"))
        assert stack.ask_worker(LIST, **given("film")).status == 503
        assert stack.ask_worker(LIST, **given("web")).status == 200


def test_slow_readers_of_one_list_share_its_memory(make_stack):
    stack = talkative(make_stack(nginx=False, redis=False, config=SMALL))
    expected = stack.ask_worker(LIST).body
    assert len(expected) > 600_000
    with contextlib.ExitStack() as opened:
        slow = [unread(stack, opened) for _ in range(100)]
        wait_metric(stack, "unsent_bytes", lambda now: 600_000 < now < MIB)
        for connection in slow[:50]:
            status, headers, body = connection.read_answer()
            assert (status, body) == (200, expected)
            assert int(headers["content-length"]) == len(body)
            assert connection.ask(task_params(LIST))[2] == expected
        assert metric(stack, "unsent_bytes") > 600_000
    wait_metric(stack, "unsent_bytes", lambda now: now == 0)


def test_unread_list_of_views_and_problems_arrives_whole(make_stack):
    stack = talkative(make_stack(nginx=False, redis=False, config=SMALL))
    bad = {0, 1, 50, 99}
    ids = [f"{'unknown' if number in bad else 'sora'}/task_{number}" for number in range(100)]
    with contextlib.ExitStack() as opened:
        slow = unread(stack, opened, "/v1/tasks?ids=" + ",".join(ids))
        status, headers, body = slow.read_answer()
        assert (status, int(headers["content-length"])) == (200, len(body))
        answered = [task.get("task_id") for task in json.loads(body)["tasks"]]
        assert answered == [None if number in bad else f"task_{number}" for number in range(100)]
    wait_metric(stack, "unsent_bytes", lambda now: now == 0)


def test_unread_answer_outlives_its_snapshots_in_the_cache(make_stack):
    stack = talkative(make_stack(nginx=False, redis=False, config={**SMALL, "cache": {"memory": "1MiB"}}))
    expected = stack.ask_worker(LIST).body
    with contextlib.ExitStack() as opened:
        slow = unread(stack, opened)
        evicted = metric(stack, "cache_evictions_total")
        for number in range(3):
            assert stack.ask_worker(list_of(f"other{number}")).status == 200
        wait_metric(stack, "cache_evictions_total", lambda now: now > evicted + 200)
        wait_metric(stack, "unsent_bytes", lambda now: now > 600_000)
        assert slow.read_answer()[2] == expected
    wait_metric(stack, "unsent_bytes", lambda now: now == 0)


def test_unread_answer_is_not_changed_by_news(make_frozen):
    stack = make_frozen(nginx=False, redis=False, config=SMALL)
    target = "/sora/v1/videos/large"
    expected = large_task(stack, "large", status="IN_PROGRESS")
    with contextlib.ExitStack() as opened:
        slow = [unread(stack, opened, target) for _ in range(3)]
        wait_metric(stack, "unsent_bytes", lambda now: MANY < now < 2 * MANY)
        done = {"code": "success", "data": {"task_id": "large", "status": "SUCCESS"}}
        stack.standin.switch("large", raw=json.dumps(done))
        step_until(stack, lambda: len(stack.ask_worker(target).body) < MANY, what="the new view")
        slow[0].close()
        for connection in slow[1:]:
            assert json.loads(connection.read_answer()[2]) == expected
    wait_metric(stack, "unsent_bytes", lambda now: now == 0)


def test_answer_that_is_read_in_drops_is_given_up(make_frozen):
    stack = talkative(make_frozen(nginx=False, redis=False, config=SMALL))
    assert stack.ask_worker(LIST).status == 200
    with contextlib.ExitStack() as opened:
        slow = unread(stack, opened)
        wait_metric(stack, "unsent_bytes", lambda now: now > 0)
        assert stack.ask_worker(TASK).status == 200  # the worker has filled the socket, and waits for room
        for _ in range(2):
            stack.step(50)
            slow.socket.recv(100_000)
            assert stack.ask_worker(TASK).status == 200  # the worker has seen the step by now
            assert metric(stack, "connections_refused_total") == 0
        assert metric(stack, "unsent_bytes") > 0
        stack.step(20)
        wait_metric(stack, "connections_refused_total", lambda refused: refused == 1)
        wait_metric(stack, "unsent_bytes", lambda now: now == 0)


# Out of descriptors


def short_of_descriptors(make_stack, count):
    stack = make_stack(nginx=False, daemon=False, redis=False, config={"upstreams": {"main": {"max_in_flight": 200}}})
    stack.daemon.nofile = count
    stack.daemon.start()
    stack.standin.switch(state="SUCCESS")
    return stack


def assert_exhausted(stack):
    assert readiness(stack)["status"] == "degraded"
    assert readiness(stack)["why"] == ["a process is out of file descriptors"]


def assert_overloaded(answer):
    status, headers, body = answer
    assert (status, json.loads(body)["code"]) == (503, "overloaded")
    assert int(headers["retry-after"]) >= 1


def test_connections_over_the_descriptor_limit_get_503_until_others_close(make_stack):
    stack = short_of_descriptors(make_stack, 80)
    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(Connection(stack.worker_socket(0))) for _ in range(40)]
        wait_metric(stack, "connections", lambda now: now >= 40)
        for _ in range(5):
            with Connection(stack.worker_socket(0)) as late:
                assert_overloaded(late.ask(task_params(TASK)))
                assert late.socket.recv(1) == b""
        assert metric(stack, "overloaded_total") == 5
        stack.wait_log("worker 0: out of file descriptors: RLIMIT_NOFILE is 80 ")
        assert_exhausted(stack)
        assert idle[0].ask(task_params(TASK))[0] == 200
        assert_served(stack, index=1)
    stack.wait_until(lambda: stack.ask_worker(TASK).status == 200, what="an answer as before")


@pytest.mark.problem('"out of file descriptors')
def test_failing_accept_is_logged_once_and_retried(make_stack):
    stack = short_of_descriptors(make_stack, 80)
    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(Connection(stack.worker_socket(0))) for _ in range(120)]
        stack.wait_log("worker 0: out of file descriptors: RLIMIT_NOFILE is 80 ")
        assert_exhausted(stack)
        waiting = opened.enter_context(Connection(stack.worker_socket(0)))
        waiting.send(GOOD_REQUEST)
        rounds = itertools.count()  # a hundred pauses of wait_until: several tries to accept
        stack.wait_until(lambda: assert_served(stack, index=1) or next(rounds) == 100, what="100 rounds")
        for connection in idle:
            connection.close()
        assert waiting.read_answer()[0] in (200, 503)
    stack.wait_until(lambda: stack.ask_worker(TASK).status == 200, what="an answer as before")
    assert stack.daemon.log().count("out of file descriptors") == 1


@pytest.mark.problem('"out of file descriptors')
def test_missing_descriptor_for_the_upstream_is_a_503_and_recovers(make_stack):
    stack = short_of_descriptors(make_stack, 60)
    with contextlib.ExitStack() as opened:
        # All are accepted before the first query takes a descriptor, so that only queries can lack one.
        asking = [opened.enter_context(Connection(stack.worker_socket(0))) for _ in range(28)]
        wait_connections(stack, 28)
        with stack.standin.hold() as barrier:
            for number, connection in enumerate(asking):
                connection.send(request(task_params(f"/sora/v1/videos/task_{number}")))
            barrier.wait_arrived(1)
            wait_metric(stack, "requests_total", lambda now: now >= 1)  # of requests that are not held
        answers = [connection.read_answer() for connection in asking]
    assert {status for status, _, _ in answers} == {200, 503}
    for answer in answers:
        if answer[0] == 503:
            assert_overloaded(answer)
    assert {stack.ask_worker(f"/sora/v1/videos/later_{n}").status for n in range(20)} == {200}


@pytest.mark.problem('"out of file descriptors')
def test_exhaustion_of_a_worker_ends_and_fails_no_fetch_of_another(make_frozen):
    user = pwd.getpwuid(os.geteuid()).pw_name  # the worker's, so that the test may change its limit
    stack = make_frozen(nginx=False, config={"user": user})
    for gauge in ("redis_up", "redis_listening"):
        wait_metric(stack, gauge, lambda now: now == 2)
    worker = worker_pid(stack, 0)
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    with Connection(stack.worker_socket(0)) as kept:
        assert kept.ask(task_params("/nowhere"))[0] == 404
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
        for _ in range(2):
            assert_overloaded(kept.ask(task_params(TASK)))
        stack.wait_log("worker 0: out of file descriptors: RLIMIT_NOFILE is 3 ")
        assert_exhausted(stack)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        step_until(stack, lambda: readiness(stack)["status"] == "ready", "the recovery")
        assert metric(stack, "redis_news_total") == 0  # the other worker may be able to query the task
        assert kept.ask(task_params(TASK))[0] == 200
        wait_metric(stack, "redis_news_total", lambda now: now == 1)
    assert stack.daemon.log().count("out of file descriptors") == 1
    stack.wait_log("worker 0: file descriptors are available again")
