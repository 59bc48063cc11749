"""The counts of /metrics match the clients' requests and the upstream's queries, even when workers exit and start."""

import hashlib
import os
import re
import signal
import subprocess

import pytest

from helpers import TASK, step_until
from teaming import digest, teams_stack, write_teams
from watching import SLOW

PROMTOOL = "/usr/bin/promtool"
CODES = ("200", "304", "400", "404", "405", "502", "503", "504")


def texts(stack):
    return stack.get("/metrics").body.decode()


def promtool(*arguments, given=""):
    return subprocess.run([PROMTOOL, *arguments], input=given, capture_output=True, text=True)


def ask_in_many_ways(stack, first=0):
    """Sends requests that give every cache result and several statuses; returns their number."""
    task = f"task_{first}"
    assert stack.task(task).status == 200  # a miss
    assert stack.task(task).status == 200  # a hit
    assert stack.task(task, {"If-None-Match": stack.task(task).headers["etag"]}).status == 304
    assert stack.get(f"/v1/tasks/sora/{task}").status == 200
    assert stack.get(f"/v1/tasks?ids=sora/{task},sora/other_{first}").status == 200
    assert stack.task(f"missing_{first}").status == 404
    assert stack.get("/sora/v1/videos/bad*id").status == 400
    assert stack.get("/nothing/here").status == 404
    assert stack.task(task, method="DELETE").status == 405
    stack.standin.switch(f"broken_{first}", status=500)
    assert stack.task(f"broken_{first}").status == 502
    with stack.standin.hold(f"slow_{first}") as barrier:
        asked = [stack.background(stack.task, f"slow_{first}")]
        barrier.wait_arrived(1)
        asked += [stack.background(stack.task, f"slow_{first}") for _ in range(2)]
        stack.wait_metric("waiters", 3)
        barrier.release()
    assert [answer.result().status for answer in asked] == [200] * 3
    return 11 + len(asked)


def assert_adds_up(stack, asked):
    metrics = stack.metrics()
    assert metrics.sum("requests_total") == asked
    assert sum(metrics.sum("requests_total", code=code) for code in CODES) == asked
    results = {name: metrics.sum("requests_total", cache=name) for name in ("hit", "miss", "collapsed", "stale", "none")}
    assert sum(results.values()) == asked
    assert metrics.sum("upstream_requests_total", upstream="main") == stack.standin.count()
    assert metrics.sum("upstream_outcomes_total") == stack.standin.count()
    assert metrics.sum("upstream_in_flight") == 0
    return results


@pytest.fixture
def running(make_stack):
    """A stack whose tasks run, and stay fresh for the whole test."""
    return make_stack(providers=SLOW)


def test_text_is_valid_prometheus_format(running):
    ask_in_many_ways(running)
    checked = promtool("check", "metrics", given=texts(running))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_requests_add_up_and_queries_match_the_upstream(running):
    asked = ask_in_many_ways(running)
    results = assert_adds_up(running, asked)
    assert results["collapsed"] == 2
    assert results["none"] == 3
    assert running.metric("requests_total", code="200", cache="hit") == running.metric("requests_total", cache="hit") - 1


def test_every_lookup_is_either_queried_or_spared(running):
    ask_in_many_ways(running)
    metrics = running.metrics()
    spared = metrics.sum("cache_hits_total") + metrics.sum("collapsed_total")
    assert metrics.sum("queries_spared_total") == spared > 0


def test_requests_are_labelled_by_route_and_provider(make_stack):
    routes = [{"provider": "sora", "upstream": "main"}, {"provider": "sora", "upstream": "main", "path": "/again/{task_id}"}]
    stack = make_stack(config={"routes": routes})
    assert stack.get("/sora/v1/videos/task_1").status == stack.get("/again/task_1").status == 200
    assert stack.get("/nothing").status == 404
    stack.get("/v1/tasks?ids=sora/task_1")
    for route, provider in (("/sora/v1/videos/{task_id}", "sora"), ("/again/{task_id}", "sora"), ("other", ""), ("/v1/tasks", "")):
        assert stack.metric("requests_total", route=route, provider=provider) == 1


