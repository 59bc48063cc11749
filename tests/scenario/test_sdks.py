"""Official SDKs with another base URL and key: they get the members that they need, and report our errors as their own,
with our message."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

import needs
from players import Video
from shipped import PROVIDERS
from stack import Stack

CLIENTS = Path(__file__).with_name("clients.cjs")
QUICK = {name: {"poll": {"min": "100ms", "max": "100ms"}} for name in PROVIDERS}


@pytest.fixture(scope="module")
def modules() -> str:
    return needs.npm_modules()


@pytest.fixture(scope="module")
def everyone():
    """A stack on a TCP port, for clients that do not support UNIX sockets."""
    with Stack(every_provider=True, port=0, providers=QUICK, config={"workers": 1}) as stack:
        yield stack


@pytest.fixture
def ask(everyone, modules):
    """Runs one call of a client; returns its result or error."""
    everyone.standin.clear()

    def run(client: str, method: str, task_id: str, *retries) -> dict:
        done = subprocess.run(
            ["node", str(CLIENTS), client, method, task_id, everyone.nginx.url, *map(str, retries)],
            env={**os.environ, "NODE_PATH": modules}, capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_openai_videos_retrieve(everyone, ask):
    for state, status in (("NOT_START", "queued"), ("IN_PROGRESS", "in_progress"), ("SUCCESS", "completed"), ("FAILURE", "failed")):
        everyone.standin.switch(f"video_{status}", state=state)
        video = ask("openai", "retrieve", f"video_{status}")["result"]
        assert (video["id"], video["object"], video["status"]) == (f"video_{status}", "video", status)
    assert video["error"]["code"] == "moderation_blocked"
    (query,) = everyone.standin.seen("video_failed")
    assert query.headers["authorization"] == f"Bearer {everyone.key}"  # not the client's


def test_openai_videos_download_content(everyone, ask):
    everyone.standin.switch("video_1", state="SUCCESS")
    assert ask("openai", "download", "video_1")["result"] == {"type": "video/mp4", "base64": base64.b64encode(Video.body).decode()}
    (query,) = everyone.standin.seen("video_1/content")
    assert query.headers["authorization"] == f"Bearer {everyone.key}"  # not the client's
    error = ask("openai", "thumbnail", "video_1", 0)["error"]
    assert (error["classes"][0], error["status"]) == ("NotFoundError", 404) and "result" in error["message"]


def test_runway_tasks_retrieve(everyone, ask):
    everyone.standin.switch("task-1", state="IN_PROGRESS")
    task = ask("runway", "retrieve", "task-1")["result"]
    assert (task["id"], task["status"], task["progress"]) == ("task-1", "RUNNING", 0.42)


def test_runway_wait_for_task_output_polls_until_the_task_has_ended(everyone, ask):
    everyone.standin.switch("task-2", state="IN_PROGRESS")
    waiting = everyone.background(ask, "runway", "wait", "task-2")
    everyone.standin.wait_count(1, "task-2")
    everyone.standin.switch("task-2", state="SUCCESS")
    task = waiting.result()["result"]
    assert (task["id"], task["status"]) == ("task-2", "SUCCEEDED")
    assert task["output"][0].startswith("https://")
    assert everyone.standin.count("task-2") == 2


def test_runway_wait_for_task_output_reports_a_failure(everyone, ask):
    everyone.standin.switch("task-3", state="FAILURE")
    error = ask("runway", "wait", "task-3")["error"]
    assert error["classes"][0] == "TaskFailedError"
    assert error["details"]["failureCode"] == "SAFETY.INPUT.IMAGE"


def test_luma_generations_get(everyone, ask):
    everyone.standin.switch("gen-1", state="SUCCESS")
    generation = ask("luma", "retrieve", "gen-1")["result"]
    assert (generation["id"], generation["state"]) == ("gen-1", "completed")
    assert generation["assets"]["video"].startswith("https://")


def test_replicate_predictions_get_and_wait(everyone, ask):
    everyone.standin.switch("prediction1", state="IN_PROGRESS")
    waiting = everyone.background(ask, "replicate", "wait", "prediction1")
    everyone.standin.wait_count(1, "prediction1")
    everyone.standin.switch("prediction1", state="SUCCESS")
    prediction = waiting.result()["result"]
    assert (prediction["id"], prediction["status"]) == ("prediction1", "succeeded")
    assert prediction["output"].startswith("https://")
    assert prediction["urls"]["get"].endswith("/prediction1")


ERRORS = (  # the upstream's behavior, our status and message
    ({"status": 404}, 404, "The task does not exist at the upstream."),
    ({"status": 500}, 502, "The upstream answered with an error."),
    ({"garbage": True}, 502, "The upstream's answer could not be used."),
)
CLASSES = {  # exception classes of the clients, by status
    "openai": {404: "NotFoundError", 502: "InternalServerError"},
    "runway": {404: "NotFoundError", 502: "InternalServerError"},
    "luma": {404: "NotFoundError", 502: "InternalServerError"},
    "replicate": {404: "ApiError", 502: "ApiError"},
}


def assert_error(everyone, ask, client, task_id, switches, status, words):
    everyone.standin.switch(task_id, **switches)
    error = ask(client, "retrieve", task_id, 0)["error"]
    assert (error["status"], error["classes"][0]) == (status, CLASSES[client][status])
    assert words in error["message"]


@pytest.mark.parametrize("client", CLASSES)
def test_our_errors_are_the_sdks_exceptions_with_our_messages(everyone, ask, client):
    def try_one(i, each):
        assert_error(everyone, ask, client, f"{client}-error-{i}", *each)

    for attempt in [everyone.background(try_one, *each) for each in enumerate(ERRORS)]:
        attempt.result()


@pytest.mark.parametrize("client", CLASSES)
def test_rejection_of_our_key_is_a_server_error_for_the_client(everyone, ask, client):
    words = "The upstream refused the proxy's credentials. The operator must act."
    assert_error(everyone, ask, client, f"{client}-refused", {"status": 401}, 502, words)
    everyone.wait_until(lambda: everyone.task(f"after-{client}").status == 200, what="a key that is not suspended")


@pytest.mark.parametrize("client", ["openai", "runway"])
def test_transient_error_is_retried_by_the_client(everyone, ask, client):
    everyone.standin.switch(f"{client}-trouble", status=500, times=1)
    assert ask(client, "retrieve", f"{client}-trouble")["result"]["id"] == f"{client}-trouble"
    assert everyone.standin.count(f"{client}-trouble") == 2


def test_overload_and_invalid_id_are_sdk_exceptions(everyone, ask):
    everyone.standin.switch("busy-1", status=429, retry_after=1)
    error = ask("openai", "retrieve", "busy-1", 0)["error"]
    assert (error["status"], error["classes"][0]) == (503, "InternalServerError")
    assert "The upstream does not accept queries at the moment." in error["message"]
    error = ask("runway", "retrieve", "no id", 0)["error"]
    assert (error["status"], error["classes"][0]) == (400, "BadRequestError")
    assert "The task id is not valid for this provider." in error["message"]
