"""Event streams: the view of a task and each change until its end, parsed as a browser does."""

import itertools
import json

import pytest

from fastcgi import Connection, request, task_params
from helpers import metric, wait_metric
from stack import Stack
from watching import (
    EVEN, NATIVE, UNIFIED, Event, Stream, assert_not_asked_any_more, assert_one_query_an_interval, begin, both_views, end,
    quick, run, wait_queries,
)

WANTED = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def stack():
    """One stack for most of the file; each test uses its own tasks."""
    with Stack(**quick()) as stack:
        yield stack


def event_of(stack, path) -> Event:
    """The event with the task's current view."""
    answer = stack.get(path)
    return Event("status", answer.json(), answer.headers["etag"].strip('"'))


def problem(answer) -> tuple:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, answer.json()["code"]


def assert_reconnects(stream, soonest=1000):
    """Asserts that the stream has said when to reconnect: within a second that begins in `soonest` ms."""
    assert stream.retries and soonest <= stream.retries[-1] <= soonest + 1000


def failure(event, kind="problem") -> tuple:
    """The code and the status of a problem that may pass."""
    assert event.type == kind and event.data["retry_after"] >= 1, event
    assert (event.data["provider"], event.data["task_id"]) == ("sora", "t")
    return event.data["code"], event.data["status"]


def wait_answered(stack, queries):
    """Waits until the worker has the answers to this many queries."""
    stack.standin.wait_count(queries)
    stack.wait_metric("fetches", lambda fetches: fetches == 0)


# Events


@both_views
def test_stream_sends_the_current_view_each_change_and_closes_after_the_end(stack, view):
    task = "told-" + view.split("/")[1]
    run(stack, "7%", task)
    with Stream(stack, view + task) as stream:
        assert stream.response.status == 200
        headers = {name.lower(): value for name, value in stream.response.getheaders()}
        assert (headers["content-type"], headers["cache-control"]) == ("text/event-stream", "no-store")
        assert headers["x-request-id"]
        events = [stream.next()]
        assert events == [event_of(stack, view + task)]
        for progress in ("20%", "50%"):
            wait_queries(stack, 3, task)  # unchanged answers
            run(stack, progress, task)
            events.append(stream.next())
            assert events[-1] == event_of(stack, view + task)
        assert stream.retries == []
        end(stack, task)
        assert stream.rest() == [event_of(stack, view + task)]
        assert_reconnects(stream)
    assert len({event.id for event in events}) == 3
    assert_not_asked_any_more(stack, task)


def test_ended_task_is_one_event(stack):
    end(stack, "ended")
    with Stream(stack, NATIVE + "ended") as stream:
        assert stream.rest() == [event_of(stack, NATIVE + "ended")]


def test_x_accel_buffering_is_off(stack):
    end(stack, "unbuffered")
    answer = stack.ask_worker(NATIVE + "unbuffered", HTTP_ACCEPT="text/event-stream")
    assert (answer.status, answer.headers["x-accel-buffering"]) == (200, "no")
    assert "content-length" not in answer.headers


def test_large_view_arrives_complete(stack):
    inner = {"id": "gen", "prompt": "".join(itertools.islice(itertools.cycle("0123456789 äöü \n"), 600_000))}
    raw = {"code": "success", "message": "", "data": {"task_id": "large", "status": "SUCCESS", "data": inner}}
    stack.standin.switch("large", raw=json.dumps(raw))
    with Stream(stack, NATIVE + "large") as stream:
        assert [event.data for event in stream.rest()] == [raw]


def test_hundred_streams_of_one_task_are_one_query_per_interval(stack):
    run(stack, "7%", "crowd")
    streams = [begin(stack, NATIVE + "crowd") for _ in range(100)]
    stack.wait_metric("streams", 100)
    wait_queries(stack, 5, "crowd")
    end(stack, "crowd")
    assert [stream.rest() for stream in streams] == [[event_of(stack, NATIVE + "crowd")]] * 100
    assert_one_query_an_interval(stack, "crowd")
    stack.wait_metric("streams", lambda streams: streams == 0)


# Reconnects


@both_views
def test_reconnect_after_the_end_gets_204_or_the_final_view(stack, view):
    end(stack, "over")
    known = event_of(stack, view + "over")
    answer = stack.get(view + "over", {**WANTED, "Last-Event-ID": known.id})
    assert (answer.status, answer.body) == (204, b"")
    assert stack.get(view + "over", {"Last-Event-ID": known.id}).status == 200  # a request without a stream
    with Stream(stack, view + "over", Last_Event_ID="0" * 32) as stream:
        assert stream.rest() == [known]


def test_reconnect_with_the_current_etag_gets_no_repeat(stack):
    run(stack, "7%", "back")
    with Stream(stack, NATIVE + "back", Last_Event_ID=event_of(stack, NATIVE + "back").id) as stream:
        wait_queries(stack, 2, "back")
        run(stack, "8%", "back")
        assert b"8%" in json.dumps(stream.next().data).encode()
        end(stack, "back")
        assert len(stream.rest()) == 1


