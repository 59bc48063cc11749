"""POST /v1/hooks/PROVIDER/SECRET: a webhook is a hint that a task has changed. Its watchers get the change at once, and a
flood of webhooks causes only few queries."""

import json

import pytest

from fastcgi import Connection, request, task_params
from helpers import REDIS_KEY, wait_stored
from hooking import (
    HOOK, SECRET, hook, hooked_maker, known, naming, one_hooked, post, post_to_worker, problem, secret_file,
)
from sharing import second_host, wait_hearing
from watching import NATIVE, SLOW, UNIFIED, Stream, begin, end, hold, run, status

make_hooked = pytest.fixture(hooked_maker)
hooked = pytest.fixture(scope="module")(one_hooked)
UNKNOWN = (404, "not_found")


def taken(stack) -> dict:
    metrics = stack.metrics()
    return {result: metrics.sum("hooks_total", result=result) for result in ("taken", "collapsed", "dropped")}


def wait_success(stack, task):
    stack.wait_until(lambda: "SUCCESS" in stack.redis.cli("GET", REDIS_KEY + task), what="the end in Redis")


# Effect


def test_watchers_are_notified_at_once(hooked):
    run(hooked, "7%", "told")
    with begin(hooked, UNIFIED + "told") as stream:
        hooked.wait_metric("waiters", lambda waiters: waiters == 1)  # those of the previous test have left
        held = hold(hooked, ("told?wait=60", None))
        run(hooked, "50%", "told")
        hook(hooked, "told")
        assert stream.next().data["progress"] == 50
        assert not held[0].done()
    assert hooked.standin.count("told") == 2
    hooked.daemon.reload()


def test_hook_during_a_query_of_another_worker_causes_one_more_query(make_hooked):
    stack = make_hooked(config={"workers": 2})
    wait_hearing(stack)
    run(stack, "7%", "t")
    with stack.standin.hold("t") as barrier:
        asking = stack.background(stack.ask_worker, NATIVE + "t", 0)
        barrier.wait_arrived(1)
        assert post_to_worker(stack, naming("t"), 1).status == 204
        stack.wait_metric("leases_refused_total", 1)
    assert asking.result().status == 200
    stack.standin.wait_count(2, "t")


def test_next_request_gets_the_new_state(hooked):
    run(hooked, "7%", "next")
    known(hooked, "next")
    end(hooked, "next")
    hook(hooked, "next")
    hooked.standin.wait_count(2, "next")
    hooked.wait_until(lambda: status(hooked.task("next")) == "SUCCESS", what="the end")
    assert hooked.standin.count("next") == 2


def test_hook_is_answered_before_the_upstream_and_many_hooks_are_one_query(hooked):
    run(hooked, "7%", "many")
    with hooked.standin.hold("many") as barrier:
        for _ in range(20):
            hook(hooked, "many")
        barrier.wait_arrived(1)
        asked = hooked.background(hooked.task, "many")
        hooked.wait_metric("waiters", 1)
        assert not asked.done()
    assert asked.result().status == 200
    assert hooked.standin.count("many") == 1


def test_query_in_flight_is_shared(hooked):
    run(hooked, "7%", "shared")
    with hooked.standin.hold("shared") as barrier:
        asked = hooked.background(hooked.task, "shared")
        barrier.wait_arrived(1)
        hook(hooked, "shared")
        hook(hooked, "after-shared")
        hooked.standin.wait_count(1, "after-shared")
    assert asked.result().status == 200
    assert hooked.standin.count("shared") == 1


def test_query_sent_before_the_hook_is_followed_by_another(make_hooked):
    stack = make_hooked(providers={"sora": {"poll": {"min": "400ms", "max": "60s"}}})
    run(stack)
    with stack.standin.hold("t") as barrier:
        asked = stack.background(stack.task, "t")
        barrier.wait_arrived(1)
        hook(stack, "t")
    assert asked.result().status == 200
    stack.standin.wait_count(2, "t")


