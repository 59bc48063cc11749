"""Requests of one team do not use up what other teams need: breakers, queries in flight, queries per second, fetches."""

import contextlib
import os
import signal
import threading

import pytest

from fastcgi import Connection, request, task_params
from helpers import redis_key, wait_stored, worker_pid
from hooking import naming, post, settings
from parts import process_state
from sharing import Publisher
from teaming import bearer, given, refusal, teams_stack
from watching import NATIVE, QUICK, SLOW, begin, end, hold, quick, run, wait_queries

UNAVAILABLE = (503, "upstream_unavailable")


def shared_stack(make_stack, redis=False, limits=None, cache=None, **upstream):
    """One worker, two teams; all tasks are running."""
    stack = teams_stack(make_stack, redis=redis, **quick(upstreams={"main": upstream}, limits=limits or {}, cache=cache or {}))
    run(stack)
    return stack


def ask(stack, task, team):
    return stack.task(task, bearer(team))


def ask_many(stack, count, team, prefix="many"):
    return [stack.background(ask, stack, f"{prefix}_{number}", team) for number in range(count)]


def fail(stack, tasks, **how):
    for task in tasks:
        stack.standin.switch(task, **(how or {"status": 500}))


# The breaker


def test_server_errors_for_unseen_tasks_do_not_open_the_breaker(make_stack):
    stack = shared_stack(make_stack)
    bad = [f"bad_{number}" for number in range(30)]
    fail(stack, bad)
    assert {ask(stack, task, "film").status for task in bad} == {502}
    assert {ask(stack, f"good_{number}", "web").status for number in range(20)} == {200}
    assert ask(stack, "good", "film").status == 200
    assert stack.metric("upstream_breaker_open") == 0


@pytest.mark.parametrize("failure", [{"status": 500}, {"reset": True}], ids=["known tasks", "no answer"])
def test_breaker_opened_by_one_team_is_closed_for_others(make_stack, failure):
    stack = shared_stack(make_stack, breaker_failures=3, breaker_pause="1h")
    bad = [f"bad_{number}" for number in range(20)]
    for task in bad:
        assert ask(stack, task, "film").status == 200
    fail(stack, bad, **failure)

    def opened():
        for task in bad:
            ask(stack, task, "film")
        return "failed 3 times in a row for team film" in stack.daemon.log()

    stack.wait_until(opened, what="the breaker to open")
    assert stack.metric("upstream_breaker_open") == 1
    queries = stack.standin.count()
    assert {ask(stack, f"good_{number}", "web").status for number in range(20)} == {200}
    assert stack.standin.count() == queries + 20
    assert "for team web" not in stack.daemon.log()


def test_keys_rejected_for_unseen_tasks_of_one_team_stay_in_use_for_others(make_stack):
    """The upstream may answer 401 for tasks that the key may not see."""
    stack = shared_stack(make_stack, breaker_failures=5, breaker_pause="1h")
    assert ask(stack, "good", "web").status == 200
    bad = [f"bad_{number}" for number in range(20)]
    fail(stack, bad, status=401)
    assert [ask(stack, task, "film").status for task in bad] == 5 * [502] + 15 * [503]
    assert {ask(stack, f"good_{number}", "web").status for number in range(12)} == {200}
    assert stack.metric("keys_set_aside") == 0


def test_revoked_key_is_sent_with_few_queries_for_new_tasks(make_frozen):
    stack = shared_stack(make_frozen, breaker_failures=5)
    assert ask(stack, "good", "web").status == 200
    stack.standin.keys.clear()
    queries = stack.standin.count()
    assert {ask(stack, f"new_{number}", "web").status for number in range(20)} == {502, 503}
    assert stack.standin.count() == queries + 5
    stack.step(60)  # the good answer does not count any more
    for number in range(3):
        ask(stack, f"later_{number}", "web")
        stack.step(30)
    assert stack.metric("keys_set_aside") == 1


def test_task_that_fails_beside_unseen_ones_does_not_open_the_breaker(make_frozen):
    stack = shared_stack(make_frozen, breaker_failures=3)
    assert ask(stack, "known", "web").status == 200
    fail(stack, ["known", *(f"bad_{number}" for number in range(10))])
    for number in range(10):
        stack.step(1)
        assert ask(stack, "known", "web").headers["x-cache"] == "STALE"
        assert ask(stack, f"bad_{number}", "web").status == 502
    assert stack.standin.count("known") == 11
    assert stack.metric("upstream_breaker_open") == 0


