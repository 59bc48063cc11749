"""Queries beyond the basic one: second queries for results, signed tokens, fresh ids."""

import base64
import json
import re

import pytest

from recorded import ANSWERS, read_answer
from sharing import sharing
from shipped import UNIFIED_VIEW

FAL, FAL_QUERY, FAL_RESULT = "/v1/tasks/fal/fal-ai/pika/", "/fal-ai/pika/requests/{}/status", "/fal-ai/pika/requests/{}"
MINIMAX, FILES = "/v1/tasks/minimax/", "/v1/files/retrieve?file_id={}"
KLING, PIXVERSE = "/v1/videos/text2video/", "/openapi/v2/video/result/"


@pytest.fixture
def everyone(make_stack):
    return make_stack(every_provider=True, config={"workers": 1})


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def targets(stack) -> list:
    return [query.target for query in stack.standin.seen()]


def recorded(provider: str, case: str, suffix: str = ".answer") -> bytes:
    return read_answer(ANSWERS / provider / (case + suffix))[1]


# The second query


@pytest.mark.parametrize("unified, first, second, kept", [
    (FAL, FAL_QUERY, FAL_RESULT, ("result", "video", "url")),
    (MINIMAX, "/v1/query/video_generation?task_id={}", FILES, ("retrieved", "file", "download_url")),
])
def test_result_is_queried_after_the_task_succeeded(everyone, unified, first, second, kept):
    everyone.standin.switch("7", state="IN_PROGRESS", times=1)
    everyone.standin.switch("8", state="SUCCESS")
    assert everyone.get(unified + "7").json()["status"] == "running"
    assert targets(everyone) == [first.format(7)]

    everyone.standin.reset_counts()
    answer = everyone.get(unified + "8")
    UNIFIED_VIEW.validate(answer.json())
    assert targets(everyone) == [first.format(8), second.format(8)]
    assert [query.headers["authorization"] for query in everyone.standin.seen()] == [
        f"{'Key' if unified == FAL else 'Bearer'} {everyone.key}"] * 2
    (result,) = answer.json()["results"]
    native = everyone.get(first.format(8))
    value = native.json()
    for name in kept:
        value = value[name]
    assert (native.headers["x-cache"], value) == ("HIT", result["url"])
    assert everyone.standin.count() == 2


def test_both_queries_are_shared_by_all_waiters(everyone):
    everyone.standin.switch("9", state="SUCCESS")
    with everyone.standin.hold("9/result") as barrier:
        asks = [everyone.background(everyone.get, FAL + "9") for _ in range(50)]
        barrier.wait_arrived(1)
        everyone.wait_metric("waiters", 50)
    assert {ask.result().json()["status"] for ask in asks} == {"succeeded"}
    assert targets(everyone) == [FAL_QUERY.format(9), FAL_RESULT.format(9)]


def test_other_worker_waits_long_enough_for_both_queries(make_frozen):
    stack = sharing(make_frozen, every_provider=True, config={
        "workers": 2, "upstreams": {"main": {"timeout": "2s"}}})
    stack.standin.switch("9", state="SUCCESS")
    with stack.standin.hold("9") as first, stack.standin.hold("9/result") as second:
        holder = stack.background(stack.ask_worker, FAL + "9", 0)
        first.wait_arrived()
        asks = [holder, stack.background(stack.ask_worker, FAL + "9", 1)]
        stack.wait_metric("leases_refused_total", 1)
        stack.step(1.4)
        first.release()
        second.wait_arrived()
        stack.step(1.4)
    assert [ask.result().json()["status"] for ask in asks] == ["succeeded"] * 2
    assert targets(stack) == [FAL_QUERY.format(9), FAL_RESULT.format(9)]


