"""Redis Cluster: workers learn which node has which slots, and follow keys to other nodes.

The failovers take half a minute, so `make test` leaves them to `make test-hard`.
"""

import contextlib
import itertools
import os
import threading
import time
from concurrent import futures

import pytest

from helpers import use_documented_rights
from redises import Certificates, Scripted, Server, bulk, clustered, slot_of, with_tls
from sharing import ask, ask_both, wait_hearing

TIMEOUT_S, MARGIN_S = 2, 1.5  # of Redis; for everything else that a request needs on a busy machine


def key_of(task) -> str:
    """The braces are the hash tag, which the lease shares."""
    return f"taskproxy:{{main:sora:{task}}}"


def servers_in_use(stack) -> set:
    return {server["address"] for server in stack.get("/status").json()["now"]["redis_servers"] if server["workers"] == 2}


def wait_uses(stack, nodes) -> None:
    """Until all workers are connected to these nodes, and to no other."""
    stack.wait_until(lambda: servers_in_use(stack) == {node.address for node in nodes}, 60, "connections to the masters")
    wait_hearing(stack)


@contextlib.contextmanager
def proxied(make_stack, seed, *options, tls=False, clock=False, **redis):
    """A cluster, and a daemon that knows the address of this node."""
    stack = make_stack(daemon=False, nginx=False, clock=clock)
    certificates = Certificates(stack) if tls else None
    if tls:
        redis["tls"] = certificates.for_daemon
    with clustered(stack, *options, tls=certificates) as cluster:
        use_documented_rights(stack, cluster.nodes, address=cluster.nodes[seed].address, cluster=True, **redis)
        stack.daemon.start()
        stack.nginx.start()
        wait_uses(stack, cluster.masters)
        yield stack, cluster


def one_task_per_node(cluster) -> list:
    found = {}
    for number in range(200):
        found.setdefault(cluster.owner(key_of(f"task_{number}")), f"task_{number}")
    return [found[node] for node in cluster.masters]


def assert_one_query(stack, task) -> None:
    """A request at each worker; the second one waits for the notification of the first."""
    with stack.standin.hold(task) as barrier:
        asks = ask_both(stack, task, barrier)
    assert [answer.result().status for answer in asks] == [200, 200]
    assert stack.standin.count(task) == 1


def test_results_are_shared_through_the_nodes_that_have_their_slots(make_stack):
    with proxied(make_stack, seed=5) as (stack, cluster):  # a replica knows the masters, too
        stack.standin.switch(state="SUCCESS")
        tasks = one_task_per_node(cluster)
        for node, task in zip(cluster.masters, tasks, strict=True):
            assert_one_query(stack, task)
            stack.wait_until(lambda node=node, task=task: node.has(key_of(task)), what=f"{task} in {node.name}")
        stack.daemon.stop()
        stack.daemon.start()
        wait_uses(stack, cluster.masters)
        for task in tasks:
            assert stack.task(task).status == 200
            assert stack.standin.count(task) == 1
        assert stack.metric("redis_failures_total") == 0
        assert "Redis" not in stack.daemon.log()


@with_tls
def test_nodes_are_connected_with_tls(make_stack):
    with proxied(make_stack, 0, "--tls-cluster", "yes", tls=True) as (stack, cluster):
        for task in one_task_per_node(cluster):
            assert_one_query(stack, task)


def move_keys(source, target, slot) -> None:
    """Until the source has none, because clients go on storing some."""
    while names := source.cli("CLUSTER", "GETKEYSINSLOT", slot, 100).split():
        assert source.cli("MIGRATE", "127.0.0.1", target.port.number, "", 0, 5000, "KEYS", *names) in ("OK", "NOKEY")


