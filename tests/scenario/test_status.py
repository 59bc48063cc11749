"""The master's pages for the operator: /healthz, /readyz, /status, and the option --status."""

import json
import os
import re
import signal
import socket
import time

import pytest

from helpers import step_until, worker_pid


def readiness(stack):
    answer = stack.get("/readyz")
    return answer.status, answer.json()["status"], answer.json()["why"]


def wait_ready(stack, *expected):
    stack.wait_until(lambda: readiness(stack) == expected, what=f"/readyz being {expected}")


def status(stack):
    return stack.get("/status").json()


def one(stack, section, **members):
    """The only row of the section that has these values."""
    (row,) = [row for row in status(stack)[section] if members.items() <= row.items()]
    return row


# /healthz and /readyz


def test_healthy_daemon_is_ready_without_reasons(stack):
    stack.wait_metric("redis_up", 2)
    assert readiness(stack) == (200, "ready", [])
    assert stack.get("/healthz").json()["status"] == "alive"


def test_lost_redis_is_degraded_but_ready(stack):
    stack.wait_metric("redis_up", 2)
    stack.redis.stop()
    wait_ready(stack, 200, "degraded", ["Redis is unavailable"])
    stack.redis.start()
    wait_ready(stack, 200, "ready", [])


def test_unconfigured_redis_is_not_degraded(make_stack):
    stack = make_stack(redis=False)
    assert readiness(stack) == (200, "ready", [])


def test_failing_upstream_is_degraded(make_stack):
    stack = make_stack(redis=False, config={"upstreams": {"main": {"breaker_failures": 2, "breaker_pause": "1s"}}})
    stack.standin.switch(reset=True)
    for number in range(8):
        stack.task(f"task_{number}")
    wait_ready(stack, 200, "degraded", ["upstream main is failing"])
    assert status(stack)["troubles"] == ["upstream main is failing"]
    assert one(stack, "upstreams", upstream="main")["breaker"] == "open"
    stack.standin.clear()
    numbers = iter(range(10000))  # new tasks until each worker has had some, whichever nginx sends them to
    stack.wait_until(lambda: stack.task(f"later_{next(numbers)}") and readiness(stack) == (200, "ready", []), what="recovery")


