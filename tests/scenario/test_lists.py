"""Lists of tasks (/v1/tasks?ids=): each task is looked up once, limits count tasks, and a change wakes a request only when it can be
answered."""

import contextlib
import os
import signal

import pytest

from fastcgi import Connection, request, task_params
from helpers import worker_pid
from teaming import bearer, refusal, teams_stack
from watching import INTERVAL, NATIVE, end, hold, quick, run

HITS = {"level": "memory"}


def ids(*tasks) -> str:
    return "/v1/tasks?ids=" + ",".join(f"sora/{task}" for task in tasks)


def listed(answer) -> list:
    return [task["task_id"] for task in answer.json()["tasks"]]


def numbered(count, prefix="t") -> list:
    return [f"{prefix}{number}" for number in range(count)]


def test_repeated_task_is_looked_up_once(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    asked = ["b", *49 * ["a", "b"], "a"]
    assert listed(stack.get(ids(*asked))) == asked
    assert stack.standin.count() == 2
    assert (stack.metric("cache_hits_total", **HITS), stack.metric("collapsed_total")) == (0, 0)
    assert listed(stack.get(ids(*asked))) == asked
    assert stack.metric("cache_hits_total", **HITS) == 2
    mixed = stack.get("/v1/tasks?ids=sora/a,nowhere/a,sora/..,nowhere/a,sora/a").json()["tasks"]
    assert [task.get("code", task.get("task_id")) for task in mixed] == ["a", "not_found", "bad_request", "not_found", "a"]


def test_waiter_limit_counts_tasks(make_frozen):
    stack = make_frozen(**quick(limits={"waiters": 5}), redis=False)
    run(stack)
    assert stack.get(ids(*numbered(5))).status == 200
    held = hold(stack, (ids(*numbered(4), *numbered(4)) + "&wait=60", None), path="")
    answer = stack.get(ids("t0", "t1") + "&wait=60")
    assert "preference-applied" not in answer.headers and listed(answer) == ["t0", "t1"]
    held += hold(stack, (ids("t4") + "&wait=60", None), path="")
    end(stack)
    stack.clock.run()
    assert [len(listed(ask.result())) for ask in held] == [8, 1]


def test_list_over_the_waiter_limit_has_the_views_that_are_known(make_frozen):
    stack = make_frozen(**quick(limits={"waiters": 2}), redis=False)
    run(stack)
    assert stack.get(ids("t0", "t1")).status == 200
    stack.step(INTERVAL)
    with stack.standin.hold("slow") as barrier:
        asked = [stack.background(stack.task, "slow") for _ in range(2)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 2)
        single, several, unknown = stack.task("t0"), stack.get(ids("t1", "new", "t0")), stack.get(ids("new"))
        assert (single.status, single.headers["x-cache"]) == (several.status, several.headers["x-cache"]) == (200, "STALE")
        assert [task.get("code", task.get("task_id")) for task in several.json()["tasks"]] == ["t1", "overloaded", "t0"]
        assert int(several.headers["retry-after"]) >= 1
        assert (unknown.status, unknown.json()["code"], unknown.headers["retry-after"]) == (503, "overloaded", "1")
        barrier.release()
        assert {ask.result().status for ask in asked} == {200}


def test_watcher_limit_of_a_team_counts_tasks(make_frozen):
    stack = teams_stack(make_frozen, {"web": {"watchers": 5}}, redis=False, **quick())
    run(stack)
    assert stack.get(ids(*numbered(6)), bearer("web")).status == 200
    held = hold(stack, (ids(*numbered(4)) + "&wait=60", bearer("web")), path="")
    assert refusal(stack.get(ids("t4", "t5") + "&wait=60", bearer("web"))) == (429, "rate_limited")
    held += hold(stack, (ids("t5", "t5") + "&wait=60", bearer("web")), path="")
    end(stack)
    stack.clock.run()
    assert [len(listed(ask.result())) for ask in held] == [4, 2]


def evaluations(stack) -> int:
    return stack.daemon.log().count(": hold -> ")


@pytest.mark.parametrize("etag, progress", [(False, "7%"), (False, "50%"), (True, "7%")],
                         ids=["until the end", "until the end, with a change", "until a change"])
def test_news_that_answers_nothing_does_not_wake_the_request(make_stack, etag, progress):
    stack = make_stack(**quick(log_level="debug"), redis=False)
    run(stack)
    tag = stack.get(ids(*numbered(5))).headers["etag"]
    before = evaluations(stack)
    (held,) = hold(stack, (ids(*numbered(5)) + "&wait=60", {"If-None-Match": tag} if etag else None), path="")
    run(stack, progress)
    for task, count in {task: stack.standin.count(task) + 3 for task in numbered(5)}.items():
        stack.standin.wait_count(count, task)
    assert evaluations(stack) == before + 1
    end(stack)
    assert {task["status"] for task in held.result().json()["tasks"]} == {"succeeded"} if not etag else held.result().status == 200


def test_lists_whose_client_has_left_are_dropped(make_stack):
    stack = make_stack(**quick(), redis=False)
    run(stack)
    gone = stack.metric("requests_gone_total")
    for _ in range(20):
        with Connection(stack.worker_socket(0)) as connection:
            connection.send(request(task_params(ids(*numbered(100)) + "&wait=60")))
    stack.wait_metric("requests_gone_total", gone + 20)
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)


def test_other_requests_are_answered_between_new_lists(make_stack):
    """All come at once; a worker accepts some connections in each loop iteration."""
    stack = make_stack(redis=False, config={"workers": 1, "log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    many = ids(*numbered(100))
    assert stack.get(many).status == 200
    os.kill(worker_pid(stack, 0), signal.SIGSTOP)
    with contextlib.ExitStack() as connections:
        asked = [connections.enter_context(Connection(stack.worker_socket(0))) for _ in range(257)]
        for connection in asked[:-1]:
            connection.send(request(task_params(many, REQUEST_ID="list")))
        asked[-1].send(request(task_params(NATIVE + "t0", REQUEST_ID="single")))
        os.kill(worker_pid(stack, 0), signal.SIGCONT)
        assert {connection.read_answer()[0] for connection in asked} == {200}
    before, _, _ = stack.daemon.log().partition("request single: ")
    assert before.count("request list: answered") < 100


def test_ids_are_read_only_for_a_team(make_stack):
    stack = teams_stack(make_stack, redis=False, config={"workers": 1})
    assert refusal(stack.get("/v1/tasks?ids=")) == (401, "unauthorized")
    assert refusal(stack.get("/v1/tasks?ids=", bearer("web"))) == (400, "bad_request")
