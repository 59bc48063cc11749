"""The clock that tests control, and what depends on it: ages, TTLs, Retry-After, held requests."""

import pytest

from teaming import bearer, refusal, teams_stack
from watching import NATIVE, Stream, hold

HOUR = 3600
PATH = "/sora/v1/videos/t"


@pytest.fixture
def clocked(make_stack):
    return make_stack(clock=True, providers={"sora": {"poll": {"min": "30s", "max": "30s"}}})


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


# A wall clock that is set back


def test_running_task_is_queried_again_after_the_clock_was_set_back(clocked):
    clocked.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS", progress="7%")
    assert [clocked.task("t").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    clocked.clock.set_back(HOUR)
    assert told(clocked.task("t")) == ("MISS", "0", "30")
    assert told(clocked.task("t")) == ("HIT", "0", "30")
    clocked.step(31)
    assert clocked.task("t").headers["x-cache"] == "MISS"


def test_stream_gets_news_after_the_clock_was_set_back(clocked):
    clocked.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS", progress="7%")
    with Stream(clocked, NATIVE + "t") as stream:
        assert stream.next().data["data"]["progress"] == "7%"
        clocked.clock.set_back(HOUR)
        clocked.standin.switch("t", state="SUCCESS", progress="100%")
        clocked.step(31)
        assert [event.data["data"]["status"] for event in stream.rest()] == ["SUCCESS"]


def test_failed_task_is_queried_again_after_the_clock_was_set_back(clocked):
    clocked.freeze()
    clocked.standin.switch("t", status=500)
    assert clocked.task("t").status == 502
    clocked.clock.set_back(HOUR)
    clocked.standin.clear()
    assert clocked.task("t").status == 200


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "no-redis"])
def test_budget_is_renewed_after_the_clock_was_set_back(make_frozen, redis):
    stack = teams_stack(make_frozen, {"web": {"queries_per_minute": 1}}, config={"workers": 1}, redis=redis)
    assert stack.get(NATIVE + "a", bearer("web")).status == 200
    assert refusal(stack.get(NATIVE + "b", bearer("web"))) == (429, "rate_limited")
    stack.clock.set_back(HOUR)
    stack.get(NATIVE + "c", bearer("web"))
    if redis:
        assert 0 < int(stack.redis.cli("PTTL", "taskproxy:#queries:web")) <= 60_000
    stack.step(61)
    assert stack.get(NATIVE + "d", bearer("web")).status == 200
