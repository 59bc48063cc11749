"""Invalid answers of an upstream, for every provider's format: bodies that are malformed, have wrong types or belong to
another provider. The client gets the matching error code, and nothing is cached."""

import copy
import itertools
import json

import pytest

from recorded import ANSWERS, read_answer
from shipped import PROVIDERS, UNIFIED_VIEW, cases, record, unified_path
from stack import Stack

ENDED = ("succeeded", "failed", "cancelled")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def everyone():
    with Stack(every_provider=True, config={"workers": 1}) as stack:
        yield stack


NUMBERS = itertools.count(10**6)


def new_id() -> str:
    """A task id that every provider's grammar accepts."""
    return str(next(NUMBERS))


def task_of(provider: str, bare_id: str) -> str:
    example = json.loads((ANSWERS / provider / "succeeded.expect.json").read_text())["task"]
    return "/".join([*example.split("/")[:-1], bare_id])


def ask(stack, provider: str, bare_id: str):
    return stack.get(unified_path(provider, task_of(provider, bare_id)))


def told(stack, provider: str, body: bytes | str, bare_id: str | None = None):
    """The client's answer when the upstream returns this body for the task (by default, for a new one)."""
    bare_id = bare_id or new_id()
    stack.standin.switch(bare_id, raw=body)
    answer = ask(stack, provider, bare_id)
    stack.standin.clear(bare_id)
    return answer


def success(provider: str) -> bytes:
    return read_answer(ANSWERS / provider / "succeeded.answer")[1]


def assert_not_stored(stack, provider: str, ids: list) -> None:
    """Commands reach Redis in order, so a task that is missing when a later one is stored was never stored."""
    after = new_id()
    assert told(stack, provider, success(provider), after).status == 200
    stored = stack.wait_until(lambda: stack.redis.stored(f"taskproxy:*:{provider}:*{after}*"), what="the later task in Redis")
    assert len(stored) == 1
    assert not [key for key in stack.redis.stored() if any(bare_id in key for bare_id in ids)]


