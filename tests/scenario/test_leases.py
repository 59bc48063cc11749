"""Workers that share a Redis send one query in total: the lease holder queries, and the others wait for its result. No
dead worker, lost connection or invalid value in Redis makes them wait for long."""

import os
import re
import signal
import socket

import pytest

from fastcgi import Connection, request, task_params
from helpers import REDIS_KEY, step_until, time_out, wait_stored, worker_pid
from parts import PATIENCE
from sharing import Publisher, ask, ask_both, lease_of, second_host, sharing, wait_hearing, wait_no_lease
from teaming import given, write_teams
from watching import NATIVE, QUICK, SLOW, assert_not_asked_any_more


@pytest.fixture
def stack(make_frozen):
    """Its clock is frozen, so no lease expires."""
    return sharing(make_frozen)


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def assert_shared(stack, task):
    """Asserts that concurrent requests at two workers cause one query."""
    with stack.standin.hold(task) as barrier:
        asks = ask_both(stack, task, barrier)
    answers = [ask.result() for ask in asks]
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert stack.standin.count(task) == 1


# One query


def test_concurrent_requests_at_two_workers_are_one_query(stack):
    for state in ("IN_PROGRESS", "SUCCESS"):
        stack.standin.switch(state=state)
        assert_shared(stack, f"task_{state}")
    wait_no_lease(stack)


def test_concurrent_requests_at_two_hosts_are_one_query(make_stack):
    stack = sharing(make_stack)
    other = second_host(make_stack, stack)
    with stack.standin.hold("t") as barrier:
        asks = [*ask_both(stack, "t", barrier), ask(other, 0, "t"), ask(other, 1, "t")]
        other.wait_metric("leases_refused_total", 2)
    assert len({(answer.result().status, answer.result().body) for answer in asks}) == 1
    assert stack.standin.count("t") == 1
    assert other.metric("upstream_requests_total") == 0


