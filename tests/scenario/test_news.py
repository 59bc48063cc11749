"""Workers publish the results of their queries through Redis: watchers in other workers get them at once and without a query.
If a message is lost, workers find the result a little later by reading Redis."""

import contextlib
import random
import threading

import pytest

from helpers import REDIS_KEY, said, wait_stored
from relaying import Relay
from sharing import CHANNEL, Publisher, ask, ask_both, second_host, sharing, wait_hearing, wait_no_lease
from watching import NATIVE, SLOW, end, run, status, wait_queries

INTERVAL = 0.3  # seconds; longer than it takes to notify four workers on a busy machine
EVEN = {"sora": {"poll": {"min": "300ms", "max": "300ms"}}}
WIDE = {"sora": {"poll": {"min": "20s", "max": "20s"}}}


@pytest.fixture
def stack(make_stack):
    return sharing(make_stack)


def assert_one_query_an_interval(stack, task, more=1):
    """Tolerates `more` queries: the first one may have been late, and the notification of a failure may come too late."""
    times = [query.at for query in stack.standin.seen(task)]
    assert len(times) - 1 <= (times[-1] - times[0]) / INTERVAL + more, [later - times[0] for later in times]


def watch(stack, index, task):
    """Holds a request for the end of the task at that worker; returns a future."""
    before = stack.metric("waiters")
    watching = ask(stack, index, task, "?wait=60")
    stack.wait_until(lambda: stack.metric("waiters") > before and stack.metric("fetches") == 0, what="a watcher")
    return watching


def report_news(stack):
    """Publishes that another worker has a new snapshot of t, and waits until the only worker knows."""
    heard = stack.metric("redis_news_total")
    with Publisher(stack) as publisher:
        publisher.publish(b"another none 0 " + key("t"))
    stack.wait_metric("redis_news_total", heard + 1)


def end_elsewhere(stack, other):
    """Ends t. The other host finds no snapshot of it in Redis, so it queries it and publishes the end."""
    heard = stack.metric("redis_news_total")
    end(stack, "t")
    stack.redis.cli("DEL", REDIS_KEY + "t")
    assert status(other.task("t")) == "SUCCESS"
    stack.wait_metric("redis_news_total", heard + 1)


# One query per interval


def test_watchers_at_four_workers_on_two_hosts_are_one_query_per_interval(make_stack):
    stack = sharing(make_stack, providers=EVEN)
    other = second_host(make_stack, stack, providers=EVEN)
    run(stack)
    watching = [watch(host, index, "t") for host in (stack, other) for index in (0, 1)]
    wait_queries(stack, 6)
    end(stack)
    answers = [answer.result() for answer in watching]
    assert {(answer.status, status(answer), answer.headers["etag"]) for answer in answers} == {
        (200, "SUCCESS", answers[0].headers["etag"])}
    assert_one_query_an_interval(stack, "t")
    queries = stack.metric("upstream_requests_total") + other.metric("upstream_requests_total")
    assert queries == stack.standin.count() >= 7


def test_many_watched_tasks_on_two_hosts_are_one_query_each_per_interval(make_stack):
    stack = sharing(make_stack, providers=EVEN)
    other = second_host(make_stack, stack, providers=EVEN)
    run(stack)
    tasks = [f"task_{number}" for number in range(20)]
    watching = [ask(host, number % 2, task, "?wait=60") for number, task in enumerate(tasks) for host in (stack, other)]
    for task in tasks:
        stack.standin.wait_count(6, task)
    end(stack)
    assert {status(answer.result()) for answer in watching} == {"SUCCESS"}
    for task in tasks:
        assert_one_query_an_interval(stack, task)


def test_failure_is_published_and_not_queried_again_in_the_interval(make_stack):
    stack = sharing(make_stack, providers=EVEN, config={"upstreams": {"main": {"breaker_failures": 0}}})
    run(stack)
    watching = [watch(stack, index, "t") for index in (0, 1)]
    stack.standin.switch(status=500)
    wait_queries(stack, 12)
    stack.standin.switch(status=None)
    end(stack)
    assert {status(answer.result()) for answer in watching} == {"SUCCESS"}
    assert_one_query_an_interval(stack, "t", more=3)