def test_known_task_is_probed_beside_an_unseen_one(make_stack):
    stack = shared_stack(make_stack, breaker_failures=3, breaker_pause="500ms")
    assert ask(stack, "known", "web").status == 200
    fail(stack, ["known", "other_0", "other_1", "other_2"], reset=True)
    for number in range(3):
        ask(stack, f"other_{number}", "web")
    stack.wait_log("failed 3 times in a row for team web")

    def probes():
        stack.background(ask, stack, "unseen", "web")
        return stack.standin.count("unseen") == 1

    with stack.standin.hold("unseen"):
        stack.wait_until(probes, what="a probe")
        stack.standin.clear("known")
        stack.wait_until(lambda: ask(stack, "known", "web").headers["x-cache"] != "STALE", what="a new view")
        stack.wait_log("recovered for team web")


def test_refused_fetch_is_repeated_for_a_waiting_team(make_frozen):
    """The breaker of the team that started the fetch does not apply to the other team."""
    stack = shared_stack(make_frozen, redis=True, breaker_failures=1, breaker_pause="1h")
    fail(stack, ["bad"], reset=True)
    assert ask(stack, "bad", "film").status == 502
    stack.wait_log("failed 1 times in a row for team film")
    for _ in range(3):
        assert refusal(ask(stack, "t", "film")) == UNAVAILABLE
    with paused(stack.redis):
        film = stack.background(ask, stack, "t", "film")
        stack.wait_metric("fetches", 1)
        web = [stack.background(ask, stack, "t", "web") for _ in range(2)]
        stack.wait_metric("waiters", 3)
    film, *web = (asked.result() for asked in (film, *web))
    assert refusal(film) == UNAVAILABLE and [answer.status for answer in web] == [200, 200]
    assert stack.standin.count("t") == 1


def test_refusal_of_a_webhooks_query_does_not_apply_to_a_waiting_team(make_frozen, tmp_path):
    """Queries for webhooks belong to no team, and have a separate breaker."""
    config = {"config": {"upstreams": {"main": {"breaker_failures": 1, "breaker_pause": "1h"}}}}
    stack = teams_stack(make_frozen, **settings(tmp_path, **config))
    run(stack)
    assert ask(stack, "bad", "web").status == 200
    fail(stack, ["bad"], reset=True)
    assert post(stack, naming("bad")).status == 204
    stack.wait_log("failed 1 times in a row; only probing it")
    with paused(stack.redis):
        assert post(stack, naming("t")).status == 204
        stack.wait_metric("fetches", 1)
        web = stack.background(ask, stack, "t", "web")
        stack.wait_metric("waiters", 1)
    assert web.result().status == 200
    assert stack.standin.count("t") == 1


def test_query_that_is_not_sent_leaves_the_probe_of_a_key_to_other_teams(make_frozen):
    stack = shared_stack(make_frozen, breaker_failures=1, breaker_pause="1h")
    for number, seconds in enumerate((1, 1, 2, 0)):  # the last pause of the breaker is longer than that of the key
        fail(stack, [f"bad_{number}"], reset=True)
        assert ask(stack, f"bad_{number}", "film").status == 502
        stack.step(seconds)
    stack.standin.keys = set()
    assert {refusal(ask(stack, f"refused_{number}", "web")) for number in range(3)} == {(502, "upstream_auth")}
    assert stack.metric("keys_set_aside") == 1
    stack.standin.keys = {stack.key}
    stack.step(1)
    assert refusal(ask(stack, "t", "film")) == UNAVAILABLE
    assert ask(stack, "t", "web").status == 200
    assert stack.metric("keys_set_aside") == 0


@contextlib.contextmanager
def paused(process):
    process.freeze()
    yield
    process.thaw()


# The cache


def test_one_team_leaves_memory_to_others(make_stack):
    stack = shared_stack(make_stack, cache={"memory": "1MiB"})
    end(stack)
    web = [f"t{number}" for number in range(30)]
    assert {ask(stack, task, "web").status for task in web} == {200}
    for first in range(0, 400, 100):
        ids = ",".join(f"sora/many_{first + number}" for number in range(100))
        assert stack.get(f"/v1/tasks?ids={ids}", bearer("film")).status == 200
    assert stack.metric("cache_evictions_total") > 100
    assert {ask(stack, task, "web").headers["x-cache"] for task in web} == {"HIT"}
    assert stack.standin.count() == 430


# Queries