class Polling:
    """Clients that poll tasks without pause, half of them at each worker."""

    def __init__(self, stack, tasks):
        self.stack, self.tasks, self.failures, self.slowest = stack, tasks, [], 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._poll, args=(worker,)) for worker in (0, 1) * 2]

    def _poll(self, worker) -> None:
        while not self._stop.is_set():
            for task in self.tasks:
                began = time.monotonic()
                answer = self.stack.ask_worker(f"/sora/v1/videos/{task}", worker)
                self.slowest = max(self.slowest, time.monotonic() - began)
                if answer.status != 200:
                    self.failures.append((answer.status, answer.body))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def tasks_in_slot(slot, prefix, count) -> list:
    names = (f"{prefix}{number}" for number in itertools.count())
    return list(itertools.islice((name for name in names if slot_of(key_of(name)) == slot), count))


def test_slot_is_moved_while_clients_poll(make_stack):
    with proxied(make_stack, seed=0) as (stack, cluster):
        source, target = cluster.masters[:2]
        slot = 100
        old, new, last = (tasks_in_slot(slot, prefix, 3) for prefix in ("old", "new", "last"))
        for task in old:
            assert source.cli("CLUSTER", "KEYSLOT", key_of(task)) == str(slot)
            assert stack.task(task).status == 200
            stack.wait_until(lambda task=task: source.has(key_of(task)), what=f"{task} in the source")

        with Polling(stack, old[:1]) as polling:
            assert target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) == "OK"
            assert source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) == "OK"
            for task in new:  # ASK: the source has no such key
                assert_one_query(stack, task)
                assert source.cli("EXISTS", key_of(task)).startswith("ASK")
            assert target.calls("asking") > 0
            refused = stack.metric("leases_refused_total")
            with stack.standin.hold(old[0]) as barrier:  # its snapshot is in the source, and its lease in the target
                barrier.wait_arrived(1)
                count = stack.standin.count(old[0])
                stack.wait_metric("leases_refused_total", refused + 1)
                assert stack.standin.count(old[0]) == count
            move_keys(source, target, slot)
            assert target.cli("CLUSTER", "SETSLOT", slot, "NODE", target.id) == "OK"
            assert source.cli("CLUSTER", "SETSLOT", slot, "NODE", target.id) == "OK"
            for task in last:  # MOVED, once
                assert_one_query(stack, task)
                assert target.has(key_of(task))
        assert polling.failures == []
        assert polling.slowest < TIMEOUT_S + MARGIN_S
        assert stack.metric("redis_failures_total") == 0
        assert "rejected" not in stack.daemon.log()


def wait_replaced(stack, cluster, lost) -> None:
    """Until the workers use the replica that was promoted."""
    others = [node for node in cluster.nodes if node is not lost]
    stack.wait_until(lambda: sum(node.is_master() for node in others) == 3, 60, "three masters")
    wait_uses(stack, [node for node in others if node.is_master()])


def assert_failover_costs_no_request_more_than_the_timeout(make_stack, lose) -> None:
    """The workers are subscribed to the master that is lost, because they know its address."""
    with proxied(make_stack, 0, "--cluster-node-timeout", 1500, timeout=f"{TIMEOUT_S}s") as (stack, cluster):
        lost = cluster.masters[0]
        tasks = one_task_per_node(cluster)
        with Polling(stack, tasks) as polling:
            stack.wait_metric("redis_commands_total", 20)
            lose(lost)
            wait_replaced(stack, cluster, lost)
        assert polling.failures == []
        assert polling.slowest < TIMEOUT_S + MARGIN_S
        replacement = next(node for node in cluster.replicas if node.is_master())
        stack.standin.switch(state="SUCCESS")
        for number in range(100):
            task = f"after_{number}"
            if cluster.owner(key_of(task)) is lost:
                assert_one_query(stack, task)
                stack.wait_until(lambda task=task: replacement.has(key_of(task)), what=f"{task} in {replacement.name}")
        assert f"Redis at {lost.address} (cluster node) is unavailable" in stack.daemon.log()
        stack.wait_log(f"(cluster): other nodes have the slots of {lost.address}", 60)
        assert "connection rejected" not in stack.daemon.log()


def killed_master_is_replaced(make_stack):
    assert_failover_costs_no_request_more_than_the_timeout(make_stack, lambda node: node.kill())


def frozen_master_is_replaced(make_stack):
    assert_failover_costs_no_request_more_than_the_timeout(make_stack, lambda node: node.freeze())


