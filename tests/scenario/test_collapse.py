"""Concurrent requests for one task share one query to Redis and one to the upstream, within limits."""

import http.client
import signal
import threading

import pytest

from helpers import wait_gone
from parts import children_of
from watching import quick

PATH = "/sora/v1/videos/"


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def leave_after_asking(stack, task_id: str):
    """Sends a request through nginx; returns the connection, to be closed before the answer arrives."""
    connection = stack.nginx.connection()
    connection.request("GET", PATH + task_id)
    return connection


def ask_many(stack, task_id: str, count: int) -> list:
    return [stack.background(stack.task, task_id) for _ in range(count)]


def test_two_hundred_concurrent_requests_are_one_query_with_equal_answers(stack):
    start = threading.Barrier(200)

    def ask():
        start.wait(30)
        return stack.task("t")

    with stack.standin.hold("t") as barrier:
        asks = [stack.background(ask) for _ in range(200)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 200, seconds=20)
    answers = [ask.result() for ask in asks]

    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert stack.standin.count() == 1
    assert stack.metric("redis_commands_total", command="get") == 1
    assert stack.metric("redis_commands_total", command="set") == 1
    by_cache = sorted(answer.headers["x-cache"] for answer in answers)
    assert by_cache == ["COLLAPSED"] * 199 + ["MISS"]
    assert {a.headers["cache-status"] for a in answers} == {
        "taskproxy; fwd=miss; stored", "taskproxy; fwd=miss; stored; collapsed",
    }
    assert stack.metric("collapsed_total") == 199
    for gauge in ("waiters", "fetches"):
        stack.wait_metric(gauge, lambda now: now == 0)


def test_requests_collapse_while_redis_is_asked(make_stack):
    stack = make_stack(config={"redis": {"timeout": "10s"}})
    stack.wait_metric("redis_up", 2)
    stack.redis.freeze()
    asks = ask_many(stack, "t", 20)
    stack.wait_metric("waiters", 20)
    stack.redis.thaw()
    assert {ask.result().status for ask in asks} == {200}
    assert stack.standin.count("t") == 1
    assert stack.metric("redis_commands_total", command="get") == 1


def test_head_conditional_and_plain_requests_share_one_query(make_stack):
    stack = make_stack(redis=False)
    stack.standin.switch("t", state="SUCCESS")
    etag = stack.task("t").headers["etag"]
    stack.daemon.stop()
    stack.daemon.start()  # with an empty cache
    stack.standin.reset_counts()
    with stack.standin.hold("t") as barrier:
        plain = stack.background(stack.task, "t")
        barrier.wait_arrived(1)
        head = stack.background(stack.task, "t", None, "HEAD")
        known = stack.background(stack.task, "t", {"If-None-Match": etag})
        stack.wait_metric("waiters", 3)
    assert plain.result().headers["etag"] == etag
    assert (head.result().status, head.result().body) == (200, b"")
    assert (known.result().status, known.result().body) == (304, b"")
    assert stack.standin.count("t") == 1


def test_different_tasks_do_not_wait_for_each_other(stack):
    with stack.standin.hold("held") as barrier:
        held = stack.background(stack.task, "held")
        barrier.wait_arrived(1)
        assert {stack.task(f"free_{number}").status for number in range(10)} == {200}
        assert not held.done()
    assert held.result().status == 200


# Clients that disconnect


def test_departed_client_does_not_cancel_the_query_for_the_others(stack):
    stack.standin.switch("t", state="SUCCESS")
    with stack.standin.hold("t") as barrier:
        first = leave_after_asking(stack, "t")
        barrier.wait_arrived(1)
        asks = ask_many(stack, "t", 5)
        stack.wait_metric("waiters", 6)
        first.close()
        stack.wait_metric("requests_gone_total", 1)
        assert stack.metric("waiters") == 5
    assert {ask.result().status for ask in asks} == {200}
    assert stack.standin.count("t") == 1
    assert stack.metric("requests_gone_total") == 1
    stack.wait_until(stack.redis.stored, what="the result in Redis")


def test_query_without_clients_is_completed_and_stored(stack):
    stack.standin.switch("t", state="SUCCESS")
    with stack.standin.hold("t") as barrier:
        clients = [leave_after_asking(stack, "t") for _ in range(3)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 3)
        for client in clients:
            client.close()
        stack.wait_metric("requests_gone_total", 3)
        assert (stack.metric("waiters"), stack.metric("fetches")) == (0, 1)
    stack.wait_until(stack.redis.stored, what="the result in Redis")
    stack.wait_metric("fetches", lambda under_way: under_way == 0)
    assert stack.task("t").headers["x-cache"] == "HIT"
    assert stack.standin.count("t") == 1