def test_snapshot_is_read_after_the_lease_is_requested(stack):
    """In the other order, a worker would miss a snapshot that another one publishes in between, and query the task again."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(stack.redis.socket)
        monitor.settimeout(PATIENCE)
        monitor.sendall(b"MONITOR\r\n")
        lines = monitor.makefile("r")
        assert lines.readline() == "+OK\n"
        assert ask(stack, 0, "t").result().status == 200
        words = [next(word for line in lines if (word := re.search(rf'"(SET|GET|PTTL)" "{REDIS_KEY}t', line))) for _ in range(3)]
    assert [word[1] for word in words] == ["SET", "PTTL", "GET"]


def test_instances_with_other_rules_for_access_share_nothing(make_stack):
    """Without the rules in the keys, the open instance would serve what the others keep for their teams."""
    instance = sharing(make_stack, config={"workers": 1})
    instance.standin.switch(state="SUCCESS")
    for access in ({"mode": "open"}, {"mode": "teams"}, {"mode": "nginx"}, {"mode": "teams", "ownership": "first-reader"}):
        if access["mode"] != "open":
            access["teams_file"] = "teams.json"
            write_teams(instance)
        instance.configure(access=access)
        instance.daemon.reload()
        wait_hearing(instance)
        answer = instance.ask_worker(NATIVE + "t", TASKPROXY_TEAM="web", **given("web"))
        assert (answer.status, answer.headers["x-cache"]) == (200, "MISS")
        wait_stored(instance, "t")
    assert len(instance.redis.stored("*:sora:t")) == 4


def test_many_workers_and_tasks_are_one_query_per_task(make_frozen):
    """The clock is frozen, so that no lease expires while a worker on a busy machine cannot renew it."""
    stack = sharing(make_frozen, providers=SLOW, config={"workers": 4, "redis": {"timeout": "10s"}})
    asks = [ask(stack, index, f"task_{number}") for number in range(50) for index in range(4)]
    assert {answer.result().status for answer in asks} == {200}
    assert set(stack.standin.counts()["tasks"].values()) == {1}


@pytest.mark.parametrize("switches, expected", [
    ({"status": 500}, (502, "upstream_error")), ({"reset": True}, (502, "upstream_error")),
    ({"garbage": True}, (502, "upstream_invalid")), ({"status": 401}, (502, "upstream_auth")),
    ({"hang": True}, (504, "upstream_timeout")), ({"retry_after": 7}, (503, "upstream_unavailable")),
    ({"status": 404}, (404, "task_not_found")),
], ids=["500", "reset", "garbage", "401", "time-out", "429", "missing"])
def test_waiter_gets_the_outcome_of_the_holder(make_frozen, switches, expected):
    stack = sharing(make_frozen, config={"upstreams": {"main": {"timeout": "1s"}}})
    stack.standin.switch("t", **switches)
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
    if "hang" in switches:
        time_out(stack, 1, *asks)  # shorter than a lease
    answers = [ask.result() for ask in asks]
    assert [outcome(answer) for answer in answers] == [expected] * 2
    assert {answer.headers.get("retry-after") for answer in answers} == {"7" if "retry_after" in switches else None}
    assert stack.standin.count("t") == 1
    wait_no_lease(stack)
    assert stack.redis.keys() == []


def test_unlisted_status_is_not_shared_and_ends_the_wait(stack):
    stack.standin.switch("t", state="ON_HOLIDAY")
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
    assert [answer.result().json()["data"]["status"] for answer in asks] == ["ON_HOLIDAY"] * 2
    wait_no_lease(stack)
    assert stack.redis.keys() == []


# Lease holders


def left_ms(stack) -> int:
    return int(stack.redis.cli("PTTL", lease_of("t")))


def test_lease_is_renewed_while_its_holder_queries(make_frozen):
    stack = sharing(make_frozen)
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
        for _ in range(4):  # the first lease would expire after three
            stack.step(1)
            stack.wait_until(lambda: left_ms(stack) == 3000, what="a renewal")
        assert not any(answer.done() for answer in asks)
        assert stack.standin.count("t") == 1
    assert [answer.result().status for answer in asks] == [200] * 2
    wait_no_lease(stack)


def test_waiter_queries_when_the_lease_of_a_dead_holder_expires(make_frozen):
    stack = sharing(make_frozen)
    with stack.standin.hold("t") as barrier:
        holder, waiter = ask_both(stack, "t", barrier)
        os.kill(worker_pid(stack, 0), signal.SIGKILL)
        assert holder.exception() is not None
        assert left_ms(stack) == 3000
        stack.step(4)
        barrier.wait_arrived(2)
    assert waiter.result().status == 200
    assert stack.standin.count("t") == 2


def test_late_result_of_an_expired_lease_is_not_stored_but_delivered(stack):
    stack.standin.switch("t", state="IN_PROGRESS", progress="7%")
    with stack.standin.hold("t") as barrier:
        holder = ask(stack, 0, "t")
        barrier.wait_arrived(1)
        stack.redis.cli("SET", lease_of("t"), "of-another", "PX", 60000)
    assert holder.result().status == 200
    assert stack.redis.cli("GET", lease_of("t")) == "of-another"
    assert stack.redis.cli("EXISTS", REDIS_KEY + "t") == "0"


def read_notifications(stack, count):
    """Waits until Redis has every result so far and each worker has read its notifications, `count` of which were expected."""
    def evals():
        return sum(map(int, re.findall(r"cmdstat_eval:calls=(\d+)", stack.redis.cli("INFO", "commandstats"))))

    stack.wait_until(lambda: evals() == stack.metric("redis_commands_total", command="eval"), what="the results in Redis")
    with Publisher(stack) as publisher:
        publisher.publish(b"another none 0 main:sora:other")
    stack.wait_metric("redis_news_total", count + stack.config["workers"])


def assert_not_queried_again(stack, count):
    for index in (0, 1):
        assert stack.ask_worker(NATIVE + "t", index).headers["x-cache"] == "HIT"
    assert stack.standin.count("t") == count


@pytest.mark.parametrize("lost", ["another-has-it", "nothing-has-it"])
def test_late_result_does_not_outdate_that_of_the_next_lease_holder(stack, lost):
    """Redis has lost the lease while its holder queries. Its result is not stored, so another worker that was told of it would
    not find it in Redis, and would query the task again within the interval."""
    stack.standin.switch("t", state="IN_PROGRESS", progress="7%")
    with stack.standin.hold("t") as barrier:
        late = ask(stack, 0, "t")
        barrier.wait_arrived(1)
        stack.redis.cli("DEL", lease_of("t"))
        stack.standin.hold("t").release()
        assert stack.ask_worker(NATIVE + "t", 1).headers["x-cache"] == "MISS"
        wait_no_lease(stack)
        if lost == "nothing-has-it":
            stack.redis.cli("FLUSHALL")
    assert late.result().status == 200
    read_notifications(stack, 0)
    assert_not_queried_again(stack, 2)


def test_unlisted_status_does_not_outdate_the_results_of_others(stack):
    """It is not stored in Redis, so each worker queries for itself: once in an interval."""
    stack.standin.switch("t", state="ON_HOLIDAY")
    for index in (0, 1):
        assert stack.ask_worker(NATIVE + "t", index).headers["x-cache"] == "MISS"
    read_notifications(stack, 2)
    assert_not_queried_again(stack, 2)


@pytest.mark.parametrize("leave", ["reload", "term"])
@pytest.mark.parametrize("client", ["stays", "leaves"])
def test_leaving_worker_releases_its_leases(make_stack, client, leave):
    stack = sharing(make_stack, config={"drain": "200ms"})
    with stack.standin.hold("t") as barrier, Connection(stack.worker_socket(0)) as connection:
        connection.send(request(task_params(NATIVE + "t")))
        barrier.wait_arrived(1)
        if client == "leaves":
            connection.close()
            stack.wait_metric("requests_gone_total", 1)
        assert stack.redis.keys("*#lease") == [lease_of("t")]
        getattr(stack.daemon, leave)()
        assert stack.redis.keys("*#lease") == []


# Redis


@pytest.mark.parametrize("lose, back", [("stop", "start"), ("kill", "start"), ("freeze", "thaw")])
def test_redis_lost_during_a_shared_query_delays_neither_worker(
        make_stack, lose, back):
    stack = sharing(make_stack, config={"redis": {"timeout": "2s"}})
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
        getattr(stack.redis, lose)()
        barrier.wait_arrived(2)  # the other worker queries for itself
    assert [answer.result().status for answer in asks] == [200] * 2
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert stack.ask_worker(NATIVE + "meanwhile").status == 200
    getattr(stack.redis, back)()
    wait_hearing(stack)
    assert_shared(stack, "later")


def test_each_worker_queries_for_itself_without_redis(make_stack):
    stack = make_stack(redis=False)
    with stack.standin.hold("t") as barrier:
        asks = [ask(stack, index, "t") for index in (0, 1)]
        barrier.wait_arrived(2)
    assert [answer.result().status for answer in asks] == [200] * 2


# Rubbish


@pytest.mark.parametrize("command", [
    ("SET", "rubbish"), ("SET", "rubbish", "PX", 3600_000), ("SET", ""), ("RPUSH", "a", "b"), ("HSET", "a", "b"),
    ("SET", "x" * 100_000),
], ids=["for-ever", "for-an-hour", "empty", "list", "hash", "huge"])
def test_rubbish_in_place_of_a_lease_is_shortened(make_frozen, command):
    """One worker queries when it has expired. Further steps could let that query time out."""
    stack = sharing(make_frozen)
    verb, *words = command
    stack.redis.cli(verb, lease_of("t"), *words)
    with stack.standin.hold("t"):
        asks = [ask(stack, index, "t") for index in (0, 1)]
        stack.wait_metric("leases_refused_total", 2)
        step_until(stack, lambda: stack.standin.count("t") > 0, "a query", 0.5)
    assert [answer.result().status for answer in asks] == [200] * 2
    assert stack.standin.count("t") == 1
    assert_shared(stack, "other")


def test_workers_wait_for_longer_than_the_lease_holder_may_query(make_frozen):
    """A second after the holder's time-out, one of them gets the lease; without that second, both would query."""
    stack = sharing(make_frozen, config={"upstreams": {"main": {"timeout": "20s"}}})
    stack.redis.cli("SET", lease_of("t"), "of-another", "PX", 21_000)
    asks = [ask(stack, index, "t") for index in (0, 1)]
    stack.wait_metric("leases_refused_total", 2)

    def queries():  # with a lease, which further steps would let expire, or without one
        return stack.redis.cli("GET", lease_of("t")) not in ("", "of-another") or stack.standin.count("t") > 0

    step_until(stack, queries, "a query", 0.5)
    assert [answer.result().status for answer in asks] == [200] * 2
    assert stack.standin.count("t") == 1


