"""?wait= and Prefer: wait=: one request is held until the task changes; held requests cause no extra query and no error."""

import re

import pytest

from stack import ROOT, Stack
from watching import (
    NATIVE, SLOW, UNIFIED, assert_not_asked_any_more, assert_one_query_an_interval, begin, both_views, end, hold, quick, run, status,
    wait_queries,
)

MANY = "/v1/tasks?ids="


@pytest.fixture(scope="module")
def stack():
    """One stack for most of the file; each test uses its own tasks."""
    with Stack(**quick()) as running:
        yield running


def etag(stack, path) -> dict:
    return {"If-None-Match": stack.get(path).headers["etag"]}


# End of the wait


@both_views
def test_without_an_etag_the_wait_lasts_until_the_task_has_ended(stack, view):
    task = "ends-" + view.split("/")[1]
    run(stack, "7%", task)
    held, = hold(stack, (task + "?wait=60", None), path=view)
    run(stack, "50%", task)
    wait_queries(stack, 3, task)
    assert not held.done()
    end(stack, task)
    answer = held.result()
    assert (answer.status, answer.headers["preference-applied"]) == (200, "wait=60")
    assert status(answer) in ("SUCCESS", "succeeded")
    assert answer.body == stack.get(view + task).body


@both_views
def test_with_an_etag_the_wait_lasts_until_the_view_changes(stack, view):
    task = "changes-" + view.split("/")[1]
    run(stack, "7%", task)
    known = etag(stack, view + task)
    held, = hold(stack, (task + "?wait=60", known), path=view)
    wait_queries(stack, 3, task)
    assert not held.done()
    run(stack, "50%", task)
    answer = held.result()
    assert answer.status == 200 and answer.headers["etag"] != known["If-None-Match"]
    assert b"50" in answer.body
    assert stack.get(view + task + "?wait=60", known).body == answer.body  # a different view is returned at once


def test_expired_wait_gets_the_current_view_or_304(make_frozen):
    stack = make_frozen(providers=SLOW, config={"workers": 1})
    run(stack, "7%", "over")
    known = etag(stack, NATIVE + "over")
    asks = plain, tagged, listed, listed_tagged = [
        *hold(stack, ("over?wait=20", None), ("over?wait=20", known)),
        *hold(stack, ("sora/over&wait=20", None), ("sora/over&wait=20", etag(stack, MANY + "sora/over")), path=MANY),
    ]
    stack.step(19.999)
    stack.task("over")  # the worker has seen the time by now
    assert not any(ask.done() for ask in asks)
    stack.step(0.001)
    assert [ask.result().status for ask in asks] == [200, 304, 200, 304]
    assert status(plain.result()) == "IN_PROGRESS" and tagged.result().body == b""
    assert {ask.result().headers["preference-applied"] for ask in (plain, tagged, listed)} == {"wait=20"}
    assert stack.standin.count("over") == 1


def test_final_answers_are_not_held(stack):
    end(stack, "ended")
    assert status(stack.get(NATIVE + "ended?wait=60")) == "SUCCESS"
    assert stack.get(NATIVE + "ended?wait=60", etag(stack, NATIVE + "ended")).status == 304
    for path in (NATIVE + "missing?wait=60", UNIFIED + "missing?wait=60"):
        answer = stack.get(path)
        assert (answer.status, answer.json()["code"]) == (404, "task_not_found")
    listed = stack.get(MANY + "sora/ended,sora/missing,nobody/x&wait=60").json()["tasks"]
    assert [task["status"] for task in listed] == ["succeeded", 404, 404]


def test_head_waits_too(stack):
    run(stack, "7%", "head")
    held = stack.background(stack.get, NATIVE + "head?wait=60", None, "HEAD")
    stack.wait_metric("waiters", 1)
    end(stack, "head")
    assert (held.result().status, held.result().body) == (200, b"")
    assert held.result().headers["etag"] == stack.task("head").headers["etag"]


def test_list_waits_for_one_change_with_an_etag_and_for_all_ends_without(stack):
    target = "sora/first,sora/second,sora/missing"
    run(stack, "7%", "first")
    run(stack, "7%", "second")
    changed, = hold(stack, (target + "&wait=60", etag(stack, MANY + target)), path=MANY)
    ended, = hold(stack, (target + "&wait=60", None), path=MANY)
    end(stack, "second")
    assert [task["status"] for task in changed.result().json()["tasks"]] == ["running", "succeeded", 404]
    wait_queries(stack, 3, "first")
    assert not ended.done()
    end(stack, "first")
    assert [task["status"] for task in ended.result().json()["tasks"]] == ["succeeded", "succeeded", 404]


