"""The audit: a line of the log for each claim, first read and refusal of a task."""

import json
import re

import pytest

from teaming import TOKENS, bearer, given, teams_stack
from watching import NATIVE, QUICK, UNIFIED, begin, end, run

LINE = re.compile(r"\S+Z audit worker (\d): (\w+) team=(\w+) request=(\w+) task=(\S+)")
TEAMS = {"web": {"providers": ["sora", "kling"]}}


def audited(make_stack, workers=1, **settings):
    routes = [{"provider": provider, "upstream": "main"} for provider in ("sora", "kling")]
    config = {"workers": workers, "routes": routes, "audit": True, "log_level": "error",
              "redis": {"timeout": "10s"}, **settings.pop("config", {})}
    stack = teams_stack(make_stack, TEAMS, access={"ownership": "first-reader"}, config=config, **settings)
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", workers)
    return stack


def audit(stack) -> list:
    """The events so far: (worker, event, team, request, task)."""
    lines = [line for line in stack.daemon.log().splitlines() if " audit " in line]
    events = [LINE.fullmatch(line) for line in lines]
    assert all(events), lines
    return [event.groups() for event in events]


def test_claims_first_reads_and_refusals_are_logged(make_stack):
    stack = audited(make_stack, workers=2)
    asked = [(0, "web", NATIVE), (0, "web", UNIFIED), (1, "web", NATIVE), (1, "web", NATIVE), (1, "film", NATIVE), (0, "film", UNIFIED)]
    ids = [stack.ask_worker(path + "t", worker, **given(team)).headers["x-request-id"] for worker, team, path in asked]
    assert audit(stack) == [
        ("0", "claimed", "web", ids[0], "sora/t"),
        ("1", "read", "web", ids[2], "sora/t"),
        ("1", "refused", "film", ids[4], "sora/t"),
        ("0", "refused", "film", ids[5], "sora/t"),
    ]
    assert not [token for token in (*TOKENS.values(), stack.key) if token in stack.daemon.log()]


def test_task_that_a_team_may_not_use_is_a_refusal(make_stack):
    stack = audited(make_stack)
    kling = "/v1/tasks/kling/text2video/7"
    assert [stack.get(kling, bearer(team)).status for team in ("film", "web")] == [403, 200]
    stack.get("/v1/tasks?ids=sora/t,kling/text2video/7,kling/text2video/missing", bearer("film"))
    events = [(event, team, task) for _, event, team, _, task in audit(stack)]
    seven, missing = "kling/text2video/7", "kling/text2video/missing"
    assert events[:2] == [("refused", "film", seven), ("claimed", "web", seven)]
    assert sorted(events[2:]) == [("claimed", "film", "sora/t"), ("refused", "film", seven), ("refused", "film", missing)]


def test_missing_task_is_no_event(make_stack):
    stack = audited(make_stack)
    assert stack.task("missing", bearer("web")).status == 404
    stack.task("t", bearer("web"))
    assert [event[4] for event in audit(stack)] == ["sora/t"]


def test_stream_and_wait_are_one_event_each(make_stack):
    stack = audited(make_stack, providers=QUICK)
    run(stack)
    with begin(stack, NATIVE + "t", **bearer("web")) as stream:
        held = stack.background(stack.task, "u?wait=30", bearer("web"))
        stack.wait_metric("waiters", 2)
        run(stack, "8%")
        assert stream.next().type == "status"
        end(stack)
        assert stream.rest()[-1].data["data"]["status"] == "SUCCESS" and held.result().status == 200
    assert sorted((event, task) for _, event, _, _, task in audit(stack)) == [("claimed", "sora/t"), ("claimed", "sora/u")]


def test_no_line_is_suppressed(make_stack):
    stack = audited(make_stack)
    stack.task("t", bearer("web"))
    for _ in range(120):
        stack.task("t", bearer("film"))
    assert [event[1] for event in audit(stack)] == ["claimed", *120 * ["refused"]]
    assert "suppressed" not in stack.daemon.log() and "repeated" not in stack.daemon.log()


def test_line_for_programs_is_an_object(make_stack):
    stack = audited(make_stack, config={"log_format": "json"})
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = stack.task("t", {**bearer("web"), "traceparent": trace})
    line = json.loads(stack.wait_log('"level":"audit"'))
    assert {name: line[name] for name in line.keys() - {"time", "pid"}} == {
        "level": "audit", "process": "worker 0", "message": "claimed", "team": "web", "task": "sora/t",
        "request_id": answer.headers["x-request-id"], "traceparent": line["traceparent"]}
    assert line["traceparent"].split("-")[1] == trace.split("-")[1]


@pytest.mark.parametrize("on", [False, None])
def test_audit_is_off_by_default(make_stack, on):
    stack = audited(make_stack, config={"audit": on, "log_level": "info"})
    assert [stack.task("t", bearer(team)).status for team in ("web", "film")] == [200, 404]
    assert audit(stack) == []
