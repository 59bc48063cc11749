"""A failing upstream gets few queries: the breaker, the rate limit, its Retry-After, and one query per task and interval,
whatever the clients do. Meanwhile the last view is served, marked as stale."""

import threading
import time

import pytest

from helpers import step_until, time_out
from watching import INTERVAL, SLOW, UNIFIED, assert_one_query_an_interval, end, quick, run, wait_queries

BREAKS = "failed 3 times in a row"


def spared(make_stack, **upstream):
    """One worker without Redis, so that every query is caused by this worker. `make_stack` may be make_frozen."""
    stack = make_stack(**quick(upstreams={"main": upstream}), redis=False)
    run(stack)
    return stack


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def seconds_to_wait(answer) -> int:
    seconds = int(answer.headers["retry-after"])
    assert seconds >= 1
    return seconds


def lines(stack, text) -> int:
    return stack.daemon.log().count(text)


def open_breaker(stack):
    """The stand-in is down from here on."""
    stack.standin.switch(reset=True)
    for number in range(3):
        assert outcome(stack.task(f"breaks_{number}")) == (502, "upstream_error")
    stack.wait_log(BREAKS)


# The breaker


@pytest.mark.parametrize("failure, code", [
    ({"reset": True}, "upstream_error"), ({"hang": True}, "upstream_timeout"),
], ids=["reset", "time-out"])
def test_breaker_opens_after_consecutive_failures(make_frozen, failure, code):
    stack = spared(make_frozen, breaker_failures=3, timeout="2s")
    stack.standin.switch(**failure)
    for number in range(3):
        asked = stack.background(stack.task, f"task_{number}")
        stack.standin.wait_count(1, f"task_{number}")
        if "hang" in failure:
            time_out(stack, 2, asked)
        assert asked.result().json()["code"] == code
    answer = stack.task("task_3")
    assert outcome(answer) == (503, "upstream_unavailable")
    assert seconds_to_wait(answer) == 1  # the first pause is half a second
    assert outcome(stack.get(UNIFIED + "task_4")) == (503, "upstream_unavailable")
    assert stack.standin.count("task_3") == 0
    assert lines(stack, BREAKS) == 1


@pytest.mark.problem("The upstream is down")
def test_one_probe_after_the_pause_opens_or_closes_the_breaker(make_frozen):
    stack = spared(make_frozen, breaker_failures=3, breaker_pause="20s")
    open_breaker(stack)
    for probe, longest in enumerate((0.5, 1)):  # a pause is up to a quarter shorter
        queries = stack.standin.count()
        stack.step(0.75 * longest - 0.001)
        assert stack.task(f"early_{probe}").status == 503
        stack.standin.switch(reset=probe == 0)
        with stack.standin.hold() as barrier:
            stack.step(0.25 * longest + 0.001)
            probing = stack.background(stack.task, f"probe_{probe}")
            barrier.wait_arrived(1)
            answers = [stack.task(f"other_{number}") for number in range(10)]
            assert {outcome(answer) for answer in answers} == {(503, "upstream_unavailable")}
            assert stack.standin.count() == queries + 1
            barrier.release()
            assert probing.result().status == (502, 200)[probe]
        if probe == 0:
            assert stack.task("other_0").status == 503
            assert lines(stack, "recovered") == 0
    stack.wait_log("recovered")
    assert {stack.task(f"other_{number}").status for number in range(5)} == {200}
    assert (lines(stack, BREAKS), lines(stack, "recovered")) == (1, 1)


def test_success_between_failures_keeps_the_breaker_closed(make_stack):
    stack = spared(make_stack, breaker_failures=3)
    for number in range(4):
        stack.standin.switch(reset=True)
        assert [stack.task(f"bad_{number}_{again}").status for again in range(2)] == [502] * 2
        stack.standin.switch(reset=False)
        assert stack.task(f"good_{number}").status == 200
    assert lines(stack, "times in a row") == 0


def test_breaker_never_opens_without_a_limit(make_stack):
    stack = spared(make_stack, breaker_failures=0)
    stack.standin.switch(reset=True)
    assert {outcome(stack.task(f"task_{number}")) for number in range(30)} == {(502, "upstream_error")}
    assert stack.standin.count() == 30


