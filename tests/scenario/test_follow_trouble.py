"""taskproxy --watch and servers that fail, or that mean no good."""

import json
import re

import pytest

from following import (FAILED, SUCCEEDED, UNKNOWN, UNREACHED, Scripted, Terminal, event, problem, stream, view, watch)

DONE = event(view("succeeded", progress=100, results=[{"type": "video", "url": "https://x.example/v.mp4"}]), event_id="e9")
SAID = ["sora/t succeeded", "https://x.example/v.mp4"]
NASTY = "a\x1b[2J\x1b]0;title\x07\r\n\x7f\u009b31m\u202e"
ESCAPED = r"a\x1b[2J\x1b]0;title\x07\r\n\x7f\xc2\x9b31m\xe2\x80\xae"


@pytest.fixture
def bare(make_stack):
    """The program alone."""
    return make_stack(redis=False, standin=False, daemon=False, nginx=False)


def watch_script(bare, *answers):
    """What it says of these, and the heads of the requests it made."""
    with Scripted(*answers) as server:
        done = watch(bare, "sora/t", "--url", server.url)
    return done, server.heads


def test_it_says_what_it_wants(bare):
    done, (head,) = watch_script(bare, stream(DONE))
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (SUCCEEDED, SAID, "")
    assert head.startswith("GET /v1/tasks/sora/t HTTP/1.1\r\n")
    assert {"Accept: text/event-stream", "Prefer: view=unified"} <= set(head.split("\r\n"))
    assert "Last-Event-ID" not in head and "Authorization" not in head


def test_after_a_break_it_goes_on_from_the_last_whole_event(bare):
    half = event(view(progress=50), event_id="e2").removesuffix("\n")
    done, heads = watch_script(bare, stream(event(view(progress=7)), half, length=9999), stream(DONE))
    assert done.stdout.splitlines() == ["sora/t running 7 %", *SAID]
    assert ["Last-Event-ID: e1" in head for head in heads] == [False, True]
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("; trying again\n")


def test_what_stays_the_same_is_not_said_again(bare):
    done, heads = watch_script(bare, stream(event(view())), stream(event(view()), ": still here\n\n"), stream(DONE))
    assert (done.stdout.splitlines(), len(heads), done.stderr) == (["sora/t running", *SAID], 3, "")


def test_a_server_that_is_busy_is_asked_again_when_it_says(bare):
    busy = problem(503, "overloaded", "Come back.", "Retry-After: 1")
    done, heads = watch_script(bare, busy, busy, stream(DONE))
    assert (done.returncode, len(heads), done.stderr) == (SUCCEEDED, 3, "taskproxy: Come back.; trying again\n")


@pytest.mark.parametrize("answer, status, said", [
    (problem(404, "task_not_found", "No such task."), UNKNOWN, "No such task."),
    (problem(403, "forbidden", "Not yours."), UNREACHED, "Not yours."),
    (problem(301, "", "", "Location: http://127.0.0.1:1/"), UNREACHED, "the server answered with status 301"),
    (b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\n{\"x\"", UNREACHED, "the server answered with status 400"),
    (stream(event(view()), event({"code": "task_not_found", "detail": "Gone."}, "problem")), UNKNOWN, "Gone."),
    (stream("data: {}\n\n", event({"id": "t"})), UNREACHED,
     "what came is no unified view of a task: is the server an older taskproxy?")])
def test_what_is_final_is_not_asked_again(bare, answer, status, said):
    done, heads = watch_script(bare, answer)
    assert (done.returncode, done.stderr, len(heads)) == (status, f"taskproxy: {said}\n", 1)


@pytest.mark.parametrize("document", [b"null", b"[]", b"{", b'"x"', 100 * b"[", b'{"provider":"sora","task_id":"t","status":"none"}'])
def test_an_event_of_rubbish_ends_it(bare, document):
    done, _ = watch_script(bare, stream() + b"event: status\ndata: " + document + b"\n\n")
    assert (done.returncode, done.stdout) == (UNREACHED, "") and "no unified view" in done.stderr


def test_nothing_that_a_terminal_would_obey_is_printed(bare):
    bad = view("failed", provider="so\x1b[2Jra", task_id="\x07t\u2028", error=NASTY)
    done, _ = watch_script(bare, stream(event(bad)))
    assert (done.returncode, done.stdout) == (FAILED, rf"so\x1b[2Jra/\x07t\xe2\x80\xa8 failed: {ESCAPED}" + "\n")
    done, _ = watch_script(bare, problem(403, "forbidden", NASTY))
    assert done.stderr == f"taskproxy: {ESCAPED}\n"
    done, _ = watch_script(bare, stream(event(view("succeeded", results=[{"url": "https://x/\x1b[31m"}]))))
    assert done.stdout.splitlines()[1] == r"https://x/\x1b[31m"


def test_nor_in_a_terminal(bare):
    with Scripted(stream(event(view(provider="\x1b[2J\u00fc", progress=7)), DONE)) as server, \
            Terminal(bare, "sora/t", "--url", server.url) as terminal:
        terminal.wait(r"\r\x1b\[K\\x1b\[2J\?\?/t  running")
        terminal.wait("v.mp4\r\n")
        assert terminal.end() == SUCCEEDED and "\x1b" not in terminal.text


def test_an_event_without_end_is_not_kept(bare):
    done, _ = watch_script(bare, stream("event: status\ndata: " + 17 * 1024 * 1024 * "x"))
    assert (done.returncode, done.stderr) == (UNREACHED, "taskproxy: the server sends too much\n")


def test_an_id_that_could_end_a_header_is_none(bare):
    done, heads = watch_script(bare, stream(event(view(), event_id="x y")), stream(DONE))
    assert done.returncode == SUCCEEDED and "Last-Event-ID" not in heads[1]
