"""The daemon's log on standard error: one line per event, as text, as JSON, or for the journal."""

import json
import os
import re

import pytest

TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warn|error) (master|worker \d+|status server): \S.*")
HOSTILE = "a\nb\x1b[2J\u009b31m\u202e"
LOGGED = r'"a\nb\u001b[2J\xc2\x9b31m\xe2\x80\xae"'  # as JSON writes it, and an escape that JSON allows


def lines(stack):
    return stack.daemon.log().splitlines()


def objects(stack):
    return [json.loads(line) for line in lines(stack)]


def refuse_reloads(stack, count):
    """Reloads an invalid configuration this many times, with the same error each time."""
    stack.configure(workers="many")
    before = stack.metric("reloads_total", result="refused")
    for number in range(1, count + 1):
        stack.daemon.hup()
        stack.wait_metric("reloads_total", before + number, result="refused")
    stack.configure(workers=1)


# Formats


def test_line_has_time_level_and_process(make_stack):
    stack = make_stack(redis=False, config={"workers": 1, "log_level": "debug"})
    assert stack.task("task_1").status == 200
    stack.wait_log("worker 0: fetch main:sora:task_1")
    stack.daemon.stop()
    assert [line for line in lines(stack) if not TEXT_LINE.fullmatch(line)] == []


def test_json_format_writes_one_object_per_line(make_stack):
    stack = make_stack(redis=False, config={"workers": 1, "log_level": "debug", "log_format": "json"})
    pid, (worker,) = stack.daemon.pid, stack.daemon.workers()
    assert stack.task("task_1").status == 200
    stack.daemon.reload()
    stack.daemon.stop()
    assert {tuple(entry)[:4] for entry in objects(stack)} == {("time", "level", "process", "pid")}
    assert {("master", pid), ("worker 0", worker)} <= {(entry["process"], entry["pid"]) for entry in objects(stack)}
    assert {"started", "stopped", "configuration reloaded"} <= {e["message"].split(":")[0] for e in objects(stack)}


def test_reload_changes_the_format(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    stack.configure(log_format="json")
    stack.daemon.reload()
    assert json.loads(stack.wait_log("configuration reloaded"))["level"] == "info"


@pytest.mark.problem("A status that is not listed")
@pytest.mark.parametrize("form", ["text", "json"])
def test_external_value_cannot_start_a_new_line(make_stack, form):
    stack = make_stack(redis=False, config={"workers": 1, "log_format": form})
    stack.standin.switch(state=HOSTILE)
    assert stack.task("task_1").status == 200
    line = stack.wait_log("does not list the status")
    message = json.loads(line)["message"] if form == "json" else line
    assert f"does not list the status {LOGGED}; treating it as running" in message
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", stack.daemon.log())


def test_requests_are_logged_at_debug_level_only(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    before = stack.daemon.log()
    assert stack.task("task_1").status == 200 and stack.daemon.log() == before
    stack.configure(log_level="debug")
    stack.daemon.reload()
    request_id = stack.task("task_1").headers["x-request-id"]
    assert "debug worker 0:" in stack.wait_log(f"request {request_id}: answered with 200 after")


# The journal


def as_journal(stack, inode):
    status = os.stat(stack.folder)
    stack.daemon.variables["JOURNAL_STREAM"] = f"{status.st_dev}:{inode}"
    stack.daemon.start()
    stack.daemon.stop()


@pytest.mark.parametrize("form", ["text", "json"])
def test_journal_lines_start_with_their_priority(make_stack, form):
    stack = make_stack(redis=False, nginx=False, daemon=False, config={"log_format": form})
    stack.daemon.log_path.touch()
    as_journal(stack, stack.daemon.log_path.stat().st_ino)
    assert {line[:3] for line in lines(stack)} == {"<6>"}
    if form == "json":
        assert [json.loads(line[3:])["process"] for line in lines(stack)][0] == "master"
    else:
        assert lines(stack)[0].startswith("<6>master: started: 2 workers on ")  # the journal adds the time


def test_redirected_log_has_no_priority_prefix(make_stack):
    stack = make_stack(redis=False, nginx=False, daemon=False)
    as_journal(stack, 1)
    assert lines(stack) and all(TEXT_LINE.fullmatch(line) for line in lines(stack))


# Repeated lines


def test_repeated_line_is_counted_until_another_one_comes(make_frozen):
    stack = make_frozen(redis=False, config={"workers": 1})
    refuse_reloads(stack, 4)
    refused = [line for line in lines(stack) if "reload refused" in line]
    stack.daemon.reload()
    told = stack.wait_log("(repeated 3 times)")
    assert len(refused) == 1 and told.partition("Z ")[2] == refused[0].partition("Z ")[2] + " (repeated 3 times)"
    assert lines(stack).index(told) < lines(stack).index(stack.wait_log("configuration reloaded"))


def test_repeated_line_is_counted_for_some_seconds_at_most(make_frozen):
    stack = make_frozen(redis=False, config={"workers": 1, "log_format": "json"})
    refuse_reloads(stack, 3)
    stack.step(6)
    told = json.loads(stack.wait_log('"repeated"'))
    assert (told["level"], told["repeated"]) == ("error", 2) and told["message"].startswith("reload refused")
    assert lines(stack)[-1] == json.dumps(told, separators=(",", ":"))


def test_pending_count_is_logged_at_exit(make_stack):
    stack = make_stack(redis=False, config={"workers": 1})
    refuse_reloads(stack, 2)
    stack.daemon.stop()
    assert len([line for line in lines(stack) if line.endswith("(repeated once)")]) == 1
