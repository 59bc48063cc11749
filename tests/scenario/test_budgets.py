"""The limits of a team: upstream queries per minute, and waiting requests."""

import pytest

from helpers import step_until
from shipped import PROVIDERS
from teaming import bearer, given, link, refusal, teams_stack
from watching import EVEN, NATIVE, QUICK, SLOW, UNIFIED, Stream, end, run

LIMITED = (429, "rate_limited")
COUNTER = "taskproxy:#queries:"  # and the team's name


def budget_stack(make_stack, limit=3, workers=1, redis=True, **settings):
    """Teams of which "web" has a quota; all tasks have ended."""
    stack = teams_stack(make_stack, {"web": {"queries_per_minute": limit}}, redis=redis,
                        config={"workers": workers, **settings.pop("config", {})}, **settings)
    stack.standin.switch(state="SUCCESS")
    if redis:
        stack.wait_metric("redis_up", workers)
    return stack


def ask(stack, task, team="web", **headers):
    return stack.task(task, {**bearer(team), **headers})


def spend(stack, tasks="abc", team="web"):
    for task in tasks:
        assert ask(stack, task, team).status == 200


def assert_limited(answer, limit):
    """Asserts a 429 with the headers of draft-ietf-httpapi-ratelimit-headers; Retry-After is the end of the minute."""
    assert refusal(answer) == LIMITED
    assert (answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]) == (str(limit), "0")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["ratelimit-reset"] == answer.headers["retry-after"]


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "alone"])
def test_queries_over_the_quota_are_not_sent(make_stack, redis):
    stack = budget_stack(make_stack, redis=redis)
    spend(stack)
    for path in (NATIVE + "d", UNIFIED + "e"):
        assert_limited(stack.get(path, bearer("web")), 3)
    assert stack.standin.count() == 3
    metrics = stack.metrics()
    assert metrics.sum("rate_limited_total", limit="queries") == metrics.sum("rate_limited_total", team="web") >= 2
    assert metrics.sum("team_queries_total") == metrics.sum("team_queries_total", team="web") == 3


def test_query_that_times_out_in_the_queue_is_refunded(make_frozen):
    upstream = {"max_in_flight": 1, "timeout": "1s"}
    stack = budget_stack(make_frozen, redis=False, config={"upstreams": {"main": upstream}})
    with stack.standin.hold() as barrier:
        asked = stack.background(stack.get, "/v1/tasks?ids=sora/a,sora/b,sora/c", bearer("web"))
        barrier.wait_arrived(1)
        stack.step(1)
        step_until(stack, asked.done, "the answers", 0.001)  # the worker polls once more for an answer
        assert {task["status"] for task in asked.result().json()["tasks"]} == {504}
    assert stack.standin.count() == 1
    spend(stack, "de")
    assert_limited(ask(stack, "f"), 3)
    assert stack.metric("team_queries_total", team="web") == 3  # those that were sent


def test_cache_hits_are_free(make_stack):
    stack = budget_stack(make_stack)
    for _ in range(5):
        spend(stack)
    assert stack.standin.count() == 3 and ask(stack, "a").headers["x-cache"] == "HIT"


def test_snapshot_fetched_by_another_worker_is_free(make_stack):
    stack = budget_stack(make_stack, workers=2)
    for index in (0, 1):
        for task in "abc":
            stack.wait_until(lambda: stack.ask_worker(NATIVE + task, index, **given("web")).status == 200, what=task)
    assert stack.standin.count() == 3 and stack.redis.cli("GET", COUNTER + "web") == "3"


def test_shared_fetch_is_charged_to_the_team_that_started_it(make_stack):
    stack = budget_stack(make_stack)
    with stack.standin.hold("shared") as barrier:
        first = stack.background(ask, stack, "shared", "film")
        barrier.wait_arrived(1)
        others = [stack.background(ask, stack, "shared", "web") for _ in range(5)]
        stack.wait_metric("waiters", 6)
        barrier.release()
        assert {answer.result().status for answer in [first, *others]} == {200}
    spend(stack)  # all three are left
    assert_limited(ask(stack, "d"), 3)


def test_other_teams_are_not_limited_and_their_results_are_shared(make_stack):
    stack = budget_stack(make_stack)
    spend(stack)
    assert_limited(ask(stack, "d"), 3)
    assert ask(stack, "d", "film").status == 200
    assert ask(stack, "d").headers["x-cache"] == "HIT"
    assert stack.metric("team_queries_total", team="film") == 1  # it has no limit


