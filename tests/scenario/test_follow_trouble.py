"""taskproxy --watch and servers that fail or are malicious."""

import re

import pytest

from following import (FAILED, SUCCEEDED, UNKNOWN, UNREACHED, Scripted, Terminal, answer, problem, view, watch)

DONE = answer(view("succeeded", progress=100, results=[{"type": "video", "url": "https://x.example/v.mp4"}]), '"e9"')
UNCHANGED = b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"
SAID = ["sora/t succeeded", "https://x.example/v.mp4"]
NASTY = "a\x1b[2J\x1b]0;title\x07\r\n\x7f\u009b31m\u202e"
ESCAPED = r"a\x1b[2J\x1b]0;title\x07\r\n\x7f\xc2\x9b31m\xe2\x80\xae"


@pytest.fixture
def bare(make_stack):
    """The program without a stack."""
    return make_stack(redis=False, standin=False, daemon=False, nginx=False)


def watch_script(bare, *answers):
    """Runs it against these answers: its result, and the heads of its requests."""
    with Scripted(*answers) as server:
        done = watch(bare, "sora/t", "--url", server.url)
    return done, server.heads


def test_first_query_asks_for_the_unified_view_without_waiting(bare):
    done, (head,) = watch_script(bare, DONE)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (SUCCEEDED, SAID, "")
    assert head.startswith("GET /v1/tasks/sora/t HTTP/1.1\r\n") and "Prefer: view=unified\r\n" in head
    assert "If-None-Match" not in head and "Authorization" not in head


def test_further_queries_are_held_until_the_view_changes(bare):
    done, heads = watch_script(bare, answer(view(progress=7)), answer(view(progress=9), '"e2"'), UNCHANGED, DONE)
    assert (done.stdout.splitlines(), done.stderr) == (["sora/t running 7 %", "sora/t running 9 %", *SAID], "")
    assert ["Prefer: view=unified, wait=30\r\n" in head for head in heads] == [False, True, True, True]
    assert [re.findall('If-None-Match: (.*)\r', head) for head in heads] == [[], ['"e1"'], ['"e2"'], ['"e2"']]


def test_line_shows_the_state_and_the_percentage_or_the_error(bare):
    views = [view("queued", progress=0), view(progress=42), view(progress=101), view(progress=7), view(progress="7%"),
             view(progress=100), view(progress=-1), view("cancelled", progress=7)]
    done, _ = watch_script(bare, *(answer(each, f'"e{i}"') for i, each in enumerate(views)))
    assert (done.returncode, done.stdout.splitlines()) == (FAILED, [
        "sora/t queued", "sora/t running 42 %", "sora/t running", "sora/t running 7 %", "sora/t running",
        "sora/t running 100 %", "sora/t running", "sora/t cancelled"])


def test_results_without_a_url_are_omitted(bare):
    results = [{"url": "https://x.example/1"}, {"url": 7}, None, "x", {}, ["y"], {"url": "https://x.example/2"}]
    done, _ = watch_script(bare, answer(view("succeeded", results=results)))
    assert done.stdout.splitlines() == ["sora/t succeeded", "https://x.example/1", "https://x.example/2"]


def test_task_id_is_percent_encoded_except_for_slashes(bare):
    with Scripted(DONE) as server:
        watch(bare, "kling/text2video/a b%?#", "--url", server.url + "/proxy//")
    assert server.heads[0].startswith("GET /proxy/v1/tasks/kling/text2video/a%20b%25%3F%23 HTTP/1.1\r\n")


def test_truncated_answer_is_retried(bare):
    done, heads = watch_script(bare, answer(view(progress=7)), answer(view(progress=50), '"e2"', length=9999), DONE)
    assert done.stdout.splitlines() == ["sora/t running 7 %", *SAID]
    assert ['If-None-Match: "e1"' in head for head in heads] == [False, True, True]
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("; trying again\n")


def test_unchanged_view_is_not_printed_again(bare):
    done, heads = watch_script(bare, answer(view()), answer(view()), DONE)
    assert (done.stdout.splitlines(), len(heads), done.stderr) == (["sora/t running", *SAID], 3, "")


def test_server_without_etags_is_not_asked_to_wait(bare):
    done, heads = watch_script(bare, answer(view(), etag=None), DONE)
    assert done.returncode == SUCCEEDED and "wait=" not in heads[1] and "If-None-Match" not in heads[1]


def test_busy_server_is_retried_after_retry_after(bare):
    busy = problem(503, "overloaded", "Come back.", "Retry-After: 1")
    done, heads = watch_script(bare, busy, busy, DONE)
    assert (done.returncode, len(heads), done.stderr) == (SUCCEEDED, 3, "taskproxy: Come back.; trying again\n")


@pytest.mark.parametrize("answer, status, said", [
    (problem(404, "task_not_found", "No such task."), UNKNOWN, "No such task."),
    (problem(403, "forbidden", "Not yours."), UNREACHED, "Not yours."),
    (problem(301, "", "", "Location: http://127.0.0.1:1/"), UNREACHED, "the server answered with status 301"),
    (b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\n{\"x\"", UNREACHED, "the server answered with status 400"),
    (answer({"id": "t"}), UNREACHED, "the answer is not a unified view of a task; is the server an older taskproxy?")])
def test_final_error_is_not_retried(bare, answer, status, said):
    done, heads = watch_script(bare, answer)
    assert (done.returncode, done.stderr, len(heads)) == (status, f"taskproxy: {said}\n", 1)


@pytest.mark.parametrize("document", [b"null", b"[]", b"{", b'"x"', 100 * b"[", b'{"provider":"sora","task_id":"t","status":"none"}'])
def test_malformed_view_ends_the_watch(bare, document):
    done, _ = watch_script(bare, answer(document))
    assert (done.returncode, done.stdout) == (UNREACHED, "") and "not a unified view" in done.stderr


def test_control_sequences_are_not_printed(bare):
    bad = view("failed", provider="so\x1b[2Jra", task_id="\x07t\u2028", error=NASTY)
    done, _ = watch_script(bare, answer(bad))
    assert (done.returncode, done.stdout) == (FAILED, rf"so\x1b[2Jra/\x07t\xe2\x80\xa8 failed: {ESCAPED}" + "\n")
    done, _ = watch_script(bare, problem(403, "forbidden", NASTY))
    assert done.stderr == f"taskproxy: {ESCAPED}\n"
    done, _ = watch_script(bare, answer(view("succeeded", results=[{"url": "https://x/\x1b[31m"}])))
    assert done.stdout.splitlines()[1] == r"https://x/\x1b[31m"


def test_control_sequences_are_not_printed_on_a_terminal(bare):
    with Scripted(answer(view(provider="\x1b[2J\u00fc", progress=7)), DONE) as server, \
            Terminal(bare, "sora/t", "--url", server.url) as terminal:
        terminal.wait(r"\r\x1b\[K\\x1b\[2J\?\?/t running 7 %")
        terminal.wait("v.mp4\r\n")
        assert terminal.end() == SUCCEEDED and "\x1b" not in terminal.text


def test_endless_answer_is_not_buffered(bare):
    endless = answer(5 * 1024 * 1024 * b"x")
    done, _ = watch_script(bare, endless, endless, endless, endless)
    assert (done.returncode, done.stdout) == (UNREACHED, "") and done.stderr.count("\n") == 2


def test_oversized_etag_is_ignored(bare):
    done, heads = watch_script(bare, answer(view(), etag=f'"{300 * "x"}"'), DONE)
    assert done.returncode == SUCCEEDED and "If-None-Match" not in heads[1]
