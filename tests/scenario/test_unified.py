"""The unified view, and lists of tasks in one request."""

from helpers import time_out
from shipped import PROVIDERS, UNIFIED_VIEW, record

QUICK = {name: {"poll": {"min": "100ms", "max": "100ms"}} for name in PROVIDERS}
OWN_PARTS = {"fal": "fal-ai/pika/", "fal-workflows": "workflows/acme/film/", "kling": "text2video/", "kling-official": "image2video/", 
             "veo": "veo-3.0-generate-001/"}


def named(provider: str, bare_id: str) -> str:
    return f"{provider}/{OWN_PARTS.get(provider, '')}{bare_id}"


def ask(stack, names: list, headers: dict | None = None, method: str = "GET"):
    return stack.get("/v1/tasks?ids=" + ",".join(names), headers, method)


def tasks(answer) -> list:
    assert answer.status == 200
    assert answer.json().keys() == {"tasks"}
    return answer.json()["tasks"]


def codes(answer) -> list:
    """The result for each task: its status, or the code of its problem."""
    return [task.get("code") or task["status"] for task in tasks(answer)]


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def test_tasks_of_every_provider_pass_through_the_same_states(make_stack):
    stack = make_stack(every_provider=True, providers=QUICK, task_seconds=1000)
    names = [named(provider, str(1000 + i)) for i, provider in enumerate(PROVIDERS)]

    def all_are(state, *but_for):
        answer = ask(stack, names)
        assert [f"{task['provider']}/{task['task_id']}" for task in tasks(answer)] == names
        for task in tasks(answer):
            UNIFIED_VIEW.validate(task)
        return {t["provider"] for t in tasks(answer) if t["status"] != state} <= {*but_for} and tasks(answer)

    stack.wait_until(lambda: all_are("queued", "veo", "xai"), what="all to be queued")  # for which these have no status
    stack.standin.advance(500)
    stack.wait_until(lambda: all_are("running", "pika-feed"), what="all to run")  # nor has this provider of that
    stack.standin.advance(600)
    ended = stack.wait_until(lambda: all_are("succeeded"), what="all to succeed")
    assert all(task["results"] for task in ended)

    queries = stack.standin.count()
    for name, task in zip(names, ended):
        assert stack.get("/v1/tasks/" + name).json() == task
    assert stack.standin.count() == queries  # another worker found it in Redis


def test_failed_and_missing_tasks_look_alike_for_every_provider(make_stack):
    stack = make_stack(every_provider=True, task_seconds=0)
    failing = [named(provider, "500" if provider == "pixverse" else "will-fail") for provider in PROVIDERS]
    missing = [named(provider, "404" if provider == "pixverse" else "missing") for provider in PROVIDERS]
    failed = tasks(ask(stack, failing))
    for task in failed:
        UNIFIED_VIEW.validate(task)
    assert {task["status"] for task in failed} == {"failed"}
    assert {task["provider"] for task in failed if not task["error"]} == {"pixverse", "zhipu"}  # gives no reason
    assert set(codes(ask(stack, missing))) == {"task_not_found"}


def test_new_apis_own_tasks_path_can_be_served_beside_ours(make_stack):
    """new-api has /v1/tasks/KEY, as Runway has: a route's path gives it another name here."""
    tasks_at = {"path": "/newapi/v1/tasks/{task_id}", "upstream_path": "/v1/tasks/{task_id}"}
    stack = make_stack(every_provider=True, redis=False, daemon=False, nginx=False)
    stack.configure(routes=[{**route, **(tasks_at if route["provider"] == "newapi" else {})} for route in stack.config["routes"]])
    stack.daemon.start()
    stack.nginx.start()
    for number, case in ((7, "running"), (8, "succeeded")):
        expected = record(stack, "newapi", case, f"90{number}")
        native, unified = stack.get(f"/newapi/v1/tasks/90{number}"), stack.get(f"/v1/tasks/newapi/90{number}")
        assert (native.json(), unified.json()) == (expected["native"], expected["unified"])
        assert tasks(ask(stack, [f"newapi/90{number}"])) == [expected["unified"]]
        assert {query.target for query in stack.standin.seen(f"90{number}")} == {f"/v1/tasks/90{number}"}
    assert stack.get("/v1/tasks/17").json()["id"] == "17"  # Runway's native path is that of new-api
    assert stack.get("/v1/tasks/runway/17").json()["provider"] == "runway"
    for path in ("/v1/tasks/907/artifacts/video/content", "/v1/tasks/907/artifacts"):
        assert outcome(stack.get(path)) == (404, "not_found")


