"""nginx's own cache ("nginx_cache") on two hosts of a cluster: only the host that serves a task keeps answers, so both hosts
repeat them to the same clients, and for no longer than one host alone.

All clocks, nginx's too, are frozen. An answer of nginx's cache has "nginx; hit" in Cache-Status.
"""

import contextlib
import re
import signal

import pytest

from clustering import make_certificates, on_loopback, task_of
from helpers import wait_gone
from parts import children_of
from stack import Stack
from teaming import bearer, digest, teams_stack, write_teams
from watching import NATIVE, end

KEPT_FOR = 5  # seconds
WEB, FILM = bearer("web"), bearer("film")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Each has an upstream of its own, and no Redis."""
    certificates = tmp_path_factory.mktemp("certificates")
    make_certificates(certificates)
    with contextlib.ExitStack() as stacks:
        made = [teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), daemon=False, redis=False, clock=True,
                            config={"workers": 1, "nginx_cache": f"{KEPT_FOR}s"}) for _ in range(2)]
        on_loopback(certificates, *made)
        for stack in made:
            end(stack)
            stack.daemon.start()
            stack.nginx.variables = stack.clock.environment
            stack.freeze()
            stack.nginx.start()
        yield made


def step(hosts, seconds) -> None:
    for host in hosts:
        host.step(seconds)


def is_repeated(answer) -> bool:
    assert answer.status == 200
    return answer.headers["cache-status"].endswith(", nginx; hit")


def keeps(host, task) -> bool:
    """Whether a file of the host's cache has an answer for the task."""
    key = f"\nKEY: GET{NATIVE}{task}\n".encode()
    return any(key in file.read_bytes() for file in (host.nginx.prefix / "taskproxy-cache").iterdir())


def change_teams(hosts, changes) -> None:
    """Of the second host, and waits until its cache has forgotten what came before."""
    second = hosts[1]
    write_teams(second, changes)
    old = children_of(second.nginx.pid)
    second.nginx.signal(signal.SIGHUP)  # the old workers exit when nginx has closed its connections
    wait_gone(second, *old)
    second.daemon.reload()
    step(hosts, KEPT_FOR)


def test_host_that_serves_the_task_repeats_answers_on_both_hosts_for_the_same_time(hosts):
    first, second = hosts
    task = task_of(second)
    for age in range(2 * KEPT_FOR + 1):
        there, here = first.task(task, WEB), second.task(task, WEB)
        assert (is_repeated(there), is_repeated(here)) == (age % KEPT_FOR > 0, True)
        assert (there.headers["age"], here.headers["age"], there.body) == (str(age), str(age), here.body)
        step(hosts, 1)
    assert (keeps(first, task), keeps(second, task)) == (False, True)
    assert (first.standin.count(task), second.standin.count(task)) == (0, 1)


def test_restart_of_nginx_does_not_make_answers_last_longer(hosts):
    first, second = hosts
    task = task_of(second)
    assert not is_repeated(first.task(task, WEB))
    step(hosts, KEPT_FOR - 1)
    second.nginx.stop()
    second.nginx.start()
    assert first.task(task, WEB).headers["age"] == str(KEPT_FOR - 1)
    step(hosts, 1)
    assert not is_repeated(first.task(task, WEB))


def test_conditions_hold_over_both_hosts(hosts):
    first, second = hosts
    task = task_of(second)
    tag = first.task(task, WEB).headers["etag"]
    for host in hosts:
        answer = host.task(task, {**WEB, "If-None-Match": tag})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-status"].endswith(", nginx; hit")
        assert is_repeated(host.task(task, {**WEB, "If-None-Match": '"x"'}))


def test_answer_reaches_only_the_team_that_has_got_it_from_any_host(hosts):
    first, second = hosts
    task = task_of(second)
    assert not is_repeated(first.task(task, WEB))
    assert not is_repeated(second.task(task, FILM))
    assert is_repeated(second.task(task, WEB)) and is_repeated(first.task(task, FILM))
    assert [host.task(task, headers).status for host in hosts for headers in ({}, {"Authorization": "Bearer x"})] == [401] * 4


def test_host_that_serves_the_task_refuses_a_revoked_token(hosts):
    """The other host does not look at the token."""
    task = task_of(hosts[1])
    assert [host.task(task, FILM).status for host in hosts] == [200, 200]
    change_teams(hosts, {"film": {"token_sha256": [digest("another-token")]}})
    assert [host.task(task, FILM).status for host in hosts] == [401, 401]
    change_teams(hosts, {})
    assert [host.task(task, FILM).status for host in hosts] == [200, 200]


def test_logs_of_both_hosts_have_the_id_of_a_repeated_answer_and_its_team(hosts):
    first, second = hosts
    task = task_of(second)
    ids = [first.task(task, WEB).headers["x-request-id"] for _ in range(3)]
    assert len({*ids}) == 3
    for request_id, caches in zip(ids, [("MISS", "MISS"), ("HIT", "NGINX"), ("HIT", "NGINX")]):
        for log, cache in zip((first.folder / "access.log", second.folder / "peers.log"), caches):
            first.wait_until(lambda log=log: request_id in log.read_text(), what=f"the id in {log.name}")
            (line,) = [line for line in log.read_text().splitlines() if f" id={request_id} " in line]
            assert re.search(r" cache=(\S+) team=(\S+) ", line).groups() == (cache, "web")


def test_clients_do_not_see_headers_between_hosts(hosts):
    for host in hosts:
        for _ in range(2):
            answer = host.task("t", WEB)
            assert not [name for name in answer.headers if name.startswith(("x-taskproxy", "x-accel"))]
