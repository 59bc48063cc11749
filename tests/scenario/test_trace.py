"""The trace of a client's request (W3C Trace Context) is passed on to the upstream and appears in the log."""

import json

import pytest

from watching import NATIVE, Stream, quick, run, wait_queries

TRACE, OTHER = (f"00-{32 * c}-{16 * c}-01" for c in "ab")


@pytest.fixture
def traced(make_stack):
    return make_stack(redis=False, config={"workers": 1, "log_level": "debug", "log_format": "json"})


def sent(stack, task_id):
    """The traceparent of each query at the upstream."""
    return [query.headers.get("traceparent") for query in stack.standin.seen(task_id)]


def lines(stack, trace):
    return [entry for line in stack.daemon.log().rpartition("\n")[0].splitlines() if (entry := json.loads(line)).get("traceparent") == trace]


def test_traceparent_is_passed_to_the_upstream_unchanged(traced):
    assert traced.task("t", {"traceparent": TRACE, "tracestate": "vendor=1"}).status == 200
    assert sent(traced, "t") == [TRACE]
    assert "tracestate" not in traced.standin.seen("t")[0].headers


def test_without_a_traceparent_none_is_sent(traced):
    assert traced.task("t").status == 200
    assert sent(traced, "t") == [None]


@pytest.mark.parametrize("given", [
    TRACE[:-1], TRACE + "0", TRACE + "-x", TRACE.upper(), "ff" + TRACE[2:], f"00-{32 * '0'}-{16 * 'a'}-01",
    f"00-{32 * 'a'}-{16 * '0'}-01", TRACE.replace("-", "_"), "g" + TRACE[1:], TRACE[:-1] + "\t", 4000 * "0", f"{TRACE}, {OTHER}"])
def test_malformed_traceparent_is_dropped(traced, given):
    assert traced.task("t", {"traceparent": given}).status == 200
    assert sent(traced, "t") == [None]
    assert '"traceparent"' not in traced.daemon.log()


@pytest.mark.parametrize("more", ["", "-of-a-later-version"])
def test_later_version_is_treated_as_version_00(traced, more):
    assert traced.task("t", {"traceparent": "01" + TRACE[2:] + more}).status == 200
    assert sent(traced, "t") == [TRACE]


def test_shared_query_has_the_traceparent_of_its_first_request(traced):
    with traced.standin.hold("t") as barrier:
        first = traced.background(traced.task, "t", {"traceparent": TRACE})
        barrier.wait_arrived(1)
        second = traced.background(traced.task, "t", {"traceparent": OTHER})
        traced.wait_metric("waiters", 2)
        barrier.release()
        assert (first.result().status, second.result().status) == (200, 200)
    assert sent(traced, "t") == [TRACE]
    assert {entry["message"].split(" ")[0] for entry in lines(traced, TRACE)} == {"request", "fetch"}
    assert {entry["message"].split(" ")[0] for entry in lines(traced, OTHER)} == {"request"}


def test_poll_for_watchers_has_no_traceparent(make_stack):
    stack = make_stack(**quick(), redis=False)
    run(stack, "7%", "t")
    with Stream(stack, NATIVE + "t", traceparent=TRACE) as watching:
        assert watching.next().type == "status"
        wait_queries(stack, 2, "t")
    assert sent(stack, "t")[:3] == [TRACE, None, None]


def test_request_can_be_traced_through_the_log(traced):
    request_id = traced.task("t", {"traceparent": TRACE}).headers["x-request-id"]
    traced.wait_log(f"request {request_id}: answered with 200")
    told = [entry["message"] for entry in lines(traced, TRACE)]
    assert f"request {request_id}: route -> authorize" in told
    assert "fetch main:sora:t: query_upstream -> wait" in told
    assert traced.task("u").status == 200
    assert [entry["message"] for entry in lines(traced, TRACE)][:len(told)] == told
    assert not [entry for entry in lines(traced, TRACE) if "main:sora:u" in entry["message"]]


@pytest.mark.parametrize("trouble", [{"status": 500}, {"reset": True}, {"state": "ON_HOLIDAY"}])
def test_warning_about_a_query_has_the_traceparent_of_its_request(traced, trouble):
    traced.standin.switch(**trouble)
    traced.task("t", {"traceparent": TRACE})
    assert [entry["process"] for entry in lines(traced, TRACE) if entry["level"] == "warn"] == ["worker 0"]


def test_text_log_has_the_traceparent_at_the_end_of_the_line(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    stack.standin.switch(status=500)
    stack.task("t", {"traceparent": TRACE})
    assert stack.wait_log(" warn worker 0: upstream main: ").endswith(f" trace={TRACE}")