# Lists


def test_hundred_tasks_are_answered_in_order_with_one_query_each(stack):
    names = [f"sora/t{i * 37 % 100}" for i in range(100)]
    stack.standin.switch(state="IN_PROGRESS")
    answer = ask(stack, names)
    assert [f"sora/{task['task_id']}" for task in tasks(answer)] == names
    assert stack.standin.count() == 100
    assert set(stack.standin.counts()["tasks"].values()) == {1}
    assert outcome(ask(stack, [*names, "sora/one-more"])) == (400, "bad_request")
    assert stack.standin.count() == 100


def test_duplicate_is_answered_twice_with_one_query(stack):
    with stack.standin.hold() as barrier:
        answer = stack.background(ask, stack, ["sora/a", "sora/b", "sora/a", "sora/missing", "sora/missing", "sora/a"])
        barrier.wait_arrived(3)
    first, b, second, *missing, third = tasks(answer.result())
    assert first == second == third and first["task_id"] == "a" and b["task_id"] == "b"
    assert [task["code"] for task in missing] == ["task_not_found"] * 2
    assert stack.standin.counts()["tasks"] == {"a": 1, "b": 1, "missing": 1}


def test_each_task_in_a_list_has_its_own_outcome(make_frozen):
    stack = make_frozen(config={"upstreams": {"main": {"timeout": "2s"}}})
    stack.standin.switch("good", state="SUCCESS")
    stack.standin.switch("bad", status=500)
    stack.standin.switch("html", garbage=True)
    stack.standin.switch("hanging", hang=True)
    names = ["sora/bad", "sora/good", "sora/html", "sora/missing", "sora/hanging", "nobody/x", "sora/a%20b", "sora", "sora/", "/x"]
    asked = stack.background(ask, stack, names)
    stack.wait_metric("upstream_outcomes_total", 4)
    time_out(stack, 2, asked)
    answer = asked.result()
    assert codes(answer) == [
        "upstream_error", "succeeded", "upstream_invalid", "task_not_found", "upstream_timeout", "not_found", "bad_request",
        "not_found", "bad_request", "not_found",
    ]
    for task in tasks(answer):
        if "code" in task:
            assert task["status"] == {"upstream_timeout": 504, "bad_request": 400}.get(task["code"], task["status"])
            assert task["message"] == task["error"]["message"] == task["detail"]
            assert task["request_id"] == answer.headers["x-request-id"] or "request_id" not in task
        else:
            UNIFIED_VIEW.validate(task)


