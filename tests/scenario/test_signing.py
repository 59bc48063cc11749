"""Tokens and links from the command line."""

import re
import urllib.parse

import pytest

from teaming import SECRET, digest, in_seconds, sign, teams_stack

SIGN = ("--sign", "--team", "web", "--task", "sora/task_1", "--ttl", "1h")


@pytest.fixture
def idle(make_stack):
    """The files that the command line needs, and no more."""
    return teams_stack(make_stack, daemon=False, redis=False)


def test_new_token_comes_with_its_line_for_the_teams_file(idle):
    done = idle.daemon.run("--new-token")
    token, line = done.stdout.splitlines()
    assert re.fullmatch("tp-[0-9a-f]{64}", token) and done.returncode == 0 and done.stderr == ""
    assert line == f'"token_sha256": ["{digest(token)}"]'


def test_tokens_are_unique(idle):
    tokens = [idle.daemon.run("--new-token").stdout for _ in range(20)]
    assert len(set(tokens)) == 20


def test_link_is_printed_on_one_line(idle):
    earliest = in_seconds(3600)
    done = idle.daemon.run(*SIGN)
    (exp, sig), = re.findall(r"\Ateam=web&exp=(\d+)&sig=([0-9a-f]{64})\n\Z", done.stdout)
    assert earliest <= int(exp) <= in_seconds(3600)
    assert sig == sign("sora/task_1", int(exp)) and done.returncode == 0 and done.stderr == ""
    assert SECRET not in done.stdout


@pytest.mark.parametrize("change, message", [
    ({"--team": "nobody"}, 'team "nobody" is not in '),
    ({"--team": "film"}, 'team "film" has neither link_secrets nor a link_secret_file'),
    ({"--task": "kling/x"}, '"kling/x": no route has this provider'),
    ({"--task": "sora"}, '"sora": no route has this provider'),
    ({"--task": "sora/a b"}, '"sora/a b": not a valid task id for this provider'),
    ({"--task": "sora/a,sora/b"}, '"sora/a,sora/b": not a valid task id for this provider'),
    ({"--ttl": "1"}, '--ttl must be a duration from "1s" to "7d" (link_max_ttl)'),
    ({"--ttl": "500ms"}, '--ttl must be a duration from "1s" to "7d" (link_max_ttl)'),
    ({"--ttl": "169h"}, '--ttl must be a duration from "1s" to "7d" (link_max_ttl)'),
], ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_signing_errors_are_reported(idle, change, message):
    (option, value), = change.items()
    arguments = list(SIGN)
    arguments[arguments.index(option) + 1] = value
    done = idle.daemon.run(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"taskproxy: {message}") and done.stderr.count("\n") == 1


def test_link_needs_all_three_arguments(idle):
    for option in ("--team", "--task", "--ttl"):
        at = SIGN.index(option)
        done = idle.daemon.run(*SIGN[:at], *SIGN[at + 2:])
        assert (done.returncode, done.stderr) == (1, "taskproxy: --sign requires --team, either --task or --tasks, and --ttl\n")
        done = idle.daemon.run(*SIGN[at:at + 2])
        assert (done.returncode, done.stderr) == (1, "taskproxy: --team, --task, --tasks and --ttl are options of --sign\n")
    done = idle.daemon.run(*SIGN, "--tasks", "sora/task_1")
    assert (done.returncode, done.stdout) == (1, "")


def test_list_is_sorted_and_signed(idle):
    done = idle.daemon.run("--sign", "--team", "web", "--tasks", "sora/b,sora/a,sora/b,sora/B", "--ttl", "1h")
    (tasks, exp, sig), = re.findall(r"\Atasks=(\S+)&team=web&exp=(\d+)&sig=([0-9a-f]{64})\n\Z", done.stdout)
    assert urllib.parse.unquote(tasks) == "sora/B,sora/a,sora/b" and done.stderr == ""
    assert sig == sign("sora/B,sora/a,sora/b", int(exp), kind="list")


@pytest.mark.parametrize("tasks, message", [
    ("", '"": no route has this provider'), ("sora/a,", '"": no route has this provider'), ("sora/a,kling/x", '"kling/x": no route'),
    (",".join(f"sora/{number}" for number in range(101)), "--tasks: more than 100 tasks"),
], ids=["empty", "empty at the end", "provider", "too many"])
def test_errors_in_a_list_are_reported(idle, tasks, message):
    done = idle.daemon.run("--sign", "--team", "web", "--tasks", tasks, "--ttl", "1h")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith(f"taskproxy: {message}")


def test_nothing_is_signed_without_teams(make_stack):
    stack = make_stack(daemon=False, nginx=False, redis=False)
    done = stack.daemon.run(*SIGN)
    assert (done.returncode, done.stderr) == (1, "taskproxy: the configuration names no teams_file\n")