def test_ended_task_is_not_queried(hooked):
    end(hooked, "over")
    known(hooked, "over")
    for _ in range(5):
        hook(hooked, "over")
    hook(hooked, "after-over")
    hooked.standin.wait_count(1, "after-over")
    assert hooked.standin.count("over") == 1


LIE = b'{"task_id": "%s", "status": "FAILURE", "data": {"status": "FAILURE", "fail_reason": "a lie"}}'


# Each hint is sent as soon as the previous answer has arrived, so many fall into the same millisecond. A single hint
# without a query fails the test.
def test_body_is_not_trusted(make_hooked):
    stack = make_hooked()
    run(stack)
    tasks = [f"lied-{number}" for number in range(100)]
    with Connection(stack.worker_socket()) as asking, Connection(stack.worker_socket()) as hinting:
        for task in tasks:
            lie = LIE % task.encode()
            hint = request(task_params(HOOK, "POST", CONTENT_LENGTH=len(lie), CONTENT_TYPE="application/json"), lie)
            assert asking.ask(task_params(NATIVE + task))[0] == 200
            hinting.send(hint)
            assert hinting.read_answer()[0] == 204
    stack.wait_until(lambda: stack.standin.count() >= 2 * len(tasks), what="a query for each hint")
    assert {stack.standin.count(task) for task in tasks} == {2}
    assert {status(stack.task(task)) for task in tasks} == {"IN_PROGRESS"}


def test_missing_task_is_queried_once(hooked):
    for _ in range(5):
        hook(hooked, "missing-7")
    hooked.standin.wait_count(1, "missing-7")
    assert problem(hooked.task("missing-7")) == (404, "task_not_found")
    assert hooked.standin.count("missing-7") == 1


@pytest.mark.parametrize("redis", [False, True], ids=["alone", "full-redis"])
def test_hint_reaches_the_worker_that_knows_the_task_without_redis(make_hooked, redis):
    stack = make_hooked(redis=redis, config={"workers": 2})
    if redis:
        stack.redis.cli("CONFIG", "SET", "maxmemory", "1")
        stack.daemon.reload()
        stack.wait_metric("redis_rejecting", 2, reason="writes")
    tasks = [f"task_{number}" for number in range(16)]
    for task in tasks:
        known(stack, task)
    stack.standin.switch(state="SUCCESS")
    for task in tasks:
        hook(stack, task)
    for task in tasks:
        stack.wait_until(lambda task=task: stack.get(NATIVE + task).json()["data"]["status"] == "SUCCESS", what=f"the end of {task}")
        assert stack.standin.count(task) <= 3  # one by the worker that got the hint, one by the worker that knows the task
    assert stack.metric("hooks_total", result="dropped") == 0


@pytest.mark.parametrize("index", [0, 1])
def test_watchers_at_all_workers_and_hosts_are_notified(make_hooked, make_stack, index):
    stack = make_hooked(config={"workers": 2})
    wait_hearing(stack)
    other = second_host(make_stack, stack, providers=SLOW)
    run(stack)
    watching = [host.background(host.ask_worker, NATIVE + "t?wait=60", at) for host in (stack, other) for at in (0, 1)]
    for host in (stack, other):
        host.wait_metric("watched_tasks", 2)
    queries = stack.standin.count("t")
    assert queries == 1
    end(stack)
    assert post_to_worker(stack, naming("t"), index).status == 204
    assert {status(answer.result()) for answer in watching} == {"SUCCESS"}
    assert stack.standin.count("t") == 2


def test_watcher_of_another_task_starts_from_the_newest_view(make_hooked):
    stack = make_hooked()
    run(stack, "7%", "a")
    known(stack, "a")
    end(stack, "b")
    with stack.standin.hold("b") as barrier:
        listed = stack.background(stack.ask_worker, "/v1/tasks?ids=sora/a,sora/b&wait=60")
        barrier.wait_arrived(1)
        end(stack, "a")
        hook(stack, "a")
        stack.wait_until(lambda: status(stack.task("a")) == "SUCCESS", what="the end of the first one")
    assert [task["status"] for task in listed.result(20).json()["tasks"]] == ["succeeded"] * 2


