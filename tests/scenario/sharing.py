"""Helpers for the tests of workers and hosts that share a Redis."""

import socket

from helpers import REDIS_KEY
from stack import PATIENT, Stack, merged
from watching import NATIVE

CHANNEL = "taskproxy:news"


def sharing(make_stack, **settings) -> Stack:
    """A stack whose workers are subscribed to each other's notifications."""
    stack = make_stack(**settings)
    wait_hearing(stack)
    return stack


def second_host(make_stack, first, **settings) -> Stack:
    """Starts another daemon, with its own nginx, on the first one's Redis and upstream."""
    upstream = {"base_url": first.standin.url, "key_file": str(first.key_file), "ca_file": first.standin.ca_file}
    config = merged({"redis": first.config["redis"], "upstreams": {"main": PATIENT}}, settings.pop("config", {}))
    return sharing(make_stack, redis=False, upstream=upstream, config=config, **settings)


def wait_hearing(stack):
    stack.wait_metric("redis_up", stack.config["workers"])
    stack.wait_metric("redis_listening", stack.config["workers"])


def lease_of(task) -> str:
    return f"{REDIS_KEY}{task}#lease"


def wait_no_lease(stack):
    """Workers release leases shortly after they have answered. The clock must be frozen, so that no lease expires instead."""
    stack.wait_until(lambda: stack.redis.keys("*#lease") == [], what="no lease")


def ask(stack, index, task, wait=""):
    """Sends a request to this worker, bypassing nginx; returns a future."""
    return stack.background(stack.ask_worker, NATIVE + task + wait, index)


def ask_both(stack, task, barrier) -> list:
    """Futures of two requests: worker 0 queries the upstream, which hangs, and worker 1 waits for it."""
    refused = stack.metric("leases_refused_total")
    holder = ask(stack, 0, task)
    barrier.wait_arrived(1)
    waiter = ask(stack, 1, task)
    stack.wait_metric("leases_refused_total", refused + 1)
    return [holder, waiter]


class Publisher:
    """A connection to Redis for messages of arbitrary bytes, which redis-cli does not accept."""

    def __init__(self, stack):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(stack.redis.socket)
        self._replies = self._socket.makefile("rb")

    def publish(self, *texts: bytes) -> None:
        """Publishes all of them; on return Redis has delivered them."""
        for text in texts:
            words = [b"PUBLISH", CHANNEL.encode(), text]
            self._socket.sendall(b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        for _ in texts:
            assert self._replies.readline().startswith(b":")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._replies.close()
        self._socket.close()
