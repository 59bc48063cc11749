"""Three hosts that pass requests on to each other, with clocks 10 s apart: one query per task and interval while they are
connected, at most one per host otherwise, and no task runs again after it has ended."""

import contextlib
import re

import pytest

from clustering import ADDRESSES, INTERVAL, Cluster, make_certificates, received
from helpers import wait_stored
from network import Network
from stack import Stack
from watching import Stream, end, run

LATER = INTERVAL + 1  # seconds; each step of that length is one query


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    certificates = tmp_path_factory.mktemp("certificates")
    make_certificates(certificates)
    with Network(ADDRESSES) as network, contextlib.ExitStack() as stacks:
        yield Cluster(lambda **settings: stacks.enter_context(Stack(**settings)), network, certificates)


@pytest.fixture
def cluster(running):
    run(running)
    yield running
    running.standin.clear()
    running.restore()


def assert_one_query_until_the_end(cluster, hosts, tasks) -> None:
    """These hosts send one query per interval for each of the tasks, which then end."""
    for _ in range(2):
        cluster.step(LATER)
        assert cluster.ask(hosts, tasks) == [1] * len(tasks)
    end(cluster)
    cluster.step(LATER)
    assert cluster.ask(hosts, tasks) == [1] * len(tasks)


def test_one_query_per_interval_whichever_host_is_asked(cluster):
    tasks = [task for name in ("a", "b") for task in cluster.tasks(name)]
    for _ in range(3):
        assert cluster.ask(cluster.hosts, tasks) == [1] * len(tasks)
        assert [len(host.get("/v1/tasks?ids=" + ",".join(f"sora/{task}" for task in tasks)).json()["tasks"]) for host in cluster.hosts] == [6] * 3
        assert cluster.ask(cluster.hosts, tasks) == [0] * len(tasks)
        cluster.step(LATER)
    end(cluster)
    assert cluster.ask(cluster.hosts, tasks) == [1] * len(tasks)
    cluster.step(10 * LATER)
    assert cluster.ask(cluster.hosts, tasks) == [0] * len(tasks)


def test_host_that_is_killed_is_replaced_by_the_next_one(cluster):
    tasks = cluster.tasks("killed")
    first, victim, third = cluster.hosts
    assert cluster.ask(cluster.hosts, tasks) == [1] * 3
    with Stream(first, "/v1/tasks/sora/" + tasks[1]) as stream:
        assert stream.next().data["status"] == "running"
        cluster.kill(victim)
        with contextlib.suppress(Exception):
            stream.rest()
    assert_one_query_until_the_end(cluster, [first, third], tasks)
    cluster.restore()
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3


def test_host_that_is_killed_during_a_query(cluster):
    """The next host waits for its lease to expire, and then queries."""
    first, victim, third = cluster.hosts
    _, task, _ = cluster.tasks("query")
    with cluster.standin.hold(task) as barrier:
        asked = first.background(first.task, task)
        barrier.wait_arrived(1)
        cluster.kill(victim)
        cluster.step_until(lambda: cluster.standin.count(task) == 2, "another query")
    assert asked.result().status == 200
    assert cluster.ask([first, third], [task]) == [0]


def test_host_that_is_stopped_is_replaced_and_returns(cluster):
    tasks = cluster.tasks("stopped")
    first, second, victim = cluster.hosts
    assert cluster.ask(cluster.hosts, tasks) == [1] * 3
    cluster.stop(victim)
    cluster.step(LATER)
    assert cluster.ask([first, second], tasks) == [1] * 3
    end(cluster)
    cluster.step(LATER)
    assert cluster.ask([first, second], tasks) == [1] * 3
    cluster.restore()
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3


def test_slow_upstream_is_not_a_failure_of_a_host(cluster):
    """All requests for the task wait for the one query, and the host still gets the requests for its other tasks."""
    cluster.use_clock()
    host = cluster.hosts[1]
    slow, quick = (cluster.tasks(name)[1] for name in ("slow", "quick"))
    with cluster.standin.hold(slow) as barrier:
        asked = [entry.background(entry.task, slow) for entry in cluster.hosts]
        barrier.wait_arrived(1)
        host.wait_until(lambda: host.metric("waiters") == 3, what="the requests of all hosts")
        for _ in range(20):
            cluster.step(1)
    assert [ask.result().status for ask in asked] == [200] * 3
    assert cluster.standin.count(slow) == 1
    assert cluster.ask(cluster.hosts, [quick]) == [1]
    for task in (slow, quick):
        host.wait_until(lambda task=task: received(host, task) == [200] * 3, what="three lines in the log")