def test_slow_task_does_not_hold_back_known_ones(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    with stack.standin.hold("slow") as barrier:
        answer = stack.background(ask, stack, ["sora/slow", *(f"sora/quick{i}" for i in range(20))])
        barrier.wait_arrived(1)
        stack.wait_metric("upstream_in_flight", lambda value: value == 1)
        assert stack.task("quick7").headers["x-cache"] == "HIT"  # while the slow one still hangs
        assert not answer.done()
    assert set(codes(answer.result())) == {"succeeded"}


def test_missing_or_empty_ids_are_a_bad_request(stack):
    for query in ("", "?", "?ids", "?ids=", "?ids=,", "?ids=sora/a,", "?ids=,sora/a", "?ids=sora/a,,sora/b", "?id=sora/a",
                  "?ids=%zz", "?ids=sora/a%00", "?ids=" + "x" * 6000 + "," * 101):
        assert outcome(stack.get("/v1/tasks" + query)) == (400, "bad_request"), query
    assert outcome(stack.get("/v1/tasks/")) == (404, "not_found")
    assert stack.standin.count() == 0


def test_ids_may_be_percent_encoded(stack):
    stack.standin.switch(state="IN_PROGRESS")
    assert [task["task_id"] for task in tasks(stack.get("/v1/tasks?a=b&ids=sora%2Fx%2Csora/y"))] == ["x", "y"]


def test_tasks_in_memory_are_not_queried(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    stack.task("known")
    ask(stack, ["sora/known", "sora/new"])
    assert stack.standin.counts()["tasks"] == {"known": 1, "new": 1}
    ask(stack, ["sora/new", "sora/known"])
    assert stack.standin.count() == 2


def test_list_reports_its_cache_status(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    first, second = ask(stack, ["sora/a", "sora/b"]), ask(stack, ["sora/b", "sora/a"])
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.headers["cache-status"].startswith("taskproxy; fwd=miss")
    assert second.headers["cache-status"].startswith("taskproxy; hit")


def test_retry_after_of_a_list_is_the_earliest_of_its_tasks(make_frozen):
    stack = make_frozen(every_provider=True, config={"workers": 1})
    stack.standin.switch("ended", state="SUCCESS")
    stack.standin.switch("running", state="IN_PROGRESS")
    mixed = ask(stack, ["sora/ended", "sora/running", "runway/running"])  # polled every 2 s and every 5 s
    assert mixed.headers["cache-control"] == "private, no-cache"
    assert mixed.headers["retry-after"] == "2"
    assert "retry-after" not in ask(stack, ["sora/ended"]).headers


def test_unchanged_list_is_a_304_even_with_problems(make_stack):
    stack = make_stack(providers=QUICK)
    stack.standin.switch("running", state="IN_PROGRESS", progress="7%")
    names = ["sora/running", "sora/missing", "nobody/x"]
    etag = ask(stack, names).headers["etag"]
    again = ask(stack, names, {"If-None-Match": etag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert ask(stack, names[:2], {"If-None-Match": etag}).status == 200
    stack.standin.switch("running", progress="8%")
    news = stack.wait_until(lambda: (a := ask(stack, names, {"If-None-Match": etag})).status == 200 and a, what="a changed list")
    assert tasks(news)[0]["progress"] == 8


def test_head_and_other_methods(stack):
    stack.standin.switch("t", state="SUCCESS")
    head, get = ask(stack, ["sora/t"], method="HEAD"), ask(stack, ["sora/t"])
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body))
    assert head.headers["etag"] == get.headers["etag"]
    refused = ask(stack, ["sora/t"], method="DELETE")
    assert (outcome(refused), refused.headers["allow"]) == ((405, "method_not_allowed"), "GET, HEAD")


# Single tasks


def test_unified_path_takes_all_parts_of_an_id_in_order(make_stack):
    stack = make_stack(every_provider=True)
    stack.standin.switch(state="IN_PROGRESS")
    assert stack.get("/v1/tasks/fal/fal-ai/pika/abc").json()["task_id"] == "fal-ai/pika/abc"
    assert stack.standin.seen()[-1].target == "/fal-ai/pika/requests/abc/status"
    assert stack.get("/v1/tasks/minimax/42").json()["task_id"] == "42"
    assert stack.standin.seen()[-1].target == "/v1/query/video_generation?task_id=42"
    queries = stack.standin.count()
    for bad in ("fal/abc", "fal/fal-ai/abc", "fal/a/b/c/d", "fal/fal-ai%2Fpika/abc", "kling/dance/1", "kling/1", "sora/a/b", "veo/a/"):
        assert outcome(stack.get("/v1/tasks/" + bad)) == (400, "bad_request"), bad
    for nobody in ("nobody/abc", "Sora/abc", "nobody/"):
        assert outcome(stack.get("/v1/tasks/" + nobody)) == (404, "not_found"), nobody
    assert stack.standin.count() == queries


def test_both_views_come_from_one_query_with_different_etags(stack):
    stack.standin.switch("t", state="SUCCESS")
    native, unified = stack.task("t"), stack.get("/v1/tasks/sora/t")
    assert (native.headers["x-cache"], unified.headers["x-cache"]) == ("MISS", "HIT")
    assert native.headers["etag"] != unified.headers["etag"]
    assert stack.get("/v1/tasks/sora/t", {"If-None-Match": unified.headers["etag"]}).status == 304
    assert stack.get("/v1/tasks/sora/t", {"If-None-Match": native.headers["etag"]}).status == 200
    assert stack.standin.count() == 1