def mutilated(body: bytes) -> dict:
    """The body of a success, made invalid JSON in several ways; by name."""
    opened, rest = body.lstrip()[:1], body.lstrip()[1:]
    assert opened == b"{"
    first_name = json.dumps(next(iter(json.loads(body)))).encode()
    return {
        "empty": b"",
        "half": body[: len(body) // 2],
        "two documents": body + body,
        "html": b"<html><body>502</body></html>",
        "array around": b"[" + body + b"]",
        "text": json.dumps(body.decode()).encode(),
        "null": b"null",
        "doubled key": b'{"taskproxy":1,"taskproxy":2,' + rest,
        "doubled first key": b"{" + first_name + b":0," + rest,
        "NaN": b'{"taskproxy":NaN,' + rest,
        "Infinity": b'{"taskproxy":-Infinity,' + rest,
        "lone high surrogate": b'{"taskproxy":"\\ud83d",' + rest,
        "lone low surrogate": b'{"taskproxy":"\\ude00x",' + rest,
        "surrogate in bytes": b'{"taskproxy":"\xed\xa0\x80",' + rest,
        "no utf-8": b'{"taskproxy":"\xff",' + rest,
        "overlong utf-8": b'{"taskproxy":"\xc0\x80",' + rest,
        "comment": b"{/* */" + rest,
        "single quotes": b"{'taskproxy':1," + rest,
        "comma at the end": body.rstrip()[:-1] + b",}",
        "control character": b'{"taskproxy":"\x01",' + rest,
        "10,000 arrays": b'{"taskproxy":' + b"[" * 10_000 + b"]" * 10_000 + b"," + rest,
        "10,000 objects": b'{"taskproxy":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"," + rest,
        "10 MB": b'{"taskproxy":"' + b"x" * (10 * MIB) + b'",' + rest,
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_malformed_or_oversized_body_is_invalid_and_not_stored(everyone, provider):
    ids = []
    for name, body in mutilated(success(provider)).items():
        ids.append(new_id())
        answer = told(everyone, provider, body, ids[-1])
        assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid"), name
    assert_not_stored(everyone, provider, ids)


# Providers with similar formats, so that one's success may be read as the other's.
FAMILIES = (
    {"sora", "newapi", "suno"}, {"kling", "kling-official", "kling-images"}, {"luma", "luma-aggregator", "luma-agents"},
    {"openai", "replicate", "seedance", "runway", "midjourney", "openrouter", "gemini-interactions"}, {"heygen", "heygen3"},
    {"fal", "fal-workflows"},
)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_body_of_another_provider_is_not_an_ended_task(everyone, provider):
    for other in PROVIDERS:
        if other == provider or any({provider, other} <= family for family in FAMILIES):
            continue
        answer = told(everyone, provider, success(other))
        if answer.status == 200:  # same member, different values: an unknown status, or none yet
            assert answer.json()["status"] not in ENDED, other
            assert answer.headers["cache-control"] == "private, no-cache"
        else:
            assert (answer.status, answer.json()["code"]) in ((502, "upstream_error"), (502, "upstream_invalid"), (404, "task_not_found")), other


def pointers(value, named=()) -> set:
    """All pointers within a provider file, as tuples of segments."""
    if isinstance(value, dict):
        return {pointer for name, inner in value.items() for pointer in pointers(inner, name)}
    if isinstance(value, list):
        return {pointer for inner in value for pointer in pointers(inner, named)}
    return {tuple(value.split("/")[1:])} if isinstance(value, str) and value.startswith("/") and named != "path" else set()


def replaced(document, pointer: tuple, value):
    """A copy with the value at the pointer, in the first element of arrays; None if the pointer leads nowhere."""
    document = copy.deepcopy(document)
    *way, last = pointer
    at = document
    for segment in way:
        at = at[0] if segment == "*" and isinstance(at, list) and at else at.get(segment) if isinstance(at, dict) else None
        if at is None:
            return None
    if isinstance(at, list) and at and last in ("*", "0"):
        at[0] = value
    elif isinstance(at, dict) and last in at:
        at[last] = value
    else:
        return None
    return document


STRANGE = ([], {}, [[1], {"a": None}], {"a": [1]}, -1e300, 9007199254740993, True, "x" * 2000, "-1", None)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_wrong_type_at_any_pointer_never_gives_an_invalid_view(everyone, provider):
    document = json.loads(success(provider))
    status = tuple(PROVIDERS[provider]["status"]["at"].split("/")[1:])
    n = 0
    for i, pointer in enumerate(sorted(pointers(PROVIDERS[provider]))):
        for strange in STRANGE if pointer == status else (STRANGE[i % 10], STRANGE[(i + 3) % 10]):
            other = replaced(document, pointer, strange)
            if other is None:
                continue
            n += 1
            answer = told(everyone, provider, json.dumps(other))
            if answer.status == 200:
                UNIFIED_VIEW.validate(answer.json())
                if pointer == status and strange is not True:
                    assert answer.json()["status"] not in ENDED, strange
            else:
                assert (answer.status, answer.json()["code"]) in (
                    (502, "upstream_error"), (502, "upstream_invalid"), (404, "task_not_found")), (pointer, strange)
    assert n >= 4


def test_swapped_arrays_and_objects_are_rejected(everyone):
    ids = []
    for body in ({"code": "success", "data": [{"status": "SUCCESS"}]}, {"code": "success", "data": {"status": {"SUCCESS": 1}}},
                 {"code": ["success"], "data": {"status": "SUCCESS"}}, {"code": {"0": "success"}, "data": {"status": "SUCCESS"}},
                 {"code": "success", "data": {"0": {"status": "SUCCESS"}}}):
        ids.append(new_id())
        assert told(everyone, "sora", json.dumps(body), ids[-1]).status == 502, body
    assert_not_stored(everyone, "sora", ids)


# Unlisted status


@pytest.mark.problem("A status that is not listed")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_unknown_status_is_running_and_never_stored(everyone, provider):
    for case in (name for name in cases(provider) if name.startswith(("unknown", "running-unlisted"))):
        counted, bare_id = everyone.metric("unknown_status_total"), new_id()
        record(everyone, provider, case, bare_id)
        answer = ask(everyone, provider, bare_id)
        assert (answer.json()["status"], answer.headers["cache-control"]) == ("running", "private, no-cache")
        assert everyone.metric("unknown_status_total") == counted + 1
        assert everyone.redis.stored(f"*{bare_id}") == []


def test_unknown_status_is_logged_once_per_value_up_to_a_limit(make_stack):
    stack = make_stack(config={"workers": 1})

    def meet(word: str) -> None:
        assert told(stack, "sora", json.dumps({"code": "success", "data": {"status": word}})).json()["status"] == "running"

    def lines(word: str) -> list:
        return [line for line in stack.daemon.log().splitlines() if word in line]

    for _ in range(3):
        for word in ("ON_HOLIDAY", "AT_LUNCH"):
            meet(word)
    assert (len(lines("ON_HOLIDAY")), len(lines("AT_LUNCH"))) == (1, 1)
    assert all("sora" in line for line in lines("ON_HOLIDAY"))
    for i in range(300):
        meet(f"WORD_{i}_OF_MANY")
    assert 1 <= len(lines("_OF_MANY")) <= 100
    assert stack.metric("unknown_status_total") == 306


def test_hostile_status_is_logged_as_one_short_line(make_stack):
    stack = make_stack(config={"workers": 1})
    for status in ("A\nFORGED: line", "B" * 100_000, "\x1b[31mred", "C\r\nFORGED: too"):
        assert told(stack, "sora", json.dumps({"code": "success", "data": {"status": status}})).status == 200
    stack.wait_log("red")
    for line in stack.daemon.log().split("\n"):
        assert not line.startswith("FORGED") and len(line) < 500 and line.isprintable()
