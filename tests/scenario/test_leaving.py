"""Workers that exit or die while they hold requests: each client gets the current view or a clean end of its stream, and
every error has a Retry-After."""

import contextlib
import os
import signal

import pytest

import fastcgi
from helpers import beat_until, metric, wait_gone, wait_metric, worker_states
from watching import NATIVE, SLOW, UNIFIED, Stream, begin, end, hold, quick, run, status

TASKS = 50
MANY = "/v1/tasks?ids=sora/task_0,sora/task_1&wait=60"


def thousand(stack) -> tuple:
    """Holds 600 requests of each form, and 400 streams."""
    etag = {"If-None-Match": stack.task("task_0").headers["etag"]}
    native = [(f"task_{number % TASKS}?wait=60", None) for number in range(400)]
    unified = [(f"task_{number % TASKS}", {"Prefer": "wait=60"}) for number in range(100)]
    streams = [begin(stack, (NATIVE, UNIFIED)[number % 2] + f"task_{number % TASKS}") for number in range(400)]
    return [
        *hold(stack, *native), *hold(stack, *unified, path=UNIFIED), *hold(stack, *[(MANY, None)] * 50, path=""),
    ], hold(stack, *[("task_0?wait=60", etag)] * 50), streams


def test_thousand_held_requests_get_the_current_view_on_reload_and_stop(make_stack):
    stack = make_stack(providers=SLOW)
    run(stack)
    for leave in (stack.daemon.reload, stack.daemon.term):
        held, tagged, streams = thousand(stack)
        assert stack.metric("waiters") == 1000
        leave()
        answers = [ask.result() for ask in held]
        assert {answer.status for answer in answers} == {200}
        assert {answer.json()["tasks"][0]["status"] if "tasks" in answer.json() else status(answer) for answer in answers} == {
            "IN_PROGRESS", "running"}
        assert {ask.result().status for ask in tagged} == {304}
        assert [stream.rest() for stream in streams] == [[]] * 400
    log = stack.daemon.log()
    assert "unanswered" not in log and " warn " not in log and " error " not in log


def test_new_workers_hold_new_watchers_while_old_ones_drain(make_stack):
    stack = make_stack(**quick(workers=2))
    run(stack)
    with stack.standin.hold("fetched") as barrier:
        fetched = stack.background(stack.task, "fetched")
        barrier.wait_arrived(1)
        held = hold_all(stack, 20)
        stack.daemon.reload(wait_for_old=False)
        assert {status(ask.result()) for ask in held} == {"IN_PROGRESS"}
        assert not fetched.done()
        again = hold_all(stack, 20)
    assert fetched.result().status == 200
    end(stack)
    assert {status(ask.result()) for ask in again} == {"SUCCESS"}


@contextlib.contextmanager
def leaving(stack):
    """Within, a reload has replaced the only worker, and the old one waits for the upstream's answer to a request."""
    with stack.standin.hold("t") as barrier:
        asking = stack.background(stack.ask_worker, NATIVE + "t")
        barrier.wait_arrived(1)
        stack.daemon.reload(wait_for_old=False)
        stack.wait_until(lambda: "leaving" in worker_states(stack), what="the old worker to leave")
        yield asking


def test_worker_that_hangs_while_it_drains_is_killed_like_any_other(make_frozen):
    stack = make_frozen(nginx=False, redis=False, config={"workers": 1, "hung_after": "10s", "drain": "10m"})
    (old,) = stack.daemon.workers()
    with leaving(stack) as asking:
        os.kill(old, signal.SIGSTOP)
        beat_until(stack, lambda: "worker 0 unresponsive for 10 s; killed" in stack.daemon.log(), what="the end of the worker")
        with pytest.raises(fastcgi.Closed):
            asking.result()
    assert stack.ask_worker(NATIVE + "t").status == 200


def test_worker_that_has_finished_may_wait_for_redis_without_heartbeats(make_frozen):
    stack = make_frozen(nginx=False, config={"workers": 1, "hung_after": "5s", "redis": {"timeout": "10s"}})
    (old,) = stack.daemon.workers()
    with leaving(stack) as asking:
        stack.redis.freeze()
    assert asking.result().status == 200
    for _ in range(7):
        beats = metric(stack, "loop_lag_seconds_count")
        stack.clock.step(1)
        wait_metric(stack, "loop_lag_seconds_count", lambda now: now > beats)
    assert "leaving" in worker_states(stack) and "unresponsive" not in stack.daemon.log()
    stack.redis.thaw()
    wait_gone(stack, old)


def hold_all(stack, count) -> list:
    """Like hold(), while other fetches are running, such as those of the tasks themselves."""
    before = stack.metric("waiters")
    held = [stack.background(stack.get, f"{NATIVE}task_{number}?wait=60") for number in range(count)]
    stack.wait_metric("waiters", before + count)
    stack.wait_metric("watched_tasks", count)
    return held


@pytest.mark.parametrize("workers", [1, 2])
def test_watcher_of_a_dead_worker_is_held_by_another_or_told_to_retry(make_stack, workers):
    stack = make_stack(**quick(workers))
    run(stack)
    held = hold_all(stack, 20)
    os.kill(stack.daemon.workers()[0], signal.SIGKILL)
    stack.wait_metric("worker_deaths_total", 1)
    stack.wait_metric("workers_ready", workers)
    stack.wait_until(lambda: stack.metric("waiters") + sum(ask.done() for ask in held) >= 20, what="every request to be held or answered")
    end(stack)
    for answer in (ask.result() for ask in held):
        assert answer.status == 503 and answer.headers["retry-after"] or status(answer) == "SUCCESS"
    assert {stack.get(f"{NATIVE}task_{number}?wait=60").status for number in range(20)} == {200}


@pytest.mark.problem("A worker dies or hangs")
def test_stream_of_a_dead_worker_ends_cleanly_and_resumes(make_stack):
    stack = make_stack(**quick(workers=2))
    run(stack)
    paths = [f"{NATIVE}task_{number % 10}" for number in range(50)]
    streams = [Stream(stack, path) for path in paths]
    known = [stream.next() for stream in streams]
    for worker in stack.daemon.workers():
        os.kill(worker, signal.SIGKILL)
    assert [stream.rest() for stream in streams] == [[]] * 50
    stack.wait_metric("worker_deaths_total", 2)
    stack.wait_metric("workers_ready", lambda ready: ready == 2)
    assert (stack.metric("waiters"), stack.metric("streams"), stack.metric("watched_tasks")) == (0, 0, 0)

    streams = [Stream(stack, path, Last_Event_ID=event.id) for path, event in zip(paths, known)]
    end(stack)
    assert [[event.data["data"]["status"] for event in stream.rest()] for stream in streams] == [["SUCCESS"]] * 50


def test_leaving_worker_waits_for_redis_only_to_release_leases(make_stack):
    stack = make_stack(config={"workers": 1, "redis": {"timeout": "2s"}})
    stack.wait_metric("redis_up", 1)
    with stack.standin.hold("t") as barrier:
        with fastcgi.Connection(str(stack.worker_socket(0))) as connection:
            connection.send(fastcgi.request(fastcgi.task_params(NATIVE + "t")))
            barrier.wait_arrived(1)
        stack.wait_metric("requests_gone_total", 1)
        stack.redis.freeze()
        assert stack.daemon.term() == 0
    stack.redis.thaw()
