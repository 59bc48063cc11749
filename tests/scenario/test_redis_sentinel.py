"""Workers follow the master that Sentinels name.

The failovers take 20 s, and Sentinels on a busy machine may start more of them, so `make test` leaves them to `make test-hard`.
"""

import os

import pytest

from helpers import REDIS_KEY, clients
from redises import MASTER, guarded, wait_uses
from sharing import ask, wait_hearing


def assert_stored(stack, server, task) -> None:
    stack.standin.switch(state="SUCCESS")
    assert stack.task(task).status == 200
    stack.wait_until(lambda: server.cli("EXISTS", f"{REDIS_KEY}{task}") == "1", what=f"{task} in {server.name}")


def assert_one_query(stack, task) -> None:
    """A request at each worker."""
    refused = stack.metric("leases_refused_total")
    with stack.standin.hold(task) as barrier:
        asks = [ask(stack, 0, task)]
        barrier.wait_arrived(1)
        asks += [ask(stack, 1, task)]
        stack.wait_metric("leases_refused_total", refused + 1)
    assert [answer.result().status for answer in asks] == [200, 200]
    assert stack.standin.count(task) == 1


def failovers_cost_no_request_and_are_followed(make_stack):
    """The master is frozen while clients send requests, and the next one is killed."""
    stack = make_stack(daemon=False, nginx=False)
    with guarded(stack) as redis:
        addresses = [sentinel.address for sentinel in redis.sentinels]
        stack.configure(redis={"address": None, "sentinels": addresses, "master_name": MASTER, "timeout": "500ms"})
        stack.daemon.start()
        stack.nginx.start()
        first = redis.master()
        wait_uses(stack, first)

        with clients(stack) as failures:
            first.freeze()
            second = redis.master(other_than=first)
            wait_uses(stack, second)
        assert failures == []
        assert_stored(stack, second, "task_second")
        assert_one_query(stack, "task_shared")

        first.thaw()
        redis.wait_whole()
        second.kill()
        third = redis.master(other_than=second)
        wait_uses(stack, third)
        assert_stored(stack, third, "task_third")
        log = stack.daemon.log()
        assert "Redis at mymaster (Sentinel) is available again" in log


if os.environ.get("FAILOVERS"):
    test_failovers_cost_no_request_and_are_followed = failovers_cost_no_request_and_are_followed


@pytest.mark.problem("No Sentinel leads to a master")
def test_server_that_is_no_sentinel_is_logged_and_the_next_one_asked(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    with guarded(stack) as redis:
        wrong, right = redis.servers[1], redis.sentinels[0]
        stack.configure(redis={"address": None, "sentinels": [wrong.address, right.address], "master_name": MASTER,
                               "timeout": "5s"})
        stack.daemon.start()
        stack.nginx.start()
        stack.wait_log("Redis at mymaster (Sentinel) is unavailable")
        wait_uses(stack, redis.master())
        stack.configure(redis={"sentinels": [right.address], "master_name": "other"})
        stack.daemon.reload()
        stack.wait_log("Redis at other (Sentinel) is unavailable: the Sentinel names no IP address for this master")
        assert stack.task("t").status == 200
