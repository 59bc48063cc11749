"""taskproxy --watch follows a task of a running taskproxy to its end."""

import contextlib
import re
import signal

import pytest

from following import FAILED, INTERRUPTED, SUCCEEDED, UNKNOWN, UNREACHED, USAGE, Terminal, base_url, follower, watch
from parts import PATIENCE
from port import Port
from teaming import TOKENS, link, teams_stack
from watching import end, quick, run


@pytest.fixture
def served(make_stack):
    return make_stack(**quick(), redis=False, port=0)


@pytest.fixture
def bare(make_stack):
    """The program without a stack."""
    return make_stack(redis=False, standin=False, daemon=False, nginx=False)


# Output to a pipe


def test_each_change_is_printed_and_then_the_results(served):
    run(served, "7%", "t")
    with follower(served, "sora/t", *base_url(served)) as process:
        assert process.stdout.readline() == "sora/t running 7 %\n"
        run(served, "50%", "t")
        assert process.stdout.readline() == "sora/t running 50 %\n"
        end(served, "t")
        said = process.stdout.read().splitlines()
        assert process.wait(PATIENCE) == SUCCEEDED and process.stderr.read() == ""
    urls = [result["url"] for result in served.get("/v1/tasks/sora/t").json()["results"]]
    assert urls and said == ["sora/t succeeded", *urls]


def test_unified_view_is_preferred_for_a_native_path(served):
    end(served, "t")
    native, unified = served.task("t"), served.get("/v1/tasks/sora/t")
    preferred = served.task("t", {"Prefer": "view=unified"})
    assert preferred.body == unified.body != native.body
    assert preferred.headers["etag"] == unified.headers["etag"] and "Prefer" in preferred.headers["vary"]


@pytest.mark.parametrize("path", ["/sora/v1/videos/t", "/v1/tasks/sora/t", "/v1/tasks/sora/t?x=1#fragment"])
def test_any_url_of_a_task_is_accepted(served, path):
    end(served, "t")
    done = watch(served, served.nginx.url + path)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (SUCCEEDED, "sora/t succeeded", "")


def test_server_url_may_come_from_the_environment(served):
    end(served, "t")
    assert watch(served, "sora/t", TASKPROXY_URL=served.nginx.url + "/").returncode == SUCCEEDED


def test_failed_task_is_printed_with_its_reason(served):
    served.standin.switch(state="FAILURE")
    done = watch(served, "sora/fail_1", *base_url(served))
    reason = served.get("/v1/tasks/sora/fail_1").json()["error"]
    assert reason and (done.returncode, done.stdout) == (FAILED, f"sora/fail_1 failed: {reason}\n")


def test_unknown_task_is_reported(served):
    done = watch(served, "sora/missing_1", *base_url(served))
    assert (done.returncode, done.stdout) == (UNKNOWN, "") and done.stderr.startswith("taskproxy: ")


def test_reload_during_a_watch_is_invisible(served):
    run(served, "7%", "t")
    with follower(served, "sora/t", *base_url(served)) as process:
        assert process.stdout.readline() == "sora/t running 7 %\n"
        served.daemon.reload()
        served.wait_metric("waiters", 1)
        end(served, "t")
        assert process.stdout.readline() == "sora/t succeeded\n"
        assert process.wait(PATIENCE) == SUCCEEDED and process.stderr.read() == ""


def test_closed_standard_output_ends_the_watch(served):
    run(served, "7%", "t")
    with follower(served, "sora/t", *base_url(served)) as process:
        assert process.stdout.readline() == "sora/t running 7 %\n"
        process.stdout.close()
        run(served, "50%", "t")
        assert process.wait(PATIENCE) == UNREACHED


# Credentials


@pytest.fixture
def teams(make_stack):
    stack = teams_stack(make_stack, **quick(), redis=False, port=0)
    end(stack)
    return stack


def test_token_is_sent(teams):
    file = teams.folder / "token"
    teams.write_key(TOKENS["web"], file=file)
    done = watch(teams, "sora/t", *base_url(teams), "--team-token-file", str(file))
    assert (done.returncode, done.stdout.splitlines()[0]) == (SUCCEEDED, "sora/t succeeded")


def test_message_of_the_server_is_printed_without_a_token(teams):
    done = watch(teams, "sora/t", *base_url(teams))
    said = teams.get("/v1/tasks/sora/t")
    assert said.status == 401 and (done.returncode, done.stderr) == (UNREACHED, f"taskproxy: {said.json()['detail']}\n")


@pytest.mark.parametrize("path", ["/sora/v1/videos/t", "/v1/tasks/sora/t"])
def test_signed_link_is_accepted(teams, path):
    assert watch(teams, f"{teams.nginx.url}{path}?{link('sora/t')}").returncode == SUCCEEDED


def test_token_file_readable_by_others_is_refused(bare):
    file = bare.folder / "token"
    bare.write_key("tp-token", mode=0o644, file=file)
    done = watch(bare, "sora/t", "--team-token-file", str(file))
    assert (done.returncode, done.stdout) == (USAGE, "") and str(file) in done.stderr


# Errors