def test_waiting_team_pays_when_the_starter_has_no_quota_left(make_stack):
    stack = budget_stack(make_stack, config={"redis": {"timeout": "10s"}})
    spend(stack, "ab")
    stack.redis.cli("SET", COUNTER + "web", 1000, "KEEPTTL")  # as if other workers had used it up
    stack.redis.freeze()
    asks = [stack.background(ask, stack, "joined", team) for team in ("web", "film")]
    stack.wait_metric("waiters", 2)
    stack.redis.thaw()
    assert [answer.result().status for answer in asks] == [200, 200]
    assert stack.standin.count("joined") == 1
    assert_limited(ask(stack, "c"), 3)


def test_workers_share_the_quota(make_stack):
    stack = budget_stack(make_stack, limit=10, workers=4)
    answers = [answer.result() for answer in [stack.background(ask, stack, f"t{number}") for number in range(40)]]
    assert sorted(answer.status for answer in answers) == 10 * [200] + 30 * [429]
    assert stack.standin.count() == 10


def test_quota_survives_a_reload(make_stack):
    stack = budget_stack(make_stack)
    spend(stack)
    stack.daemon.reload()
    stack.wait_metric("redis_up", 1)
    stack.wait_until(lambda: ask(stack, "d").status == 429, what="a worker that uses Redis")
    assert stack.standin.count() <= 4


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "alone"])
def test_quota_is_reset_each_minute(make_frozen, redis):
    stack = budget_stack(make_frozen, redis=redis)
    for _ in range(2):
        spend(stack)
        for seconds in (60, 1):
            answer = ask(stack, "d")
            assert_limited(answer, 3)
            assert answer.headers["retry-after"] == str(seconds)
            stack.step(59 if seconds == 60 else 1.001)
        stack.step(24 * 3600)  # no task is cached any more


def test_each_worker_counts_on_its_own_without_redis(make_stack):
    stack = budget_stack(make_stack)
    spend(stack, "ab")
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    spend(stack, "c")
    assert_limited(ask(stack, "d"), 3)
    assert ask(stack, "e", "film").status == 200


def test_wrong_type_in_place_of_the_count_is_harmless(make_stack):
    stack = budget_stack(make_stack)
    stack.redis.cli("SET", COUNTER + "web", "<no number>")
    spend(stack)
    assert_limited(ask(stack, "d"), 3)


def test_stale_answer_is_preferred_to_429(make_stack):
    stack = teams_stack(make_stack, {"web": {"queries_per_minute": 1}}, redis=False, providers=QUICK, config={"workers": 1})
    run(stack)
    spend(stack, "a")
    stack.wait_until(lambda: ask(stack, "a").headers["x-cache"] == "STALE", what="the task to be stale")
    answer = ask(stack, "a")
    assert answer.status == 200 and "detail=rate-limited" in answer.headers["cache-status"]
    assert int(answer.headers["retry-after"]) >= 1 and stack.standin.count() == 1
    assert ask(stack, "a", "film").headers["x-cache"] == "MISS"


def test_watching_is_charged_and_resumes_with_a_new_quota(make_frozen):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 3}}, redis=False, providers=EVEN, config={"workers": 1})
    run(stack)
    with Stream(stack, NATIVE + "a", **bearer("web")) as mine:
        mine.next()
        watch(stack, ("8%", "9%"), mine)
        with Stream(stack, NATIVE + "a", **bearer("film")) as theirs:
            theirs.next()
            watch(stack, ("10%", "11%", "12%"), mine, theirs)  # charged to the other team
            end(stack)
            stack.step(3)
            assert mine.next().data["data"]["status"] == theirs.next().data["data"]["status"] == "SUCCESS"
    assert [stack.metric("team_queries_total", team=team) for team in ("web", "film")] == [3, 4]


def watch(stack, changes, *streams):
    """Each change is found with one query."""
    for progress in changes:
        run(stack, progress)
        stack.step(3)
        assert {stream.next().data["data"]["progress"] for stream in streams} == {progress}