if os.environ.get("FAILOVERS"):
    test_killed_master_is_replaced = killed_master_is_replaced
    test_frozen_master_is_replaced = frozen_master_is_replaced


@pytest.mark.problem("A node of a Redis Cluster is lost")
def test_lost_node_costs_only_what_is_in_its_slots(make_stack):
    with proxied(make_stack, seed=0) as (stack, cluster):
        lost = cluster.masters[1]
        tasks = one_task_per_node(cluster)
        lost.kill()  # for less time than until the promotion of its replica
        stack.wait_log("(cluster): 5462 of 16384 slots have no node that can be reached")
        assert stack.metric("redis_up") == 0
        stack.standin.switch(state="SUCCESS")
        assert [stack.task(task).status for task in tasks] == [200] * 3
        for task in (tasks[0], tasks[2]):
            stack.wait_until(lambda task=task: cluster.owner(key_of(task)).has(key_of(task)), what=f"{task} in Redis")
        lost.restart()
        use_documented_rights(stack, [lost])  # the node has forgotten the user
        stack.wait_log("(cluster) serves all slots again", 60)
        wait_hearing(stack)
        cluster.wait_whole()  # a node rejects commands for 2 s after its start
        assert_one_query(stack, next(name for name in map("later_{}".format, itertools.count())
                                     if cluster.owner(key_of(name)) is lost))


def test_lease_whose_release_is_lost_with_a_node_is_released_after_it(make_stack):
    """Also if the subscriptions are to other nodes, and are not interrupted."""
    with proxied(make_stack, seed=0, clock=True) as (stack, cluster):
        stack.freeze()
        lost = next(node for node in cluster.masters if " sub=1 " not in node.cli("CLIENT", "LIST"))
        task = one_task_per_node(cluster)[cluster.masters.index(lost)]
        lease = f"{key_of(task)}#lease"
        with stack.standin.hold(task) as barrier:
            asked = ask(stack, 0, task)
            barrier.wait_arrived(1)
            assert lost.cli("PERSIST", lease) == "1"  # the clock of the nodes runs
            lost.cli("CLIENT", "KILL", "TYPE", "normal")
            stack.wait_metric("redis_up", lambda up: up == 0)
        assert asked.result().status == 200
        assert lost.has(lease)
        stack.step(0.2)  # the pause before the next connection
        stack.wait_metric("redis_up", 2)
        stack.wait_until(lambda: not lost.has(lease), what="the release")


class Redirecting(Scripted):
    """A server that claims all slots. It redirects commands with keys, when the test allows it, to a server that never
    answers them."""

    def __init__(self, probe_reply="$-1"):
        self._probe_reply = probe_reply + "\r\n"
        self.asked, self.allowed, self.redirected = threading.Event(), threading.Event(), threading.Event()
        super().__init__()
        self._mute = self._listen(self._ignore)

    def _reply(self, words) -> str:
        if words[0] == b"CLUSTER":
            return bulk(self._nodes())
        return self._probe_reply if b"#probe" in words[1] else self._reply_to(words)

    def _nodes(self) -> str:
        return f"0123 {self.address}@1 myself,master - 0 0 1 connected 0-16383\n"

    def _reply_to(self, words) -> str:
        self.asked.set()
        self.allowed.wait()
        return f"-MOVED 1 {self._mute}\r\n"

    def _ignore(self, connection):
        for words in self._commands(connection):
            if b"#probe" in words[1]:
                connection.sendall(b"$-1\r\n")
            elif words[0] == b"GET":
                self.redirected.set()


def proxied_by(make_stack, server, *, clock=False, **redis):
    stack = make_stack(daemon=False, nginx=False, clock=clock)
    stack.configure(workers=1, redis={"address": server.address, "cluster": True, **redis})
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_metric("redis_listening", 1)
    return stack