def test_open_breaker_serves_the_last_view_as_stale(make_frozen):
    stack = spared(make_frozen, breaker_failures=3)
    view = stack.task("known").body
    open_breaker(stack)
    stack.step(0.2)  # longer than the interval, shorter than the pause
    wait_stale(stack, "known")
    queries = stack.standin.count("known")
    for answer in (stack.task("known"), stack.task("known")):
        assert (answer.status, answer.body, answer.headers["x-cache"]) == (200, view, "STALE")
        assert answer.headers["cache-control"] == "private, no-cache" and seconds_to_wait(answer)
    assert stack.standin.count("known") == queries
    stack.standin.switch(reset=False)
    end(stack)
    step_until(stack, lambda: stack.task("known").json()["data"]["status"] == "SUCCESS", what="the end")


def wait_stale(stack, task):
    def stale():
        return (answer := stack.task(task)).headers.get("x-cache") == "STALE" and answer

    return stack.wait_until(stale, what="a stale view")


# Retry-After and our own limits


def test_retry_after_of_the_upstream_holds_back_all_its_tasks(make_frozen):
    stack = spared(make_frozen)
    assert stack.task("known").status == 200
    stack.standin.switch("busy", retry_after=30)
    answer = stack.task("busy")
    assert (outcome(answer), seconds_to_wait(answer)) == ((503, "upstream_unavailable"), 30)
    queries = stack.standin.count()
    stack.step(29)
    assert seconds_to_wait(wait_stale(stack, "known")) == 1
    answer = stack.task("another")
    assert (outcome(answer), seconds_to_wait(answer)) == ((503, "upstream_unavailable"), 1)
    assert stack.standin.count() == queries
    stack.step(1)
    assert stack.task("another").status == 200
    assert (stack.standin.count("another"), stack.standin.count("busy")) == (1, 1)
    assert stack.standin.count() <= queries + 2


def test_known_task_past_stale_for_gets_503_with_retry_after(make_frozen):
    stack = make_frozen(**quick(cache={"stale_for": "0s"}), redis=False)
    run(stack)
    assert stack.task("known").status == 200
    stack.standin.switch(retry_after=5)
    stack.step(1)
    for seconds in (5, 4, 3, 2, 1):
        answer = stack.task("known")
        assert (answer.status, seconds_to_wait(answer)) == (503, seconds)
        stack.step(1)


def test_queued_query_is_not_sent_after_the_breaker_opens(make_frozen):
    stack = spared(make_frozen, max_in_flight=2)
    stack.standin.switch(retry_after=30)
    with stack.standin.hold() as barrier:
        asks = [stack.background(stack.task, f"task_{number}") for number in range(40)]
        barrier.wait_arrived(2)
        stack.wait_metric("fetches", 40)
    assert {(outcome(ask.result()), seconds_to_wait(ask.result())) for ask in asks} == {((503, "upstream_unavailable"), 30)}
    assert stack.standin.count() <= 4  # those in flight, and the next ones after a first answer


def test_queries_over_the_rate_limit_get_503_until_later(make_stack):
    stack = spared(make_stack, queries_per_second=5)
    begun_at = time.time()
    asks = [stack.background(stack.task, f"task_{number}") for number in range(40)]
    answers = [ask.result() for ask in asks]
    assert {answer.status for answer in answers} == {200, 503}
    refused = [answer for answer in answers if answer.status == 503]
    assert {(outcome(answer), seconds_to_wait(answer)) for answer in refused} == {((503, "upstream_unavailable"), 1)}
    for number in range(10):
        stack.wait_until(lambda: stack.task(f"later_{number}").status == 200, what="a successful answer")
    times = [query.at for query in stack.standin.seen()]
    assert len(times) <= 5 + 5 * (times[-1] - begun_at) + 1
    assert lines(stack, "times in a row") == 0  # our own limit is not a failure of the upstream


# Missing tasks