def times_at_frozen_host(host, task) -> list:
    """Seconds of the attempts that ended with a time-out, after which another host or this one has answered. The time of that
    answer does not count: the clock is stepped until it arrives, however long this machine takes."""
    log = (host.folder / "access.log").read_text()
    return sorted(map(float, re.findall(rf"/{task} .* worker=([0-9.]+)(?:,| :) [0-9.]+ worker_status=504(?:,| :) 200 ", log)))


def test_frozen_host_delays_requests_on_open_connections_and_few_others(cluster):
    cluster.use_clock()
    first, _, victim = cluster.hosts
    task = cluster.tasks("frozen")[2]
    assert cluster.ask([first], [task]) == [1]  # leaves a connection open
    cluster.stop(victim)
    asked = [first.background(first.task, task) for _ in range(2)]  # one on it, the other on a new one
    cluster.step_until(lambda: any(ask.done() for ask in asked), "the end of the connection attempt")
    assert cluster.ask([first], [task] * 5) == [0] * 5  # without a step
    assert [ask.done() for ask in asked].count(False) == 1
    cluster.step(15)
    cluster.step_until(lambda: all(ask.done() for ask in asked), "the end of the other request")
    assert [ask.result().status for ask in asked] == [200] * 2
    first.wait_until(lambda: len(times_at_frozen_host(first, task)) == 2, what="two lines in the log")
    connecting, reading = times_at_frozen_host(first, task)
    assert connecting <= 2 and 20 < reading <= 26


def test_connection_that_is_not_used_for_a_second_is_closed(cluster):
    """So a request to a host that has failed since then opens one, and notices."""
    cluster.use_clock()
    first, _, victim = cluster.hosts
    own, _, task = cluster.tasks("idle")
    assert cluster.ask([first], [task]) == [1]
    cluster.step(1)
    assert cluster.ask([first], [own]) == [1]
    cluster.stop(victim)
    asked = first.background(first.task, task)
    cluster.step_until(asked.done, "the end of the connection attempt")
    assert asked.result().status == 200
    first.wait_until(lambda: times_at_frozen_host(first, task), what="a line in the log")
    (connecting,) = times_at_frozen_host(first, task)
    assert connecting <= 2


def test_host_without_redis_remains_the_only_one_that_queries_its_tasks(cluster):
    tasks = cluster.tasks("alone")
    assert cluster.ask(cluster.hosts, tasks) == [1] * 3
    cluster.cut_off(cluster.hosts[0], "redis")
    assert_one_query_until_the_end(cluster, cluster.hosts, tasks)
    cluster.restore()
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3
    later = cluster.tasks("later")
    assert cluster.ask(cluster.hosts, later) == [1] * 3
    for task in later:
        assert wait_stored(cluster.center, task)


def test_hosts_that_cannot_reach_each_other_share_through_redis(cluster):
    tasks = cluster.tasks("between")
    assert cluster.ask(cluster.hosts, tasks) == [1] * 3
    cluster.network.cut("first", "second")
    assert_one_query_until_the_end(cluster, cluster.hosts, tasks)
    cluster.network.mend()
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3


def test_isolated_host_queries_on_its_own_and_catches_up(cluster):
    """After it has reconnected, it looks in Redis before it repeats that a task runs."""
    tasks = cluster.tasks("apart")
    victim, second, third = cluster.hosts
    cluster.cut_off(victim, "redis", "second", "third")
    assert cluster.ask([second, third], tasks) == [1] * 3
    cluster.step(INTERVAL - 5)
    assert cluster.ask([victim], tasks) == [1] * 3
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3
    end(cluster)
    cluster.step(6)
    assert cluster.ask([second, third], tasks) == [1] * 3
    cluster.restore()
    assert cluster.ask(cluster.hosts, tasks) == [0] * 3


def test_request_is_passed_on_once(cluster):
    """A host whose workers are down closes the connection, and the request goes to the next host."""
    first, second, third = cluster.hosts
    task = cluster.tasks("once")[1]
    second.daemon.kill()
    assert cluster.ask([first], [task]) == [1]
    first.wait_until(lambda: received(second, task) == [503], what="the refusal of the host")
    first.wait_until(lambda: received(first, task) + received(third, task) == [200], what="the answer of another host")
