"""A Redis that rejects writes, denies a permission, rejects the password, or has become a replica."""

import os
import re

import pytest

from helpers import rejecting_writes, said, use_documented_rights, wait_stored
from parts import Redis
from teaming import bearer, teams_stack

ONE_WORKER = {"workers": 1}
REPLICA = "Redis is a read-only replica"


def troubles(stack):
    """The reasons in /readyz, or None while those in /status differ."""
    ready = stack.get("/readyz")
    assert ready.status == 200 and (ready.json()["status"] == "degraded") == (ready.json()["why"] != [])
    return ready.json()["why"] if ready.json()["why"] == stack.get("/status").json()["troubles"] else None


def wait_troubles(stack, *expected):
    stack.wait_until(lambda: troubles(stack) == [*expected], what=f"/readyz with {expected}")


def rejecting(stack):
    """The number of workers by reason, without zeros."""
    reasons = ("writes", "permission", "replica", "password")
    counts = {reason: stack.metric("redis_rejecting", reason=reason) for reason in reasons}
    return {reason: count for reason, count in counts.items() if count}


def wait_answered(stack):
    """Waits until the workers have the replies to all of their commands."""

    def look():
        metrics = stack.metrics()
        return metrics.sum("redis_duration_seconds_count") == metrics.sum("redis_commands_total")

    stack.wait_until(look, what="the replies from Redis")


def rejected_writes(stack):
    return int(re.search(r"cmdstat_set:.*rejected_calls=(\d+)", stack.redis.cli("INFO", "commandstats"))[1])


@pytest.mark.problem("Redis is full")
@pytest.mark.parametrize("error", ["OOM", "MISCONF", "NOREPLICAS"])
def test_service_is_degraded_while_redis_rejects_writes(make_stack, error):
    stack = make_stack(clock=True, config=ONE_WORKER)
    stack.wait_metric("redis_listening", 1)
    with rejecting_writes(stack, error):
        stack.clock.freeze()
        assert [stack.task(f"task_{number}").status for number in range(3)] == 3 * [200]
        wait_troubles(stack, "Redis accepts no writes")
        wait_answered(stack)
        rejected = rejected_writes(stack)
        stack.step(5)
        stack.wait_until(lambda: rejected_writes(stack) > rejected, what="a probe")
        assert stack.task("task_3").status == 200  # Redis answers its commands after the probe
        wait_answered(stack)
        assert rejecting(stack) == {"writes": 1}
        assert stack.metric("redis_up") == stack.metric("redis_listening") == 1
    stack.step(5)
    wait_troubles(stack)
    assert rejecting(stack) == {}
    stack.task("task_4")
    wait_stored(stack, "task_4")
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} rejected SET: {error}; results are not shared",
        f"info worker 0: Redis at unix:{stack.redis.socket} accepts all commands again",
    ]


@pytest.mark.parametrize("error", ["OOM", "MISCONF", "NOREPLICAS"])
def test_redis_that_rejects_writes_is_detected_without_requests(make_stack, error):
    stack = make_stack(clock=True, config=ONE_WORKER)
    with rejecting_writes(stack, error):
        stack.daemon.reload()
        wait_troubles(stack, "Redis accepts no writes")
        stack.wait_metric("redis_listening", 1)
    stack.step(5)
    wait_troubles(stack)
    stack.wait_log("accepts all commands again")


@pytest.mark.problem("Redis has failed over")
@pytest.mark.parametrize("error", ["READONLY", "MASTERDOWN"])
def test_worker_leaves_a_replica_and_returns_when_it_is_a_master_again(make_stack, error):
    stack = make_stack(config=ONE_WORKER)
    stack.wait_metric("redis_listening", 1)
    with rejecting_writes(stack, error):
        assert stack.task("task_1").status == 200
        stack.wait_metric("redis_up", lambda up: up == 0)
        wait_troubles(stack, REPLICA)
        assert rejecting(stack) == {"replica": 1}
        stack.wait_metric("redis_listening", lambda listening: listening == 0)
        failures = stack.metric("redis_failures_total")
        assert stack.task("task_2").status == 200
        assert stack.metric("redis_failures_total") == failures
    wait_troubles(stack)
    stack.wait_metric("redis_listening", 1)
    assert rejecting(stack) == {}
    stack.task("task_3")
    wait_stored(stack, "task_3")
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} is unavailable: read-only replica; continuing without it",
        f"info worker 0: Redis at unix:{stack.redis.socket} is available again",
    ]