def test_tasks_ending_as_the_wait_expires_are_answered_either_way(stack):
    asks = []
    for number in range(16):
        stack.standin.switch(f"just-{number}", seconds=0.2 + 0.12 * number)
        asks += [stack.background(stack.get, f"{NATIVE}just-{number}?wait=1") for _ in range(4)]
    answers = [ask.result() for ask in asks]
    assert {answer.status for answer in answers} == {200}
    assert {status(answer) == "SUCCESS" for answer in answers} == {True, False}
    stack.wait_metric("waiters", lambda waiters: waiters == 0)


# Syntax


@pytest.mark.parametrize("wait", [
    "-1", "1e9", "1.5", "abc", "", "0x10", "%201", "1%00", "1s", "%EF%BC%91", "1&wait=1", "1&wait=x",
])
def test_invalid_wait_is_rejected_with_the_allowed_range(stack, wait):
    for path in (NATIVE + "bad?", UNIFIED + "bad?", MANY + "sora/bad&"):
        answer = stack.get(f"{path}wait={wait}")
        assert (answer.status, answer.json()["code"]) == (400, "bad_request")
        assert "whole number of seconds" in answer.json()["detail"] and "60" in answer.json()["detail"]
    assert stack.standin.count("bad") == 0


@pytest.mark.parametrize("asked, prefer, applied", [
    ("?wait=1000000000", None, "wait=60"), ("?wait=61", None, "wait=60"), ("?wait=60", None, "wait=60"),
    ("?wait=0", None, None), ("?wait=0", "wait=60", None), ("?wait=2", "wait=3", "wait=2"),
    ("", "wait=7", "wait=7"), ("", "Wait=7", "wait=7"), ("", 'wait="7"', "wait=7"), ("", "wait = 7", "wait=7"),
    ("", "respond-async, wait=7", "wait=7"), ("", "wait=7; strict, respond-async", "wait=7"), ("", "wait=61", "wait=60"),
    ("", 'x="a, wait=9", wait=7', "wait=7"), ("", "wait=7, wait=8", "wait=7"), ("", "handling=lenient;wait=9", None),
    ("", "wait", None), ("", "wait=", None), ("", "wait=-1", None), ("", "wait=1e9", None), ("", "wait=abc", None),
    ("", "waiting=7", None), ("", "await=7", None), ("", "wait=0", None), ("", ",;=,\",wait", None),
    ("", "respond-async", None), ("", "é\xff" * 100, None),
])
def test_applied_preference_is_reported_and_malformed_one_ignored(stack, asked, prefer, applied):
    end(stack, "granted")
    answer = stack.get(NATIVE + "granted" + asked, {"Prefer": prefer.encode("latin-1")} if prefer else None)
    assert (answer.status, answer.headers.get("preference-applied")) == (200, applied)


def test_ignored_preference_does_not_wait(stack):
    run(stack, "7%", "ignored")
    for prefer in ("wait=-1", "wait=x", "wait=0", "respond-async"):
        assert status(stack.task("ignored", {"Prefer": prefer})) == "IN_PROGRESS"


def test_empty_parameter_is_an_absent_header(stack):
    run(stack, "7%", "empty")
    held = stack.background(stack.ask_worker, NATIVE + "empty", HTTP_IF_NONE_MATCH="", HTTP_PREFER="wait=60", HTTP_ACCEPT="")
    stack.wait_metric("waiters", 1)
    end(stack, "empty")
    assert status(held.result()) == "SUCCESS"


# Failures during the wait


@pytest.mark.parametrize("failure", [
    {"status": 500}, {"reset": True}, {"garbage": True}, {"status": 401}, {"status": 404}, {"retry_after": 1},
], ids=["500", "reset", "garbage", "401", "404-twice", "429"])
def test_wait_continues_while_the_upstream_fails(make_stack, failure):
    stack = make_stack(**quick())
    run(stack)
    held, tagged = hold(stack, ("t?wait=60", None), ("t?wait=60", etag(stack, NATIVE + "t")))
    stack.standin.switch("t", **failure, times=2)
    wait_queries(stack, 1 if "retry_after" in failure else 2, "t")
    assert not held.done() and not tagged.done()
    end(stack)
    assert [(ask.result().status, status(ask.result())) for ask in (held, tagged)] == [(200, "SUCCESS")] * 2


def test_task_missing_three_times_ends_the_wait_with_404(stack):
    run(stack, "7%", "lost")
    held, = hold(stack, ("lost?wait=60", None))
    stack.standin.switch("lost", status=404)
    assert (held.result().status, held.result().json()["code"]) == (404, "task_not_found")
    assert sum(1 for _ in stack.standin.seen("lost")) >= 4


