"""fal's client (through proxyUrl) and the AI SDK follow tasks that another program has submitted. Their code is in conf/clients.md."""

import base64

import pytest

import needs
import sdks
from players import Video
from recorded import ANSWERS, read_answer
from stack import Stack

PROXY, TARGET = "/api/fal/proxy", "X-Fal-Target-Url"
QUEUE = "https://queue.fal.run"
STATUS_OF_CLIENT = "await fal.queue.status(endpoint, { requestId: id, logs: true })"
RESULT_OF_CLIENT = "await fal.queue.result(endpoint, { requestId: id })"
STATUS, RESULT = "/fal-ai/pika/requests/{}/status", "/fal-ai/pika/requests/{}"
SUBMIT_WORDS = "This proxy only answers queries for tasks. Submit and cancel them with the provider's API key."
QUICK = {name: {"poll": {"min": "100ms", "max": "100ms"}} for name in ("fal", "veo")}


@pytest.fixture(scope="module")
def stack():
    """A stack on a TCP port: Node's fetch does not support UNIX sockets."""
    with Stack(every_provider=True, port=0, providers=QUICK) as running:
        yield running


@pytest.fixture(autouse=True)
def cleared(stack):
    stack.standin.clear()


@pytest.fixture(scope="module")
def ask(stack):
    """Executes one call of a client; returns its result or error."""
    needs.npm_modules()  # now: tests wait for queries of clients that run in the background
    return lambda task_id, code, section="fal": sdks.execute(stack, section, task_id, code)[0]


def through_proxy(stack, target: str):
    return stack.get(PROXY, {TARGET: QUEUE + target})


def fail(stack, task_id: str) -> None:
    stack.standin.switch(task_id, state="SUCCESS")
    stack.standin.switch(f"{task_id}/result", status=422, raw=read_answer(ANSWERS / "fal" / "failed-result.result.answer")[1])


# fal's client


def test_status_and_result_of_fals_client(stack, ask):
    stack.standin.switch("1", state="SUCCESS")
    status = ask("1", STATUS_OF_CLIENT)["result"]
    assert (status["status"], status["request_id"]) == ("COMPLETED", "1")
    result = ask("1", RESULT_OF_CLIENT)["result"]
    assert result["data"]["video"]["url"].startswith("https://v3.fal.media/")
    assert stack.standin.count("1") == 1  # one query for both
    assert [query.headers["authorization"] for query in stack.standin.seen("1")] == [f"Key {stack.key}"]


def test_subscription_of_fals_client_ends_with_the_task(stack, ask):
    stack.standin.switch("2", state="IN_PROGRESS")
    waiting = stack.background(ask, "2", "await fal.queue.subscribeToStatus(endpoint, { requestId: id, pollInterval: 100 })")
    stack.standin.wait_count(2, "2")
    stack.standin.switch("2", state="SUCCESS")
    assert waiting.result()["result"]["status"] == "COMPLETED"


def test_result_of_a_running_task_is_the_error_that_fal_gives(stack, ask):
    stack.standin.switch("3", state="IN_PROGRESS")
    error = ask("3", RESULT_OF_CLIENT)["error"]
    assert (error["name"], error["status"]) == ("ApiError", 400)
    answer = stack.get(RESULT.format("3"))
    assert (answer.status, answer.json()) == (400, {"detail": "Request is still in progress"})
    assert answer.headers["retry-after"] == "1" and answer.headers["cache-control"] == "private, no-cache"


def test_result_of_a_failed_task_is_fals_validation_error(stack, ask):
    fail(stack, "4")
    error = ask("4", RESULT_OF_CLIENT)["error"]
    assert (error["name"], error["status"]) == ("ValidationError", 422)
    assert error["fields"][0]["msg"]
    stack.standin.switch("5", state="FAILURE")  # without a second answer
    answer = stack.get(RESULT.format("5"))
    assert (answer.status, answer.json()) == (422, {"detail": stack.get("/v1/tasks/fal/fal-ai/pika/5").json()["error"]})


def test_submissions_are_refused_in_words_that_fals_client_shows(stack):
    for outcome in sdks.execute(stack, "fal", "6", "await fal.queue.submit(endpoint, { input: { prompt: 'a cat' } })",
                                "await fal.queue.submit(endpoint, { input: { image: 'x'.repeat(100000) } })",
                                "await fal.queue.cancel(endpoint, { requestId: id })"):
        error = outcome["error"]
        assert (error["name"], error["status"], error["message"]) == ("ApiError", 405, SUBMIT_WORDS)
    assert stack.standin.count("6") == 0


def test_our_problems_are_fals_errors_with_our_message(stack, ask):
    error = ask("404", RESULT_OF_CLIENT)["error"]
    assert (error["name"], error["status"], error["message"]) == ("ApiError", 404, "The task does not exist at the upstream.")


