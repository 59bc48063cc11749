"""Failovers under load: workers follow the master that Sentinels name, and no request takes longer than redis.timeout and its query.

They take up to 20 s each, and Sentinels on a busy machine may start more of them, so `make test` leaves them to `make test-hard`.
"""

import os

import pytest

from helpers import REDIS_KEY, said
from redises import HAS_TLS, MASTER, Certificates, guarded, servers_in_use, wait_uses
from sharing import ask, ask_both
from timing import timed_clients

TIMEOUT = 2  # seconds: redis.timeout
SLACK = 1  # seconds that a request takes without Redis, at most; two time-outs would be longer
RETURN = 5  # seconds from the announcement of the new master to the first result in it
INTERVAL = 1  # seconds between queries for a running task
WAYS = ["plain", *(["tls"] if HAS_TLS else [])]

needs_time = pytest.mark.parametrize("tls", WAYS) if os.environ.get("FAILOVERS") else lambda test: None


@pytest.fixture
def watched(make_stack, tls):
    """A stack, its three servers and three Sentinels, and the master that all workers use."""
    poll = {"min": f"{INTERVAL}s", "max": f"{INTERVAL}s"}
    stack = make_stack(daemon=False, nginx=False, providers={"sora": {"poll": poll}}, task_seconds=3600)
    with guarded(stack, tls=Certificates(stack) if tls == "tls" else None) as redis:
        stack.configure(redis=redis.settings(timeout=f"{TIMEOUT}s"))
        stack.daemon.start()
        stack.nginx.start()
        first = redis.master()
        wait_uses(stack, first)
        yield stack, redis, first


def assert_stored_soon(stack, timing, server, names: str) -> list:
    """Tasks end, one after the other, until results are stored in this server; returns the tasks."""
    began, tasks = timing.seconds(), []

    def one_more():
        tasks.append(f"{names}_{len(tasks)}")
        stack.standin.switch(tasks[-1], state="SUCCESS")
        assert stack.task(tasks[-1]).status == 200
        return stored(server, tasks)

    stack.wait_until(one_more, what=f"results in {server.name}")
    assert timing.seconds() - began < RETURN
    return stored(server, tasks)


def stored(server, tasks) -> list:
    return [task for task in tasks if server.cli("EXISTS", f"{REDIS_KEY}{task}") == "1"]


def assert_said(stack, reason) -> None:
    """Each worker has logged a line when it lost Redis, and a line when it was back."""
    name = "Redis at mymaster (Sentinel)"
    assert sorted(said(stack)) == sorted(line for worker in (0, 1) for line in (
        f"warn worker {worker}: {name} is unavailable: {reason}; continuing without it",
        f"info worker {worker}: {name} is available again"))


def assert_one_query(stack, timing, task) -> None:
    """A request at each worker, and then those of several intervals."""
    began = timing.seconds()
    with stack.standin.hold(task) as barrier:
        asks = ask_both(stack, task, barrier)
    assert [answer.result().status for answer in asks] == [200, 200]
    assert stack.standin.count(task) == 1
    while stack.standin.count(task) < 4:
        assert [ask(stack, index, task).result().status for index in (0, 1)] == [200, 200]
    assert stack.standin.count(task) <= 2 + (timing.seconds() - began) / INTERVAL, [query.at for query in stack.standin.seen(task)]


def assert_followed(stack, redis, timing, old):
    """Waits for the new master; returns it."""
    new = redis.master(other_than=old)
    assert_stored_soon(stack, timing, new, f"after_{old.name}")
    wait_uses(stack, new)
    assert_one_query(stack, timing, f"shared_after_{old.name}")
    return new


def assert_none_delayed(timing) -> None:
    print(f"{timing.asked:,} requests; the longest took {timing.longest:.3f} s")
    assert timing.failures == []
    assert timing.longest < TIMEOUT + SLACK


@needs_time
@pytest.mark.problem("Redis has failed over")
def test_master_is_killed(watched):
    stack, redis, first = watched
    with timed_clients(stack) as timing:
        first.kill()
        assert_followed(stack, redis, timing, first)
    assert_none_delayed(timing)


@needs_time
@pytest.mark.problem("Redis has failed over")
def test_master_is_frozen_and_returns(watched):
    """It returns as a master, until Sentinel makes it a replica."""
    stack, redis, first = watched
    with timed_clients(stack) as timing:
        first.freeze()
        second = assert_followed(stack, redis, timing, first)
        first.thaw()
        redis.wait_whole()
        assert servers_in_use(stack) == {second.address: 2}
    assert_none_delayed(timing)
    assert_said(stack, "no reply in time")


@needs_time
@pytest.mark.problem("Redis has failed over")
def test_planned_failover(watched):
    """The old master accepts writes for 10 s more, and then loses them. Workers leave it before."""
    stack, redis, first = watched
    with timed_clients(stack) as timing:
        before = assert_stored_soon(stack, timing, first, "before")
        stack.wait_until(lambda: all(stored(server, before) == before for server in redis.servers), what="replication")
        stack.wait_until(lambda: redis.sentinels[0].cli("SENTINEL", "FAILOVER", MASTER) == "OK", what="the failover")
        second = assert_followed(stack, redis, timing, first)
        after = assert_stored_soon(stack, timing, second, "later")
        redis.wait_whole()
        assert stored(second, before + after) == before + after
    assert_none_delayed(timing)
    assert_said(stack, "Sentinel names another master")