def test_second_query_is_charged_too(make_stack):
    assert "result" in PROVIDERS["fal"]
    stack = teams_stack(make_stack, {"web": {"queries_per_minute": 3, "providers": ["fal"]}}, every_provider=True,
                        config={"workers": 1})
    stack.wait_metric("redis_up", 1)
    stack.standin.switch(state="SUCCESS")
    path = "/v1/tasks/fal/fal-ai/pika/"
    assert [stack.get(path + task, bearer("web")).status for task in "abc"] == [200, 200, 429]
    assert stack.redis.cli("GET", COUNTER + "web") == "4"


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "alone"])
def test_retry_with_another_key_is_charged_and_stops_at_the_quota(make_stack, redis):
    stack = budget_stack(make_stack, limit=5, redis=redis)
    keys = [f"sk-of-account-{number}-{stack.key}" for number in range(8)]
    for number, key in enumerate(keys):
        stack.write_key(key, file=stack.folder / f"key-{number}")
    stack.standin.keys = set(keys)
    stack.standin.owners["t"] = "nobody"
    stack.configure(upstreams={"main": {"key_files": [str(stack.folder / f"key-{number}") for number in range(8)]}})
    stack.daemon.reload()
    assert_limited(ask(stack, "t"), 5)
    assert stack.standin.count() == 5
    assert stack.metric("upstream_unasked_total", reason="over_quota") == 1
    assert_limited(ask(stack, "another"), 5)
    assert stack.standin.count() == 5
    if redis:
        stack.wait_until(lambda: stack.redis.cli("GET", COUNTER + "web") == "5", what="the charges")


def test_queries_that_were_not_sent_are_free(make_stack):
    stack = budget_stack(make_stack, config={"upstreams": {"main": {"breaker_failures": 1, "breaker_pause": "1h"}}})
    stack.standin.switch(reset=True)
    assert ask(stack, "a").status == 502
    assert {ask(stack, f"b{number}").status for number in range(5)} == {503}
    stack.wait_until(lambda: stack.redis.cli("GET", COUNTER + "web") == "1", what="the charges that were given back")


def test_list_reports_the_quota_for_each_task(make_stack):
    stack = budget_stack(make_stack, limit=2)
    tasks = stack.get("/v1/tasks?ids=sora/a,sora/b,sora/c,sora/d", bearer("web")).json()["tasks"]
    assert sorted(task.get("code", task["status"]) for task in tasks) == ["rate_limited", "rate_limited", "succeeded", "succeeded"]


def test_teams_without_a_limit_are_not_counted(make_stack):
    stack = budget_stack(make_stack, limit=0)
    spend(stack, "abcdef")
    assert stack.redis.keys("*queries*") == []


# Waiting requests


def watcher_stack(make_stack, watchers=2):
    stack = teams_stack(make_stack, {"web": {"watchers": watchers}}, redis=False, providers=QUICK, config={"workers": 1})
    run(stack)
    spend(stack, "t")
    return stack


def hold(stack, team="web"):
    before = stack.metric("watched_tasks"), stack.metric("waiters")
    held = stack.background(stack.get, f"{NATIVE}t?wait=30", bearer(team))
    stack.wait_metric("waiters", before[1] + 1)
    stack.wait_metric("fetches", lambda fetches: fetches == 0)
    return held


@pytest.mark.parametrize("more", [
    lambda stack: stack.get(f"{NATIVE}t?wait=30", bearer("web")), lambda stack: stack.get(f"{UNIFIED}t?wait=1", bearer("web")),
    lambda stack: stack.get("/v1/tasks?ids=sora/t&wait=1", bearer("web")),
    lambda stack: stack.get(f"{NATIVE}t?wait=1&{link('sora/t')}"),
], ids=["native", "unified", "list", "link"])
def test_requests_over_the_watcher_limit_are_not_held(make_stack, more):
    stack = watcher_stack(make_stack)
    held = [hold(stack), hold(stack)]
    answer = more(stack)
    assert_limited(answer, 2)
    assert answer.headers["retry-after"] == "1"
    assert stack.metric("rate_limited_total", team="web", limit="watchers") == 1
    assert stack.metric("team_held_requests", team="web") == 2
    assert ask(stack, "t").status == 200  # a request without wait is not limited
    other = hold(stack, "film")
    end(stack)
    assert {answer.result().status for answer in [*held, other]} == {200}
    stack.wait_metric("team_held_requests", lambda held: held == 0)


