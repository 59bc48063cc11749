"""The clock that tests control, and what depends on it: ages, TTLs, Retry-After, held requests."""

import pytest

from sharing import second_host, sharing, wait_no_lease
from teaming import bearer, given, refusal, teams_stack
from watching import NATIVE, Stream, hold

HOUR = 3600
EVEN = {"sora": {"poll": {"min": "30s", "max": "30s"}}}
PATH = "/sora/v1/videos/t"


@pytest.fixture
def clocked(make_stack):
    return make_stack(clock=True, providers=EVEN)


def told(answer) -> tuple:
    return answer.headers["x-cache"], answer.headers["age"], answer.headers.get("retry-after")


def test_frozen_time_moves_only_by_steps(clocked):
    clocked.freeze()
    now = clocked.clock.time()
    assert told(clocked.task("t")) == ("MISS", "0", "30")
    for age in range(1, 30):
        clocked.step(1)
        assert told(clocked.task("t")) == ("HIT", str(age), str(30 - age))
    clocked.step(1)
    assert told(clocked.task("t"))[:2] == ("MISS", "0")
    assert clocked.clock.time() == now + 30
    clocked.clock.run()
    clocked.wait_until(lambda: clocked.clock.time() > now + 30, what="the clock to run")


def test_sleeper_wakes_when_a_step_reaches_its_time(clocked):
    clocked.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS", progress="7%")
    (held,) = hold(clocked, ("t?wait=20", None))
    clocked.step(19.5)
    assert told(clocked.task("t"))[:2] == ("HIT", "19") and not held.done()
    clocked.step(0.5)
    assert told(held.result()) == ("HIT", "20", "10")


def test_redis_uses_the_same_clock(clocked):
    clocked.freeze()
    assert clocked.task("t").status == 200
    (key,) = clocked.wait_until(clocked.redis.stored, what="the snapshot in Redis")
    left_ms = int(clocked.redis.cli("PTTL", key))
    clocked.step(60)
    assert int(clocked.redis.cli("PTTL", key)) == left_ms - 60_000
    clocked.step((left_ms + 1) / 1000 - 60)
    assert clocked.redis.stored() == []


# A wall clock that is set: intervals go on. Redis has the same clock as the daemon, except on a second host.


@pytest.mark.problem("A clock is set")
def test_running_task_is_queried_once_per_interval_when_the_clock_is_set(clocked):
    clocked.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS", progress="7%")
    assert told(clocked.task("t")) == ("MISS", "0", "30")
    with Stream(clocked, PATH) as stream:
        assert stream.next().data["data"]["progress"] == "7%"
        for polls, hours in enumerate((-1, 2, -24, 24, -1), 2):
            clocked.step(1)
            clocked.clock.set_wall(hours * HOUR)
            assert told(clocked.task("t")) == ("HIT", "1", "29")
            clocked.standin.switch("t", state="IN_PROGRESS", progress=f"{polls}%")
            clocked.step(30)
            assert stream.next().data["data"]["progress"] == f"{polls}%"
            assert clocked.standin.count("t") == polls
            assert told(clocked.task("t")) == ("HIT", "0", "30")


def test_failed_task_is_queried_once_per_interval_when_the_clock_is_set(clocked):
    clocked.freeze()
    clocked.standin.switch("t", status=500)
    for hours in (-1, 2):
        assert clocked.task("t").status == 502
        clocked.clock.set_wall(hours * HOUR)
        assert clocked.task("t").headers["retry-after"] == "30"
        clocked.step(31)
    assert clocked.standin.count("t") == 2
    clocked.standin.clear()
    assert clocked.task("t").status == 200


def test_urls_that_expire_earlier_than_expected_are_fetched_again(clocked):
    clocked.freeze()
    clocked.standin.switch("t", state="SUCCESS", expires=clocked.clock.time() + 2 * HOUR)
    assert told(clocked.task("t"))[:2] == ("MISS", "0")
    clocked.clock.set_wall(HOUR)
    answer = clocked.task("t")
    assert (answer.headers["x-cache"], answer.headers["cache-control"]) == ("HIT", "private, max-age=3540")
    clocked.clock.set_wall(HOUR)
    assert clocked.task("t").headers["x-cache"] == "MISS"
    assert clocked.task("t").headers["x-cache"] == "HIT"


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "no-redis"])
def test_budget_is_renewed_each_minute_when_the_clock_is_set(make_frozen, redis):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 1}}, config={"workers": 1}, redis=redis)
    for minute, hours in enumerate((-1, 2, -1)):
        assert stack.get(f"{NATIVE}a{minute}", bearer("web")).status == 200
        stack.clock.set_wall(hours * HOUR)
        assert refusal(stack.get(f"{NATIVE}b{minute}", bearer("web"))) == (429, "rate_limited")
        stack.step(61)


def test_budget_is_shared_again_a_minute_after_the_clock_of_redis_is_set_back(make_frozen):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 1}})
    stack.wait_metric("redis_up", 2)
    asked = [stack.ask_worker(NATIVE + "a", 0, **given("web")).status]
    stack.clock.set_wall(-HOUR)
    stack.step(61)
    asked += [stack.ask_worker(NATIVE + task, index, **given("web")).status for index, task in enumerate("bc")]
    assert asked == [200, 200, 429]


@pytest.mark.problem("A clock is set")
def test_hosts_whose_clocks_differ_share_one_query_per_interval(make_frozen):
    first = sharing(make_frozen, providers=EVEN)
    second = second_host(make_frozen, first, providers=EVEN)
    first.standin.switch("t", state="IN_PROGRESS")
    hosts = [first, second]
    for seconds in (0, 10, HOUR, -10, -HOUR):
        second.clock.set_wall(first.clock.time() + seconds - second.clock.time())
        asked = first.standin.count("t")
        assert told(hosts[0].task("t")) == ("MISS", "0", "30")
        wait_no_lease(first)
        assert told(hosts[1].task("t")) == ("HIT", "0", "30")
        for host in hosts:
            host.step(10)
        assert [told(host.task("t")) for host in hosts] == [("HIT", "10", "20")] * 2
        for host in hosts:
            host.step(20)
        assert first.standin.count("t") == asked + 1
        hosts.reverse()
    first.standin.switch("t", state="SUCCESS")
    assert [host.task("t").headers["cache-control"] for host in hosts] == ["private, max-age=86400"] * 2
    assert "the clocks of the hosts that share Redis differ by 10 s, or one of them was set" in second.daemon.log()


def test_value_in_redis_from_before_the_clock_was_set_back_is_not_fresh(clocked):
    """The clock of Redis tells the age of a value, so after it has been set back, the age is unknown."""
    clocked.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS")
    assert told(clocked.task("t")) == ("MISS", "0", "30")
    clocked.wait_until(clocked.redis.stored, what="the snapshot in Redis")
    wait_no_lease(clocked)
    clocked.clock.set_wall(-HOUR)
    clocked.step(31)
    assert told(clocked.task("t")) == ("MISS", "0", "30")