@pytest.mark.parametrize("expiry", [("PX", 3600_000), ()], ids=["in-an-hour", "never"])
def test_lease_that_would_outlive_its_holder_for_long_is_shortened(stack, expiry):
    """As after the clock of Redis was set back while the holder died. No worker queries without a lease: such a result is not
    stored."""
    stack.redis.cli("SET", lease_of("t"), "of-a-dead-worker", *expiry)
    asks = [ask(stack, index, "t") for index in (0, 1)]
    stack.wait_metric("leases_refused_total", 2)
    step_until(stack, lambda: stack.standin.count("t") > 0, "a query", 0.5)
    assert [answer.result().status for answer in asks] == [200] * 2
    assert stack.standin.count("t") == 1
    wait_stored(stack, "t")


@pytest.mark.parametrize("value", ["", "rubbish", "x" * 100_000, "1 2 3 4 5 6 7\n"], ids=["empty", "word", "huge", "head"])
def test_rubbish_in_place_of_a_snapshot_is_still_one_query(stack, value):
    stack.redis.cli("SET", REDIS_KEY + "t", value)
    stack.standin.switch(state="SUCCESS")
    assert_shared(stack, "t")
    assert "SUCCESS" in wait_stored(stack, "t")


# Retry-After


def test_retry_after_of_the_upstream_is_shared(make_stack):
    stack = sharing(make_stack, providers=QUICK)
    stack.standin.switch("t", state="IN_PROGRESS", headers={"Retry-After": "60"})
    assert stack.ask_worker(NATIVE + "t", 0).status == 200
    assert_not_asked_any_more(stack, "t")  # for several intervals
    answer = stack.ask_worker(NATIVE + "t", 1)
    assert (answer.status, answer.headers["x-cache"]) == (200, "HIT")
    assert 50 < int(answer.headers["retry-after"]) <= 60
    assert stack.standin.count("t") == 1


def test_lease_whose_release_is_lost_with_the_connection_is_released_after_it(stack):
    """Otherwise the next query would wait until it expires, up to 3 s."""
    with stack.standin.hold("t") as barrier:
        asked = ask(stack, 0, "t")
        barrier.wait_arrived(1)
        stack.redis.cli("CLIENT", "KILL", "TYPE", "normal")
        stack.wait_metric("redis_up", lambda up: up == 0)
    assert asked.result().status == 200
    assert stack.redis.keys("*#lease") == [lease_of("t")]
    stack.step(0.2)  # the pause before the next connection
    wait_no_lease(stack)
