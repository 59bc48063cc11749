"""Access of teams: by a token in the header of the provider's own clients, or by the name that nginx passes."""

import contextlib
import re

import pytest

from recorded import expectation
from shipped import PROVIDERS, cases, native_path, unified_path
from stack import Stack
from teaming import TEAMS, TOKENS, bearer, digest, given, one_stack, refusal, teams_stack, write_teams
from watching import NATIVE, UNIFIED

UNAUTHORIZED, FORBIDDEN = (401, "unauthorized"), (403, "forbidden")

shared = pytest.fixture(scope="module")(one_stack)


# Tokens


@pytest.mark.parametrize("path", [NATIVE + "t", UNIFIED + "t", "/v1/tasks?ids=sora/t"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_team_gets_its_task(shared, path, method):
    assert shared.get(path, bearer("web"), method).status == 200


@pytest.mark.parametrize("path", [NATIVE + "t", UNIFIED + "t", "/v1/tasks?ids=sora/t", NATIVE + "t?wait=5"])
def test_request_without_a_token_is_unauthorized(shared, path):
    answer = shared.get(path)
    assert refusal(answer) == UNAUTHORIZED
    assert answer.headers["www-authenticate"] == 'Bearer realm="taskproxy"'
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("value", [
    "Bearer", "Bearer ", "Bearer x", f"Bearer {TOKENS['web'][:-1]}", f"Bearer {TOKENS['web']}x", f"Bearer {TOKENS['web']},x",
    f"Basic {TOKENS['web']}", f"Key {TOKENS['web']}", TOKENS["web"], f"Bearer {TOKENS['web'].upper()}", "Bearer \x80\xff\xfe",
    "Bearer " + 7000 * "x", f"Bearer {digest(TOKENS['web'])}", "Bearer %74p-web", 'Bearer "\\\'<>{}',
], ids=lambda value: repr(value[:24]))
def test_malformed_token_is_unauthorized(shared, value):
    assert refusal(shared.get(NATIVE + "t", {"Authorization": value})) == UNAUTHORIZED


def test_token_of_arbitrary_bytes_is_unauthorized(shared):
    for token in (bytes(range(1, 256)), 16000 * b"\xff", b"\r\nX: y", TOKENS["web"].encode() + b"\n", b"%s%n"):
        assert refusal(shared.ask_worker(NATIVE + "t", HTTP_AUTHORIZATION=b"Bearer " + token)) == UNAUTHORIZED


def test_both_tokens_are_valid_during_a_rotation(make_stack):
    stack = teams_stack(make_stack, {"web": {"token_sha256": [digest("tp-new"), digest("tp-old")]}}, redis=False)
    ask = lambda token: stack.task("t", {"Authorization": f"Bearer {token}"}).status
    assert (ask("tp-new"), ask("tp-old"), ask(TOKENS["web"])) == (200, 200, 401)
    write_teams(stack, {"web": {"token_sha256": [digest("tp-new")]}})
    stack.wait_until(lambda: ask("tp-old") == 401, what="the old token to be refused")
    assert ask("tp-new") == 200


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_token_goes_where_the_providers_clients_put_their_key(every, provider):
    auth = PROVIDERS[provider]["auth"]
    task = expectation(provider, cases(provider)[0])["task"]
    own = {auth["header"]: re.sub(r"\{[a-z-]+\}", TOKENS["web"], auth["value"])}
    for path in (native_path(provider, task), unified_path(provider, task)):
        for headers in (own, bearer("web"), {"authorization": f"bearer {TOKENS['web']}"}):
            answer = every.get(path, headers)
            assert answer.json().get("code") not in ("unauthorized", "forbidden"), (path, headers, answer)
        wrong = {auth["header"]: re.sub(r"\{[a-z-]+\}", "wrong", auth["value"])}
        assert refusal(every.get(path, wrong)) == UNAUTHORIZED


@pytest.fixture(scope="module")
def every():
    """A stack with all providers, each of which the team may use."""
    with contextlib.ExitStack() as stacks:
        yield teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), {"web": {"providers": sorted(PROVIDERS)}},
                          redis=False, every_provider=True)


def test_client_credentials_never_reach_the_upstream(shared):
    shared.task("clean", {**bearer("web"), "X-Api-Key": "canary", "Cookie": "canary"})
    (query,) = shared.standin.seen("clean")
    assert query.headers["authorization"] == f"Bearer {shared.key}"
    assert not [value for value in query.headers.values() if "canary" in value or TOKENS["web"] in value]