def test_redirected_command_ends_within_the_timeout(make_stack):
    """3 of 4 s are over when it is redirected."""
    server = Redirecting()
    stack = proxied_by(make_stack, server, clock=True, timeout="4s")
    stack.freeze()
    asked = ask(stack, 0, "t")
    assert server.asked.wait(30)
    stack.clock.step(3)
    server.allowed.set()
    assert server.redirected.wait(30)
    stack.clock.step(0.9)
    assert stack.ask_worker("/sora/v1/videos/in.valid").status == 400  # after the timers that were due
    assert not asked.done()
    stack.clock.step(0.2)
    assert asked.result(30).status == 200
    assert stack.metric("redis_failures_total") > 0
    server.stop()


class Storing(Redirecting):
    """A server that claims most slots and has no keys. It replies to scripts with a list. Once silenced, it replies to
    nothing from the next question for the slots on."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.silenced, self.silent = threading.Event(), threading.Event()

    def _nodes(self) -> str:
        return f"0123 {self.address}@1 myself,master - 0 0 1 connected 0-16382\n"

    def _commands(self, connection):
        for words in Redirecting._commands(connection):
            if words[0] == b"CLUSTER" and self.silenced.is_set():
                self.silent.set()
            if not self.silent.is_set():
                yield words
            elif words[0] == b"GET":
                self.asked.set()

    def _reply_to(self, words) -> str:
        return {b"SET": "+OK\r\n", b"EVAL": "*0\r\n", b"PTTL": ":-2\r\n"}.get(words[0], "$-1\r\n")


def test_script_with_a_reply_of_another_type_has_failed(make_stack):
    server = Storing()
    stack = proxied_by(make_stack, server)
    assert stack.task("t").status == 200
    stack.wait_log("rejected EVAL: UNEXPECTED")
    server.stop()


def test_slots_without_a_node_do_not_prevent_a_connection(make_stack):
    """The slot of the probe may be one of them, if the cluster does not require that nodes serve all."""
    server = Storing(probe_reply="-CLUSTERDOWN Hash slot not served")
    stack = proxied_by(make_stack, server)
    assert stack.task("t").status == 200
    stack.wait_log("rejected EVAL: UNEXPECTED")  # so it sends commands
    server.stop()


def test_question_for_the_slots_delays_no_command_behind_it(make_stack):
    """The worker asks for the slots often, because one slot has no node."""
    server = Storing()
    stack = proxied_by(make_stack, server, clock=True, timeout="50ms")
    stack.clock.freeze()
    server.silenced.set()
    while not server.silent.wait(0.1):
        stack.clock.step(0.1)
    answer = ask(stack, 0, "t")
    assert server.asked.wait(30)
    for _ in range(8):  # the question has 1 s
        stack.clock.step(0.03)
        futures.wait([answer], 0.1)
    assert answer.result(20).status == 200
    server.stop()


class Partitioned(Redirecting):
    """A server that has a few slots. Nodes that accept connections, but never reply, have others; they join one by one."""

    def __init__(self):
        self._began = time.monotonic()
        super().__init__()
        self._others = [self._listen(self._ignore) for _ in range(30)]

    def _nodes(self) -> str:
        joined = self._others[:int(10 * (time.monotonic() - self._began))]
        return super()._nodes().replace("0-16383", "0-99") + "".join(
            f"{n:04} {address}@1 master - 0 0 1 connected {n}00-{n}99\n" for n, address in enumerate(joined, 1))

    def _ignore(self, connection):
        for _ in self._commands(connection):
            pass


def test_unreachable_nodes_do_not_delay_the_end_of_a_worker(make_stack):
    """At any time, the worker tries to connect to one of them."""
    server = Partitioned()
    stack = proxied_by(make_stack, server)
    stack.wait_until(lambda: stack.daemon.log().count("(cluster node) is unavailable") == 30, 60, "30 lost nodes")
    began = time.monotonic()
    stack.daemon.stop()
    assert time.monotonic() - began < 5
    server.stop()


@pytest.mark.problem("The server is not part of a Redis Cluster")
def test_server_without_cluster_support_is_logged(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    server = Server(stack, "redis-alone")
    server.start()
    stack.configure(redis={"address": server.address, "cluster": True})
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_log(f"Redis at {server.address} (cluster node) is unavailable: connection rejected: not a cluster")
    assert stack.task("t").status == 200
    assert stack.metric("redis_up") == 0
    server.stop()