def test_failure_is_not_queried_again_at_a_host_that_does_not_have_the_task(make_frozen):
    """The first host has never seen one of the tasks either; the other task's last view is in Redis."""
    settings = {"providers": {"sora": {"poll": {"min": "2s", "max": "2s"}}}, "config": {"workers": 1}}
    stack = sharing(make_frozen, **settings)
    other = second_host(make_frozen, stack, **settings)
    run(stack)
    assert stack.ask_worker(NATIVE + "seen").status == 200
    stack.step(2)
    stack.standin.switch(status=500)
    assert stack.ask_worker(NATIVE + "seen").headers["x-cache"] == "STALE"
    assert stack.ask_worker(NATIVE + "unseen").status == 502
    other.wait_metric("redis_news_total", 3)
    other.step(0.5)
    for _ in range(2):
        answer = other.ask_worker(NATIVE + "unseen")
        assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (502, "upstream_error", "2")
        answer = other.ask_worker(NATIVE + "seen")
        assert (status(answer), answer.headers["x-cache"], answer.headers["retry-after"]) == ("IN_PROGRESS", "STALE", "2")
    assert (stack.standin.count("unseen"), stack.standin.count("seen")) == (1, 2)
    other.step(1.5)
    assert other.ask_worker(NATIVE + "unseen").status == 502
    assert other.ask_worker(NATIVE + "seen").headers["x-cache"] == "STALE"
    assert (stack.standin.count("unseen"), stack.standin.count("seen")) == (2, 3)


def test_missing_task_is_published_and_believed_after_three_times(make_stack):
    stack = sharing(make_stack, providers=EVEN)
    run(stack)
    watching = [watch(stack, index, "t") for index in (0, 1)]
    stack.standin.switch(status=404)
    assert [answer.result().json()["code"] for answer in watching] == ["task_not_found"] * 2
    assert_one_query_an_interval(stack, "t", more=2)
    assert 4 <= stack.standin.count("t") <= 7  # the first, three 404s, and up to three more for the other worker


def test_failing_upstream_is_queried_once_per_interval_by_clients_at_two_workers(make_stack):
    stack = sharing(make_stack, providers=EVEN, config={"upstreams": {"main": {"breaker_failures": 0}}})
    run(stack)
    for index in (0, 1):
        assert stack.ask_worker(NATIVE + "t", index).status == 200
    stack.standin.switch(status=500)
    enough, statuses = threading.Event(), set()

    def poll(index):
        while not enough.is_set():
            statuses.add(stack.ask_worker(NATIVE + "t", index).status)

    polling = [stack.background(poll, index) for index in (0, 1)]
    wait_queries(stack, 12)
    enough.set()
    assert [poll.result() for poll in polling] == [None] * 2
    assert statuses == {200}
    assert_one_query_an_interval(stack, "t", more=3)


def test_notification_before_the_reply_of_redis_is_not_lost(make_stack, stack):
    """The notification arrives while the reply to the lease request is on its way: the fetch reads Redis again at once."""
    run(stack)
    with contextlib.closing(Relay(str(stack.folder / "relay.sock"), stack.redis.socket)) as relay:
        config = {"workers": 1, "log_level": "debug", "redis": {"address": f"unix:{stack.folder}/relay.sock", "timeout": "10s"}}
        other = second_host(make_stack, stack, config=config)
        stack.redis.cli("CONFIG", "RESETSTAT")
        with relay.holding():
            with stack.standin.hold("t") as barrier:
                first = ask(stack, 0, "t")
                barrier.wait_arrived(1)
                second = ask(other, 0, "t")
                stack.wait_until(lambda: "cmdstat_set:calls=2," in stack.redis.cli("INFO", "commandstats"), what="the refused lease")
            assert first.result().status == 200
            other.wait_metric("redis_news_total", 1)
        assert second.result().status == 200
        assert "read_redis -> await_notification" not in other.daemon.log()
        assert stack.standin.count("t") == 1
        other.daemon.stop()


# The subscription


def subscribed(stack) -> int:
    """The number of connections subscribed to the channel, according to Redis."""
    return int(stack.redis.cli("PUBSUB", "NUMSUB", CHANNEL).splitlines()[1])


def test_lost_subscription_falls_back_to_polling_redis_and_recovers(stack):
    assert subscribed(stack) == 2
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
        assert stack.redis.cli("CLIENT", "KILL", "TYPE", "pubsub") == "2"
    assert [answer.result().status for answer in asks] == [200] * 2
    assert stack.standin.count("t") == 1
    stack.wait_until(lambda: subscribed(stack) == 2, what="two subscriptions")
    wait_hearing(stack)
    heard = stack.metric("redis_news_total")
    with stack.standin.hold("again") as barrier:
        asks = ask_both(stack, "again", barrier)
    assert [answer.result().status for answer in asks] == [200] * 2
    stack.wait_metric("redis_news_total", heard + 1)
    assert "commands" not in stack.daemon.log() and stack.metric("redis_failures_total") == 0