@pytest.mark.parametrize("task_id, model, path", [
    ("7", "fal.video('pika')", "request"), ("13", "google.video('veo')", "'v1beta/' + operation"),
], ids=["fal", "google"])
def test_ai_sdk_polls_and_gets_the_video_through_us(stack, ask, task_id, model, path):
    code = f"""await generateVideo({{ model: {model}, prompt: 'a cat', download: download({path}),
                                      providerOptions: {{ fal: {{ pollIntervalMs: 100 }}, google: {{ pollIntervalMs: 100 }} }} }})"""
    stack.standin.switch(own_urls=True)
    stack.standin.switch(task_id, state="IN_PROGRESS")
    generating = stack.background(ask, task_id, code, "Vercel's AI SDK")
    stack.standin.wait_count(2, task_id)
    stack.standin.switch(task_id, state="SUCCESS")
    assert base64.b64encode(Video.body).decode() in str(generating.result()["result"])


def test_request_in_a_namespace_is_read_like_others(stack):
    stack.standin.switch("11", state="SUCCESS")
    result = through_proxy(stack, "/workflows/fal-ai/pika/requests/11")
    assert result.json()["video"]["url"] == stack.get("/workflows/fal-ai/pika/requests/11/status").json()["result"]["video"]["url"]
    assert stack.standin.count("11") == 1


# The protocol


def test_one_task_has_one_query_and_one_worker_on_all_its_paths(stack):
    stack.standin.switch("8", state="SUCCESS")
    status, result = stack.get(STATUS.format("8")), stack.get(RESULT.format("8"))
    assert result.json() == status.json()["result"]
    assert result.headers["cache-status"].startswith("taskproxy; hit; ttl=") and "redis" not in result.headers["cache-status"]
    assert result.headers["etag"] != status.headers["etag"]  # at /api/fal/proxy they have one URL
    assert through_proxy(stack, STATUS.format("8") + "?logs=1").body == status.body
    assert through_proxy(stack, RESULT.format("8") + "#x").body == result.body
    assert "redis" not in through_proxy(stack, RESULT.format("8")).headers["cache-status"]
    assert stack.standin.count("8") == 1
    unchanged = stack.get(RESULT.format("8"), {"If-None-Match": result.headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    head = stack.get(RESULT.format("8"), method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(result.body)))


def test_browsers_do_not_take_one_target_for_another(stack):
    """All targets share one URL, so a cache needs the header with the target to tell them apart."""
    stack.standin.switch("12", state="SUCCESS")
    vary = "Accept, Prefer, x-fal-target-url"
    assert through_proxy(stack, STATUS.format("12")).headers["vary"] == vary
    assert stack.get(PROXY).headers["vary"] == vary
    assert stack.get(STATUS.format("12")).headers["vary"] == "Accept, Prefer"


def test_result_of_an_unfinished_task_can_be_waited_for(stack):
    stack.standin.switch("9", state="IN_PROGRESS")
    waiting = stack.background(stack.get, RESULT.format("9") + "?wait=60")
    stack.standin.wait_count(2, "9")
    stack.standin.switch("9", state="SUCCESS")
    assert waiting.result().json()["video"]["url"]


@pytest.mark.parametrize("target", [
    "", "https://queue.fal.run", "http://queue.fal.run" + STATUS.format("10"), "https://queue.fal.run.example" + STATUS.format("10"),
    "https://queue.fal.run@example.com" + STATUS.format("10"), QUEUE + "/v1/tasks/fal/fal-ai/pika/10", QUEUE + "/v1/tasks?ids=sora/1",
    QUEUE + "/sora/v1/videos/10", QUEUE + PROXY, QUEUE + "/v1/hooks/fal/secret", "https://rest.alpha.fal.ai/storage/upload",
])
def test_other_targets_are_refused(stack, target):
    answer = stack.get(PROXY, {TARGET: target} if target else None)
    assert (answer.status, answer.json()["detail"]) == (404, "The target URL is not that of a task's status or result.")
    assert stack.standin.count("10") == 0


def test_invalid_id_in_the_target_is_named(stack):
    answer = through_proxy(stack, "/fal-ai/pika/requests/a.b/status")
    assert (answer.status, answer.json()["detail"]) == (400, "The task id is not valid for this provider.")


def test_problems_are_plain_json_for_clients_that_accept_nothing_else(stack):
    def type_for(accept: str) -> str:
        return stack.get(STATUS.format("404"), {"Accept": accept}).headers["content-type"]

    assert type_for("application/json") == "application/json"
    assert {type_for(accept) for accept in ("*/*", "application/json, */*;q=0.1", "application/json, application/problem+json",
                                            "application/*", "text/html")} == {"application/problem+json"}
