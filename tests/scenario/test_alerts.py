"""For each alert of conf/prometheus, a test causes a real fault and evaluates the rule on the /metrics that the daemon then
serves: the condition is false before the fault, true during it, and false afterwards. tests/prometheus tests the durations."""

import contextlib
import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
from itertools import count

import pytest

import fastcgi
from helpers import TASK, metric, rejecting_writes, step_until, wait_metric, wait_stored, worker_pid
from managing import Manager
from stack import Metrics
from test_keys import Pool
from test_prometheus import RULES, metrics_in
from test_stalled_log import Reader, ask_until_lines_are_dropped

HOUR = 61  # minutes: more than any range in the rules


class Prometheus:
    """Scrapes the stack's /metrics through nginx, and gives the pages times of its own: one is scraped each minute. `names`
    are those of the alerts to watch."""

    def __init__(self, stack, names):
        self._stack = stack
        self.names = names
        self._used = metrics_in(RULES.read_text())
        self._pages = []  # {series: value}, one for each minute
        self._expected = []  # (minute, names of the alerts whose condition is true then)

    def expect(self, *alerts: str, idle: int = 0) -> None:
        """Scrapes once more. Of the watched alerts, exactly these are pending or firing now. During the `idle` minutes before,
        nothing changes."""
        assert set(alerts) <= set(self.names)
        self._pages += self._pages[-1:] * idle
        self.scrape()
        self._expected.append((len(self._pages) - 1, alerts))

    def scrape(self) -> None:
        answer = self._stack.get("/metrics")
        page = Metrics(answer.body.decode()) if answer.status == 200 else {}
        used = {series: value for series, value in page.items() if series.partition("{")[0] in self._used}
        self._pages.append({**used, 'up{job="taskproxy"}': float(answer.status == 200)})

    def check(self, folder) -> None:
        caused = {alert for _, alerts in self._expected for alert in alerts}
        assert caused == set(self.names) and self._expected[0][1] == self._expected[-1][1] == ()
        file = folder / "rules_test.yml"
        file.write_text(json.dumps(self._test_of_rules()))  # JSON is valid YAML
        done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def _test_of_rules(self) -> dict:
        names = {series for page in self._pages for series in page}
        series = [{"series": name, "values": " ".join(f"{page[name]:g}" if name in page else "_" for page in self._pages)}
                  for name in sorted(names)]
        alerts = f'group by (alertname) (ALERTS{{alertname=~"{"|".join(self.names)}"}})'
        expected = [{"expr": alerts, "eval_time": f"{minute}m",
                     "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]}
                    for minute, names in self._expected]
        return {"rule_files": [str(RULES)], "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": expected}]}


@pytest.fixture
def watch(request, tmp_path):
    """watch(stack) watches the alerts that the test is marked with. At the end of the test they must have been as expected."""
    made = []

    def make(stack):
        made.append(Prometheus(stack, request.node.get_closest_marker("alert").args))
        return made[0]

    yield make
    made[0].check(tmp_path)


# Upstreams


def ask(stack, names, *expected):
    """Requests each of the new tasks; asserts that the answers have these statuses."""
    assert [stack.task(f"task_{next(names)}").status for _ in expected] == [*expected]


@pytest.mark.alert("TaskproxyUpstreamFails", "TaskproxyUpstreamErrors", "TaskproxyErrors", "TaskproxyStale")
def test_failing_upstream(make_frozen, watch):
    stack = make_frozen(redis=False, config={"workers": 1, "upstreams": {"main": {"breaker_failures": 3}}})
    names = count()
    stack.standin.switch("known", state="IN_PROGRESS")
    assert stack.task("known").status == 200
    prometheus = watch(stack)
    prometheus.expect()
    stack.standin.switch(reset=True)
    stack.step(5)
    ask(stack, names, 502, 502, 502)
    stack.wait_log("failed 3 times in a row")
    for _ in range(2):  # a rate needs two values of the series of each status
        ask(stack, names, 503)
        assert stack.task("known").headers["x-cache"] == "STALE"
        prometheus.scrape()
    prometheus.expect(*prometheus.names)
    stack.standin.switch(reset=False)
    stack.step(30)
    assert stack.task("known").headers["x-cache"] == "MISS"
    ask(stack, names, 200)
    prometheus.expect(idle=HOUR)