def test_one_team_leaves_queries_in_flight_to_others(make_stack):
    stack = shared_stack(make_stack, max_in_flight=8)
    with stack.standin.hold() as barrier:
        asks = ask_many(stack, 30, "film")
        barrier.wait_arrived(6)
        stack.wait_metric("fetches", 30)
        web = ask_many(stack, 1, "web", "web")
        barrier.wait_arrived(7)
        assert stack.standin.count("web_0") == 1
    assert {ask.result().status for ask in asks + web} == {200}
    assert stack.standin.counts()["peak"] <= 8


@contextlib.contextmanager
def held_queries(stack):
    """Yields 30 requests of "film"; the upstream answers none of their queries before the end."""
    with contextlib.ExitStack() as held:
        for number in range(30):
            held.enter_context(stack.standin.hold(f"many_{number}"))
        yield ask_many(stack, 30, "film")


@contextlib.contextmanager
def full_share(stack):
    """Queries of "film" occupy its share of 8 in flight, and more of them wait in its queue."""
    with held_queries(stack) as asks:
        stack.wait_until(lambda: stack.standin.counts()["in_flight"] == 6, what="6 queries")
        stack.wait_metric("fetches", 30)
        yield
    assert {ask.result().status for ask in asks} == {200}


def test_query_that_another_team_waits_for_does_not_stay_in_a_queue(make_stack):
    stack = shared_stack(make_stack, max_in_flight=8)
    with full_share(stack):
        film = stack.background(ask, stack, "t", "film")
        stack.wait_metric("fetches", 31)
        assert ask(stack, "t", "web").headers["x-cache"] == "COLLAPSED"
        assert film.result().status == 200


def test_query_that_another_team_waits_for_does_not_enter_a_queue(make_stack):
    stack = shared_stack(make_stack, redis=True, max_in_flight=8)
    with full_share(stack):
        with paused(stack.redis):
            asks = [stack.background(ask, stack, "t", "film")]
            stack.wait_metric("fetches", 31)
            asks.append(stack.background(ask, stack, "t", "web"))
            stack.wait_metric("waiters", 32)
        assert [asked.result().status for asked in asks] == [200, 200]


@contextlib.contextmanager
def queued_at_worker_1(stack):
    """Yields the request of "film" for "t", whose query waits in the queue of worker 1 behind those for many_0 to many_5."""
    stack.wait_metric("redis_listening", 2)
    run(stack)
    with contextlib.ExitStack() as held:
        for number in range(6):
            held.enter_context(stack.standin.hold(f"many_{number}"))
        asks = [stack.background(stack.ask_worker, f"{NATIVE}many_{number}", 1, **given("film")) for number in range(6)]
        stack.wait_until(lambda: stack.standin.counts()["in_flight"] == 6, what="6 queries")
        film = stack.background(stack.ask_worker, NATIVE + "t", 1, **given("film"))
        stack.wait_log("sora:t: query_upstream -> wait")
        stack.wait_until(lambda: redis_key(stack, "t") + "#lease" not in stack.redis.keys("*#lease"), what="no lease")
        yield film
    assert {asked.result().status for asked in asks} == {200}


def two_workers(make_frozen):
    config = {"workers": 2, "log_level": "debug", "upstreams": {"main": {"max_in_flight": 8}}}
    return teams_stack(make_frozen, {"film": {"queries_per_minute": 100}}, providers=SLOW, config=config)


def test_query_in_a_queue_does_not_hold_back_another_worker(make_frozen):
    """It holds no lease; once the other worker has the result, the query leaves the queue and is not charged."""
    stack = two_workers(make_frozen)
    with queued_at_worker_1(stack) as film:
        assert stack.ask_worker(NATIVE + "t", 0, **given("web")).status == 200
        assert film.result().status == 200
        stack.wait_until(lambda: stack.redis.cli("GET", "taskproxy:#queries:film") == "6", what="the refund")
    assert stack.standin.count("t") == 1


def test_refund_in_a_later_window_is_no_credit(make_frozen):
    """The window in which the query was charged is over, and in the next one no query has been sent yet."""
    stack = two_workers(make_frozen)
    with queued_at_worker_1(stack) as film:
        stack.redis.cli("SET", "taskproxy:#queries:film", "0", "PX", "60000")
        assert stack.ask_worker(NATIVE + "t", 0, **given("web")).status == 200
        assert film.result().status == 200  # read from Redis after the refund
    assert stack.redis.cli("GET", "taskproxy:#queries:film") == "0"