def test_late_client_joins_a_query_without_clients(stack):
    with stack.standin.hold("t") as barrier:
        client = leave_after_asking(stack, "t")
        barrier.wait_arrived(1)
        client.close()
        stack.wait_metric("requests_gone_total", 1)
        late = stack.background(stack.task, "t")
        stack.wait_metric("waiters", 1)
    assert (late.result().status, late.result().headers["x-cache"]) == (200, "COLLAPSED")
    assert stack.standin.count("t") == 1


# Errors


@pytest.mark.parametrize("switches, expected", [
    ({"status": 500}, (502, "upstream_error")),
    ({"garbage": True}, (502, "upstream_invalid")),
    ({"status": 401}, (502, "upstream_auth")),
], ids=["error", "invalid", "auth"])
def test_error_goes_to_all_waiters_and_the_task_is_retried_after_an_interval(make_stack, switches, expected):
    stack = make_stack(**quick())
    stack.standin.switch("t", **switches)
    with stack.standin.hold("t") as barrier:
        asks = ask_many(stack, "t", 20)
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 20)
    answers = [ask.result() for ask in asks]
    assert {outcome(answer) for answer in answers} == {expected}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20  # each has its own
    assert stack.standin.count("t") == 1

    def asked_again():
        assert outcome(stack.task("t")) == expected
        return stack.standin.count("t") == 2

    stack.wait_until(asked_again, what="a second query")
    assert stack.redis.stored() == []
    stack.standin.clear("t")
    stack.wait_until(lambda: stack.task("t").status == 200, what="an upstream that accepts queries")


# Limits


def test_requests_over_the_waiter_limit_are_rejected_but_hits_are_not(make_stack):
    stack = make_stack(config={"workers": 1, "limits": {"waiters": 3}})
    stack.standin.switch("kept", state="SUCCESS")
    assert stack.task("kept").status == 200
    with stack.standin.hold() as barrier:
        asks = ask_many(stack, "t", 3)
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 3)
        for task_id in ("t", "another"):
            refused = stack.task(task_id)
            assert outcome(refused) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert stack.metric("overloaded_total") == 2
        assert stack.task("kept").headers["x-cache"] == "HIT"
    assert {ask.result().status for ask in asks} == {200}
    assert stack.task("another").status == 200
    assert stack.standin.counts()["tasks"] == {"kept": 1, "t": 1, "another": 1}


def test_fetches_over_the_limit_are_rejected_but_running_ones_can_be_joined(make_stack):
    stack = make_stack(config={"workers": 1, "limits": {"fetches": 2}})
    with stack.standin.hold() as barrier:
        asks = [*ask_many(stack, "one", 1), *ask_many(stack, "two", 1)]
        barrier.wait_arrived(2)
        refused = stack.task("three")
        assert outcome(refused) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert stack.metric("overloaded_total") == 1
        asks += ask_many(stack, "one", 1)
        stack.wait_metric("waiters", 3)
    assert {ask.result().status for ask in asks} == {200}
    assert stack.task("three").status == 200
    assert stack.standin.counts()["tasks"] == {"one": 1, "two": 1, "three": 1}


def test_departed_waiter_makes_room_for_another(make_stack):
    stack = make_stack(config={"workers": 1, "limits": {"waiters": 1}})
    with stack.standin.hold("t") as barrier:
        client = leave_after_asking(stack, "t")
        barrier.wait_arrived(1)
        assert outcome(stack.task("t")) == (503, "overloaded")
        client.close()
        stack.wait_metric("requests_gone_total", 1)
        next_one = stack.background(stack.task, "t")
        stack.wait_metric("waiters", 1)
    assert next_one.result().status == 200


@pytest.mark.problem("nginx is restarted")
def test_query_survives_a_restart_of_nginx(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    with stack.standin.hold("t") as barrier:
        cut_off = [stack.background(stack.task, target) for target in ("t", "t?wait=30")]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 2)
        stack.nginx.stop()
        for asked in cut_off:
            with pytest.raises((OSError, http.client.HTTPException)):
                asked.result()
        stack.nginx.start()
        stack.wait_metric("requests_gone_total", 2)
        collapsed = stack.metric("collapsed_total")
        repeated = stack.background(stack.task, "t")
        stack.wait_metric("collapsed_total", collapsed + 1)
        barrier.release()
        assert repeated.result().status == 200
    assert stack.standin.count("t") == 1


@pytest.mark.problem("nginx is restarted")
def test_reload_of_nginx_fails_no_request(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    old = children_of(stack.nginx.pid)
    with stack.standin.hold("t") as barrier:
        asked = stack.background(stack.task, "t")
        barrier.wait_arrived(1)
        stack.nginx.signal(signal.SIGHUP)
        stack.wait_until(lambda: set(children_of(stack.nginx.pid)) - set(old), what="a new worker of nginx")
        assert stack.task("another").status == 200
        assert set(old) <= set(children_of(stack.nginx.pid)) and not asked.done()
        barrier.release()
        assert asked.result().status == 200
    wait_gone(stack, *old)