@pytest.mark.alert("TaskproxyKeyRests", "TaskproxyKeySetAside", "TaskproxyKeysExhausted")
def test_rate_limited_and_rejected_keys(make_stack, watch):
    pool = Pool(make_stack, count=2, clock=True)
    stack, names = pool.stack, count()
    stack.freeze()
    prometheus = watch(stack)
    ask(stack, names, 200, 200)
    prometheus.expect()
    pool.standin.busy = {pool.keys[0]: 60}
    ask(stack, names, 200, 200)
    prometheus.expect("TaskproxyKeyRests")
    pool.standin.busy[pool.keys[1]] = 60
    ask(stack, names, 503)
    prometheus.expect("TaskproxyKeyRests", "TaskproxyKeysExhausted")
    pool.standin.busy = {}
    stack.step(61)
    ask(stack, names, 200, 200)
    prometheus.expect()

    pool.standin.keys = set()
    step_until(stack, lambda: suspended_after(stack, names) == 2, "suspended keys", 5)
    prometheus.expect("TaskproxyKeySetAside", "TaskproxyKeysExhausted")
    pool.standin.keys = set(pool.keys)
    step_until(stack, lambda: suspended_after(stack, names) == 0, "good keys", 60)
    prometheus.expect()


def suspended_after(stack, names):
    """The number of suspended keys after a request for a new task."""
    stack.task(f"task_{next(names)}")
    return stack.metric("keys_set_aside")


@pytest.mark.alert("TaskproxyUnknownStatus")
def test_unlisted_status(make_frozen, watch):
    stack = make_frozen(redis=False)
    prometheus = watch(stack)
    assert stack.task("task_1").status == 200
    prometheus.expect()
    stack.standin.switch("task_2", state="RESTING")
    assert stack.task("task_2").status == 200
    prometheus.expect("TaskproxyUnknownStatus")
    prometheus.expect(idle=HOUR)


# Workers


@pytest.mark.alert("TaskproxyDown", "TaskproxyNoWorker", "TaskproxyWorkersDie")
def test_workers_that_cannot_start(make_stack, watch):
    stack = make_stack(daemon=False, redis=False)
    program, good, bad = (stack.folder / name for name in ("taskproxy", "good", "bad"))
    for copy in (program, good):
        shutil.copy(stack.daemon.binary, copy)
    bad.write_text("#!/bin/sh\nexit 7\n")
    bad.chmod(0o755)
    stack.daemon.binary = str(program)
    stack.daemon.start()
    prometheus = watch(stack)
    prometheus.expect()
    prometheus.expect(idle=15)

    bad.rename(program)  # the program that the master starts from now on
    for pid in stack.daemon.workers():
        os.kill(pid, signal.SIGKILL)
    stack.wait_metric("worker_deaths_total", 4)
    stack.wait_metric("workers_ready", lambda ready: ready == 0)
    prometheus.expect("TaskproxyNoWorker", "TaskproxyWorkersDie")
    good.rename(program)
    stack.wait_metric("workers_ready", 2)
    prometheus.expect("TaskproxyWorkersDie")
    prometheus.expect(idle=15)

    stack.daemon.stop()
    prometheus.expect("TaskproxyDown")
    stack.daemon.start()
    prometheus.expect()


@pytest.mark.alert("TaskproxyLoopLag", "TaskproxyOverloaded")
def test_overloaded_worker(make_frozen, watch):
    stack = make_frozen(redis=False, config={"workers": 1, "limits": {"fetches": 1}})
    prometheus = watch(stack)
    beat_in_time(stack)
    prometheus.expect()
    beat_in_time(stack)
    prometheus.expect()
    with stack.standin.hold("task_1") as barrier:
        asked = stack.background(stack.task, "task_1")
        barrier.wait_arrived(1)
        assert stack.task("task_2").status == 503
    assert asked.result().status == 200
    beats = stack.metric("loop_lag_seconds_count")
    stack.step(4)  # as if an iteration of the loop took so long
    stack.wait_metric("loop_lag_seconds_count", beats + 1)
    prometheus.expect("TaskproxyLoopLag", "TaskproxyOverloaded")
    beat_in_time(stack)
    prometheus.expect(idle=15)


def beat_in_time(stack):
    """Steps the clock until the worker has had two more heartbeats, in steps that it follows."""
    beats = stack.metric("loop_lag_seconds_count")

    def step():
        stack.step(0.1)
        assert stack.ask_worker("/nowhere").status == 404  # its loop has seen the new time
        return stack.metric("loop_lag_seconds_count") >= beats + 2

    stack.wait_until(step, what="two heartbeats")


@pytest.mark.alert("TaskproxyDescriptorsExhausted")
def test_worker_out_of_descriptors(make_frozen, watch):
    user = pwd.getpwuid(os.geteuid()).pw_name  # the worker's, so that the test may change its limit
    stack = make_frozen(redis=False, config={"user": user})
    prometheus = watch(stack)
    worker = worker_pid(stack, 0)
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    with fastcgi.Connection(stack.worker_socket(0)) as kept:
        assert kept.ask(fastcgi.task_params("/nowhere"))[0] == 404
        prometheus.expect()
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
        assert kept.ask(fastcgi.task_params(TASK))[0] == 503
        prometheus.expect("TaskproxyDescriptorsExhausted")
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        step_until(stack, lambda: stack.metric("descriptors_exhausted") == 0, "free descriptors")
        prometheus.expect()