@pytest.mark.parametrize("switches, expected", [
    ({"status": 500}, (502, "upstream_error")),
    ({"status": 404}, (404, "task_not_found")),
    ({"status": 401}, (502, "upstream_auth")),
    ({"raw": "{}", "status": 302}, (502, "upstream_invalid")),
    ({"reset": True}, (502, "upstream_error")),
    ({"garbage": True}, (502, "upstream_invalid")),
    ({"raw": "[]"}, (502, "upstream_invalid")),
    ({"huge": 5 * 1024 * 1024}, (502, "upstream_invalid")),
])
def test_task_has_not_ended_until_its_result_is_read(everyone, switches, expected):
    for unified, task_id in ((FAL, "10"), (MINIMAX, "11")):
        everyone.standin.switch(task_id, state="SUCCESS")
        everyone.standin.switch(f"{task_id}/result", **switches)
        assert outcome(everyone.get(unified + task_id)) == expected
    assert everyone.redis.stored() == []
    assert everyone.metric("cache_entries") == 0

    everyone.standin.clear()
    for unified, task_id in ((FAL, "12"), (MINIMAX, "13")):  # no lasting damage
        everyone.standin.switch(task_id, state="SUCCESS")
        assert everyone.get(unified + task_id).json()["status"] == "succeeded"


@pytest.mark.parametrize("unified", [FAL, MINIMAX])
def test_missing_result_answer_is_a_timeout(make_stack, unified):
    stack = make_stack(every_provider=True, config={"workers": 1, "upstreams": {"main": {"timeout": "500ms"}}})
    stack.standin.switch("10", state="SUCCESS")
    stack.standin.switch("10/result", hang=True)
    assert outcome(stack.get(unified + "10")) == (504, "upstream_timeout")
    assert stack.redis.stored() == []


def test_last_snapshot_is_served_while_the_result_is_unavailable(make_stack):
    stack = make_stack(every_provider=True, providers={"fal": {"poll": {"min": "100ms", "max": "100ms"}}})
    stack.standin.switch("14", state="IN_PROGRESS")
    running = stack.get(FAL + "14")
    stack.standin.switch("14", state="SUCCESS")
    stack.standin.switch("14/result", status=500)
    stale = stack.wait_until(lambda: (a := stack.get(FAL + "14")).headers["x-cache"] == "STALE" and a, what="a stale answer")
    assert stale.body == running.body
    stack.standin.clear("14/result")
    stack.wait_until(lambda: stack.get(FAL + "14").json()["status"] == "succeeded", what="the end of the task")


def test_failure_in_the_result_makes_the_task_failed(everyone):
    everyone.standin.switch("15", state="SUCCESS")
    everyone.standin.switch("15/result", status=422, raw=recorded("fal", "failed-result", ".result.answer"))
    failed = everyone.get(FAL + "15")
    assert (failed.json()["status"], failed.json()["error"]) == ("failed", "The prompt was refused")
    assert everyone.get(FAL + "15").headers["x-cache"] == "HIT"
    everyone.wait_until(everyone.redis.stored, what="the view to be stored")


def test_error_inside_a_200_result_is_not_a_result(everyone):
    for task_id, code, expected in (("160", 2013, (502, "upstream_error")), ("161", 1004, (502, "upstream_auth"))):
        everyone.standin.switch(task_id, state="SUCCESS")
        everyone.standin.switch(f"{task_id}/result", raw=json.dumps({"base_resp": {"status_code": code}}))
        assert outcome(everyone.get(MINIMAX + task_id)) == expected
    assert everyone.redis.stored() == []


def test_value_from_the_first_answer_stays_one_path_segment(everyone):
    """Text from the upstream must not turn the second query into a query for something else."""
    def ask(task_id, told):
        first = json.loads(recorded("minimax", "succeeded")) | {"file_id": told}
        everyone.standin.switch(task_id, raw=json.dumps(first))
        everyone.standin.reset_counts()
        return everyone.get(MINIMAX + task_id)

    for i, (told, sent) in enumerate((
        ("a&b=c", "a%26b%3Dc"), ("x/../y?z#", "x%2F..%2Fy%3Fz%23"), ("a b\r\nX: y", "a%20b%0D%0AX%3A%20y"), (42, "42"),
    )):
        ask(f"17{i}", told)
        assert targets(everyone)[1:] == [FILES.format(sent)]
    for i, told in enumerate((None, "", [], {}, True, "..", "x" * 5000)):
        assert outcome(ask(f"18{i}", told)) == (502, "upstream_invalid")
        assert len(targets(everyone)) == 1


# Other forms of keys