def test_stream_over_the_watcher_limit_ends_at_once_and_reconnects(make_stack):
    stack = watcher_stack(make_stack, 1)
    held = hold(stack)
    with Stream(stack, NATIVE + "t", **bearer("web")) as stream:
        (event,) = stream.rest()
    assert (event.type, event.data["code"], event.data["retry_after"]) == ("problem", "rate_limited", 1)
    assert 1000 <= stream.retries[0] <= 2000
    assert stack.metric("rate_limited_total", team="web", limit="watchers") == 1
    end(stack)
    assert held.result().status == 200
    with Stream(stack, NATIVE + "t", **bearer("web")) as stream:
        assert [event.type for event in stream.rest()] == ["status"]


def test_stream_without_queries_is_stale_until_the_next_minute(make_frozen):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 2}}, redis=False, providers=EVEN)
    run(stack)
    with Stream(stack, NATIVE + "t", **bearer("web")) as stream:
        views = [stream.next()]
        for progress in ("8%", "9%"):
            run(stack, progress)
            stack.step(3)
            views.append(stream.next())
        assert [event.type for event in views] == ["status", "status", "stale"]
        assert (views[2].data["code"], views[2].data["task_id"]) == ("rate_limited", "t")
        assert 50 <= views[2].data["retry_after"] <= 57
        stack.step(30)  # said once: then come only comments
        stack.step(30)
        assert stream.next().data["data"]["progress"] == "9%"
    assert stack.standin.count() == 3


def test_stream_of_an_unseen_task_waits_for_the_next_minute(make_frozen):
    stack = budget_stack(make_frozen, limit=2, redis=False)
    spend(stack, "ab")
    with Stream(stack, NATIVE + "c", **bearer("web")) as stream:
        event = stream.next()
        assert (event.type, event.data["code"]) == ("problem", "rate_limited")
        stack.step(event.data["retry_after"] + 1)
        assert [event.type for event in stream.rest()] == ["status"]
    assert stack.standin.count() == 3


def test_team_with_queries_left_keeps_the_streams_of_others_fresh(make_frozen):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 1}}, redis=False, providers=EVEN)
    run(stack)
    streams = [Stream(stack, NATIVE + "t", **bearer(team)) for team in ("web", "film")]
    assert {stream.next().type for stream in streams} == {"status"}
    run(stack, "8%")
    stack.step(3)
    assert {stream.next().data["data"]["progress"] for stream in streams} == {"8%"}
    for stream in streams:
        stream.close()


def after_twenty_guesses(stack):
    for number in range(20):
        stack.task("t", {"Authorization": f"Bearer guess-{number}"})
    return stack.task("t?wait=30", {"Authorization": "Bearer guess"})


def over_the_queries(stack):
    spend(stack, "ab")
    return ask(stack, "c?wait=30")


def over_the_watchers(stack):
    spend(stack, "t")
    hold(stack)
    return ask(stack, "t?wait=30")


@pytest.mark.parametrize("refused, status", [
    (lambda stack: stack.task("t?wait=30"), 401), (lambda stack: ask(stack, "t?wait=30", "film"), 403),
    (lambda stack: stack.task(f"u?wait=30&{link('sora/t')}"), 403), (lambda stack: ask(stack, "missing?wait=30"), 404),
    (after_twenty_guesses, 429), (over_the_queries, 429), (over_the_watchers, 429),
    (lambda stack: stack.get("/v1/tasks?ids=&wait=30", bearer("web")), 400),
], ids=["token", "provider", "link", "missing", "throttled", "queries", "watchers", "ids"])
def test_refusal_of_a_wait_has_no_preference_applied(make_stack, refused, status):
    stack = teams_stack(make_stack, {"web": {"watchers": 1, "queries_per_minute": 2}, "film": {"providers": ["fal"]}},
                        redis=False, every_provider=True, providers=SLOW, config={"workers": 1}, port=0)
    run(stack)
    answer = refused(stack)
    assert (refusal(answer)[0], answer.headers.get("preference-applied")) == (status, None)


def test_departed_watcher_frees_its_slot(make_stack):
    stack = watcher_stack(make_stack, 1)
    with Stream(stack, NATIVE + "t", **bearer("web")) as stream:
        stream.next()
        assert_limited(stack.get(f"{NATIVE}t?wait=1", bearer("web")), 1)
    stack.wait_metric("streams", lambda streams: streams == 0)
    held = hold(stack)
    end(stack)
    assert held.result().status == 200
    assert stack.get(f"{NATIVE}u?wait=1", bearer("web")).status == 200