@pytest.mark.alert("TaskproxySocketsUnserved")
def test_fewer_workers_than_sockets_of_the_service_manager(make_stack, watch):
    stack = make_stack(redis=False, daemon=False)
    stack.socket_dir.mkdir()
    names = ("status.sock", "worker-0.sock", "worker-1.sock")
    with contextlib.closing(Manager(stack, listen=[str(stack.socket_dir / name) for name in names])):
        stack.daemon.start()
        prometheus = watch(stack)
        for workers, alerts in ((2, ()), (1, ("TaskproxySocketsUnserved",)), (2, ())):
            stack.configure(workers=workers)
            stack.daemon.reload()
            stack.wait_metric("sockets_unserved", lambda unserved: unserved == 2 - workers)
            prometheus.expect(*alerts)


# Files, the log and metrics


@pytest.mark.alert("TaskproxyReloadRefused", "TaskproxyFilesRefused")
def test_refused_files(make_stack, watch):
    stack = make_stack(redis=False)
    prometheus = watch(stack)
    prometheus.expect()
    stack.configure(no_such_key=1)
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 1, result="refused")
    prometheus.expect("TaskproxyReloadRefused")
    stack.key_file.chmod(0o644)
    stack.wait_metric("files_refused", 1)
    prometheus.expect("TaskproxyReloadRefused", "TaskproxyFilesRefused")
    stack.key_file.chmod(0o600)
    stack.wait_metric("files_refused", lambda refused: refused == 0)
    stack.configure(no_such_key=None)
    stack.daemon.reload()
    prometheus.expect()


@pytest.mark.alert("TaskproxyLogLinesDropped")
def test_log_that_is_not_read(make_stack, watch):
    stack = make_stack(redis=False, daemon=False, config={"log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    with Reader(stack, "pipe") as reader:
        reader.start_daemon()
        prometheus = watch(stack)
        prometheus.expect()
        connections = metric(stack, "connections")
        ask_until_lines_are_dropped(stack)
        # The worker logs more about the last request after its answer, and then notices that the client has left.
        wait_metric(stack, "connections", lambda now: now <= connections)
        prometheus.expect("TaskproxyLogLinesDropped")
        reader.resume()
        stack.wait_log("log lines dropped")
        prometheus.expect(idle=15)
        assert stack.daemon.term() == 0
        reader.join()


@pytest.mark.alert("TaskproxySeriesLost")
def test_more_upstreams_than_the_metrics_have_room_for(make_stack, watch):
    stack = make_stack(redis=False, config={"workers": 1})
    prometheus = watch(stack)
    prometheus.expect()
    main = stack.config["upstreams"]["main"]
    stack.configure(upstreams={f"upstream{number}": main for number in range(60)})
    stack.daemon.reload()
    assert stack.task("task_1").status == 200
    prometheus.expect("TaskproxySeriesLost")
    stack.configure(upstreams={f"upstream{number}": None for number in range(60)})
    stack.daemon.reload()
    assert stack.task("task_2").status == 200
    stack.wait_metric("series_lost", lambda now: now == 0)  # when the master has noticed that the old worker has exited
    prometheus.expect()


# Redis


@pytest.mark.alert("TaskproxyRedisAway", "TaskproxyRedisRejects", "TaskproxyHitsSlow")
def test_redis_in_trouble(make_stack, watch):
    stack = make_stack(clock=True, config={"workers": 2})
    stack.standin.switch(state="SUCCESS")
    stack.freeze()
    prometheus = watch(stack)
    assert stack.ask_worker(TASK, 0).status == 200
    wait_stored(stack, "task_1")
    assert stack.ask_worker(TASK, 0).status == 200
    prometheus.expect()

    stack.redis.freeze()
    commands = stack.metric("redis_commands_total")
    hit = stack.background(stack.ask_worker, TASK, 1)
    stack.wait_metric("redis_commands_total", commands + 1)
    stack.clock.step(0.2)
    stack.redis.thaw()
    assert hit.result().headers["x-cache"] == "HIT"
    prometheus.expect("TaskproxyHitsSlow")
    prometheus.expect(idle=15)

    stack.clock.run()
    stack.redis.stop()
    stack.wait_metric("redis_up", lambda up: up == 0)
    prometheus.expect("TaskproxyRedisAway")
    stack.redis.start()
    stack.wait_metric("redis_up", 2)
    prometheus.expect()

    with rejecting_writes(stack, "OOM"):
        stack.freeze()
        assert stack.ask_worker("/sora/v1/videos/task_2", 0).status == 200
        stack.wait_metric("redis_rejecting", 1)
        prometheus.expect("TaskproxyRedisRejects")
    stack.step(5)
    stack.wait_metric("redis_rejecting", lambda rejecting: rejecting == 0)
    prometheus.expect()