def test_query_whose_turn_comes_while_another_worker_sends_it_is_not_sent(make_frozen):
    stack = two_workers(make_frozen)
    with queued_at_worker_1(stack) as film, stack.standin.hold("t") as barrier:
        web = stack.background(stack.ask_worker, NATIVE + "t", 0, **given("web"))
        barrier.wait_arrived(1)
        stack.standin.release("many_0")
        stack.wait_metric("leases_refused_total", 1)
        stack.standin.release("t")
        assert [asked.result().status for asked in (film, web)] == [200, 200]
    assert stack.standin.count("t") == 1


def test_query_is_sent_when_its_turn_comes(make_frozen):
    stack = two_workers(make_frozen)
    with queued_at_worker_1(stack) as film:
        stack.standin.release("many_0")
        assert film.result().status == 200
    assert stack.standin.count("t") == 1
    stack.wait_until(lambda: stack.redis.keys("*sora:t") != [], what="the result in Redis")


def test_notifications_do_not_keep_a_query_in_the_queue(make_frozen):
    """The first one may put it at the end of the queue, where it then stays until its turn."""
    stack = two_workers(make_frozen)
    with queued_at_worker_1(stack) as film, Publisher(stack) as publisher, stack.standin.hold("t"), stack.standin.hold("u"):
        for number in range(3):
            news = stack.metric("redis_news_total")
            publisher.publish(b"0123456789abcdef none 0 teams#main:sora:t")
            stack.wait_metric("redis_news_total", news + 2)
            if number == 0:
                stack.wait_until(lambda: stack.daemon.log().count("sora:t: query_upstream -> wait") == 2, what="the second attempt")
                u = stack.background(stack.ask_worker, NATIVE + "u", 1, **given("film"))
                stack.wait_log("sora:u: query_upstream -> wait")
        stack.standin.release("many_0")
        stack.wait_until(lambda: stack.standin.count("t") + stack.standin.count("u") > 0, what="a query")
        assert (stack.standin.count("t"), stack.standin.count("u")) == (1, 0)
    assert {asked.result().status for asked in (film, u)} == {200}


def test_refusal_of_a_team_that_joined_a_query_does_not_apply_to_the_first_team(make_frozen):
    stack = shared_stack(make_frozen, max_in_flight=8, queries_per_second=32)
    assert {answer.result().status for answer in ask_many(stack, 30, "web", "web")} == {200, 503}  # all that it may send
    with contextlib.ExitStack() as held:
        for number in range(6):
            held.enter_context(stack.standin.hold(f"many_{number}"))
        asks = ask_many(stack, 6, "film")
        stack.wait_until(lambda: stack.standin.counts()["in_flight"] == 6, what="6 queries")
        asks += [stack.background(ask, stack, "t", "film")]
        stack.wait_metric("fetches", 7)
        assert refusal(ask(stack, "t", "web")) == UNAVAILABLE
        stack.step(1)
    assert {asked.result().status for asked in asks} == {200}


def test_one_team_leaves_fetches_to_others(make_stack):
    stack = shared_stack(make_stack, limits={"fetches": 8})
    with held_queries(stack) as asks:
        stack.wait_metric("overloaded_total", 24)
        assert stack.metric("fetches") == 6
        assert ask(stack, "t", "web").status == 200
    assert sorted(ask.result().status for ask in asks) == 6 * [200] + 24 * [503]


def test_one_team_leaves_queries_per_second_to_others(make_frozen):
    stack = shared_stack(make_frozen, queries_per_second=8)
    assert {answer.result().status for answer in ask_many(stack, 30, "film")} == {200, 503}
    assert stack.standin.count() == 6
    assert ask(stack, "t", "web").status == 200


def test_one_team_leaves_held_requests_to_others(make_stack):
    stack = shared_stack(make_stack, limits={"waiters": 8})
    assert ask(stack, "t", "film").status == 200
    held = hold(stack, *6 * [("t?wait=60", bearer("film"))])
    assert "preference-applied" not in stack.task("t?wait=60", bearer("film")).headers
    held += hold(stack, ("t?wait=60", bearer("web")))
    end(stack)
    assert {ask.result().status for ask in held} == {200}


def test_stale_view_over_the_share_of_held_requests_has_no_wait(make_frozen):
    stack = shared_stack(make_frozen, limits={"waiters": 8})
    assert ask(stack, "t", "film").status == 200
    held = hold(stack, *6 * [("t?wait=60", bearer("film"))])
    with stack.standin.hold("t") as barrier:
        stack.step(1)  # the poll interval is over, and the next poll is under way
        barrier.wait_arrived(1)
        answer = stack.task("t?wait=60", bearer("film"))
        assert (answer.status, answer.headers["x-cache"], answer.headers.get("preference-applied")) == (200, "STALE", None)
    end(stack)
    stack.clock.run()
    assert {ask.result().status for ask in held} == {200}


