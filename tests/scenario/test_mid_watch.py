"""Failures of the upstream, of Redis and of the clock while clients watch: watchers keep waiting, get correct views, and
do not overload the upstream. Only streams learn of failures of the upstream."""

import contextlib

import pytest

from helpers import REDIS_KEY
from stack import Stack
from watching import (
    NATIVE, UNIFIED, assert_not_asked_any_more, assert_one_query_an_interval, begin, end, hold, quick, run, status,
    wait_queries,
)

BREAKS, CLOSES = "failed 3 times in a row", "recovered"
FAILING = {"upstream_error", "upstream_unavailable"}  # before and after the breaker has opened, or a key is paused


@pytest.fixture(scope="module")
def stack():
    """One stack for much of the file; each test uses its own tasks."""
    with Stack(**quick()) as running:
        yield running


@contextlib.contextmanager
def watched(stack, *tasks, problems=frozenset()):
    """Watches each task with a held request and a stream; yields the streams. Afterwards, each watcher must have received
    the end, and each stream no other unread event, unless there may have been some of these problems."""
    streams = [begin(stack, NATIVE + task) for task in tasks]
    held = hold(stack, *[(task + "?wait=60", None) for task in tasks])
    yield streams
    for stream in streams:
        events = stream.rest()
        assert events[-1].data["data"]["status"] == "SUCCESS"
        assert problems or len(events) == 1
        assert {event.data["code"] for event in events if event.type == "problem"} <= problems
    assert [(ask.result().status, status(ask.result())) for ask in held] == [(200, "SUCCESS")] * len(tasks)


def progress(event) -> str:
    assert event.type == "status"
    return event.data["data"]["progress"]


def wait_problem(stream) -> None:
    while (event := stream.next()).type != "problem":
        pass
    assert event.data["code"] in FAILING


# The clock


def test_upstream_timestamp_ends_a_task_and_may_go_back(stack):
    stack.standin.switch("aged", seconds=360_000)  # so that elapsed real seconds do not show in the progress
    with watched(stack, "aged") as (stream,):
        stack.standin.advance(182_000)
        assert progress(stream.next()) == "50%"
        stack.standin.advance(-182_000)
        assert progress(stream.next()) == "0%"
        stack.standin.advance(272_000)
        assert progress(stream.next()) == "75%"
        stack.standin.advance(360_000)
    stack.standin.advance(-632_000)
    assert_not_asked_any_more(stack, "aged")


@pytest.mark.parametrize("days", [-10000, -1, 1, 10000])
def test_upstream_with_a_wrong_clock_is_polled_at_the_interval(stack, days):
    task = f"off{days}"
    stack.standin.advance(days * 86400)
    stack.standin.switch(task, state="IN_PROGRESS", progress="7%")
    with watched(stack, task):
        wait_queries(stack, 5, task)
        assert_one_query_an_interval(stack, task)
        end(stack, task)
    stack.standin.advance(-days * 86400)


def test_task_that_ends_as_waits_expire_is_delivered_to_the_remaining_ones_only(make_stack):
    slow = {"sora": {"poll": {"min": "600ms", "max": "600ms"}}}
    stack = make_stack(providers=slow, config={"workers": 1})
    run(stack)
    assert stack.task("edge").status == 200
    asks = []  # in the order in which they came
    with stack.standin.hold("edge") as barrier:
        while not (asks and asks[0].done()):
            asks.append(stack.background(stack.get, NATIVE + "edge?wait=1"))
            stack.wait_until(lambda: stack.metric("waiters") >= len(asks) or asks[0].done(), what="one more waiter")
        end(stack, "edge")
        barrier.release()
    statuses = [status(ask.result()) for ask in asks]
    assert set(statuses) == {"IN_PROGRESS", "SUCCESS"}
    assert statuses == sorted(statuses)
    assert {ask.result().status for ask in asks} == {200}


# The upstream


def test_retry_after_holds_back_all_queries(make_stack):
    stack = make_stack(**quick(), clock=True)
    run(stack)
    with watched(stack, "busy", "other", problems=FAILING) as streams:
        stack.standin.switch("busy", retry_after=30, times=1)
        stack.wait_log("pausing it for 30 s")
        wait_problem(streams[0])
        stack.clock.freeze()
        stack.wait_metric("upstream_in_flight", lambda queries: queries == 0)  # a query for "other" may have been running
        asked = stack.standin.count()
        stack.step(20)
        assert stack.task("new").status == 503  # the worker has seen the time
        assert stack.standin.count() == asked
        stack.clock.run()
        stack.step(10)
        wait_queries(stack, 1, "busy")
        wait_queries(stack, 1, "other")
        end(stack)