@pytest.mark.problem("Redis has failed over")
def test_worker_follows_the_address_to_the_new_master(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    address = stack.folder / "master.sock"
    address.symlink_to(stack.redis.socket)
    stack.configure(redis={"address": f"unix:{address}"})
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_metric("redis_listening", 2)
    master = Redis(stack)
    master.socket += "-new"
    try:
        master.start()
        stack.redis.cli("REPLICAOF", "127.0.0.1", "1")
        (stack.folder / "new.sock").symlink_to(master.socket)
        os.rename(stack.folder / "new.sock", address)
        for index in (0, 1):
            assert stack.ask_worker(f"/sora/v1/videos/old_{index}", index).status == 200
        stack.wait_until(lambda: master.cli("PUBSUB", "NUMSUB", "taskproxy:news").endswith("\n2"), what="two subscribers")
        stack.wait_metric("redis_up", 2)
        for index in (0, 1):
            assert stack.ask_worker(f"/sora/v1/videos/new_{index}", index).status == 200
        stack.wait_until(lambda: len(master.keys("*:new_?")) == 2, what="both results in the new master")
        wait_troubles(stack)
    finally:
        master.stop()


def acl_stack(make_frozen, **redis):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 100}}, daemon=False, config=ONE_WORKER)
    use_documented_rights(stack, **redis)
    return stack


def start(stack):
    stack.daemon.start()
    stack.nginx.start()


@pytest.mark.problem("Redis denies a permission")
@pytest.mark.parametrize("command, verb", [("get", "GET"), ("pttl", "PTTL"), ("set", "SET"), ("incr", "EVAL")])
def test_service_is_degraded_until_a_missing_permission_is_granted(make_frozen, command, verb):
    stack = acl_stack(make_frozen)
    start(stack)
    stack.wait_metric("redis_up", 1)
    stack.redis.cli("ACL", "SETUSER", "taskproxy", f"-{command}")
    for number in range(2):
        assert stack.task(f"task_{number}", bearer("web")).status == 200
    wait_troubles(stack, "Redis denies our user a permission")
    assert rejecting(stack) == {"permission": 1} and stack.metric("redis_up") == 1
    assert f"\n{command}\n" in stack.redis.cli("ACL", "LOG")
    wait_answered(stack)
    stack.redis.cli("ACL", "SETUSER", "taskproxy", f"+{command}")
    stack.step(60)
    wait_troubles(stack)
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} rejected {verb}: NOPERM; its ACL LOG names the missing permission",
        f"info worker 0: Redis at unix:{stack.redis.socket} accepts all commands again",
    ]


@pytest.mark.problem("Redis denies a permission")
def test_missing_permission_is_detected_when_the_worker_connects(make_stack):
    stack = acl_stack(make_stack)
    stack.redis.cli("ACL", "SETUSER", "taskproxy", "resetkeys", "~others:*")
    start(stack)
    wait_troubles(stack, "Redis denies our user a permission", "Redis is unavailable")
    stack.wait_log("connection rejected: NOPERM")
    stack.redis.cli("ACL", "SETUSER", "taskproxy", "~taskproxy:*")
    stack.wait_log("is available again")
    wait_troubles(stack)


def test_reason_of_a_rejected_connection_does_not_remain_when_redis_stops(make_stack):
    stack = acl_stack(make_stack)
    stack.write_key("another-password", file=stack.folder / "redis-password")
    start(stack)
    wait_troubles(stack, "Redis rejects our password")
    assert rejecting(stack) == {"password": 1}
    stack.redis.stop()
    wait_troubles(stack, "Redis is unavailable")
    assert rejecting(stack) == {}


@pytest.mark.parametrize("redis, reason, trouble", [
    ({"password_file": "redis-password"}, "no password is configured there", "Redis rejects our password"),
    ({"database": 16}, "no such database", "Redis is unavailable"),
])
def test_configuration_that_does_not_fit_redis_is_reported(make_stack, redis, reason, trouble):
    stack = make_stack(daemon=False, nginx=False, config={**ONE_WORKER, "redis": redis})
    stack.write_key("a-password", file=stack.folder / "redis-password")
    start(stack)
    wait_troubles(stack, trouble)
    assert said(stack) == [
        f"warn worker 0: Redis at unix:{stack.redis.socket} is unavailable: connection rejected: {reason}; continuing without it"]