def test_totals_survive_killed_workers(running):
    asked = ask_in_many_ways(running)
    for number, pid in enumerate(running.daemon.workers(), 1):
        os.kill(pid, signal.SIGKILL)
        running.wait_metric("worker_deaths_total", number)
    running.wait_metric("workers_ready", lambda ready: ready == 2)
    assert_adds_up(running, asked)
    asked += ask_in_many_ways(running, first=1)
    assert_adds_up(running, asked)
    assert running.metric("waiters") == 0


def test_totals_survive_reloads_that_remove_and_restore_a_route(running):
    asked = ask_in_many_ways(running)
    running.configure(routes=[{"provider": "sora", "upstream": "main", "path": "/moved/{task_id}"}])
    running.daemon.reload()
    assert running.get("/moved/task_9").status == 200
    assert_adds_up(running, asked + 1)
    assert running.metric("requests_total", route="/moved/{task_id}") == 1
    running.configure(routes=[{"provider": "sora", "upstream": "main"}])
    running.daemon.reload()
    asked += 1 + ask_in_many_ways(running, first=1)
    assert_adds_up(running, asked)


def test_query_outcomes_are_counted(make_stack):
    stack = make_stack(config={"workers": 1, "upstreams": {"main": {"timeout": "3s", "breaker_failures": 0}}}, clock=True)
    switches = {
        "ok": {}, "missing": {"raw": '{"code":"task_not_exist"}'}, "server_error": {"status": 500},
        "error": {"status": 400}, "forbidden": {"status": 403}, "invalid": {"garbage": True},
        "unreachable": {"reset": True}, "timeout": {"hang": True}, "busy": {"retry_after": 1},  # last: the key rests
    }
    for outcome, switch in switches.items():
        stack.standin.switch(f"task_{outcome}", **switch)
        answer = stack.background(stack.task, f"task_{outcome}")
        if outcome == "timeout":
            stack.standin.wait_count(1, f"task_{outcome}")
            stack.step(3)
        answer.result()
        assert stack.metric("upstream_outcomes_total", upstream="main", outcome=outcome) >= 1, outcome
    assert stack.metric("upstream_outcomes_total") == stack.metric("upstream_requests_total")


def test_disconnected_client_is_a_499(stack):
    with stack.standin.hold() as barrier:
        connection = stack.nginx.connection()
        connection.request("GET", TASK)
        barrier.wait_arrived(1)
        connection.close()
        stack.wait_metric("requests_gone_total", 1)
        stack.wait_metric("requests_total", 1, code="499")


def test_labels_contain_no_task_or_secret(running):
    ask_in_many_ways(running)
    text = texts(running)
    for word in ("task_0", "missing_0", "broken_0", "slow_0", "bad*id", running.key):
        assert word not in text
    assert re.search(r'key="key",digest="[0-9a-f]{8}"', text)


def test_key_of_an_upstream_without_a_route_has_its_own_digest(make_stack):
    stack = make_stack(daemon=False)
    unused = "sk-of-an-upstream-without-a-route"
    stack.write_key(unused, file=stack.folder / "unused-key")
    stack.configure(upstreams={"unused": {"base_url": "https://unused.example", "key_files": [str(stack.folder / "unused-key")]}})
    stack.daemon.start()
    digest = hashlib.sha256(unused.encode()).hexdigest()[:8]
    assert re.findall(r'keys_set_aside{upstream="unused",key="unused-key",digest="(.*)"}', texts(stack)) == [digest]


def test_number_of_labels_is_bounded_whatever_clients_request(running):
    ask_in_many_ways(running)
    before = set(running.metrics())
    for number in range(50):
        running.get(f"/nothing/{number}")
        running.task(f"missing_{number}_more")
    after = set(running.metrics())
    assert after == before


def test_teams_have_series_up_to_a_limit_and_a_removed_one_keeps_its_totals(make_stack):
    def asked(number):
        return stack.task(f"task_{number}", {"Authorization": f"Bearer tp-{number}-0123456789abcdef"}).status

    more = {f"t{number}": {"providers": ["sora"], "token_sha256": [digest(f"tp-{number}-0123456789abcdef")]} for number in range(105)}
    stack = teams_stack(make_stack, more, redis=False, config={"workers": 1})
    assert [asked(number) for number in (0, 97, 98, 104)] == 4 * [200]  # two teams come before them
    metrics = stack.metrics()
    assert {team: metrics.sum("team_queries_total", team=team) for team in ("t0", "t97", "")} == {"t0": 1, "t97": 1, "": 2}
    assert len([series for series in metrics if series.startswith("taskproxy_team_queries_total")]) == 101
    shown = stack.get("/status").json()["teams"]
    assert len(shown) == 101
    assert shown[-1] == {"team": "", "queries_per_minute": 0, "watchers": 0, "queries": 2, "queries_refused": 0, "waits_refused": 0, "held": 0}

    held = 'taskproxy_team_held_requests{team="t97"}'
    assert held in metrics
    write_teams(stack)
    stack.wait_until(lambda: held not in stack.metrics(), what="workers without the team")
    assert stack.metric("team_queries_total", team="t97") == 1


