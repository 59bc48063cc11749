"""Ownership "first-reader": a task belongs to the first team that reads it."""

import functools
import hashlib
import json
import random
import re
import threading

import pytest

from helpers import put, redis_key, rejecting_writes, time_out, use_documented_rights, wait_stored
from parts import ROOT, Answer, headers_of
from recorded import ANSWERS, read_answer
from stack import merged, read_json
from teaming import bearer, given, refusal, teams_stack
from watching import EVEN, NATIVE, QUICK, UNIFIED, Stream, begin, hold, run

NOT_THERE = (404, "task_not_found")
PROVIDERS = ROOT / "conf" / "providers"


def owning_stack(make_stack, workers=1, config=None, **settings):
    stack = teams_stack(make_stack, access={"ownership": "first-reader"}, **settings,
                        config=merged({"workers": workers}, config or {}))
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", workers)
    return stack


def ask(stack, task, team, path=NATIVE, **headers):
    return stack.get(path + task, {**bearer(team), **headers})


def test_task_belongs_to_its_first_reader(make_stack):
    stack = owning_stack(make_stack)
    assert ask(stack, "t", "web").status == 200
    for path in (NATIVE, UNIFIED):
        assert refusal(ask(stack, "t", "film", path)) == NOT_THERE
        assert ask(stack, "t", "web", path).status == 200
    assert ask(stack, "u", "film").status == 200 and refusal(ask(stack, "u", "web")) == NOT_THERE


def owner_key(identity, account="main"):
    return f"taskproxy:{account}:{hashlib.sha256(identity.encode()).hexdigest()[:32]}#owner"


def days_left(stack, identity):
    return int(stack.redis.cli("TTL", owner_key(identity))) / 86400


def test_owner_is_stored_in_redis_for_a_month(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "t", "web")
    assert stack.redis.cli("GET", owner_key("t")) == "web"
    assert 29 < days_left(stack, "t") <= 30


