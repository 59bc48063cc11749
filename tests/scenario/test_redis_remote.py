"""Over TLS, with Sentinels, and both: a wrong password and a read-only replica delay and fail no request, and are logged once."""

import contextlib
import re

import pytest

from helpers import clients, readiness, said
from redises import HAS_TLS, Certificates, Server, guarded, wait_uses
from sharing import wait_hearing

# Sentinels alone are the same on both releases; hiredis has TLS on one of them.
WAYS = ["sentinel", *(["tls", "sentinel, tls"] if HAS_TLS else [])]
ATTEMPTS = 4  # further ones have the same reason


class Remote:
    """A server, perhaps named by a Sentinel; the daemon is configured to use it as the user taskproxy."""

    def __init__(self, stack, server, settings):
        self.stack, self.server = stack, server
        server.cli("ACL", "SETUSER", "taskproxy", "on", ">the-right-password", "~*", "&*", "+@all")
        self.name = "mymaster (Sentinel)" if "sentinels" in settings else server.address
        self.write_password("the-right-password")
        stack.configure(redis={**settings, "timeout": "5s", "username": "taskproxy", "password_file": "redis-password"})

    def write_password(self, password: str) -> None:
        self.stack.write_key(password, file=self.stack.folder / "redis-password")

    def start(self) -> None:
        self.stack.daemon.start()
        self.stack.nginx.start()

    def rejecting(self) -> dict:
        """The number of workers by reason, without zeros."""
        metrics = self.stack.metrics()
        counts = {reason: metrics.sum("redis_rejecting", reason=reason) for reason in ("writes", "permission", "replica", "password")}
        return {reason: count for reason, count in counts.items() if count}

    def assert_said(self, *lines: str) -> None:
        """Each worker has logged these lines about Redis, and no others."""
        expected = [f"{level} worker {worker}: Redis at {self.name} {text}" for worker in (0, 1)
                    for level, text in (line.split(" ", 1) for line in lines)]
        assert sorted(said(self.stack)) == sorted(expected)


@pytest.fixture(params=WAYS)
def remote(request, make_stack):
    stack = make_stack(daemon=False, nginx=False)
    tls = Certificates(stack) if "tls" in request.param else None
    with contextlib.ExitStack() as running:
        if "sentinel" in request.param:
            redis = running.enter_context(guarded(stack, 1, tls))
            yield Remote(stack, redis.servers[0], redis.settings())
        else:
            server = Server(stack, "redis-tls", tls)
            running.callback(server.stop)
            server.start()
            yield Remote(stack, server, {"address": server.address, "tls": tls.for_daemon})


def calls(server, statistic: str) -> int:
    """How many calls of AUTH or SET have failed, or were rejected."""
    command, kind = statistic.split()
    found = re.search(rf"cmdstat_{command}:.*{kind}_calls=(\d+)", server.cli("INFO", "commandstats"))
    return int(found[1]) if found else 0


@pytest.mark.problem("Redis rejects the password")
def test_wrong_password(remote):
    stack = remote.stack
    remote.write_password("some-wrong-password")
    remote.start()
    with clients(stack) as failures:
        stack.wait_until(lambda: calls(remote.server, "auth failed") >= 2 * ATTEMPTS, what="further attempts")
    assert failures == []
    assert stack.metric("redis_commands_total") == 0  # no request has waited for Redis
    assert remote.rejecting() == {"password": 2} and readiness(stack)["why"] == ["Redis rejects our password"]
    remote.assert_said("warn is unavailable: connection rejected: WRONGPASS; continuing without it")

    remote.write_password("the-right-password")
    stack.daemon.reload()
    wait_uses(stack, remote.server)
    stack.wait_until(lambda: remote.rejecting() == {}, what="the end of the old workers")
    assert readiness(stack)["why"] == []
    assert "-password" not in stack.daemon.log().replace("redis-password", "")


@pytest.mark.problem("Redis has failed over")
def test_replica(remote):
    stack = remote.stack
    remote.start()
    wait_hearing(stack)
    remote.server.cli("REPLICAOF", "127.0.0.1", "1")
    for index in (0, 1):  # the tasks of the clients may all be those of one worker
        assert stack.ask_worker(f"/sora/v1/videos/first_{index}", index).status == 200
    with clients(stack) as failures:
        stack.wait_metric("redis_rejecting", 2, reason="replica")
        failed = stack.metric("redis_failures_total")
        stack.wait_until(lambda: calls(remote.server, "set rejected") >= 2 * ATTEMPTS, what="further attempts")
        assert stack.metric("redis_up") == stack.metric("redis_listening") == 0
    assert failures == []
    assert stack.metric("redis_failures_total") == failed  # no later request has waited for Redis
    assert remote.rejecting() == {"replica": 2} and readiness(stack)["why"] == ["Redis is a read-only replica"]

    remote.server.cli("REPLICAOF", "NO", "ONE")
    wait_uses(stack, remote.server)
    assert remote.rejecting() == {} and readiness(stack)["why"] == []
    remote.assert_said("warn is unavailable: read-only replica; continuing without it", "info is available again")