# Histograms


def buckets(metrics, name, **labels):
    """The histogram's cumulative counts, from the lowest bound to +Inf."""
    bounds = {bound for series in metrics if series.startswith(f"taskproxy_{name}_bucket") for bound in re.findall(r'le="([^"]+)"', series)}
    return [metrics.sum(f"{name}_bucket", le=bound, **labels) for bound in sorted(bounds, key=float)]


def test_every_answer_and_query_is_in_its_histogram(running):
    ask_in_many_ways(running)
    metrics = running.metrics()
    for result in ("hit", "miss", "collapsed", "stale", "none"):
        assert metrics.sum("request_duration_seconds_count", cache=result) == metrics.sum("requests_total", cache=result)
    assert metrics.sum("upstream_duration_seconds_count", upstream="main") == running.standin.count()

    def all_answered():  # a worker sends commands to Redis, and gets replies, even after it has answered
        now = running.metrics()
        return now.sum("redis_duration_seconds_count") == now.sum("redis_commands_total") > 0

    running.wait_until(all_answered, what="the reply to each command")


def test_slow_upstream_shows_in_the_times_of_misses_but_not_of_hits(make_frozen):
    stack = make_frozen(providers=SLOW)
    with stack.standin.hold() as barrier:
        asked = stack.background(stack.task, "task_1")
        barrier.wait_arrived()
        stack.step(0.5)
    assert [asked.result().status, *(stack.task("task_1").status for _ in range(2))] == [200] * 3
    metrics = stack.metrics()
    hits, misses = (buckets(metrics, "request_duration_seconds", cache=result) for result in ("hit", "miss"))
    assert hits == sorted(hits) and misses == sorted(misses)  # cumulative
    assert (hits[-1], misses[-1]) == (2, 1)
    assert metrics.sum("request_duration_seconds_bucket", cache="miss", le="0.25") == 0
    assert metrics.sum("request_duration_seconds_sum", cache="miss") == 0.5
    assert metrics.sum("request_duration_seconds_sum", cache="hit") == 0
    assert metrics.sum("upstream_duration_seconds_sum") == 0.5


def test_held_requests_have_their_own_histogram(make_frozen):
    stack = make_frozen(providers=SLOW)
    stack.standin.switch(state="IN_PROGRESS")
    held = stack.background(stack.task, "task_1", {"Prefer": "wait=20"})
    stack.wait_metric("watched_tasks", 1)
    stack.step(20)
    assert held.result().status == 200
    assert stack.metric("request_duration_seconds_count", cache="held") == 1
    assert stack.metric("request_duration_seconds_sum", cache="held") == 20


def test_blocked_loop_shows_as_lag(make_frozen):
    stack = make_frozen(config={"workers": 1})
    step_until(stack, lambda: stack.metric("loop_lag_seconds_count") >= 1, what="a heartbeat")
    before = stack.metric("loop_lag_seconds_sum")
    stack.step(4)  # as if an iteration of the loop took so long
    stack.wait_metric("loop_lag_seconds_sum", before + 2)


# Build and configuration


def test_version_and_time_of_the_last_reload_are_exported(stack):
    version = stack.daemon.run("--version").stdout.split()[1]
    assert stack.metric("build_info", version=version) == 1
    started = stack.metric("last_reload_success_timestamp_seconds")
    stack.configure(no_such_key=1)
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 1, result="refused")
    assert stack.metric("last_reload_successful") == 0
    assert stack.metric("last_reload_success_timestamp_seconds") == started
    stack.configure(no_such_key=None)
    stack.daemon.reload()
    assert stack.metric("last_reload_successful") == 1
    assert stack.metric("last_reload_success_timestamp_seconds") >= started