@pytest.mark.parametrize("rights", [("-subscribe", "&*"), ("resetchannels",)], ids=["no-command", "no-channel"])
def test_missing_subscribe_permission_is_logged_once_and_redis_is_polled(make_stack, rights):
    stack = make_stack(daemon=False, nginx=False, config={"redis": {"username": "proxy"}})
    password = stack.folder / "redis-password"
    stack.write_key("of-the-proxy", file=password)
    stack.redis.cli("ACL", "SETUSER", "proxy", "on", ">of-the-proxy", "~*", "+@all", *rights)
    stack.configure(redis={"password_file": str(password)})
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_metric("redis_up", 2)
    stack.wait_log("NOPERM")
    for task in ("one", "two", "three"):
        with stack.standin.hold(task) as barrier:
            asks = ask_both(stack, task, barrier)
        assert [answer.result().status for answer in asks] == [200] * 2
        assert stack.standin.count(task) == 1
    assert stack.metric("redis_listening") == 0
    assert len(said(stack)) == len(set(said(stack))) and "is available again" not in stack.daemon.log()

    stack.redis.cli("ACL", "SETUSER", "proxy", "+@all", "allchannels")
    wait_hearing(stack)


# Rubbish


def key(task: str) -> bytes:
    return REDIS_KEY.removeprefix("taskproxy:").encode() + task.encode()


RUBBISH = [
    b"", b" ", b"\n", b"\0" * 100, b"rubbish", b"x" * 4_000_000, b" " * 1_000_000, b"a none 0 " + b"k" * 1_000_000,
    bytes(random.Random(4).randbytes(1000)), b"a none 0 ", b"a none 0", b"a none 0 main:sora:unknown", b"a none 0 nobody",
    b"a none -1 " + key("t"), b"a none 99999999999999999999 " + key("t"), b"a none x " + key("t"), b"a none 0  " + key("t"),
    b"a NONE 0 " + key("t"), b"a rubbish 0 " + key("t"), b"a method_not_allowed 0 " + key("t"), b"a not_found 0 " + key("t"),
    b"%s%n%s 0 0 " + key("t"), b"x" * 1000 + b" none 0 " + key("t"), b"a " + b"x" * 1000 + b" 0 " + key("t"),
    "ä ö ü ß".encode(), b"a none 0 " + key("t") + b"\0", b"a none 0 " + key("t") + b"\r\n",
]


def test_published_rubbish_is_ignored(stack):
    stack.standin.switch("t", state="IN_PROGRESS", progress="7%")
    before = stack.metric("worker_deaths_total")
    with stack.standin.hold("t") as barrier:
        asks = ask_both(stack, "t", barrier)
        with Publisher(stack) as publisher:
            publisher.publish(*RUBBISH)
        stack.wait_metric("redis_listening", 2)
        assert not any(answer.done() for answer in asks)
    answers = [answer.result() for answer in asks]
    assert [(answer.status, status(answer)) for answer in answers] == [(200, "IN_PROGRESS")] * 2
    assert stack.standin.count() == 1
    assert stack.metric("worker_deaths_total") == before
    assert "NONE" not in stack.daemon.log()


def test_false_notifications_cause_no_query_and_end_no_watch(make_stack):
    stack = sharing(make_stack, providers=SLOW)
    run(stack)
    watching = [watch(stack, index, "t") for index in (0, 1)]
    queries = stack.standin.count()
    heard = stack.metric("redis_news_total")
    lies = [b"liar %b 999999999 " % code + key(task) for code in (b"none", b"task_not_found", b"upstream_error", b"upstream_auth",
                                                           b"upstream_unavailable", b"overloaded")
            for task in ("t", "unknown")] * 20
    with Publisher(stack) as publisher:
        publisher.publish(*lies)
    stack.wait_metric("redis_news_total", heard + 2 * len(lies))
    assert not any(answer.done() for answer in watching)
    assert stack.standin.count() == queries
    assert status(stack.ask_worker(NATIVE + "t", 0)) == "IN_PROGRESS"
    stack.daemon.reload()
    assert {status(answer.result()) for answer in watching} == {"IN_PROGRESS"}


def test_notification_keeps_the_count_of_missing(make_frozen):
    stack = sharing(make_frozen, config={"workers": 1}, providers={"sora": {"poll": {"min": "2s", "max": "2s"}}})
    run(stack)
    assert stack.task("t").status == 200
    stack.standin.switch("t", status=404)
    for _ in range(2):
        stack.step(2)
        assert stack.task("t").headers["x-cache"] == "STALE"
    report_news(stack)
    stack.step(2)
    assert stack.task("t").json()["code"] == "task_not_found"
    assert stack.standin.count("t") == 4


def test_notification_that_comes_after_its_snapshot_was_read_causes_no_query(make_frozen):
    stack = sharing(make_frozen, providers=SLOW, config={"workers": 1})
    other = second_host(make_frozen, stack, providers=SLOW, config={"workers": 1})
    run(stack)
    assert stack.task("t").status == 200
    wait_no_lease(stack)
    assert other.task("t").headers["x-cache"] == "HIT"
    heard = other.metric("redis_news_total")
    report_news(stack)
    other.wait_metric("redis_news_total", heard + 1)
    assert other.task("t").headers["x-cache"] == "HIT"
    assert stack.standin.count("t") == 1