def test_owner_that_keeps_asking_stays_the_owner(make_stack):
    """With exactly the rights in Redis that the manual names."""
    stack = teams_stack(make_stack, access={"ownership": "first-reader"}, daemon=False, clock=True, config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    use_documented_rights(stack)
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_metric("redis_up", 1)
    for _ in range(4):
        assert ask(stack, "t", "web").status == 200
        assert days_left(stack, "t") > 29
        stack.step(14 * 86400)
        stack.wait_metric("redis_up", 1)
    stack.daemon.reload()
    stack.wait_metric("redis_up", 1)
    assert refusal(ask(stack, "t", "film")) == NOT_THERE
    assert days_left(stack, "t") < 17  # only the owner renews it
    assert ask(stack, "t", "web").status == 200
    assert stack.redis.cli("ACL", "LOG") == "" and "NOPERM" not in stack.daemon.log()


def test_claim_is_renewed_daily_not_at_every_request(make_stack):
    stack = owning_stack(make_stack, clock=True)
    stack.clock.freeze()
    ask(stack, "t", "web")

    def scripts():
        return int(re.search(r"cmdstat_eval:calls=(\d+)", stack.redis.cli("INFO", "commandstats"))[1])

    before = scripts()
    assert [ask(stack, "t", "web").status for _ in range(10)] == 10 * [200]
    assert scripts() == before
    stack.step(86400 - 7200)
    assert [ask(stack, "t", team).status for team in ("web", "film")] == [200, 404]
    assert days_left(stack, "t") < 29.1
    stack.step(7200)
    assert [ask(stack, "t", team).status for team in ("film", "web")] == [404, 200]  # a refusal renews nothing
    assert days_left(stack, "t") > 29.9


def test_workers_agree_on_the_owner_even_after_a_reload(make_stack):
    stack = owning_stack(make_stack, workers=4)
    ask(stack, "t", "film")
    assert {refusal(stack.ask_worker(NATIVE + "t", index, **given("web"))) for index in range(4)} == {NOT_THERE}
    stack.daemon.reload()
    stack.wait_metric("redis_up", 4)
    assert {refusal(stack.ask_worker(NATIVE + "t", index, **given("web"))) for index in range(4)} == {NOT_THERE}


@pytest.mark.problem("Redis is full")
@pytest.mark.parametrize("error", ["OOM", "MISCONF", "NOREPLICAS"])
def test_redis_that_rejects_writes_still_knows_the_owner_and_gives_no_new_task_away(make_stack, error):
    stack = owning_stack(make_stack)
    assert ask(stack, "t", "web").status == 200
    with rejecting_writes(stack, error):
        stack.daemon.reload()
        stack.wait_metric("redis_up", 1)
        assert refusal(ask(stack, "t", "film")) == NOT_THERE
        assert ask(stack, "t", "web").status == 200
        assert {refusal(ask(stack, "new", team)) for team in ("film", "web")} == {(503, "overloaded")}
    stack.wait_until(lambda: ask(stack, "new", "film").status == 200, what="the first team's claim")
    assert refusal(ask(stack, "new", "web")) == NOT_THERE


@pytest.mark.parametrize("error", ["READONLY", "MASTERDOWN"])
def test_replica_gives_no_task_away(make_stack, error):
    stack = owning_stack(make_stack, workers=2)
    assert stack.ask_worker(NATIVE + "t", 0, **given("web")).status == 200
    with rejecting_writes(stack, error):
        for team in ("film", "web"):  # worker 1 does not know that the task is web's
            assert refusal(stack.ask_worker(NATIVE + "t", 1, **given(team))) == (503, "overloaded")
        assert {refusal(ask(stack, "new", team)) for team in ("film", "web")} == {(503, "overloaded")}
        assert [stack.ask_worker(NATIVE + "t", 0, **given(team)).status for team in ("film", "web")] == [404, 200]
    stack.wait_metric("redis_up", 2)
    assert refusal(stack.ask_worker(NATIVE + "t", 1, **given("film"))) == NOT_THERE
    assert stack.ask_worker(NATIVE + "t", 1, **given("web")).status == 200
    assert ask(stack, "new", "film").status == 200 and refusal(ask(stack, "new", "web")) == NOT_THERE


def test_one_of_many_concurrent_teams_becomes_the_owner(make_stack):
    stack = owning_stack(make_stack, workers=2)
    asks = [stack.background(ask, stack, "t", team) for team in 20 * ["web", "film"]]
    statuses = [answer.result().status for answer in asks]
    assert {(*statuses[::2],), (*statuses[1::2],)} == {20 * (200,), 20 * (404,)}


# What the others see


def seen(answer) -> tuple:
    """All of the answer that is not its own: no time of day and no id of the request."""
    own = {"date", "x-request-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return answer.status, headers, re.sub(rb'(?<="request_id":")\w+', b"", answer.body)


def seen_stream(stack, path, headers) -> tuple:
    """The same of an event stream: its first event, if it is not refused."""
    with Stream(stack, path, **headers) as stream:
        head = stream.response
        streams = head.getheader("Content-Type") == "text/event-stream"
        body = repr(stream.next()).encode() if streams else head.read()
        answer = seen(Answer(head.status, headers_of(head), body))
    stack.wait_metric("streams", lambda streams: streams == 0)
    return answer[0], answer[1], re.sub(rb"'request_id': '\w+'", b"", answer[2])


PATHS = {"native": NATIVE + "{}", "unified": UNIFIED + "{}", "wait": NATIVE + "{}?wait=30", "list": "/v1/tasks?ids=sora/{}",
         "waiting-list": "/v1/tasks?ids=sora/{}&wait=30"}


@pytest.mark.parametrize("state", ["SUCCESS", "IN_PROGRESS"])
@pytest.mark.parametrize("path, method, headers", [
    *((path, "GET", {}) for path in PATHS), ("native", "HEAD", {}), ("native", "GET", {"If-None-Match": "*"}),
    ("native", "GET", {"Accept": "text/event-stream"}), ("native", "GET", {"Prefer": "view=unified"})])
def test_foreign_task_cannot_be_told_from_a_missing_one(make_stack, path, method, headers, state):
    stack = owning_stack(make_stack, clock=True)
    stack.standin.switch(state=state)
    stack.clock.freeze()
    assert ask(stack, "foreign", "web").status == 200

    def answers_for(task):
        """Asked twice, and again when everything in the cache is old."""
        for step in (0, 0, 30):
            stack.step(step)
            yield seen(stack.get(PATHS[path].format(task), {**bearer("film"), **headers}, method))

    missing = [*answers_for("missing")]
    assert [*answers_for("foreign")] == missing and missing[0] == missing[1] == missing[2]
    assert missing[0][0] == (200 if "ids" in PATHS[path] else 404)


def test_random_requests_do_not_tell_a_foreign_task_from_a_missing_one(make_stack):
    """The same requests for both, with pauses between them; sometimes the upstream has forgotten the other team's task."""
    choose = random.Random(12)
    stack = owning_stack(make_stack, clock=True, teams={"film": {"queries_per_minute": 3}})
    stack.clock.freeze()
    headers = [{}, {}, {"If-None-Match": "*"}, {"Accept": "text/event-stream"}, {"Prefer": "wait=5, view=unified"}]
    for number in range(20):
        foreign, missing = f"foreign_{number}", f"missing_{number}"
        stack.standin.switch(foreign, state=choose.choice(["SUCCESS", "IN_PROGRESS", "FAILURE", "NEW"]))
        assert ask(stack, foreign, "web").status == 200
        if choose.random() < 0.3:
            stack.standin.switch(foreign, status=404)
        age = choose.choice([0, 1, 30, 70, 700])
        requests = [(choose.choice(list(PATHS.values())), choose.choice(["GET", "GET", "HEAD", "OPTIONS"]), choose.choice(headers),
                     choose.choice([0, 0, 1, 5, 31])) for _ in range(8)]
        by_task = {}
        for task in choose.sample([foreign, missing], 2):
            by_task[task] = []
            for path, method, more, pause in requests:
                stack.step(pause if by_task[task] else 61 + age + pause)
                streams = method == "GET" and "Accept" in more
                by_task[task].append(seen_stream(stack, path.format(task), {**bearer("film"), **more}) if streams else
                                     seen(stack.get(path.format(task), {**bearer("film"), **more}, method)))
        # the task's own name, in a problem of a stream
        named = {task: repr(by_task[task]).replace(task, "") for task in (foreign, missing)}
        assert named[foreign] == named[missing], requests


def test_concurrent_requests_do_not_tell_a_foreign_task_from_a_missing_one(make_stack):
    stack = owning_stack(make_stack)
    answers_of = {}
    for task in ("foreign", "missing"):
        with stack.standin.hold(task) as barrier:
            owner = stack.background(ask, stack, task, "web")
            barrier.wait_arrived(1)
            collapsed = stack.metric("collapsed_total")
            other = stack.background(ask, stack, task, "film")
            stack.wait_metric("collapsed_total", collapsed + 1)
        owner.result()
        answers_of[task] = seen(other.result())
    assert answers_of["foreign"] == answers_of["missing"]


def test_failing_upstream_does_not_tell_a_foreign_task_from_a_missing_one(make_stack):
    stack = owning_stack(make_stack, clock=True, providers={"sora": {"poll": {"min": "2s", "max": "60s"}}})
    run(stack)
    stack.clock.freeze()
    assert ask(stack, "foreign", "web").status == 200
    stack.step(400)  # the task is old by now, and so is its interval
    stack.standin.switch(status=500)
    missing, foreign = ([seen(ask(stack, task, "film")) for _ in range(3)] for task in ("missing", "foreign"))
    assert foreign == missing and {status for status, _, _ in foreign} == {502}
    assert ask(stack, "foreign", "web").headers["x-cache"] == "STALE"


def test_stream_that_recovers_does_not_tell_a_foreign_task_from_a_missing_one(make_stack):
    """The view comes before the reply from Redis, which knows the owner, and must not be sent meanwhile."""
    stack = owning_stack(make_stack, clock=True, providers=EVEN)
    run(stack, task_id="foreign")
    assert ask(stack, "foreign", "web").status == 200
    stack.daemon.reload()  # the new worker does not know the owner
    stack.wait_metric("redis_up", 1)
    stack.clock.freeze()
    stack.redis.cli("DEL", redis_key(stack, "foreign"))
    told = {}
    for task in ("foreign", "missing"):
        stack.standin.switch(task, status=500)
        with Stream(stack, NATIVE + task, **bearer("film")) as stream:
            events = [stream.next()]
            stack.standin.clear()
            run(stack, task_id="foreign")
            stack.step(3)
            events += stream.rest()
        told[task] = [(event.type, event.data["code"]) for event in events]
    assert told["foreign"] == told["missing"] == [("problem", "upstream_error"), ("problem", "task_not_found")]


@pytest.mark.parametrize("path", ["native", "list"])
def test_budget_does_not_tell_a_foreign_task_from_a_missing_one(make_stack, path):
    stack = owning_stack(make_stack, clock=True, teams={"film": {"queries_per_minute": 3}})
    stack.clock.freeze()
    assert ask(stack, "foreign", "web").status == 200
    by_task = {}
    for task in ("missing", "foreign"):
        by_task[task] = [seen(stack.get(PATHS[path].format(task), bearer("film"))) for _ in range(5)]
        stack.step(61)
    assert by_task["foreign"] == by_task["missing"]
    codes = [json.loads(body) for _, _, body in by_task["foreign"]]
    codes = [answer["tasks"][0]["code"] if "tasks" in answer else answer["code"] for answer in codes]
    assert codes == 3 * ["task_not_found"] + 2 * ["rate_limited"]


@pytest.mark.parametrize("path, keys", [(NATIVE, 3), ("/v1/tasks/fal/fal-ai/pika/", 1)], ids=["keys", "second-query"])
def test_number_of_queries_does_not_tell_a_foreign_task_from_a_missing_one(make_stack, path, keys):
    """A missing task is queried with each key; a task that has ended may need a second query."""
    teams = {"web": {"providers": ["sora", "fal"]}, "film": {"providers": ["sora", "fal"], "queries_per_minute": 7}}
    routes = [{"provider": provider, "upstream": "main"} for provider in ("sora", "fal")]
    stack = owning_stack(make_stack, clock=True, teams=teams, config={"routes": routes})
    files = [stack.folder / f"key-{number}" for number in range(keys)]
    stack.standin.keys = {f"{stack.key}-{file.name}" for file in files}
    for file in files:
        stack.write_key(f"{stack.key}-{file.name}", file=file)
    stack.configure(upstreams={"main": {"key_files": [str(file) for file in files]}})
    stack.daemon.reload()
    stack.wait_metric("redis_up", 1)
    run(stack)
    stack.clock.freeze()
    assert stack.get(path + "foreign", bearer("web")).status == 200
    stack.step(61)
    stack.standin.switch(state="SUCCESS")
    by_task = {}
    for task in ("missing", "foreign"):
        by_task[task] = [seen(stack.get(path + task, bearer("film"))) for _ in range(8)]
        stack.step(61)
    assert by_task["foreign"] == by_task["missing"]
    assert [status for status, _, _ in by_task["missing"]][:3] == [404, 404, 404 if keys == 1 else 429]


def test_budget_of_all_workers_counts_for_foreign_tasks(make_stack):
    stack = owning_stack(make_stack, workers=2, teams={"film": {"queries_per_minute": 2}})
    for index in (0, 1):
        assert stack.ask_worker(NATIVE + "foreign", index, **given("web")).status == 200
    assert refusal(stack.ask_worker(NATIVE + "foreign", 1, **given("film"))) == NOT_THERE  # worker 1 has its count
    assert [stack.ask_worker(NATIVE + "foreign", 0, **given("film")).status for _ in range(2)] == [404, 429]
    assert stack.ask_worker(NATIVE + "foreign", 1, **given("film")).status == 429


def charged(stack, team):
    """Queries that the team was charged, once the workers have sent everything to Redis."""
    stack.daemon.stop()
    return int(stack.redis.cli("GET", f"taskproxy:#queries:{team}"))


def test_concealed_answer_costs_the_same_if_its_query_was_not_sent(make_frozen):
    """The second query times out in the queue."""
    stack = owning_stack(make_frozen, teams={"film": {"queries_per_minute": 9}},
                         config={"upstreams": {"main": {"max_in_flight": 1, "timeout": "1s"}}})
    with stack.standin.hold() as barrier:
        asked = stack.background(stack.get, "/v1/tasks?ids=sora/a,sora/b", bearer("film"))
        barrier.wait_arrived(1)
        stack.wait_metric("fetches", 2)
        time_out(stack, 1, asked)
        assert [task["status"] for task in asked.result().json()["tasks"]] == [504, 504]
    assert stack.standin.count() == 1
    stack.clock.run()
    assert charged(stack, "film") == 2


def share_fetch(stack, task):
    """Starts a fetch of film, which web joins; returns futures of both answers."""
    stack.redis.freeze()
    film = stack.background(ask, stack, task, "film")
    stack.wait_metric("fetches", 1)
    web = stack.background(ask, stack, task, "web")
    stack.wait_metric("waiters", 2)
    stack.redis.thaw()
    return film, web


def test_concealed_answer_of_a_repeated_fetch_is_charged_once(make_stack):
    """The fetch that "film" starts is refused by its breaker, and "web", which waits for it, gets its own."""
    stack = owning_stack(make_stack, teams={"web": {"queries_per_minute": 9}}, config={
        "redis": {"timeout": "10s"}, "upstreams": {"main": {"breaker_failures": 1, "breaker_pause": "1h"}}})
    stack.standin.switch("bad", reset=True)
    assert ask(stack, "bad", "film").status == 502
    stack.wait_log("failed 1 times in a row for team film")
    film, web = share_fetch(stack, "missing")
    assert (film.result().status, refusal(web.result())) == (503, NOT_THERE)
    assert stack.standin.count("missing") == 1
    assert charged(stack, "web") == 1


def test_query_is_credited_to_the_team_that_paid_for_it(make_frozen):
    """The team that started the fetch has no query left, so the waiting team pays: one charge covers the query and the answer."""
    stack = owning_stack(make_frozen, teams={"film": {"queries_per_minute": 1}, "web": {"queries_per_minute": 9}})
    assert ask(stack, "own", "film").status == 200
    film, web = share_fetch(stack, "missing")
    assert (refusal(film.result()), refusal(web.result())) == ((429, "rate_limited"), NOT_THERE)
    assert stack.standin.count("missing") == 1
    stack.clock.run()
    assert charged(stack, "web") == 1


def test_missing_task_gets_no_owner(make_stack):
    stack = owning_stack(make_stack)
    assert refusal(ask(stack, "missing", "film")) == NOT_THERE
    assert stack.redis.keys("*#owner") == []


def test_request_for_a_task_of_another_team_is_not_held(make_stack):
    stack = owning_stack(make_stack, providers=QUICK)
    run(stack)
    ask(stack, "t", "web")
    assert refusal(ask(stack, "t?wait=30", "film")) == NOT_THERE
    assert refusal(ask(stack, "t", "film", Accept="text/event-stream")) == NOT_THERE
    with Stream(stack, NATIVE + "t", **bearer("web")) as stream:
        assert stream.next().type == "status"


def test_list_contains_only_own_tasks(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "a", "web")
    ask(stack, "b", "film")
    tasks = stack.get("/v1/tasks?ids=sora/a,sora/b,sora/c", bearer("film")).json()["tasks"]
    assert [task.get("code", task["status"]) for task in tasks] == ["task_not_found", "succeeded", "succeeded"]


def test_stale_answers_respect_ownership(make_stack):
    stack = owning_stack(make_stack, providers=QUICK)
    run(stack)
    ask(stack, "t", "web")
    stack.standin.switch(status=500)
    stack.wait_until(lambda: ask(stack, "t", "web").headers["x-cache"] == "STALE", what="a stale answer")
    assert refusal(ask(stack, "t", "film")) == (502, "upstream_error")  # as for a missing task


def test_list_over_the_waiter_limit_respects_ownership(make_stack):
    stack = owning_stack(make_stack, config={"limits": {"waiters": 1}})
    ask(stack, "t", "web")
    with stack.standin.hold("slow"):
        waits = stack.background(ask, stack, "slow", "web")
        stack.wait_metric("waiters", 1)
        owned, foreign = (ask(stack, "sora/t,sora/new", team, "/v1/tasks?ids=") for team in ("web", "film"))
    assert [task.get("code", task["status"]) for task in owned.json()["tasks"]] == ["succeeded", "overloaded"]
    assert refusal(foreign) == (503, "overloaded")
    assert waits.result().status == 200


@pytest.mark.problem("Redis is lost")
def test_worker_uses_only_the_owners_it_knows_while_redis_is_unavailable(make_stack):
    stack = owning_stack(make_stack, workers=2)
    stack.ask_worker(NATIVE + "t", 0, **given("web"))
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert [stack.ask_worker(NATIVE + "t", 0, **given(team)).status for team in ("web", "film")] == [200, 404]
    for team in ("film", "web"):  # worker 1 does not know that the task is web's
        answer = stack.ask_worker(NATIVE + "t", 1, **given(team))
        assert refusal(answer) == (503, "overloaded") and answer.headers["retry-after"] == "1"
    assert refusal(stack.ask_worker(NATIVE + "missing", 1, **given("web"))) == NOT_THERE
    stack.redis.start()
    stack.wait_metric("redis_up", 2)
    assert stack.ask_worker(NATIVE + "t", 1, **given("web")).status == 200  # Redis has lost the owner, too


def test_start_without_the_password_of_redis_gives_no_team_a_task(make_stack):
    stack = teams_stack(make_stack, access={"ownership": "first-reader"}, config={"workers": 1}, daemon=False)
    put(stack.folder / "password", "the-password", 0o644)
    stack.redis.stop()
    stack.redis.start(password="the-password")
    stack.configure(redis={"password_file": "password"})
    stack.daemon.start()

    def answer(team):
        return stack.ask_worker(NATIVE + "t", 0, **given(team))

    assert refusal(answer("film")) == (503, "overloaded")
    (stack.folder / "password").chmod(0o600)
    stack.wait_until(lambda: answer("film").status == 200, what="the owner to be stored")
    assert refusal(answer("web")) == NOT_THERE


def test_redis_that_does_not_answer_gives_no_team_the_task(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "t", "web")
    stack.daemon.reload()
    stack.wait_metric("redis_up", 1)
    stack.redis.cli("CLIENT", "PAUSE", "60000", "ALL")
    assert refusal(ask(stack, "t", "film")) == (503, "overloaded")


def test_ownership_requires_teams(make_stack):
    stack = make_stack(config={"access": {"ownership": "first-reader"}}, daemon=False, nginx=False, redis=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and '/access/ownership: needs the mode "teams" or "nginx"' in done.stderr


def test_ownership_requires_redis(make_stack):
    """Without it, owners would differ between workers and be lost when these exit."""
    stack = teams_stack(make_stack, access={"ownership": "first-reader"}, redis=False, daemon=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and re.search(r'taskproxy.json:\d+: /access/ownership: needs "redis"', done.stderr), done.stderr


# One task under several names

KLING, KLING_ID = "/kling/v1/videos/text2video/", "867283741759111202"
RUNWAY, RUNWAY_ID = "/v1/tasks/", "17f20503-6c24-4c16-946b-35dbbce2af2f"


def several_routes(make_stack, *providers, **settings):
    """Both teams may use all of these."""
    teams = {team: {"providers": list(providers)} for team in ("web", "film")}
    routes = [{"provider": provider, "upstream": "main"} for provider in providers]
    config = merged({"workers": 1, "routes": routes, "redis": {"timeout": "10s"}}, settings.pop("config", {}))
    return teams_stack(make_stack, teams, access={"ownership": "first-reader"}, config=config, **settings)


def recorded(provider, case) -> dict:
    return json.loads(read_answer(ANSWERS / provider / f"{case}.answer")[1])


def answers(stack, task_id, provider="kling", case="succeeded", **changes):
    """The upstream answers the question for `task_id` with the recorded answer, whatever id that names."""
    stack.standin.switch(task_id, raw=json.dumps(merged(recorded(provider, case), changes)))


@pytest.mark.parametrize("first, second", [
    (KLING + KLING_ID, KLING + "order-4711"),  # Kling's external_task_id
    (KLING + KLING_ID, KLING.replace("text", "image") + KLING_ID),
    (KLING + KLING_ID, "/v1/tasks/kling/lip-sync/" + KLING_ID),
    (KLING + KLING_ID, KLING + "000" + KLING_ID),
    (KLING + KLING_ID, "/kling/v1/images/generations/" + KLING_ID),
], ids=["external-id", "kind", "unified", "zeros", "provider"])
def test_task_has_one_owner_under_all_its_names(make_stack, first, second):
    stack = several_routes(make_stack, "kling", "kling-images")
    answers(stack, None)
    assert stack.get(first, bearer("web")).status == 200
    assert refusal(stack.get(second, bearer("film"))) == NOT_THERE
    assert stack.get(second, bearer("web")).status == 200
    names = [path.replace("/kling/v1/videos", "kling").replace("/kling/v1/images/generations", "kling-images")
             .replace("/v1/tasks/", "") for path in (first, second)]
    tasks = stack.get(f"/v1/tasks?ids={','.join(names)}", bearer("film")).json()["tasks"]
    assert [task["code"] for task in tasks] == 2 * ["task_not_found"]


def test_spellings_of_an_id_are_one_task_even_if_the_upstream_echoes_them(make_stack):
    stack = several_routes(make_stack, "runway", "kling")
    stack.standin.switch(state="SUCCESS")  # the stand-in's answer has the id of the question
    assert stack.get(RUNWAY + RUNWAY_ID, bearer("web")).status == 200
    assert refusal(stack.get(RUNWAY + RUNWAY_ID.upper(), bearer("film"))) == NOT_THERE
    assert stack.get(KLING + "0" + KLING_ID, bearer("web")).status == 200
    assert refusal(stack.get(KLING + KLING_ID, bearer("film"))) == NOT_THERE


def sora_answer(task_id, **data) -> str:
    """A finished task of sora's."""
    return json.dumps({"code": "success", "data": {"task_id": task_id, "status": "SUCCESS", "progress": "100%", **data}})


def test_snapshot_from_redis_has_its_identity(make_stack):
    stack = owning_stack(make_stack, workers=2)
    stack.standin.switch("other-name", raw=sora_answer("t"))
    assert stack.ask_worker(NATIVE + "other-name", 0, **given("web")).status == 200
    wait_stored(stack, "other-name")
    from_redis = stack.ask_worker(NATIVE + "other-name", 1, **given("web"))
    assert from_redis.headers["cache-status"].endswith("detail=redis")
    assert refusal(stack.ask_worker(NATIVE + "t", 1, **given("film"))) == NOT_THERE


@pytest.mark.problem("An answer does not name its task")
def test_answer_without_identity_is_refused_unless_the_task_is_known(make_stack):
    stack = several_routes(make_stack, "kling", providers={"kling": {"poll": {"min": "100ms", "max": "100ms"}}})
    anonymous = json.dumps({"code": 0, "data": {"task_status": "failed", "task_status_msg": "the prompt was refused"}})
    stack.standin.switch("unseen", raw=anonymous)
    assert refusal(stack.get(KLING + "unseen", bearer("web"))) == NOT_THERE
    assert "kling/text2video/unseen" in stack.wait_log("has no identity at /data/task_id")

    answers(stack, "seen", case="running")
    assert stack.get(KLING + "seen", bearer("web")).status == 200
    stack.standin.switch("seen", raw=anonymous)
    failed = stack.get("/v1/tasks/kling/text2video/seen?wait=30", bearer("web"))
    assert failed.json()["status"] == "failed"
    assert refusal(stack.get(KLING + "seen", bearer("film"))) == NOT_THERE


def test_name_that_moves_to_a_foreign_task_ends_streams_and_waits(make_stack):
    stack = several_routes(make_stack, "kling", providers={"kling": {"poll": {"min": "100ms", "max": "100ms"}}})
    answers(stack, "theirs", case="running", data={"task_id": "2"})
    assert stack.get(KLING + "theirs", bearer("web")).status == 200
    answers(stack, "name", case="running", data={"task_id": "1"})
    with begin(stack, KLING + "name", **bearer("film")) as stream:
        [held] = hold(stack, ("name?wait=30", bearer("film")), path=KLING)
        answers(stack, "name", data={"task_id": "2"})
        [event] = stream.rest()
    assert (event.type, event.data["code"]) == ("problem", "task_not_found")
    assert refusal(held.result()) == NOT_THERE
    assert refusal(stack.get(KLING + "name", bearer("film"))) == NOT_THERE
    assert stack.get(KLING + "name", bearer("web")).status == 200


def test_upstreams_of_one_account_share_owners(make_stack):
    stack = several_routes(make_stack, "kling", "kling-images", daemon=False)
    images = {**stack.config["upstreams"]["main"], "max_in_flight": 8}
    stack.configure(upstreams={"images": images}, routes=[
        {"provider": "kling", "upstream": "main"}, {"provider": "kling-images", "upstream": "images"}])
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and re.search(
        r'taskproxy.json:\d+: /upstreams/images/account: .* "main"', done.stderr), done.stderr
    stack.configure(upstreams={"images": {"account": "main"}})
    stack.daemon.start()
    stack.nginx.start()
    answers(stack, None)
    assert stack.get(KLING + KLING_ID, bearer("web")).status == 200
    assert refusal(stack.get("/kling/v1/images/generations/" + KLING_ID, bearer("film"))) == NOT_THERE


def test_ownership_requires_identity_in_every_provider_file(make_stack):
    stack = several_routes(make_stack, "kling", "runway", providers={"runway": {"identity": None}}, daemon=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and re.search(
        r'taskproxy.json:\d+: /routes/1/provider: .*"identity".*ownership', done.stderr), done.stderr


@pytest.mark.parametrize("provider", sorted(path.stem for path in PROVIDERS.glob("*.json")))
def test_recorded_answers_name_their_task(provider):
    identity = read_json(PROVIDERS / f"{provider}.json").get("identity", [])
    pointers = [identity] if isinstance(identity, str) else identity
    assert pointers or provider == "xai"  # whose answers do not
    for file in (ANSWERS / provider).glob("*.expect.json"):
        expected = json.loads(file.read_text())
        if expected["outcome"] == "ok":
            document = recorded(provider, file.name.removesuffix(".expect.json"))
            names = [functools.reduce(lambda inner, name: inner.get(name, {}), pointer.split("/")[1:], document)
                     for pointer in pointers]
            assert all(str(name).endswith(expected["task"].rpartition("/")[2]) for name in names if name), file.name
            assert any(names) or not pointers, file.name


def test_no_claim_fails_during_a_reload(make_stack):
    """A worker that has just started asks Redis as soon as it is connected."""
    stack = owning_stack(make_stack, workers=2, config={"redis": {"timeout": "10s"}})
    stop, statuses = threading.Event(), []

    def claim_new_tasks(name):
        while not stop.is_set():
            statuses.append(ask(stack, f"{name}_{len(statuses)}", "web").status)

    asking = [stack.background(claim_new_tasks, name) for name in "abc"]
    for _ in range(3):
        asked = len(statuses)
        stack.daemon.reload()
        stack.wait_until(lambda: len(statuses) > asked + 20, what="claims after the reload")
    stop.set()
    for future in asking:
        future.result()
    assert set(statuses) == {200}
