"""Failures of the upstream: each has its code, none is cached as a result, and old snapshots are served where allowed."""

import contextlib
import email.utils

import pytest

from clock import slow_writes
from fastcgi import Connection, request, task_params
from helpers import metric, time_out
from parts import PATIENCE
from standin import Standin

PATH = "/sora/v1/videos/"
QUICK = {"sora": {"poll": {"min": "100ms", "max": "100ms"}}}
MIB = 1024 * 1024

INVALID, ERROR, TIMEOUT = (502, "upstream_invalid"), (502, "upstream_error"), (504, "upstream_timeout")
TROUBLES = {  # name, which is also the task's id: (switches of the stand-in, status and code that the client gets)
    "status-500": ({"status": 500}, ERROR),
    "status-503": ({"status": 503}, ERROR),
    "status-400": ({"status": 400}, ERROR),
    "status-404": ({"status": 404}, (404, "task_not_found")),
    "not-exist": ({"status": 400, "raw": '{"code":"task_not_exist","message":"","data":null}'}, (404, "task_not_found")),
    "error-in-200": ({"raw": '{"code":"upstream_busy","message":"later","data":{"status":"SUCCESS"}}'}, ERROR),
    "hang": ({"hang": True}, TIMEOUT),
    "delay": ({"delay": 60}, TIMEOUT),
    "endless-slow": ({"endless": True, "pace": 0.1}, TIMEOUT),
    "reset": ({"reset": True}, ERROR),
    "nothing": ({"wire": ""}, ERROR),
    "endless": ({"endless": True}, INVALID),
    "huge": ({"huge": 5 * MIB}, INVALID),
    "huge-chunked": ({"huge": 5 * MIB, "chunked": True}, INVALID),
    "truncated": ({"truncated": True}, INVALID),
    "truncated-chunked": ({"truncated": True, "chunked": True}, INVALID),
    "garbage": ({"garbage": True}, INVALID),
    "deep": ({"deep": True}, INVALID),
    "redirect": ({"redirect": "https://127.0.0.1:1/"}, INVALID),
    "not-modified": ({"status": 304, "raw": ""}, INVALID),
    "empty": ({"raw": ""}, INVALID),
    "null": ({"raw": "null"}, INVALID),
    "array": ({"raw": "[]"}, INVALID),
    "no-status": ({"raw": '{"code":"success","data":{}}'}, INVALID),
    "status-is-array": ({"raw": '{"code":"success","data":{"status":["SUCCESS"]}}'}, INVALID),
    "two-documents": ({"raw": '{"code":"success","data":{"status":"SUCCESS"}} {}'}, INVALID),
    "doubled-key": ({"raw": '{"code":"success","code":"success","data":{"status":"SUCCESS"}}'}, INVALID),
    "nan": ({"raw": '{"code":"success","data":{"status":"SUCCESS","progress":NaN}}'}, INVALID),
    "no-http": ({"wire": "SSH-2.0-OpenSSH_9.2\r\n"}, INVALID),
    "endless-header": ({"wire": "HTTP/1.1 200 OK\r\n" + "X-Filler: 0123456789\r\n" * 20000}, INVALID),
}


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def wait_outcome(stack, task_id: str, x_cache: str):
    return stack.wait_until(lambda: (a := stack.task(task_id)).headers["x-cache"] == x_cache and a, what=x_cache)


def one_worker(**upstream) -> dict:
    return {"workers": 1, "upstreams": {"main": upstream}}


# Failures


def test_each_failure_has_its_code_and_stores_nothing(make_frozen):
    stack = make_frozen(config={"upstreams": {"main": {"timeout": "2s"}}, "cache": {"missing_ttl": "0s"}})
    for name, (switches, _) in TROUBLES.items():
        stack.standin.switch(name, **switches)
    asks = {name: stack.background(stack.task, name) for name in TROUBLES}
    prompt = [asks[name] for name, (_, expected) in TROUBLES.items() if expected != TIMEOUT]
    stack.wait_until(lambda: all(ask.done() for ask in prompt), 2 * PATIENCE, what="the answers that do not time out")
    time_out(stack, 2, *asks.values())
    assert {name: outcome(ask.result()) for name, ask in asks.items()} == {name: e for name, (_, e) in TROUBLES.items()}
    assert (stack.redis.stored(), stack.metric("cache_entries")) == ([], 0)

    for name in TROUBLES:
        stack.standin.clear(name)
    stack.step(3)  # past the minimum interval, within which a failed task is not queried again
    assert {name: stack.task(name).status for name in TROUBLES} == dict.fromkeys(TROUBLES, 200)
    assert stack.metric("upstream_in_flight") == 0