# Providers


def test_team_may_not_use_unlisted_providers(make_stack):
    stack = teams_stack(make_stack, {"film": {"providers": ["veo"]}}, redis=False, config={
        "routes": [{"provider": "sora", "upstream": "main"}, {"provider": "veo", "upstream": "main"}]})
    assert refusal(stack.task("t", bearer("film"))) == FORBIDDEN
    assert refusal(stack.get(UNIFIED + "t", bearer("film"))) == FORBIDDEN
    assert stack.standin.count() == 0
    tasks = stack.get("/v1/tasks?ids=sora/t,nowhere/t,sora/..", bearer("film")).json()["tasks"]
    assert [task["code"] for task in tasks] == ["forbidden", "not_found", "bad_request"]
    assert stack.standin.count() == 0
    tasks = stack.get("/v1/tasks?ids=sora/t,sora/u", bearer("web")).json()["tasks"]
    assert [task["task_id"] for task in tasks] == ["t", "u"]


def test_team_without_providers_may_use_none(make_stack):
    stack = teams_stack(make_stack, {"film": {"providers": []}}, redis=False)
    assert refusal(stack.task("t", bearer("film"))) == FORBIDDEN


def test_unknown_path_is_404_for_every_team(shared):
    assert refusal(shared.get("/nowhere")) == (404, "not_found")
    assert refusal(shared.task("t", method="POST")) == (405, "method_not_allowed")


# nginx names the team


def test_team_named_by_nginx_gets_its_task(make_stack):
    stack = teams_stack(make_stack, mode="nginx", redis=False)
    assert stack.ask_worker(NATIVE + "t", TASKPROXY_TEAM="web").status == 200
    for named in ({"TASKPROXY_TEAM": "nobody"}, {"TASKPROXY_TEAM": ""}, {}, {"TASKPROXY_TEAM": "WEB"}):
        answer = stack.ask_worker(NATIVE + "t", **given("web"), **named)
        assert refusal(answer) == FORBIDDEN and "www-authenticate" not in answer.headers


@pytest.mark.parametrize("name", ["TASKPROXY_TEAM", "Taskproxy-Team", "HTTP_TASKPROXY_TEAM", "X-TASKPROXY_TEAM"])
def test_client_cannot_name_its_team(make_stack, name):
    stack = teams_stack(make_stack, mode="nginx", redis=False, http="underscores_in_headers on;")
    assert refusal(stack.task("t", {name: "web"})) == FORBIDDEN


def test_team_name_is_ignored_in_mode_teams(shared):
    assert refusal(shared.ask_worker(NATIVE + "t", TASKPROXY_TEAM="web")) == UNAUTHORIZED


# Mode "open"


def test_credentials_are_ignored_in_mode_open(make_stack):
    stack = make_stack(redis=False)
    answer = stack.task("t?team=x", {"Authorization": "Bearer x", "Origin": "https://app.example.com"})
    assert answer.status == 200 and "origin" not in answer.headers["vary"].lower()
    assert not [name for name in answer.headers if name.startswith("access-control")]


# The file


def test_reload_reads_the_teams_file_and_a_bad_one_changes_nothing(make_stack):
    stack = teams_stack(make_stack, redis=False)
    file = stack.folder / "teams.json"
    file.write_text(file.read_text().replace('"sora"', '"soar"', 1))
    stack.daemon.hup()
    line = stack.wait_log("reload refused")
    assert f'{file}:4: /web/providers/0: no route has this provider; configured providers: "sora"' in line
    assert stack.task("t", bearer("web")).status == 200
    write_teams(stack, {"film": None})
    stack.daemon.reload()
    stack.wait_until(lambda: stack.task("t", bearer("film")).status == 401, what="the team to be unknown")
    assert TEAMS.keys() == {"web", "film"} and stack.task("t", bearer("web")).status == 200


@pytest.mark.parametrize("mode", ["teams", "nginx"])
def test_mode_teams_requires_a_teams_file(make_stack, mode):
    stack = make_stack(config={"access": {"mode": mode}}, daemon=False, nginx=False, redis=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and f'/access/mode: "{mode}" needs a teams_file' in done.stderr
