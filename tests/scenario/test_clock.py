"""The clock that tests control, and what depends on it: ages, TTLs, Retry-After, held requests."""

import pytest

PATH = "/sora/v1/videos/t"


@pytest.fixture
def clocked(make_stack):
    return make_stack(clock=True, providers={"sora": {"poll": {"min": "30s", "max": "30s"}}})


def told(answer) -> tuple:
    return answer.headers["x-cache"], answer.headers["age"], answer.headers.get("retry-after")


def test_frozen_time_moves_only_by_steps(clocked):
    clocked.clock.freeze()
    now = clocked.clock.time()
    assert told(clocked.task("t")) == ("MISS", "0", "30")
    for age in range(1, 30):
        clocked.clock.step(1)
        assert told(clocked.task("t")) == ("HIT", str(age), str(30 - age))
    clocked.clock.step(1)
    assert told(clocked.task("t"))[:2] == ("MISS", "0")
    assert clocked.clock.time() == now + 30
    clocked.clock.run()
    clocked.wait_until(lambda: clocked.clock.time() > now + 30, what="the clock to run")


def test_sleeper_wakes_when_a_step_reaches_its_time(clocked):
    clocked.clock.freeze()
    clocked.standin.switch("t", state="IN_PROGRESS", progress="7%")
    held = clocked.background(clocked.task, "t?wait=20")
    clocked.standin.wait_count(1, "t")
    clocked.wait_metric("waiters", 1)
    clocked.clock.step(19.5)
    assert told(clocked.task("t"))[:2] == ("HIT", "19") and not held.done()
    clocked.clock.step(0.5)
    assert told(held.result()) == ("HIT", "20", "10")


def test_redis_uses_the_same_clock(clocked):
    clocked.clock.freeze()
    assert clocked.task("t").status == 200
    (key,) = clocked.wait_until(clocked.redis.stored, what="the snapshot in Redis")
    left_ms = int(clocked.redis.cli("PTTL", key))
    clocked.clock.step(60)
    assert int(clocked.redis.cli("PTTL", key)) == left_ms - 60_000
    clocked.clock.step((left_ms + 1) / 1000 - 60)
    assert clocked.redis.stored() == []