def test_body_up_to_max_body_is_accepted(stack):
    stack.standin.switch("large", huge=3 * MIB)
    stack.standin.switch("in-chunks", state="SUCCESS", chunked=True)
    assert stack.task("large").status == 200
    assert stack.task("in-chunks").json()["data"]["status"] == "SUCCESS"


def test_redirect_is_never_followed(stack, tmp_path):
    with Standin(tmp_path, [stack.key]) as other:
        for status in (301, 302, 307, 308):
            task_id = f"to-elsewhere-{status}"
            stack.standin.switch(task_id, redirect=other.url + PATH + "t", status=status)
            assert outcome(stack.task(task_id)) == INVALID
            assert stack.standin.count(task_id) == 1
        assert (other.counts()["connections"], other.count()) == (0, 0)


@pytest.mark.parametrize("refusal", ["401", "403"])
def test_rejection_of_our_key_is_not_a_401_and_logs_the_key_file_once(make_stack, refusal):
    stack = make_stack(config={"workers": 1})
    stack.standin.forbidden = {stack.key} if refusal == "403" else set()
    stack.standin.keys = set()
    for task_id in ("one", "two", "three"):
        answer = stack.task(task_id, {"Authorization": "Bearer of-the-client"})
        assert outcome(answer) == (502, "upstream_auth")
        assert "www-authenticate" not in answer.headers
    stack.wait_log(str(stack.key_file))
    assert stack.daemon.log().count(f"upstream main: rejected API key {stack.key_file} (HTTP {refusal})\n") == 1
    assert stack.redis.stored() == []
    stack.standin.keys, stack.standin.forbidden = {stack.key}, set()
    stack.wait_until(lambda: stack.task("one").status == 200, what="a probe of the key")


def test_busy_upstream_is_left_alone_for_as_long_as_it_says(make_frozen):
    stack = make_frozen(config={"workers": 1})
    stack.standin.switch("busy", retry_after=20)
    first = stack.task("busy")
    assert (outcome(first), first.headers["retry-after"]) == ((503, "upstream_unavailable"), "20")
    stack.standin.clear("busy")

    for seconds in (20, 19, 1):
        for task_id in ("busy", "another"):
            held = stack.task(task_id)
            assert (outcome(held), held.headers["retry-after"]) == ((503, "upstream_unavailable"), str(seconds))
        stack.step(1 if seconds != 19 else 18)
    assert stack.standin.count() == 1
    assert stack.task("busy").status == 200


def test_retry_after_may_be_a_date_or_rubbish_and_is_capped(make_frozen):
    stack = make_frozen(config={"workers": 1}, nginx=False)
    for number, (given, understood) in enumerate((
        (lambda now: email.utils.formatdate(now + 30, usegmt=True), {30}), ("-5", {1}), ("soon", {1}), ("", {1}),
        ("999999999999999999999", range(1, 3601)),
    )):
        stack.standin.switch(retry_after=given(stack.clock.time()) if callable(given) else given)
        answer = stack.ask_worker(f"{PATH}t{number}")
        assert outcome(answer) == (503, "upstream_unavailable")
        assert int(answer.headers["retry-after"]) in understood, given
        stack.step(int(answer.headers["retry-after"]))


def test_unreachable_upstream_is_an_error_until_it_returns(make_stack):
    stack = make_stack(clock=True, config=one_worker(timeout="3s"))
    assert stack.task("before").status == 200
    stack.standin.stop()
    assert {outcome(stack.task(task_id)) for task_id in ("one", "two")} == {ERROR}
    stack.standin.start()
    stack.step(3)
    assert stack.task("one").status == 200