def ask_until_asked(stack, task, times) -> list:
    """Requests the task in each interval until this many more queries have been sent; returns the statuses of the answers."""
    statuses, goal = [], stack.standin.count(task) + times

    def ask():
        stack.step(INTERVAL)
        statuses.append(stack.task(task).status)
        return stack.standin.count(task) >= goal

    stack.wait_until(ask, what=f"{times} queries")
    return statuses


def test_known_task_is_missing_only_after_three_404s_in_a_row(make_frozen):
    stack = spared(make_frozen)
    view = stack.task("seen").body
    for _ in range(2):  # the success in between restarts the count
        stack.standin.switch("seen", status=404)
        assert set(ask_until_asked(stack, "seen", 2)) == {200}
        answer = stack.task("seen")
        assert (answer.status, answer.body, answer.headers["x-cache"]) == (200, view, "STALE")
        stack.standin.clear("seen")
        assert set(ask_until_asked(stack, "seen", 1)) == {200}
    stack.standin.switch("seen", status=404)
    assert ask_until_asked(stack, "seen", 3)[-1] == 404
    assert outcome(stack.task("seen")) == (404, "task_not_found")
    assert_one_query_an_interval(stack, "seen")

    assert outcome(stack.task("missing")) == (404, "task_not_found")  # never seen
    assert stack.standin.count("missing") == 1


# One query per interval


@pytest.fixture
def polling():
    """Runs clients that poll a task without pause; yields the list of all their answers."""
    stop, threads = threading.Event(), []

    def start(stack, task, count):
        answers = []

        def poll():
            while not stop.is_set():
                answers.append(stack.task(task))

        threads.extend(threading.Thread(target=poll) for _ in range(count))
        for thread in threads:
            thread.start()
        return answers

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def test_fifty_polling_clients_are_one_query_per_interval(make_stack, polling):
    stack = spared(make_stack)
    answers = polling(stack, "polled", 50)
    wait_queries(stack, 8, "polled")
    end(stack)
    stack.wait_until(lambda: answers[-1].json()["data"]["status"] == "SUCCESS", what="the end")
    assert_one_query_an_interval(stack, "polled")
    assert {answer.status for answer in answers} == {200}
    assert len(answers) > 100


@pytest.mark.parametrize("failure", [{"status": 500}, {"reset": True}, {"garbage": True}], ids=["500", "reset", "garbage"])
def test_failures_cause_no_extra_queries_while_a_stale_view_is_served(make_stack, polling, failure):
    stack = spared(make_stack, breaker_failures=0)
    assert stack.task("polled").status == 200
    stack.standin.switch(**failure)
    answers = polling(stack, "polled", 10)
    wait_queries(stack, 8, "polled")
    assert_one_query_an_interval(stack, "polled")
    assert {answer.status for answer in answers} == {200}
    stale = stack.metric("stale_total")
    assert stale > stack.standin.count("polled")


@pytest.mark.parametrize("failure", [{"status": 500}, {"reset": True}, {"garbage": True}], ids=["500", "reset", "garbage"])
def test_unseen_failing_task_is_queried_once_per_minimum_interval(make_frozen, failure):
    stack = make_frozen(providers=SLOW, config={"workers": 1}, redis=False)
    stack.standin.switch("t", **failure)
    first = stack.task("t")
    for seconds in range(60, 0, -1):
        answer = stack.task("t")
        assert (outcome(answer), seconds_to_wait(answer)) == (outcome(first), seconds) and answer.status == 502
        stack.step(1)
    assert stack.standin.count("t") == 1
    assert outcome(stack.task("t")) == outcome(first)
    assert stack.standin.count("t") == 2


def test_deleted_task_stays_deleted(make_frozen):
    """Its last snapshot is not restored from Redis."""
    stack = make_frozen(**quick(cache={"missing_ttl": "50ms"}))
    run(stack)
    assert stack.task("t").status == 200
    stack.standin.switch("t", status=404)
    assert ask_until_asked(stack, "t", 3)[-1] == 404
    assert set(ask_until_asked(stack, "t", 5)) == {404}
    stack.wait_until(lambda: not stack.redis.keys(), what="the end of the last lease")
