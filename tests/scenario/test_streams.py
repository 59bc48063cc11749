"""Event streams: the view of a task and each change until its end, parsed as a browser does."""

import itertools
import json

import pytest

from fastcgi import Connection, request, task_params
from helpers import metric, wait_metric
from stack import Stack
from watching import (
    NATIVE, UNIFIED, Event, Stream, assert_not_asked_any_more, assert_one_query_an_interval, begin, both_views, end,
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
        end(stack, task)
        assert stream.rest() == [event_of(stack, view + task)]
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


def test_head_lists_and_other_methods_are_not_streams(stack):
    run(stack, "7%", "other")
    head = stack.get(NATIVE + "other", WANTED, "HEAD")
    assert (head.status, head.headers["content-type"], head.body) == (200, "application/json", b"")
    assert len(stack.get("/v1/tasks?ids=sora/other,sora/missing", WANTED).json()["tasks"]) == 2
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


def test_failing_upstream_sends_no_event_and_a_missing_task_ends_after_three_times(make_stack):
    stack = make_stack(**quick())
    run(stack)
    with begin(stack, NATIVE + "lost") as stream:
        for status in (500, 404, 500, 404):
            before = stack.standin.count("lost")
            stack.standin.switch("lost", status=status, times=2)
            stack.standin.wait_count(before + 4, "lost")  # two with this status, and at least one without it
        stack.standin.switch("lost", status=404)
        told = stream.rest()
    assert [event.type for event in told] == ["problem"]
    assert (told[0].data["code"], told[0].data["status"]) == ("task_not_found", 404)
    assert_not_asked_any_more(stack, "lost")


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


def test_streams_over_the_limit_are_rejected(make_stack):
    stack = make_stack(**quick(limits={"waiters": 1}))
    end(stack, "other")
    run(stack, "7%", "task_1")
    assert stack.task("other").status == 200
    with begin(stack, NATIVE + "task_1"):
        answer = stack.get(NATIVE + "other", WANTED)
        assert problem(answer) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
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