def test_expired_wait_is_stale_from_the_first_failed_poll_until_the_next_success(make_frozen):
    stack = make_frozen(providers={"sora": {"poll": {"min": "2s", "max": "2s"}}},
                        config={"workers": 1, "upstreams": {"main": {"timeout": "60s"}}})
    run(stack, "7%", "old")
    assert stack.task("old").status == 200
    held = hold(stack, ("old?wait=3", None), ("old?wait=20", None))
    stack.standin.switch("old", status=500)
    stack.step(2.5)
    stack.wait_metric("upstream_failures_total", 1)
    stack.step(1)
    assert held[0].result().headers["x-cache"] == "STALE"  # during the pause after the failure
    with stack.standin.hold("old") as barrier:
        stack.step(2.5)
        barrier.wait_arrived(1)
        stack.step(15)
        assert held[1].result().headers["x-cache"] == "STALE"  # while the next poll waits for the upstream


@pytest.mark.parametrize("ends", [True, False])
def test_stale_answer_is_counted_when_it_is_sent(make_frozen, ends):
    """The request is held with a stale view; it ends with the task, or with the same view when the wait is over."""
    stack = make_frozen(providers={"sora": {"poll": {"min": "2s", "max": "2s"}}}, config={"workers": 1}, redis=False)
    run(stack, "7%", "old")
    assert stack.task("old").status == 200
    stack.standin.switch("old", status=500)
    stack.step(2)
    assert stack.task("old").headers["x-cache"] == "STALE"
    held, = hold(stack, ("old?wait=60", None))
    assert stack.metric("stale_total") == 1
    with begin(stack, NATIVE + "old"):
        assert stack.metric("stale_total") == 2
    if ends:
        stack.standin.clear("old")
        end(stack, "old")
    stack.step(5 if ends else 60)
    assert (held.result().headers["x-cache"] == "STALE") == (not ends)
    assert stack.metric("stale_total") == (2 if ends else 3)


# Watchers


def test_three_hundred_watchers_are_one_query_per_interval(stack):
    run(stack, "7%", "crowd")
    held = hold(stack, *[("crowd?wait=60", None)] * 300)
    stack.wait_metric("watched_tasks", lambda watched: watched == 1)
    wait_queries(stack, 5, "crowd")
    end(stack, "crowd")
    assert len({(ask.result().status, ask.result().body, ask.result().headers["etag"]) for ask in held}) == 1
    assert_one_query_an_interval(stack, "crowd")
    for gauge in ("waiters", "watched_tasks"):
        stack.wait_metric(gauge, lambda now: now == 0)


def test_departed_watchers_are_dropped_and_polling_stops_with_the_last(stack):
    run(stack, "7%", "left")
    gone = stack.metric("requests_gone_total")
    leaving = [stack.nginx.connection() for _ in range(2)]
    for connection in leaving:
        connection.request("GET", NATIVE + "left?wait=60")
    stack.wait_metric("waiters", 2)
    leaving[0].close()
    stack.wait_metric("waiters", lambda waiters: waiters == 1)
    wait_queries(stack, 3, "left")
    leaving[1].close()
    stack.wait_metric("waiters", lambda waiters: waiters == 0)
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)
    stack.wait_metric("requests_gone_total", gone + 2)
    assert_not_asked_any_more(stack, "left")


def test_requests_over_the_waiter_limit_get_the_known_view_at_once(make_stack):
    slow = {"sora": {"poll": {"min": "2s", "max": "2s"}}}  # so that the view is fresh
    stack = make_stack(providers=slow, config={"workers": 1, "limits": {"waiters": 2}})
    run(stack)
    assert stack.task("task_1").status == 200
    held = hold(stack, *[("task_1?wait=60", None)] * 2)
    answer = stack.get(NATIVE + "task_1?wait=60")
    assert (answer.status, status(answer)) == (200, "IN_PROGRESS")
    assert int(answer.headers["retry-after"]) >= 1
    assert "preference-applied" not in answer.headers  # or it would ask again at once
    answer = stack.get(NATIVE + "unknown?wait=60")
    assert (answer.status, answer.json()["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    end(stack)
    assert {status(ask.result()) for ask in held} == {"SUCCESS"}
    stack.wait_until(lambda: stack.get(NATIVE + "unknown?wait=60").status == 200, what="a free place")


# The web server


def test_shipped_nginx_timeout_exceeds_the_longest_wait():
    text = (ROOT / "nginx" / "taskproxy-fastcgi.conf").read_text()
    read_timeout = int(re.search(r"^fastcgi_read_timeout (\d+)s;", text, re.MULTILINE)[1])
    longest, query, more, heartbeat = 60, 10, 2, 15  # seconds; the time-out of an upstream is its default
    assert read_timeout > longest + 2 * query + more and read_timeout > 2 * heartbeat