def test_breaker_sends_one_probe(make_stack):
    stack = make_stack(**quick(upstreams={"main": {"breaker_failures": 3, "breaker_pause": "500ms"}}))
    run(stack)
    tasks = [f"task_{number}" for number in range(5)]
    with watched(stack, *tasks, problems=FAILING) as streams:
        stack.standin.switch(status=500)
        stack.wait_log(BREAKS)
        for stream in streams:
            wait_problem(stream)
        stack.standin.reset_counts()
        stack.standin.wait_count(5)
        probes = [query.at for query in stack.standin.seen()]
        # The pause is at least 375 ms; a failure of a task that failed before is inconclusive, and another probe may follow at once.
        assert len(probes) - 2 <= 2 * (probes[-1] - probes[0]) / 0.375
        with stack.standin.hold() as barrier:
            barrier.wait_arrived(1)
            stack.wait_until(lambda: stack.standin.counts()["in_flight"] == 1, what="the end of the previous probe")
            stack.standin.switch(status=None)
            barrier.release()
        for task in tasks:
            wait_queries(stack, 2, task)
        end(stack)
    assert [stack.daemon.log().count(line) for line in (BREAKS, CLOSES)] == [1, 1]


@pytest.mark.problem("The upstream is down")
def test_temporary_upstream_outage_is_reported_to_streams_and_ends_no_watch(make_stack):
    stack = make_stack(**quick(upstreams={"main": {"breaker_failures": 3, "breaker_pause": "500ms"}}))
    run(stack)
    with watched(stack, "task_1", "task_2", problems=FAILING) as streams:
        stack.standin.stop()
        stack.wait_log(BREAKS)
        for stream in streams:
            wait_problem(stream)
        stack.standin.start()
        run(stack, "50%")
        for stream in streams:
            while (event := stream.next()).type != "status" or progress(event) != "50%":
                pass
        end(stack)


def test_failing_watched_task_is_polled_at_its_interval_even_after_stale_for(make_stack):
    even = {"sora": {"poll": {"min": "2s", "max": "2s"}}}
    stack = make_stack(providers=even, redis=False, config={
        "workers": 1, "cache": {"stale_for": "100ms"}, "upstreams": {"main": {"breaker_failures": 0}}})
    run(stack)
    with begin(stack, NATIVE + "t"):
        stack.standin.switch("t", status=500)
        for _ in range(6):
            wait_queries(stack, 1, "t")
    times = [query.at for query in stack.standin.seen("t")]
    assert times[6] - times[2] > 6.5  # four intervals, the first of which may have started late


# Redis


@pytest.mark.parametrize("away", ["stop", "freeze"])
def test_redis_outage_is_invisible_to_watchers(make_stack, away):
    stack = make_stack(**quick(redis={"timeout": "1s"}))
    run(stack)
    stack.wait_metric("redis_up", 1)
    with watched(stack, "task_1", "task_2") as streams:
        getattr(stack.redis, away)()
        run(stack, "20%")
        assert [progress(stream.next()) for stream in streams] == ["20%"] * 2
        stack.wait_metric("redis_up", lambda up: up == 0)
        wait_queries(stack, 5)
        getattr(stack.redis, {"stop": "start", "freeze": "thaw"}[away])()
        stack.wait_metric("redis_up", 1)
        run(stack, "50%")
        assert [progress(stream.next()) for stream in streams] == ["50%"] * 2
        end(stack)
    assert_one_query_an_interval(stack, "task_1")
    stack.wait_until(lambda: "SUCCESS" in stack.redis.cli("GET", REDIS_KEY + "task_1"), what="the end in Redis")


# Departing watchers


def test_polling_stops_with_the_last_watcher_of_any_kind(stack):
    run(stack, "7%", "shared")
    clients = [stack.nginx.connection() for _ in range(3)]
    for client, path in zip(clients, (NATIVE + "shared?wait=60", UNIFIED + "shared?wait=60",
                                      "/v1/tasks?ids=sora/shared,sora/missing&wait=60")):
        client.request("GET", path)
    stream = begin(stack, UNIFIED + "shared")
    stack.wait_metric("waiters", 4)
    stack.wait_metric("watched_tasks", 1)
    for number, client in enumerate([*clients, stream]):
        wait_queries(stack, 2, "shared")
        with stack.standin.hold("shared") as barrier:
            barrier.wait_arrived(1)
            client.close()
            stack.wait_metric("waiters", lambda waiters: waiters == 3 - number)
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)
    stack.wait_metric("fetches", lambda fetches: fetches == 0)
    assert_not_asked_any_more(stack, "shared")
    assert_one_query_an_interval(stack, "shared")
