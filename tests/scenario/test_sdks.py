"""Official SDKs with the base URL and key of conf/clients.md: they get the members that they need, and report our errors as
their own, with our message."""

import base64

import pytest

import needs
import sdks
from players import Video
from shipped import PROVIDERS
from stack import Stack

RETRIEVE = {  # of each section of the chapter
    "OpenAI": "await client.videos.retrieve({})",
    "Runway": "await client.tasks.retrieve({})",
    "Luma": "await client.generations.get({})",
    "Replicate": "await replicate.predictions.get({})",
}
WAIT_FOR_OUTPUT = "await client.tasks.retrieve(id).waitForTaskOutput()"
QUICK = {name: {"poll": {"min": "100ms", "max": "100ms"}} for name in PROVIDERS}


@pytest.fixture(scope="module")
def everyone():
    """A stack on a TCP port, for clients that do not support UNIX sockets."""
    with Stack(every_provider=True, port=0, providers=QUICK, config={"workers": 1}) as stack:
        yield stack


@pytest.fixture
def ask(everyone):
    """Executes one call of a client; returns its result or error."""
    needs.npm_modules()  # now: tests wait for queries of clients that run in the background
    everyone.standin.clear()
    return lambda section, task_id, code: sdks.execute(everyone, section, task_id, code)[0]


@pytest.fixture
def retrieve(everyone, ask):
    """Executes the call that gets a task, for each of these; returns the results or errors."""

    def execute(section: str, *task_ids: str, retries: bool = False) -> list:
        before = "" if retries or section == "Replicate" else "client.maxRetries = 0;"
        calls = [RETRIEVE[section].format(f"'{task_id}'") for task_id in task_ids]
        return sdks.execute(everyone, section, "", *calls, before=before)

    return execute


def test_openai_videos_retrieve(everyone, retrieve):
    states = {"NOT_START": "queued", "IN_PROGRESS": "in_progress", "SUCCESS": "completed", "FAILURE": "failed"}
    for state, status in states.items():
        everyone.standin.switch(f"video_{status}", state=state)
    videos = [outcome["result"] for outcome in retrieve("OpenAI", *(f"video_{status}" for status in states.values()))]
    for status, video in zip(states.values(), videos, strict=True):
        assert (video["id"], video["object"], video["status"]) == (f"video_{status}", "video", status)
    assert videos[-1]["error"]["code"] == "moderation_blocked"
    (query,) = everyone.standin.seen("video_failed")
    assert query.headers["authorization"] == f"Bearer {everyone.key}"  # not the client's


def test_openai_videos_download_content(everyone):
    everyone.standin.switch("video_1", state="SUCCESS")
    video, thumbnail = sdks.execute(everyone, "OpenAI", "video_1", "await client.videos.downloadContent(id, { variant: 'video' })",
                                    "await client.videos.downloadContent(id, { variant: 'thumbnail' })")
    assert video["result"] == {"status": 200, "type": "video/mp4", "bytes": base64.b64encode(Video.body).decode()}
    (query,) = everyone.standin.seen("video_1/content")
    assert query.headers["authorization"] == f"Bearer {everyone.key}"  # not the client's
    error = thumbnail["error"]
    assert (error["classes"][0], error["status"]) == ("NotFoundError", 404) and "result" in error["message"]


def test_runway_tasks_retrieve(everyone, retrieve):
    everyone.standin.switch("task-1", state="IN_PROGRESS")
    task = retrieve("Runway", "task-1")[0]["result"]
    assert (task["id"], task["status"], task["progress"]) == ("task-1", "RUNNING", 0.42)


def test_runway_wait_for_task_output_polls_until_the_task_has_ended(everyone, ask):
    everyone.standin.switch("task-2", state="IN_PROGRESS")
    waiting = everyone.background(ask, "Runway", "task-2", WAIT_FOR_OUTPUT)
    everyone.standin.wait_count(1, "task-2")
    everyone.standin.switch("task-2", state="SUCCESS")
    task = waiting.result()["result"]
    assert (task["id"], task["status"]) == ("task-2", "SUCCEEDED")
    assert task["output"][0].startswith("https://")
    assert everyone.standin.count("task-2") == 2


def test_runway_wait_for_task_output_reports_a_failure(everyone, ask):
    everyone.standin.switch("task-3", state="FAILURE")
    error = ask("Runway", "task-3", WAIT_FOR_OUTPUT)["error"]
    assert error["classes"][0] == "TaskFailedError"
    assert error["details"]["failureCode"] == "SAFETY.INPUT.IMAGE"


def test_luma_generations_get(everyone, retrieve):
    everyone.standin.switch("gen-1", state="SUCCESS")
    generation = retrieve("Luma", "gen-1")[0]["result"]
    assert (generation["id"], generation["state"]) == ("gen-1", "completed")
    assert generation["assets"]["video"].startswith("https://")


def test_replicate_predictions_get_and_wait(everyone, ask):
    everyone.standin.switch("prediction1", state="IN_PROGRESS")
    waiting = everyone.background(
        ask, "Replicate", "prediction1", "await replicate.wait(await replicate.predictions.get(id), { interval: 100 })")
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
    "OpenAI": {404: "NotFoundError", 502: "InternalServerError", 503: "InternalServerError"},
    "Runway": {400: "BadRequestError", 404: "NotFoundError", 502: "InternalServerError"},
    "Luma": {404: "NotFoundError", 502: "InternalServerError"},
    "Replicate": {404: "ApiError", 502: "ApiError"},
}


def assert_error(client, outcome, status, words):
    error = outcome["error"]
    assert (error["status"], error["classes"][0]) == (status, CLASSES[client][status])
    assert words in error["message"]


@pytest.mark.parametrize("client", CLASSES)
def test_our_errors_are_the_sdks_exceptions_with_our_messages(everyone, retrieve, client):
    tasks = [f"{client}-error-{number}" for number in range(len(ERRORS))]
    for task_id, (switches, _, _) in zip(tasks, ERRORS, strict=True):
        everyone.standin.switch(task_id, **switches)
    for outcome, (_, status, words) in zip(retrieve(client, *tasks), ERRORS, strict=True):
        assert_error(client, outcome, status, words)


@pytest.mark.parametrize("client", CLASSES)
def test_rejection_of_our_key_is_a_server_error_for_the_client(everyone, retrieve, client):
    everyone.standin.switch(f"{client}-refused", status=401)
    (outcome,) = retrieve(client, f"{client}-refused")
    assert_error(client, outcome, 502, "The upstream refused the proxy's credentials. The operator must act.")
    everyone.wait_until(lambda: everyone.task(f"after-{client}").status == 200, what="a key that is not suspended")


@pytest.mark.parametrize("client", ["OpenAI", "Runway"])
def test_transient_error_is_retried_by_the_client(everyone, retrieve, client):
    everyone.standin.switch(f"{client}-trouble", status=500, times=1)
    (outcome,) = retrieve(client, f"{client}-trouble", retries=True)
    assert outcome["result"]["id"] == f"{client}-trouble"
    assert everyone.standin.count(f"{client}-trouble") == 2


def test_overload_and_invalid_id_are_sdk_exceptions(everyone, retrieve):
    everyone.standin.switch("busy-1", status=429, retry_after=1)
    (outcome,) = retrieve("OpenAI", "busy-1")
    assert_error("OpenAI", outcome, 503, "The upstream does not accept queries at the moment.")
    (outcome,) = retrieve("Runway", "no id")
    assert_error("Runway", outcome, 400, "The task id is not valid for this provider.")