# Failures and reloads


@pytest.mark.parametrize("failure", [{"status": 500}, {"reset": True}, {"garbage": True}], ids=["500", "reset", "garbage"])
def test_hook_is_retried_when_its_query_fails(make_hooked, failure):
    stack = make_hooked(providers={"sora": {"poll": {"min": "300ms", "max": "60s"}}})
    run(stack)
    known(stack, "t")
    stack.standin.switch("t", **failure)
    hook(stack, "t")
    stack.standin.wait_count(3, "t")
    end(stack)
    stack.standin.clear("t")
    wait_success(stack, "t")
    queries = stack.standin.count("t")
    for _ in range(3):
        hook(stack, "t")
    assert status(stack.task("t")) == "SUCCESS" and stack.standin.count("t") == queries


@pytest.mark.parametrize("workers", [1, 2])
def test_reload_drops_no_running_deferred_or_failed_hook(make_hooked, workers):
    stack = make_hooked(config={"workers": workers})
    wait_hearing(stack)
    run(stack)
    stack.standin.switch("fails", status=500)
    with stack.standin.hold("flies") as barrier:
        for task in ("flies", "waits", "fails"):
            assert post_to_worker(stack, naming(task)).status == 204
        barrier.wait_arrived(1)
        stack.standin.wait_count(1, "waits")
        stack.standin.wait_count(1, "fails")
        wait_stored(stack, "waits")
        assert post_to_worker(stack, naming("waits")).status == 204
        stack.daemon.reload(wait_for_old=False)
        stack.standin.wait_count(2, "waits")
        stack.standin.switch("fails", status=None, state="SUCCESS")
        wait_success(stack, "fails")
    wait_stored(stack, "flies")
    stack.wait_until(lambda: len(stack.daemon.workers()) == workers, what="the exit of the old workers")


# Rate limits


def test_hooks_poll_a_task_at_most_once_per_interval(make_hooked):
    stack = make_hooked(providers={"sora": {"poll": {"min": "5s", "max": "60s"}}}, clock=True)
    run(stack)
    stack.freeze()
    hook(stack, "t")
    stack.standin.wait_count(1, "t")
    for polls in (1, 2):
        stack.wait_metric("fetches", lambda fetches: fetches == 0)
        hook(stack, "t")
        stack.step(4.9)
        for _ in range(2):  # the worker's timers run between two answers
            assert stack.ask_worker("/nothing").status == 404
        assert stack.standin.count("t") == polls
        stack.step(0.1)
        stack.standin.wait_count(polls + 1, "t")
    assert taken(stack)["collapsed"] == 2


def test_flood_over_many_tasks_is_accepted_but_limited(make_hooked):
    stack = make_hooked()
    run(stack)
    for number in range(400):
        assert post_to_worker(stack, naming(f"task_{number}")).status == 204
    counts = taken(stack)
    assert sum(counts.values()) == 400 and counts["dropped"] > 0 and counts["collapsed"] == 0
    stack.wait_until(lambda: stack.standin.count() >= counts["taken"], what="accepted webhooks")
    assert stack.standin.count() == counts["taken"]
    assert stack.task("alive").status == 200


# Access