@pytest.mark.parametrize("redis", [{"timeout": "10s"}, None], ids=["query", "request"])
def test_worker_busy_for_longer_than_the_timeout_finds_the_answer(make_stack, redis):
    """One loop iteration writes the answers of 60 connections, each of which takes 40 ms; meanwhile the upstream answers,
    and the time-out of the query passes or, without the additional time for Redis, that of the request, too."""
    stack = make_stack(daemon=False, nginx=False, config={**one_worker(timeout="2s"), "redis": redis})
    stack.daemon.variables |= slow_writes(40)
    stack.daemon.start()
    stack.standin.switch("cached", state="SUCCESS")
    cached = task_params(PATH + "cached")
    with contextlib.ExitStack() as opened:
        others = [opened.enter_context(Connection(stack.worker_socket())) for _ in range(60)]
        assert {other.ask(cached)[0] for other in others} == {200}
        stack.standin.hold("t")
        answer = stack.background(stack.ask_worker, PATH + "t")
        stack.standin.wait_arrived("t")
        for other in others:
            other.send(request(cached))
        assert others[10].read_answer()[0] == 200
        stack.standin.release("t")
        assert answer.result().status == 200
    assert metric(stack, "upstream_failures_total") == 0


def test_upstream_with_an_untrusted_certificate_gets_no_query(make_stack):
    stack = make_stack(config={"upstreams": {"main": {"ca_file": None}}})
    assert outcome(stack.task("t")) == ERROR
    assert stack.standin.count() == 0


# Stale answers


@pytest.mark.problem("The upstream is down")
def test_last_snapshot_is_served_while_the_upstream_fails(make_stack):
    stack = make_stack(config=one_worker(timeout="3s"), providers=QUICK)
    stack.standin.switch("t", state="IN_PROGRESS", progress="7%")
    last = stack.task("t")
    for switches, detail, line in (
        ({"status": 503}, "upstream-error", "returned HTTP 503"), ({"reset": True}, "upstream-error", "could not be reached"),
        ({"garbage": True}, "upstream-invalid", "returned HTTP 200 ("), ({"hang": True}, "upstream-timeout", "did not answer in time"),
        ({"retry_after": 1}, "upstream-unavailable", f"HTTP 429 for key {stack.key_file}; pausing it for 1 s"),
    ):
        stack.standin.clear("t")
        stack.standin.switch("t", **switches)
        said = f"taskproxy; fwd=stale; detail={detail}"

        def failed():
            answer = stack.task("t")
            return answer.headers["cache-status"] == said and line in stack.daemon.log() and answer

        stale = stack.wait_until(failed, what=f"{said} and {line}")
        assert (stale.status, stale.body, stale.headers["etag"]) == (200, last.body, last.headers["etag"])
        assert stale.headers["cache-control"] == "private, no-cache"
        assert int(stale.headers["retry-after"]) >= 1
    assert stack.metric("stale_total") >= 5
    stack.standin.clear("t")
    assert wait_outcome(stack, "t", "MISS").status == 200


def test_no_snapshot_hides_a_rejected_key_or_a_missing_task(make_stack):
    stack = make_stack(providers=QUICK)
    for task_id, switches, expected in (
        ("a", {"status": 401}, (502, "upstream_auth")), ("b", {"status": 403}, (502, "upstream_auth")),
        ("c", {"status": 404}, (404, "task_not_found")),
    ):
        assert stack.task(task_id).status == 200
        stack.standin.switch(task_id, **switches)
        assert outcome(wait_outcome(stack, task_id, "MISS")) == expected


@pytest.mark.parametrize("place", ["memory", "redis"])
def test_snapshot_is_not_served_after_stale_for(make_stack, place):
    patient = {"cache": {"stale_for": "30m"}, "upstreams": {"main": {"breaker_failures": 0}}}
    stack = make_stack(config=patient, providers=QUICK, redis=place == "redis", clock=True)
    last = stack.task("t")
    if place == "redis":
        stack.wait_until(stack.redis.stored, what="the snapshot in Redis")
        stack.daemon.stop()
        stack.daemon.start()
    stack.standin.switch("t", status=500)
    stack.step(29 * 60)
    assert wait_outcome(stack, "t", "STALE").body == last.body
    stack.step(60)
    assert outcome(wait_outcome(stack, "t", "MISS")) == ERROR