def test_each_provider_gets_the_key_in_its_own_header(everyone):
    headers = {"zhipu/1": ("authorization", "Bearer {}"), "fal/a/b/2": ("authorization", "Key {}"),
               "vidu/3": ("authorization", "Token {}"), "heygen/4": ("x-api-key", "{}"), "pixverse/5": ("api-key", "{}"),
               "veo/veo-3/6": ("x-goog-api-key", "{}"), "midjourney/7": ("mj-api-secret", "{}")}
    everyone.get("/v1/tasks?ids=" + ",".join(headers))
    for name, (header, form) in headers.items():
        (query,) = everyone.standin.seen(name[-1])
        assert query.headers[header] == form.format(everyone.key)
        assert sum(everyone.key in value for value in query.headers.values()) == 1
    everyone.get("/v1/tasks/8")
    assert everyone.standin.seen("8")[0].headers["x-runway-version"] == "2024-11-06"


def test_every_query_has_a_new_uuid(everyone):
    for task_id in range(20):
        assert everyone.get(f"{PIXVERSE}{task_id}").status == 200
    ids = [query.headers["ai-trace-id"] for query in everyone.standin.seen()]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", each) for each in ids)


def test_signed_token_is_created_and_reused(everyone):
    """The stand-in accepts only a token that is signed with our secret and currently valid."""
    assert {everyone.get(f"{KLING}{task_id}").status for task_id in range(20)} == {200}
    (token,) = {query.headers["authorization"].removeprefix("Bearer ") for query in everyone.standin.seen()}
    head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert head == {"alg": "HS256", "typ": "JWT"}
    assert claims["iss"] == everyone.signing_key.partition(":")[0]
    assert claims["exp"] - claims["nbf"] == 1805
    assert not any(everyone.signing_key.partition(":")[2] in str(query) for query in everyone.standin.seen())


def test_token_of_the_wrong_secret_is_our_error_not_the_clients(everyone):
    everyone.standin.keys.remove(everyone.signing_key)
    assert outcome(everyone.get(KLING + "1")) == (502, "upstream_auth")
    everyone.standin.keys.add(everyone.signing_key)
    assert everyone.get(KLING + "1").status == 200


def test_new_key_file_gives_a_new_token_after_a_reload(everyone):
    everyone.get(KLING + "1")
    new = "ak-new:sk-of-the-new-account"
    everyone.standin.keys.add(new)
    everyone.write_key(new, file=everyone.signing_key_file)
    everyone.daemon.reload()
    assert everyone.get(KLING + "2").status == 200
    token = everyone.standin.seen("2")[0].headers["authorization"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(token + "=="))["iss"] == "ak-new"


def test_kling_takes_an_api_key_in_place_of_a_pair(everyone):
    everyone.write_key(everyone.key, file=everyone.signing_key_file)
    everyone.daemon.reload()
    assert everyone.get(KLING + "1").status == 200
    assert everyone.standin.seen("1")[0].headers["authorization"] == f"Bearer {everyone.key}"


def test_key_secret_and_token_repeated_by_the_upstream_do_not_leak(everyone):
    everyone.get(KLING + "1")
    token = everyone.standin.seen("1")[0].headers["authorization"].removeprefix("Bearer ")
    secret = everyone.signing_key.partition(":")[2]
    document = json.loads(recorded("kling-official", "failed"))
    document["data"]["task_status_msg"] = f"no {everyone.signing_key} nor {secret} nor {token} will do"
    document["message"] = "".join(f"\\u{ord(char):04x}" for char in secret)
    raw = json.dumps(document).replace("\\\\u", "\\u")
    everyone.standin.switch("2", raw=raw)
    native, unified = everyone.get(KLING + "2"), everyone.get("/v1/tasks/kling-official/text2video/2")
    assert unified.json()["error"] == "no [redacted] nor [redacted] nor [redacted] will do"
    assert native.json()["message"] == "[redacted]"

    (key,) = (key for key in everyone.wait_until(lambda: everyone.redis.stored("*/2"), what="the result in Redis"))
    for text in (native.body.decode(), unified.body.decode(), everyone.redis.cli("GET", key), everyone.daemon.log(),
                 everyone.get("/metrics").body.decode()):
        assert not any(each in text for each in (secret, token, everyone.signing_key))