@pytest.mark.parametrize("path", [
    "/v1/hooks/sora/wrong", f"/v1/hooks/sora/{SECRET}x", f"/v1/hooks/sora/{SECRET[:-1]}", f"/v1/hooks/sora/{SECRET}/",
    f"/v1/hooks/sora/{SECRET}/x", f"/v1/hooks/sora/{SECRET.upper()}", f"/v1/hooks/sora/x{SECRET}",
    "/v1/hooks/sora/", "/v1/hooks/sora", "/v1/hooks/", "/v1/hooks", "/v1/hooks/kling/",
    f"/v1/hooks/kling/{SECRET}", f"/v1/hooks/nobody/{SECRET}", f"/v1/hooks//{SECRET}",
    f"/v1/hooks/{SECRET}", f"/v1/hooks/Sora/{SECRET}", "/v1/hooks/sora/" + "x" * 4000, "/v1/hooks/sora/null",
    f"/v1/hooks/sora/%68{SECRET[1:]}",
])
def test_wrong_secret_is_404_for_any_method_and_body(hooked, path):
    before = taken(hooked)
    for method, body in (("POST", naming("t")), ("POST", b""), ("POST", b"rubbish"), ("GET", b""), ("PUT", naming("t")),
                         ("DELETE", b""), ("PATCH", b"{"), ("BREW", b"")):
        assert problem(post(hooked, body, path, method)) == UNKNOWN, method
    assert post(hooked, b"", path, "HEAD").status == 404
    assert problem(post_to_worker(hooked, b"x" * 30_000, path=path)) == UNKNOWN
    assert (hooked.standin.count("t"), taken(hooked)) == (0, before)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
def test_right_secret_allows_only_post(hooked, method):
    answer = post(hooked, naming("t"), method=method)
    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert hooked.standin.count("t") == 0


def test_readable_paths_cannot_be_posted_to(hooked):
    for path in (NATIVE + "t", UNIFIED + "t", "/v1/tasks?ids=sora/t"):
        answer = post(hooked, naming("t"), path)
        assert (problem(answer), answer.headers["allow"]) == ((405, "method_not_allowed"), "GET, HEAD")


def test_streams_and_waits_are_ignored(hooked):
    run(hooked, "7%", "plain")
    answer = post(hooked, naming("plain"), HOOK + "?wait=60", Accept="text/event-stream", Prefer="wait=60")
    assert (answer.status, answer.body) == (204, b"")
    assert "preference-applied" not in answer.headers
    hooked.standin.wait_count(1, "plain")


def test_hooks_and_queries_share_kept_connections(hooked):
    run(hooked, "7%", "kept")
    connection = hooked.nginx.connection()
    for method, path, body in (("POST", HOOK, naming("kept")), ("GET", NATIVE + "kept", None)) * 5:
        connection.request(method, path, body)
        response = connection.getresponse()
        response.read()
        assert response.status == (204 if method == "POST" else 200)
    connection.close()
    with Stream(hooked, NATIVE + "kept") as stream:
        assert stream.next().type == "status"


# Configuration


@pytest.mark.parametrize("content, words", [
    (SECRET[:31], "at least 32 characters"), ("two\nlines-of-it", "one line"), ("with/a/slash/in/it" + SECRET, "letters, digits"), ("", "at least"),
])
def test_invalid_secret_is_refused_with_its_location(make_hooked, tmp_path, content, words):
    stack = make_hooked(daemon=False, nginx=False)
    secret_file(tmp_path).write_text(content)
    result = stack.daemon.run("--check-config")
    assert result.returncode == 1
    assert "/routes/0/hook_secret_file" in result.stderr and words in result.stderr
    assert not content or content not in result.stderr


@pytest.mark.parametrize("pointers, words", [([], 'has no "hook"'), (["/ids/*"], "must not contain '*'"), ("task_id", "/hook")])
def test_provider_without_a_task_pointer_accepts_no_hooks(make_hooked, pointers, words):
    stack = make_hooked(daemon=False, nginx=False)
    file = stack.providers_dir / "sora.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hook": pointers}))
    result = stack.daemon.run("--check-config")
    assert result.returncode == 1 and words in result.stderr


def test_changed_secret_takes_effect_on_reload(make_hooked, tmp_path):
    stack = make_hooked()
    run(stack)
    secret_file(tmp_path).write_text("another-secret-0123456789-0123456789\n")
    stack.daemon.reload()
    assert problem(post(stack, naming("t"))) == UNKNOWN
    assert post(stack, naming("t"), "/v1/hooks/sora/another-secret-0123456789-0123456789").status == 204
    stack.standin.wait_count(1, "t")