def test_rejected_key_is_degraded_and_identified_by_file_and_digest(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.wait_metric("redis_up", 1)
    stack.standin.keys.clear()
    numbers = iter(range(100))
    stack.wait_until(lambda: stack.task(f"task_{next(numbers)}").status == 502 and stack.metric("keys_set_aside") == 1)
    exhausted = "every key of upstream main is suspended or paused"
    wait_ready(stack, 200, "degraded", [exhausted, "upstream main rejects the key of key"])
    key = one(stack, "keys", upstream="main", key="key")
    assert key["state"] == "set aside" and key["refusals"] >= 2
    assert stack.key not in stack.get("/status").body.decode()


def test_retiring_provider_is_listed_with_the_days_left(make_frozen):
    stack = make_frozen(providers={"sora": {"retires": "2100-03-01"}}, redis=False)
    (row,) = status(stack)["retiring"]
    assert row == {"provider": "sora", "retires": "2100-03-01", "days_left": row["days_left"]} and row["days_left"] > 1000
    stack.step(36 * 3600)
    assert status(stack)["retiring"][0]["days_left"] in (row["days_left"] - 1, row["days_left"] - 2)
    assert readiness(stack) == (200, "ready", [])


def test_failure_of_the_past_is_not_degraded(make_frozen):
    """Without queries, nothing shows whether the upstream has recovered."""
    stack = make_frozen(config={"workers": 1, "upstreams": {"main": {"breaker_failures": 2}}})
    upstream, key = (lambda: one(stack, "upstreams", upstream="main")["breaker"]), (lambda: one(stack, "keys", upstream="main")["state"])
    stack.standin.switch(reset=True)
    for number in range(2):
        assert stack.task(f"task_{number}").status == 502
    wait_ready(stack, 200, "degraded", ["upstream main is failing"])
    stack.step(601)
    wait_ready(stack, 200, "ready", [])
    assert (upstream(), stack.metric("upstream_breaker_open"), stack.metric("upstream_breaker_unproven")) == ("not tried for 10 min", 0, 1)
    assert stack.task("later").status == 502
    stack.step(1)
    wait_ready(stack, 200, "degraded", ["upstream main is failing"])

    stack.standin.clear()
    stack.standin.keys.clear()
    stack.step(60)
    assert stack.task("again").status == 502
    wait_ready(stack, 200, "degraded", ["upstream main rejects the key of key"])
    assert (upstream(), key()) == ("closed", "rejected")
    stack.step(601)
    wait_ready(stack, 200, "ready", [])
    assert (key(), stack.metric("keys_rejected"), stack.metric("keys_unproven")) == ("not tried for 10 min", 0, 1)


def test_refused_reload_is_degraded_until_one_succeeds(stack):
    stack.wait_metric("redis_up", 2)
    stack.configure(no_such_key=1)
    stack.daemon.hup()
    wait_ready(stack, 200, "degraded", ["the last reload was refused"])
    assert status(stack)["taskproxy"]["last_refusal"].endswith("/no_such_key: unknown key")
    stack.configure(no_such_key=None)
    stack.daemon.reload()
    stack.wait_metric("redis_up", 2)
    wait_ready(stack, 200, "ready", [])
    assert status(stack)["taskproxy"]["last_refusal"] is None


def test_daemon_without_workers_is_not_ready(make_frozen):
    stack = make_frozen(redis=False, config={"workers": 1, "hung_after": "1m"})
    (worker,) = stack.daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    step_until(stack, lambda: readiness(stack)[0] == 503, what="a hung worker")
    assert readiness(stack) == (503, "not ready", ["1 of 1 workers do not respond"])
    assert one(stack, "workers", worker=0)["state"] == "hung"
    assert stack.get("/healthz").status == 200
    os.kill(worker, signal.SIGCONT)
    step_until(stack, lambda: readiness(stack) == (200, "ready", []), what="a worker that responds")


# /status


def test_workers_are_listed_with_their_requests(make_stack):
    stack = make_stack(config={"workers": 2})
    for index in (0, 1, 1):
        assert stack.ask_worker("/sora/v1/videos/task_1", index).status == 200
    for index in (0, 1):
        worker = one(stack, "workers", worker=index)
        assert (worker["pid"], worker["state"], worker["requests"]) == (worker_pid(stack, index), "ready", 1 + index)
    assert status(stack)["requests"]["answered"] == 3


def test_counts_match_the_metrics(make_stack):
    stack = make_stack(providers={"sora": {"poll": {"min": "60s", "max": "60s"}}})
    for _ in range(4):
        assert stack.task("task_1").status == 200
    shown = status(stack)
    assert shown["requests"] == {"answered": 4, "hits": 3, "misses": 1, "collapsed": 0, "stale": 0, "queries_spared": 3}
    assert shown["upstreams"][0]["queries"] == stack.standin.count() == 1


def test_history_shows_how_much_the_counters_grew_in_each_ten_seconds(make_frozen):
    stack = make_frozen(redis=False, config={"workers": 1})

    def values(name):
        return status(stack)["history"][name]

    def pass_a_step():
        n = len(values("answered"))
        step_until(stack, lambda: len(values("answered")) > n, what="a step of the history", seconds=10)

    pass_a_step()
    assert stack.task("task_1").status == stack.task("task_1").status == 200
    pass_a_step()
    pass_a_step()
    assert status(stack)["history"]["step_s"] == 10 and len(values("answered")) >= 3
    assert [sum(values(name)) for name in ("answered", "hits", "queries", "queries_spared")] == [2, 1, 1, 1]


def test_time_of_the_last_query_is_shown_for_each_upstream_and_key(make_frozen):
    stack = make_frozen(redis=False, config={"workers": 1})
    other = stack.folder / "other-key"
    stack.write_key("sk-of-another-upstream", file=other)
    upstreams = {"other": {"base_url": "https://other.example", "key_files": [str(other)]}}
    times = []
    for _ in range(2):
        stack.step(100)
        assert stack.task(f"task_{len(times)}").status == 200
        times.append(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stack.clock.time())))
        stack.step(10)
        assert one(stack, "upstreams", upstream="main")["last_query"] == one(stack, "keys", key="key")["last_query"] == times[-1]
    stack.clock.run()
    stack.configure(upstreams=upstreams)
    stack.daemon.reload()
    assert one(stack, "keys", key="key")["last_query"] == times[-1]
    assert one(stack, "upstreams", upstream="other")["last_query"] is one(stack, "keys", key="other-key")["last_query"] is None