def test_older_snapshot_does_not_replace_a_newer_one(make_frozen):
    """After an interruption, Redis may have a snapshot from before that is still fresh, when a worker already has a newer one."""
    stack = sharing(make_frozen, providers=WIDE)
    run(stack, "7%")
    assert stack.ask_worker(NATIVE + "t", 0).status == 200
    wait_stored(stack, "t")
    assert stack.redis.cli("RENAME", REDIS_KEY + "t", "older") == "OK"
    stack.step(4)
    run(stack, "50%")
    newer = stack.ask_worker(NATIVE + "t", 1)
    assert newer.headers["x-cache"] == "MISS"
    wait_stored(stack, "t")
    assert stack.redis.cli("RENAME", "older", REDIS_KEY + "t") == "OK"
    heard = stack.metric("redis_news_total")
    with Publisher(stack) as publisher:
        publisher.publish(b"another none 0 " + key("t"))
    stack.wait_metric("redis_news_total", heard + 2)
    for seconds in (0, 17):  # the older one is no longer fresh then
        stack.step(seconds)
        answer = stack.ask_worker(NATIVE + "t", 1)
        assert (answer.headers["x-cache"], answer.body) == ("HIT", newer.body)
    assert stack.standin.count("t") == 2


def test_notification_at_the_limit_of_fetches_still_outdates_the_view(make_stack):
    stack = sharing(make_stack, providers=SLOW, config={"workers": 1, "limits": {"fetches": 1}})
    second = second_host(make_stack, stack, providers=SLOW, config={"workers": 1})
    run(stack)
    watching = watch(stack, 0, "t")
    with stack.standin.hold("other") as barrier:
        other = ask(stack, 0, "other")
        barrier.wait_arrived(1)
        assert stack.task("t").headers["x-cache"] == "HIT"
        end_elsewhere(stack, second)
        assert stack.task("t").headers["x-cache"] == "STALE"
    assert other.result().status == 200
    assert status(stack.task("t")) == status(watching.result()) == "SUCCESS"


def test_outdated_view_is_used_until_its_next_query_if_redis_cannot_be_read(make_frozen):
    stack = sharing(make_frozen, providers=SLOW, config={"workers": 1})
    run(stack)
    assert stack.task("t").status == 200
    report_news(stack)
    stack.redis.cli("CONFIG", "SET", "maxmemory", "1")
    assert status(stack.task("t")) == "IN_PROGRESS"
    stack.redis.cli("CONFIG", "SET", "maxmemory", "0")
    report_news(stack)
    stack.redis.kill()
    stack.wait_metric("redis_up", lambda up: up == 0)
    assert status(stack.task("t")) == "IN_PROGRESS"
    assert stack.standin.count("t") == 1


def test_watcher_gets_news_that_came_at_the_limit_of_fetches(make_frozen):
    """A second later, not at the next poll."""
    stack = sharing(make_frozen, providers=SLOW, config={"workers": 1, "limits": {"fetches": 1}})
    second = second_host(make_frozen, stack, providers=SLOW, config={"workers": 1})
    run(stack)
    watching = watch(stack, 0, "t")
    with stack.standin.hold("other") as barrier:
        other = ask(stack, 0, "other")
        barrier.wait_arrived(1)
        end_elsewhere(stack, second)
    assert other.result().status == 200
    stack.step(2)
    assert status(watching.result()) == "SUCCESS"


@contextlib.contextmanager
def flood(stack, text: bytes):
    """Publishes the notification continuously, as fast as Redis accepts it."""
    enough = threading.Event()

    def publish_all():
        with Publisher(stack) as publisher:
            while not enough.is_set():
                publisher.publish(*[text] * 1000)

    flooding = stack.background(publish_all)
    stack.wait_metric("redis_news_total", 1000)
    yield
    enough.set()
    flooding.result()


def test_flood_of_notifications_does_not_block_a_worker(stack):
    with flood(stack, b"liar none 0 main:sora:unknown"):
        assert [stack.ask_worker(NATIVE + f"task_{number}", number % 2).status for number in range(100)] == [200] * 100


def test_notifications_while_workers_leave_are_harmless(stack):
    run(stack)
    with flood(stack, b"liar none 0 " + key("t")):
        for _ in range(3):
            watching = [ask(stack, index, "t", "?wait=60") for index in (0, 1)]
            stack.wait_metric("watched_tasks", 2)
            stack.daemon.reload()
            assert {status(answer.result()) for answer in watching} == {"IN_PROGRESS"}
    assert stack.metric("worker_deaths_total") == 0
