"""A query that is lost with a reused connection is sent once more, on a new one; any other failure is final.

The stand-in counts each query that it receives; the daemon counts a query once, even if it was sent twice.
"""

import itertools

import pytest

from helpers import step_until
from stack import Stack

GOOD, ERROR, INVALID = (200, "success"), (502, "upstream_error"), (502, "upstream_invalid")
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n"
ids = (f"task_{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def running():
    with Stack(config={"workers": 1, "upstreams": {"main": {"breaker_failures": 0}}}, redis=False) as stack:
        yield stack


@pytest.fixture
def stack(running):
    """A stack with one open connection to the upstream, which has carried an answer."""
    running.standin.clear()
    running.standin.drop_connections()
    running.wait_until(lambda: running.standin.counts()["open"] == 0, what="the end of the connections so far")
    assert running.task(next(ids)).status == 200
    assert running.standin.counts()["open"] == 1
    return running


def outcome(answer) -> tuple:
    return answer.status, answer.json().get("code")


def ask(stack, **switches) -> tuple:
    """Requests a new task with these switches: the outcome; queries and new connections seen by the stand-in; queries,
    failures and connections counted by the daemon."""
    task, before = next(ids), counts(stack)
    stack.standin.switch(task, **switches)
    answer = outcome(stack.task(task))
    return answer, *(now - then for now, then in zip(counts(stack), before))


def counts(stack) -> list:
    standin, metrics = stack.standin.counts(), stack.metrics()
    return [standin["queries"], standin["connections"], *(
        metrics.sum(f"upstream_{name}_total") for name in ("requests", "failures", "connections"))]


@pytest.mark.parametrize("loss", [{"swallow": True}, {"reset": True, "times": 1}], ids=["closed", "reset"])
def test_query_lost_on_a_kept_connection_is_retried_once_on_a_new_one(stack, loss):
    assert ask(stack, **loss) == (GOOD, 2, 1, 1, 0, 1)
    assert ask(stack) == (GOOD, 1, 0, 1, 0, 0)  # the new connection is kept


@pytest.mark.parametrize("loss", [{"wire": ""}, {"reset": True}], ids=["closed", "reset"])
def test_query_lost_on_a_new_connection_fails(stack, loss):
    assert ask(stack, **loss) == (ERROR, 2, 1, 1, 1, 1)  # once on the kept connection, once on a new one
    assert ask(stack, **loss) == (ERROR, 1, 1, 1, 1, 1)  # no kept connection now


@pytest.mark.parametrize("answer, code", [
    ({"wire": HEAD}, INVALID), ({"wire": HEAD + '\r\n{"code": "succ'}, INVALID), ({"truncated": True}, INVALID),
    ({"truncated": True, "chunked": True}, INVALID), ({"status": 500}, ERROR), ({"garbage": True}, INVALID),
], ids=["half-head", "half-body", "truncated", "truncated-chunked", "500", "garbage"])
def test_partial_or_bad_answer_is_not_retried(stack, answer, code):
    said, queries, connections, asked, failed, _ = ask(stack, **answer)
    assert (said, queries, connections, asked, failed) == (code, 1, 0, 1, 1)


def test_new_connection_is_used_after_any_number_of_lost_ones(stack):
    with stack.standin.hold() as barrier:
        asks = [stack.background(stack.task, next(ids)) for _ in range(8)]
        barrier.wait_arrived(8)
    assert {answer.result().status for answer in asks} == {200}
    answer, _, connections, asked, failed, _ = ask(stack, swallow=True)
    assert (answer, connections, asked, failed) == (GOOD, 1, 1, 0)


def test_both_attempts_share_one_timeout(make_frozen):
    stack = make_frozen(config={"workers": 1, "upstreams": {"main": {"timeout": "1s"}}}, redis=False)
    assert stack.task(next(ids)).status == 200
    task = next(ids)
    stack.standin.switch(task, reset=True)
    begun = stack.clock.time()
    with stack.standin.hold(task) as first:
        answer = stack.background(stack.task, task)
        first.wait_arrived(1)
        stack.step(0.7)
        second = stack.standin.hold(task)
    with second:
        second.wait_arrived(1)
        stack.step(0.3)
        step_until(stack, answer.done, "the answer", 0.001)  # the worker polls once more for an answer
    assert outcome(answer.result()) == (504, "upstream_timeout")
    assert stack.clock.time() < begun + 1.7
