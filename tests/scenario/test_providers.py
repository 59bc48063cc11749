"""Every recorded answer, sent through the whole daemon, gives the expected views."""

import json

import pytest

from shipped import PROBLEMS, PROVIDERS, UNIFIED_VIEW, cases, native_path, record, unified_path, upstream_of
from stack import Stack


@pytest.fixture(scope="module")
def everyone():
    """One worker, all providers."""
    with Stack(every_provider=True, config={"workers": 1}) as stack:
        yield stack


def number(provider: str, case: str) -> str:
    """A task id that every provider's grammar accepts, different for each case."""
    return f"{1 + list(PROVIDERS).index(provider)}{cases(provider).index(case):03d}"


def in_order(document) -> str:
    """As text, for a comparison that includes the order of members."""
    return json.dumps(document, ensure_ascii=False)


def check_views(stack, provider: str, expected: dict, bare_id: str) -> None:
    native = stack.get(native_path(provider, expected["task"]))
    unified = stack.get(unified_path(provider, expected["task"]))
    assert (native.status, unified.status) == (200, 200)
    assert in_order(native.json()) == in_order(expected["native"])
    assert in_order(unified.json()) == in_order(expected["unified"])
    UNIFIED_VIEW.validate(unified.json())
    assert (native.headers["x-cache"], unified.headers["x-cache"]) == ("MISS", "HIT")
    assert stack.standin.count(bare_id) == 1
    ended = expected["state"] in ("succeeded", "failed", "cancelled")
    assert native.headers["cache-control"].startswith("private, max-age=" if ended else "private, no-cache")


def check_problem(stack, provider: str, expected: dict, bare_id: str) -> None:
    native = stack.get(native_path(provider, expected["task"]))
    unified = stack.get(unified_path(provider, expected["task"]))
    for answer in (native, unified):
        assert (answer.status, answer.json()["code"]) == PROBLEMS[expected["outcome"]]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
    if expected["outcome"] in ("refused", "forbidden"):  # another answer shows that the key is valid, before it is suspended
        other = stack.get(native_path(provider, expected["task"].replace(bare_id, f"404{bare_id}")))
        assert other.status == 404


@pytest.mark.parametrize("provider", PROVIDERS)
def test_recorded_answer_gives_the_expected_result(everyone, provider):
    stored = set()
    for case in cases(provider):
        bare_id = number(provider, case)
        expected = record(everyone, provider, case, bare_id)
        if expected["outcome"] == "busy":
            continue  # it pauses the upstream: tested below
        if expected["outcome"] == "ok":
            check_views(everyone, provider, expected, bare_id)
            stored |= {expected["task"]} if expected["known"] else set()
        else:
            check_problem(everyone, provider, expected, bare_id)

    prefix = f"taskproxy:{upstream_of(everyone, provider)}:{provider}:"

    def keys():
        return {key.removeprefix(prefix) for key in everyone.redis.stored(prefix + "*")}

    everyone.wait_until(lambda: keys() >= stored, what="all keys")
    assert keys() == stored


BUSY = {provider: [case for case in cases(provider) if case.startswith("busy")] for provider in PROVIDERS}


def test_busy_upstream_is_left_alone(make_stack):
    stack = make_stack(every_provider=True, config={"workers": 1}, redis=False, daemon=False, nginx=False)
    upstreams = stack.config["upstreams"]
    stack.configure(  # one upstream each, or the first 429 would pause all
        upstreams={provider: upstreams[upstream_of(stack, provider)] for provider in PROVIDERS},
        routes=[{**route, "upstream": route["provider"]} for route in stack.config["routes"]],
    )
    for turn in range(max(map(len, BUSY.values()))):
        stack.daemon.start()
        for provider in (name for name in PROVIDERS if turn < len(BUSY[name])):
            check_busy(stack, provider, BUSY[provider][turn])
        stack.daemon.stop()


def check_busy(stack, provider: str, case: str) -> None:
    expected = record(stack, provider, case, number(provider, case))
    answer = stack.ask_worker(unified_path(provider, expected["task"]))
    assert (answer.status, answer.json()["code"]) == PROBLEMS["busy"], (provider, case)
    assert int(answer.headers["retry-after"]) >= 1
    queries = stack.standin.count()
    other = stack.ask_worker(unified_path(provider, expected["task"] + "0"))
    assert (other.status, other.json()["code"]) == PROBLEMS["busy"]
    assert stack.standin.count() == queries  # no query
