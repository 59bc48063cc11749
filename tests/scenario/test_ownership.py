"""Ownership "first-reader": a task belongs to the first team that reads it."""

import pytest

from helpers import REDIS_KEY
from teaming import bearer, refusal, teams_stack
from watching import NATIVE, QUICK, UNIFIED, Stream, run

NOT_THERE = (404, "task_not_found")


def owning_stack(make_stack, workers=1, redis=True, **settings):
    stack = teams_stack(make_stack, access={"ownership": "first-reader"}, redis=redis, **settings,
                        config={"workers": workers, "redis": {"timeout": "500ms"}} if redis else {"workers": workers})
    stack.standin.switch(state="SUCCESS")
    if redis:
        stack.wait_metric("redis_up", workers)
    return stack


def ask(stack, task, team, path=NATIVE, **headers):
    return stack.get(path + task, {**bearer(team), **headers})


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "alone"])
def test_task_belongs_to_its_first_reader(make_stack, redis):
    stack = owning_stack(make_stack, redis=redis)
    assert ask(stack, "t", "web").status == 200
    for path in (NATIVE, UNIFIED):
        assert refusal(ask(stack, "t", "film", path)) == NOT_THERE
        assert ask(stack, "t", "web", path).status == 200
    assert ask(stack, "u", "film").status == 200 and refusal(ask(stack, "u", "web")) == NOT_THERE


def test_owner_is_stored_in_redis_for_a_month(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "t", "web")
    assert stack.redis.cli("GET", f"{REDIS_KEY}t#owner") == "web"
    assert 29 * 86400 < int(stack.redis.cli("TTL", f"{REDIS_KEY}t#owner")) <= 30 * 86400


def test_workers_agree_on_the_owner_even_after_a_reload(make_stack):
    stack = owning_stack(make_stack, workers=4)
    ask(stack, "t", "film")
    given = {"HTTP_AUTHORIZATION": bearer("web")["Authorization"]}
    assert {refusal(stack.ask_worker(NATIVE + "t", index, **given)) for index in range(4)} == {NOT_THERE}
    stack.daemon.reload()
    stack.wait_metric("redis_up", 4)
    assert {refusal(stack.ask_worker(NATIVE + "t", index, **given)) for index in range(4)} == {NOT_THERE}


def test_full_redis_still_knows_the_owner(make_stack):
    stack = owning_stack(make_stack)
    assert ask(stack, "t", "web").status == 200
    stack.redis.cli("CONFIG", "SET", "maxmemory", "1")
    stack.daemon.reload()
    stack.wait_metric("redis_up", 1)
    assert refusal(ask(stack, "t", "film")) == NOT_THERE
    assert ask(stack, "t", "web").status == 200


def test_one_of_many_concurrent_teams_becomes_the_owner(make_stack):
    stack = owning_stack(make_stack, workers=2)
    asks = [stack.background(ask, stack, "t", team) for team in 20 * ["web", "film"]]
    statuses = [answer.result().status for answer in asks]
    assert {(*statuses[::2],), (*statuses[1::2],)} == {20 * (200,), 20 * (404,)}


def test_other_teams_get_the_same_404_as_for_a_missing_task(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "t", "web")
    theirs, nobodys = ask(stack, "t", "film"), ask(stack, "missing", "film")
    differs = {"date", "x-request-id"}
    assert {name: value for name, value in theirs.headers.items() if name not in differs} == {
        name: value for name, value in nobodys.headers.items() if name not in differs}
    assert {**theirs.json(), "request_id": ""} == {**nobodys.json(), "request_id": ""}


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
    assert refusal(ask(stack, "t", "film")) == NOT_THERE


def test_worker_uses_the_owners_it_knows_without_redis(make_stack):
    stack = owning_stack(make_stack)
    ask(stack, "t", "web")
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert (ask(stack, "t", "web").status, ask(stack, "t", "film").status) == (200, 404)
    assert (ask(stack, "new", "film").status, ask(stack, "new", "web").status) == (200, 404)
    stack.redis.start()
    stack.wait_metric("redis_up", 1)
    assert (ask(stack, "new", "web").status, ask(stack, "new", "film").status) == (200, 404)  # Redis did not know the owner


def test_ownership_requires_teams(make_stack):
    stack = make_stack(config={"access": {"ownership": "first-reader"}}, daemon=False, nginx=False, redis=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and '/access/ownership: needs the mode "teams" or "nginx"' in done.stderr
