"""The teams file, link secrets and webhook secrets are reloaded like keys."""

import json

import pytest

from helpers import NOT_TAKEN, put
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
