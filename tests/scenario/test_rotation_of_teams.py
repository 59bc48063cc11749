"""The teams file, link secrets and webhook secrets are reloaded like keys."""

import itertools
import json

import pytest

from helpers import NOT_TAKEN, put, readiness
from stack import merged
from teaming import OLD_SECRET, SECRET, TEAMS, bearer, digest, link, refusal, teams_stack

TASK = "/sora/v1/videos/task_1"
NEW_TOKEN, NEW_SECRET = "tp-new-0123456789abcdef", SECRET.replace("0123", "9876")


def put_teams(stack, **changes):
    put(stack.folder / "teams.json", json.dumps(merged(TEAMS, changes)))


def status(stack, query="", **headers):
    return stack.get(f"{TASK}?{query}" if query else TASK, headers).status


@pytest.fixture
def stack(make_stack):
    return teams_stack(make_stack, redis=False)


def test_added_token_is_valid_and_removed_one_is_not(stack):
    assert stack.get(TASK, bearer("film")).status == 200
    put_teams(stack, film={"token_sha256": [digest(NEW_TOKEN)]}, web={"token_sha256": []})
    stack.wait_until(lambda: status(stack, Authorization=f"Bearer {NEW_TOKEN}") == 200, what="the new token")
    stack.wait_until(lambda: refusal(stack.get(TASK, bearer("film"))) == (401, "unauthorized"), what="the end of the old one")
    assert stack.metric("rotations_total", result="done") == 1
    assert stack.metric("reloads_total") == 0


@pytest.mark.parametrize("text, why", [
    ("{", "teams.json:1: "), ('{"web": {"provider": []}}', 'did you mean "providers"?'),
    (json.dumps({"web": {**TEAMS["web"], "token_sha256": ["abc"]}}), "/web/token_sha256/0: "),
])
def test_invalid_teams_file_keeps_the_old_one_and_is_logged_once(stack, text, why):
    put(stack.folder / "teams.json", text)
    assert why in stack.wait_log(NOT_TAKEN)
    put(stack.folder / "teams.json", text)
    stack.wait_metric("rotations_total", 2, result="refused")
    assert stack.daemon.log().count(NOT_TAKEN) == 1
    assert stack.get(TASK, bearer("film")).status == 200


@pytest.mark.problem("A changed teams file, key or secret is refused")
def test_broken_teams_file_blocks_no_other_change_and_is_reported_until_it_is_mended(stack):
    teams, new_key = stack.folder / "teams.json", "sk-the-new-key-0123456789"
    stack.standin.keys.add(new_key)
    put(teams, "{")
    stack.wait_metric("files_refused", 1)
    put(stack.key_file, new_key)
    tasks = (f"task_{number}" for number in itertools.count())

    def key_in_use():
        task = next(tasks)
        assert stack.get(f"/sora/v1/videos/{task}", bearer("film")).status == 200
        return stack.standin.seen(task)[-1].headers["authorization"].removeprefix("Bearer ")

    stack.wait_until(lambda: key_in_use() == new_key, what="queries with the new key")
    assert stack.metric("files_refused") == 1
    assert stack.daemon.log().count(NOT_TAKEN) == 1
    ready = readiness(stack)
    assert ready["status"] == "degraded" and ready["why"][0].startswith(f"{teams} refused: {teams}:1: ")
    assert json.loads(stack.get("/status").body)["troubles"] == ready["why"]

    put(teams, "[]")
    stack.wait_until(lambda: stack.daemon.log().count(f"{teams} {NOT_TAKEN}") == 2, what="the new reason")
    put_teams(stack, film={"token_sha256": []}, web={"token_sha256": []})
    stack.wait_until(lambda: stack.get(TASK, bearer("film")).status == 401, what="the revocation of the token")
    assert f"{teams} is no longer refused" in stack.daemon.log()
    assert stack.metric("files_refused") == 0
    stack.wait_until(lambda: readiness(stack)["status"] == "ready", what="the end of the trouble")
    put(teams, "[]")
    stack.wait_until(lambda: stack.daemon.log().count(f"{teams} {NOT_TAKEN}") == 3, what="the same reason, after the file was good")


@pytest.mark.problem("A changed teams file, key or secret is refused")
def test_refused_file_is_tried_again_without_a_change(make_stack):
    stack = teams_stack(make_stack, redis=False, clock=True)
    put_teams(stack, web={"token_sha256": [], "link_secret_file": "not-there-yet"}, film={"token_sha256": []})
    stack.wait_metric("files_refused", 1)
    stack.freeze()
    put(stack.folder / "not-there-yet", NEW_SECRET)

    def tick():
        stack.step(0.5)
        return stack.metric("files_refused") == 0

    stack.wait_until(tick, what="the teams file to be accepted")
    stack.clock.run()
    stack.wait_until(lambda: status(stack, link("sora/task_1", secret=NEW_SECRET)) == 200, what="the link secret")


def test_links_of_the_new_and_the_old_secret_are_valid(stack):
    links = [link("sora/task_1", secret=secret) for secret in (SECRET, NEW_SECRET)]
    assert [status(stack, query) for query in links] == [200, 403]
    put(stack.folder / "old-web-links", SECRET)
    put(stack.folder / "web-links", NEW_SECRET)
    put_teams(stack, web={"token_sha256": [], "old_link_secret_file": "old-web-links"}, film={"token_sha256": []})
    stack.wait_until(lambda: [status(stack, query) for query in links] == [200, 200], what="both secrets")
    put_teams(stack, web={"token_sha256": []}, film={"token_sha256": []})
    stack.wait_until(lambda: [status(stack, query) for query in links] == [403, 200], what="the end of the old one")
    assert OLD_SECRET not in stack.daemon.log() and NEW_SECRET not in stack.daemon.log()


def test_link_secret_readable_by_others_is_not_loaded(stack):
    put(stack.folder / "web-links", NEW_SECRET, 0o640)
    assert f'"{stack.folder}/web-links" can be read by others (mode 0640)' in stack.wait_log(NOT_TAKEN)
    assert status(stack, link("sora/task_1")) == 200
