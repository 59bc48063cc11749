"""/v1/tasks/PROVIDER/ID/content/N redirects to the results of a task."""

import json
import re

import pytest

from teaming import TEAMS, bearer, link, one_stack, refusal, teams_stack
from watching import UNIFIED, end, hold, run

shared = pytest.fixture(scope="module")(one_stack)  # all tasks have ended


def content(task, number=0) -> str:
    return f"{UNIFIED}{task}/content/{number}"


def results(stack, task, headers=None) -> list:
    return stack.get(UNIFIED + task, headers).json()["results"]


def test_each_result_redirects_to_its_url(shared):
    rows = results(shared, "t", bearer("web"))
    assert [row["content"] for row in rows] == [content("t", n) for n in range(len(rows))] and len(rows) > 1
    for row in rows:
        for method in ("GET", "HEAD"):
            answer = shared.get(row["content"], bearer("web"), method)
            assert (answer.status, answer.headers["location"], answer.body) == (302, row["url"], b"")
    assert shared.standin.count("t") == 1  # the same worker has all of them in memory


def test_link_for_the_task_is_valid_for_its_results(shared):
    assert shared.get(f"{content('t')}?{link('sora/t')}").status == 302
    assert shared.get(f"{content('t', 1)}?{link('sora/t')}").status == 302
    assert refusal(shared.get(f"{content('u')}?{link('sora/t')}")) == (403, "forbidden")
    assert refusal(shared.get(f"{content('t')}?{link('sora/t/content/0')}")) == (403, "forbidden")
    assert refusal(shared.get(content("t"))) == (401, "unauthorized")


def test_page_of_the_team_may_follow_the_redirect(shared):
    answer = shared.get(content("t"), {**bearer("web"), "Origin": TEAMS["web"]["origins"][0]})
    assert answer.headers["access-control-allow-origin"] == TEAMS["web"]["origins"][0]


def test_access_log_has_the_path_without_the_link(shared):
    shared.get(f"{content('logged', 1)}?{link('sora/logged')}")
    log = shared.folder / "access.log"
    line = shared.wait_until(lambda: re.search(r'.*"GET /v1/tasks/sora/logged/content/1 .*', log.read_text()), what="the line")[0]
    assert " 302 " in line and "team=web" in line and "sig=" not in line


def test_requests_are_counted_by_provider_mode_and_code(make_stack):
    stack = make_stack(redis=False)
    stack.standin.switch("good", state="SUCCESS")
    stack.standin.switch("bad", state="FAILURE")
    run(stack, task_id="runs")
    for task, number, outcome in (("good", 0, 302), ("good", 99, (404, "content_not_found")), ("bad", 0, (404, "content_not_found")),
                                  ("runs", 0, (409, "content_not_ready")), ("missing", 0, (404, "task_not_found"))):
        answer = stack.get(content(task, number))
        assert (answer.status if outcome == 302 else refusal(answer)) == outcome
    assert "retry-after" in stack.get(content("runs")).headers
    stack.wait_metric("content_requests_total", 1, provider="sora", mode="redirect", code="302")
    stack.wait_metric("content_requests_total", 3, provider="sora", mode="none", code="404")
    stack.wait_metric("content_requests_total", 2, provider="sora", mode="none", code="409")


def test_request_may_wait_for_the_result(make_stack):
    stack = make_stack(config={"workers": 1}, redis=False, providers={"sora": {"poll": {"min": "100ms", "max": "100ms"}}})
    run(stack)
    held = hold(stack, ("t/content/0?wait=60", {"Accept": "text/event-stream", "If-None-Match": "*"}), path=UNIFIED)
    end(stack)
    answer = held[0].result()
    assert (answer.status, answer.headers["preference-applied"]) == (302, "wait=60")
    assert answer.headers["location"] == results(stack, "t")[0]["url"]


def test_url_that_is_about_to_expire_is_fetched_again_first(make_frozen):
    stack = make_frozen(redis=False)
    stack.standin.switch("t", state="SUCCESS", expires=stack.clock.time() + 1000)
    first = stack.get(content("t"))
    assert (first.status, first.headers["cache-control"]) == (302, "private, max-age=1000")
    stack.step(930)
    assert stack.get(content("t")).headers["cache-control"] == "private, max-age=70"
    assert stack.standin.count("t") == 1

    stack.step(20)
    stack.standin.switch("t", expires=stack.clock.time() + 5000)
    second = stack.get(content("t"))
    assert (second.status, second.headers["cache-control"]) == (302, "private, max-age=5000")
    assert second.headers["location"] != first.headers["location"]
    assert stack.standin.count("t") == 2


def test_expired_url_is_fetched_once_and_then_gone(make_frozen):
    stack = make_frozen(redis=False)
    stack.standin.switch("t", state="SUCCESS", expires=stack.clock.time() - 10)
    for _ in range(3):
        assert refusal(stack.get(content("t"))) == (410, "content_expired")
    assert stack.standin.count("t") == 1
    stack.standin.switch("t", status=500)
    stack.step(61)
    assert refusal(stack.get(content("t"))) == (502, "upstream_error")  # the upstream may have a new URL


@pytest.mark.parametrize("url, outcome", [
    ("javascript://x/%0aalert(1)", (502, "upstream_invalid")),
    ("https://x/\r\nX-Accel-Redirect: /status\r\n\r\n<script>", "https://x/%0D%0AX-Accel-Redirect:%20/status%0D%0A%0D%0A%3Cscript%3E"),
], ids=["script", "header"])
def test_hostile_url_is_harmless(make_stack, url, outcome):
    stack = make_stack(redis=False)
    document = {"code": "success", "data": {"status": "SUCCESS", "data": {"generations": [{"url": url}]}}}
    stack.standin.switch(raw=json.dumps(document))
    answer = stack.get(content("t"))
    assert (answer.headers["location"] if answer.status == 302 else refusal(answer)) == outcome


def test_result_of_another_team_does_not_exist(make_stack):
    stack = teams_stack(make_stack, access={"ownership": "first-reader"})
    stack.standin.switch(state="SUCCESS")
    assert stack.get(content("t"), bearer("web")).status == 302
    assert refusal(stack.get(content("t"), bearer("film"))) == (404, "task_not_found")
    assert refusal(stack.get(content("t", 99), bearer("film"))) == (404, "task_not_found")


def test_route_without_a_unified_path_has_no_references(make_stack):
    second = {"provider": "sora", "upstream": "main", "path": "/second/{task_id}"}
    stack = make_stack(daemon=False, nginx=False, redis=False)
    stack.configure(upstreams={"other": stack.config["upstreams"]["main"]},
                    routes=[*stack.config["routes"], {**second, "upstream": "other"}])
    stack.daemon.start()
    stack.nginx.start()
    stack.standin.switch(state="SUCCESS")
    answer = stack.get("/second/t", {"Prefer": "view=unified"})
    assert {row["content"] for row in answer.json()["results"]} == {None}
    assert results(stack, "t")[0]["content"] == content("t")