# Refusals of another team


def spend(stack):
    """Uses up the only query of film."""
    assert ask(stack, "spent", "film").status == 200


def break_off(stack):
    """Opens film's breaker; the answer to its probe does not come."""
    assert ask(stack, "broken", "film").status == 200
    fail(stack, ["broken"])
    stack.wait_until(lambda: ask(stack, "broken", "film") and "for team film" in stack.daemon.log(), what="the breaker to open")
    stack.standin.hold("broken")
    failed = stack.standin.count("broken")

    def probing():
        stack.background(ask, stack, "broken", "film")
        return stack.standin.count("broken") > failed

    stack.wait_until(probing, what="the probe")


@pytest.mark.parametrize("refuse", [spend, break_off])
def test_refusals_of_one_team_do_not_delay_the_polls_for_another(make_stack, refuse):
    teams = {"film": {"queries_per_minute": 1 if refuse is spend else 0}}
    stack = teams_stack(make_stack, teams, access={"ownership": "first-reader"},
                        **quick(upstreams={"main": {"breaker_failures": 1, "breaker_pause": "1h"}}))
    stack.wait_metric("redis_up", 1)
    run(stack)
    refuse(stack)
    enough = threading.Event()

    def keep_asking():
        while not enough.is_set():
            ask(stack, "watched", "film")

    with begin(stack, NATIVE + "watched", **bearer("web")):
        asking = stack.background(keep_asking)
        try:
            wait_queries(stack, 20, "watched")
        finally:
            enough.set()
            asking.result()


def test_refusals_of_a_team_do_not_drop_a_webhook(make_stack, tmp_path):
    stack = teams_stack(make_stack, {"film": {"queries_per_minute": 1}}, **settings(tmp_path, providers=QUICK))
    stack.wait_metric("redis_up", 1)
    run(stack)
    spend(stack)
    fail(stack, ["t"])
    assert post(stack, naming("t")).status == 204
    stack.standin.wait_count(1, "t")
    stack.wait_until(lambda: ask(stack, "t", "film") and stack.metric("rate_limited_total", limit="queries") >= 20, what="refusals")
    assert stack.metric("hooks_total", result="dropped") == 0
    stack.standin.clear("t")
    end(stack, "t")
    wait_queries(stack, 1, "t")


def test_team_without_queries_acquires_no_lease(make_frozen):
    """It would hold back other teams that request the task at other workers."""
    stack = teams_stack(make_frozen, {"film": {"queries_per_minute": 1}}, **quick())
    stack.wait_metric("redis_up", 1)
    run(stack)
    spend(stack)
    assert ask(stack, "more", "film").status == 429
    stack.redis.cli("SET", redis_key(stack, "t") + "#lease", "another-1")
    assert ask(stack, "t", "film").status == 429
    assert stack.metric("leases_refused_total") == 0


@pytest.mark.parametrize("redis", [False, True], ids=["alone", "with Redis"])
def test_team_that_joins_a_refused_fetch_pays_for_it(make_frozen, redis):
    """Both requests are read in one iteration of the worker's loop. The query holds the lease, so its result is stored."""
    stack = teams_stack(make_frozen, {"film": {"queries_per_minute": 1}}, redis=redis, **quick())
    if redis:
        stack.wait_metric("redis_up", 1)
    run(stack)
    spend(stack)
    assert ask(stack, "more", "film").status == 429
    with Connection(stack.worker_socket()) as film, Connection(stack.worker_socket()) as web:
        for connection in (film, web):
            assert connection.ask(task_params("/nothing"))[0] == 404
        worker = worker_pid(stack, 0)
        os.kill(worker, signal.SIGSTOP)
        try:
            stack.wait_until(lambda: process_state(worker)[0] == "T", what="the worker to be stopped")
            film.send(request(task_params(NATIVE + "t", **given("film"))))
            web.send(request(task_params(NATIVE + "t", **given("web"))))
        finally:
            os.kill(worker, signal.SIGCONT)
        assert [film.read_answer()[0], web.read_answer()[0]] == [200, 200]
    assert stack.standin.count("t") == 1
    if redis:
        wait_stored(stack, "t")


def test_single_team_uses_all_queries_in_flight(make_stack):
    stack = teams_stack(make_stack, {"film": None}, redis=False, **quick(upstreams={"main": {"max_in_flight": 8}}))
    with stack.standin.hold() as barrier:
        asks = ask_many(stack, 30, "web")
        barrier.wait_arrived(8)
    assert {ask.result().status for ask in asks} == {200}