@pytest.mark.parametrize("last", [
    b"", b"x", b"0" * 31, b"0" * 33, b"\xff" * 32, b'"quoted"', b"\r\ndata: injected", "äöü".encode(), b"%n%s" * 1000,
], ids=range(9))
def test_last_event_id_may_be_any_bytes(stack, last):
    end(stack, "bytes")
    with Connection(stack.worker_socket()) as connection:
        params = task_params(NATIVE + "bytes", HTTP_ACCEPT=WANTED["Accept"], HTTP_LAST_EVENT_ID=last)
        status, _, body = connection.ask(params)
    assert status == 200 and body.startswith(b"event: status\nid: ") and b"injected" not in body


# Access


@pytest.mark.parametrize("accept, streams", [
    ("text/event-stream", True), ("Text/Event-Stream", True), ("text/event-stream, */*;q=0.1", True),
    ("application/json;q=0.5,text/event-stream;q=0.9", True), ("text/event-stream; charset=utf-8", True),
    ("application/json", False), ("*/*", False), ("text/*", False), ("text/event-stream;q=0", False),
    ("text/event-streams", False), ("x-text/event-stream", False), ("é" * 1000, False),
])
def test_stream_requires_its_accept_header(stack, accept, streams):
    end(stack, "accepts")
    answer = stack.get(NATIVE + "accepts", {"Accept": accept.encode()})
    assert answer.headers["content-type"] == ("text/event-stream" if streams else "application/json")
    assert "Accept" in answer.headers["vary"]


def test_head_and_other_methods_are_not_streams(stack):
    run(stack, "7%", "other")
    head = stack.get(NATIVE + "other", WANTED, "HEAD")
    assert (head.status, head.headers["content-type"], head.body) == (200, "application/json", b"")
    assert problem(stack.get(NATIVE + "other", WANTED, "POST")) == (405, "method_not_allowed")
    assert problem(stack.get(NATIVE + "other?wait=x", WANTED)) == (400, "bad_request")


def test_invalid_task_is_an_ordinary_problem(stack):
    for path in (NATIVE + "missing", UNIFIED + "missing"):
        assert problem(stack.get(path, WANTED)) == (404, "task_not_found")
    assert problem(stack.get(NATIVE + "no!id", WANTED)) == (400, "bad_request")
    assert problem(stack.get("/nowhere", WANTED)) == (404, "not_found")


def test_cgi_answers_with_the_view(stack):
    end(stack, "cgi")
    answer = stack.daemon.cgi(NATIVE + "cgi", HTTP_ACCEPT="text/event-stream")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


# Failures and disconnects


def test_missing_task_ends_after_three_times(make_stack):
    stack = make_stack(**quick())
    run(stack)
    with begin(stack, NATIVE + "lost") as stream:
        for _ in range(2):
            before = stack.standin.count("lost")
            stack.standin.switch("lost", status=404, times=2)
            stack.standin.wait_count(before + 4, "lost")  # two with this status, and at least one without it
        stack.standin.switch("lost", status=404)
        told = stream.rest()
    assert [event.type for event in told] == ["problem"]
    assert (told[0].data["code"], told[0].data["status"]) == ("task_not_found", 404)
    assert_not_asked_any_more(stack, "lost")


def test_failing_upstream_is_a_problem_until_it_recovers(make_frozen):
    """A view stays valid; each kind of failure is one event, however often it is repeated."""
    stack = make_frozen(providers=EVEN, redis=False, config={"upstreams": {"main": {"breaker_failures": 0}}})
    run(stack)
    with begin(stack, NATIVE + "t") as stream:
        for answer, told in [({"status": 500}, ("upstream_error", 502)), ({"raw": "?"}, ("upstream_invalid", 502)),
                             ({"status": 401}, ("upstream_auth", 502))]:
            stack.standin.clear()
            run(stack)
            stack.standin.switch(**answer)
            asked = stack.standin.count()
            stack.step(3)
            assert failure(stream.next()) == told
            assert_reconnects(stream)
            if told[0] == "upstream_error":
                stack.step(3)
                wait_answered(stack, asked + 2)  # the failure is repeated, the event is not
        stack.standin.clear()
        run(stack)
        stack.step(3)
        assert stream.next() == event_of(stack, NATIVE + "t")  # although the view is the same
        end(stack)
        stack.step(3)
        assert stream.rest() == [event_of(stack, NATIVE + "t")]
        assert len(stream.retries) == 4


@pytest.mark.parametrize("answer, told", [({"status": 500}, ("upstream_error", 502)),
                                          ({"status": 429}, ("upstream_unavailable", 503)),
                                          ({"status": 401}, ("upstream_auth", 502))], ids=["error", "429", "key"])