NO_TASK, NO_SCHEME = "is neither a URL nor PROVIDER/ID", "must begin with http:// or https://"
MISUSES = [
    (["t"], f'"t" {NO_TASK}'), (["sora/"], f'"sora/" {NO_TASK}'), (["/t"], f'"/t" {NO_TASK}'),
    (["ftp://localhost/t"], f'"ftp://localhost/t" {NO_SCHEME}'), (["http:///t"], '"http:///t" has no host'),
    (["http://:80/t"], '"http://:80/t" has no host'),
    (["http://user:pw@localhost/t"], '"http://user:pw@localhost/t" must not contain a user name or password'),
    (["http://localhost/\n"], '"http://localhost/\n" must consist of visible ASCII characters'),
    (["http://localhost/\u00fc"], '"http://localhost/\u00fc" must consist of visible ASCII characters'),
    (["sora/t", "--url", "localhost"], f'"localhost" {NO_SCHEME}'),
    (["sora/t", "--url", "http://localhost?x"], '"http://localhost?x" must not have a query'),
    (["sora/t", "more"], 'unexpected argument "more"'), (["sora/t", "--what"], "unrecognized option '--what'"),
    (["sora/t", "--team-token-file", "/nowhere"], "/nowhere cannot be read: No such file or directory")]


@pytest.mark.parametrize("arguments, said", MISUSES)
def test_usage_error_and_failed_task_have_different_exit_statuses(bare, arguments, said):
    done = watch(bare, *arguments)
    assert (done.returncode, done.stdout) == (USAGE, "") and said in done.stderr


def test_unreachable_server_is_retried_only_for_a_while(make_stack):
    bare = make_stack(redis=False, standin=False, daemon=False, nginx=False, clock=True)
    with contextlib.closing(Port()) as refusing, follower(bare, "sora/t", "--url", f"http://127.0.0.1:{refusing.number}") as process:
        first = process.stderr.readline()
        bare.step(5)
        assert process.wait(PATIENCE) == UNREACHED
        last = process.stderr.read()
    assert first == f"{last.strip()}; trying again\n" and re.fullmatch("taskproxy: .+\n", last)  # libcurl's message


# Output to a terminal


def test_progress_bar_is_redrawn_on_a_terminal(make_stack):
    served = make_stack(**quick(), redis=False, port=0, clock=True)
    run(served, "50%", "t")
    with Terminal(served, "sora/t", *base_url(served)) as terminal:
        bar = terminal.wait(r"\r\x1b\[Ksora/t running 50 %  0:0\d  \[(#+)(\.+)\]")
        assert len(bar[1]) == len(bar[2]) == 20
        served.step(5)
        terminal.wait(r"\r\x1b\[Ksora/t running 50 %  0:(0[5-9]|1\d)")  # although the view is the same
        end(served, "t")
        terminal.wait(r"\r\x1b\[Ksora/t succeeded\r\nhttps://\S+\r\n")
        assert terminal.end() == SUCCEEDED


def test_progress_bar_is_cut_at_the_terminal_width_after_each_resize(served):
    run(served, "50%", "t")
    with Terminal(served, "sora/t", *base_url(served)) as terminal:
        terminal.wait(r"50 %  0:\d\d  \[#{20}\.{20}\]")
        terminal.resize(48)
        line = terminal.wait(r"\r\x1b\[K(sora/t running 50 %  0:\d\d  \[#{19})(?=\r)")
        assert len(line[1]) == 47
        terminal.resize(10)
        terminal.wait(r"\r\x1b\[Ksora/t ru(?=\r)")


@pytest.mark.parametrize("stop", [lambda t: t.press(b"\x03"), lambda t: t.process.send_signal(signal.SIGTERM)])
def test_interrupt_clears_the_progress_bar(served, stop):
    run(served, "50%", "t")
    with Terminal(served, "sora/t", *base_url(served)) as terminal:
        terminal.wait(r"50 %")
        stop(terminal)
        assert terminal.end() == INTERRUPTED
        assert terminal.text.replace("\x03", "").endswith("\r\x1b[K")  # the byte 0x03 may be echoed afterwards, but not "^C"
    served.wait_metric("waiters", lambda waiters: waiters == 0)


WAYS_OUT = {
    "the task ends": (lambda stack, terminal: end(stack, "t"), SUCCEEDED),
    "^C": (lambda stack, terminal: terminal.press(b"\x03"), INTERRUPTED),
    "^\\": (lambda stack, terminal: terminal.press(b"\x1c"), 128 + signal.SIGQUIT),
    **{number.name: (lambda stack, terminal, number=number: terminal.signal_child(number), status)
       for number, status in ((signal.SIGTERM, INTERRUPTED), (signal.SIGHUP, 128 + signal.SIGHUP),
                              (signal.SIGSEGV, 128 + signal.SIGSEGV), (signal.SIGABRT, 128 + signal.SIGABRT))},
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_echoctl_is_off_while_the_bar_is_drawn_and_restored_afterwards(served, way):
    go, status = WAYS_OUT[way]
    run(served, "50%", "t")
    with Terminal(served, "sora/t", *base_url(served), shell=True) as terminal:
        terminal.wait(r"50 %")
        assert not terminal.echoes_control_characters()
        go(served, terminal)
        assert int(terminal.wait(r"ended (\d+)\r\n")[1]) == status
        assert terminal.echoes_control_characters()


def test_stopped_watch_restores_the_terminal_and_resumes_when_continued(served):
    run(served, "50%", "t")
    with Terminal(served, "sora/t", *base_url(served), shell=True) as terminal:
        terminal.wait(r"50 %")
        terminal.press(b"\x1a")
        served.wait_until(terminal.child_is_stopped, what="the stop")
        assert terminal.echoes_control_characters()
        terminal.signal_child(signal.SIGCONT)
        served.wait_until(lambda: not terminal.echoes_control_characters(), what="the bar")
        end(served, "t")
        assert int(terminal.wait(r"ended (\d+)\r\n")[1]) == SUCCEEDED
        assert terminal.echoes_control_characters()