def test_ten_most_watched_tasks_are_listed_with_shortened_ids(make_frozen):
    stack = make_frozen(config={"workers": 2, "hung_after": "1h"}, task_seconds=600)
    held = [
        stack.background(stack.task, f"sec{task:02}ret", {"Prefer": "wait=60"}) for task in range(12) for _ in range(task % 4 + 1)
    ]
    stack.wait_metric("watched_tasks", 12)
    stack.wait_metric("waiters", len(held))

    def watchers():
        return [row["watchers"] for row in status(stack)["most_watched"]]

    step_until(stack, lambda: watchers() == [4, 4, 4, 3, 3, 3, 2, 2, 2, 1], what="the ten most watched")
    tasks = {row["task"] for row in status(stack)["most_watched"]}
    assert {"sora/sec03r…", "sora/sec07r…", "sora/sec11r…"} <= tasks
    assert not re.search(r"\dret", stack.get("/status").body.decode())
    stack.standin.advance(600)
    step_until(stack, lambda: watchers() == [], what="no watchers")
    assert {answer.result().status for answer in held} == {200}


def test_status_is_indented_json_whatever_is_accepted(stack):
    for path, accept in (("/status", "*/*"), ("/status", "text/plain"), ("/status?format=text", "text/html")):
        answer = stack.get(path, {"Accept": accept})
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["taskproxy"]["version"]
        assert max(map(len, answer.body.decode().splitlines())) < 120


# --status


def test_status_is_printed_without_nginx_and_by_exit_status(make_stack):
    stack = make_stack(nginx=False, redis=False)
    done = stack.daemon.run("--status")
    page = json.loads(done.stdout)
    assert (done.returncode, done.stderr, page["status"], page["troubles"]) == (0, "", "ready", [])
    assert len(page["workers"]) == 2

    stack.configure(no_such_key=1, upstreams={"main": {"key_files": ["/no/such/key"]}})
    stack.daemon.hup()
    stack.wait_log("reload refused")
    done = stack.daemon.run("--status")  # only "socket_dir" is read from the file
    page = json.loads(done.stdout)
    assert (done.returncode, done.stderr, page["status"], page["troubles"]) == (
        1, "", "degraded", ["the last reload was refused"])

    stack.configure(no_such_key=None, upstreams={"main": {"key_files": [str(stack.key_file)]}})
    stack.daemon.stop()
    done = stack.daemon.run("--status")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"taskproxy: cannot connect to {stack.status_socket}: No such file or directory\n"


def test_stopped_master_ends_in_a_time_out(make_stack):
    """It stops as a whole, so the status server waits for a page, and the program for both."""
    stack = make_stack(nginx=False, redis=False)
    stack.daemon.freeze()
    try:
        done = stack.daemon.run("--status")
    finally:
        stack.daemon.thaw()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"taskproxy: the status server at {stack.status_socket} sent no status\n"
    stack.wait_until(lambda: stack.daemon.run("--status").returncode == 0, what="a status")


@pytest.mark.parametrize("answer", (
    b"", b"\1\6\0\1\0\4\0\0", b"\1\6\0\1\0\4\0\0\r\n\r\n" + b"\1\3\0\1\0\10\0\0" + bytes(8),
    b"\1\6\0\1\0\x10\0\1\r\n\r\n{\"status\":1}\0" + b"\1\3\0\1\0\10\0\0" + bytes(8),
), ids=("none", "partial", "empty", "problem"))
def test_answer_without_a_status_is_an_error(make_stack, answer):
    stack = make_stack(nginx=False, redis=False, daemon=False, standin=False)
    stack.socket_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(stack.status_socket)
        listener.listen()
        shown = stack.background(stack.daemon.run, "--status")
        connection, _ = listener.accept()
        with connection:
            assert b"/status" in connection.recv(4096)
            connection.sendall(answer)
        done = shown.result()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"taskproxy: the status server at {stack.status_socket} sent no status\n"