def test_stream_of_an_unseen_task_outlives_a_failing_upstream(make_frozen, answer, told):
    stack = make_frozen(providers=EVEN, redis=False)
    stack.standin.switch(**answer)
    with Stream(stack, NATIVE + "t") as stream:
        event = stream.next()
        assert (stream.response.status, failure(event)) == (200, told)
        assert_reconnects(stream)
        asked = stack.standin.count()
        stack.step(event.data["retry_after"] + 1)
        wait_answered(stack, asked + 1)
        stack.standin.clear()
        run(stack)
        stack.step(120)
        assert stream.next() == event_of(stack, NATIVE + "t")
        assert stack.metric("watched_tasks") == 1
        end(stack)
        stack.step(3)
        assert stream.rest() == [event_of(stack, NATIVE + "t")]


def test_task_that_turns_out_not_to_exist_ends_its_stream(make_frozen):
    stack = make_frozen(providers=EVEN, redis=False)
    stack.standin.switch(status=500)
    with Stream(stack, NATIVE + "t") as stream:
        assert failure(stream.next()) == ("upstream_error", 502)
        stack.standin.switch(status=404)
        stack.step(3)
        (event,) = stream.rest()
        assert (event.type, event.data["code"]) == ("problem", "task_not_found")
    assert problem(stack.get(NATIVE + "t", WANTED)) == (404, "task_not_found")


def test_hundred_streams_of_a_failing_task_are_one_query_at_a_time(make_frozen):
    stack = make_frozen(providers=EVEN, redis=False, config={"workers": 1})
    stack.standin.switch(status=500)
    streams = [Stream(stack, NATIVE + "t") for _ in range(100)]
    assert {failure(stream.next()) for stream in streams} == {("upstream_error", 502)}
    before = stack.standin.count()
    stack.standin.clear()
    run(stack)
    stack.step(3)
    assert {stream.next().type for stream in streams} == {"status"}
    assert before <= 100 and stack.standin.count() == before + 1
    for stream in streams:
        stream.close()
    stack.wait_metric("streams", lambda streams: streams == 0)


def test_reload_ends_streams_so_that_they_reconnect_at_once(make_stack):
    stack = make_stack(**quick())
    run(stack)
    with begin(stack, NATIVE + "t") as stream:
        stack.daemon.reload(wait_for_old=False)
        assert stream.rest() == []
        assert_reconnects(stream, 1)
        known = event_of(stack, NATIVE + "t").id
    with Stream(stack, NATIVE + "t", Last_Event_ID=known) as stream:
        wait_queries(stack, 2)
        end(stack)
        assert len(stream.rest()) == 1


def test_disconnected_stream_is_dropped(stack):
    run(stack, "7%", "left")
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)  # watchers of other tests
    with begin(stack, NATIVE + "left"):
        stack.wait_metric("watched_tasks", 1)
        assert stack.metric("streams") == 1
    stack.wait_metric("streams", lambda streams: streams == 0)
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)
    assert_not_asked_any_more(stack, "left")


def test_stalled_stream_is_dropped_and_the_others_continue(make_stack):
    stack = make_stack(**quick())
    padding = "x" * 50_000

    def show(progress):
        data = {"task_id": "task_1", "status": "IN_PROGRESS", "progress": f"{progress}%", "fail_reason": padding}
        stack.standin.switch(raw=json.dumps({"code": "success", "message": "", "data": data}))

    show(0)
    refused = metric(stack, "connections_refused_total")
    with Connection(stack.worker_socket()) as deaf, begin(stack, NATIVE + "task_1") as reader:
        deaf.send(request(task_params(NATIVE + "task_1", HTTP_ACCEPT="text/event-stream")))
        stack.wait_metric("streams", 2)
        for progress in range(1, 100):
            show(progress)
            assert reader.next().data["data"]["progress"] == f"{progress}%"
            if metric(stack, "streams") == 1:
                break
        wait_metric(stack, "connections_refused_total", lambda now: now > refused)
        assert 200_000 < progress * len(padding) < 2_000_000  # the worker buffers only a part of it
        deaf.wait_closed()
        stack.standin.clear()
        end(stack)
        assert len(reader.rest()) == 1


def test_streams_over_the_limit_end_at_once_and_reconnect(make_stack):
    stack = make_stack(**quick(limits={"waiters": 1}))
    end(stack, "other")
    run(stack, "7%", "task_1")
    assert stack.task("other").status == 200
    with begin(stack, NATIVE + "task_1"):
        with Stream(stack, NATIVE + "other") as refused:
            (event,) = refused.rest()
        assert (event.type, event.data["code"], event.data["retry_after"]) == ("problem", "overloaded", 1)
        assert_reconnects(refused)
        assert stack.metric("overloaded_total") == 1
    stack.wait_metric("waiters", lambda waiters: waiters == 0)
    assert stack.get(NATIVE + "other", WANTED).status == 200


# Heartbeats


def test_idle_stream_sends_heartbeats(make_frozen):
    stack = make_frozen(providers={"sora": {"poll": {"min": "60s", "max": "60s"}}})
    run(stack, "7%", "quiet")
    with begin(stack, NATIVE + "quiet") as stream:
        stack.step(15)
        assert stream.next_line() == ": still here\n"
        end(stack, "quiet")
        stack.step(46)
        assert [event.type for event in stream.rest()] == ["status"]
