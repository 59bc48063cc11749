"""Webhooks: POST /v1/hooks/PROVIDER/SECRET, a hint that a task may have changed."""

import json

import pytest

SECRET = "hook-secret_0123456789.abc~"
SLOW = {"sora": {"poll": {"min": "60s", "max": "60s"}}}


@pytest.fixture
def hooked(make_stack):
    """Makes stacks whose first route takes webhooks."""

    def make(**settings):
        stack = make_stack(daemon=False, **settings)
        secret = stack.folder / "hook-secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        stack.configure(routes=[{**stack.config["routes"][0], "hook_secret_file": str(secret)}])
        stack.daemon.start()
        return stack

    return make


def post(stack, body, secret=SECRET, provider="sora", method="POST"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return stack.get(f"/v1/hooks/{provider}/{secret}", method=method, body=data)


def code(answer):
    return answer.status, answer.json()["code"]


def test_a_hook_is_answered_at_once_and_its_task_fetched_anew(hooked):
    stack = hooked(providers=SLOW)
    assert stack.task("t").json()["data"]["status"] == "NOT_START"
    stack.standin.switch("t", state="SUCCESS")
    with stack.standin.hold("t") as barrier:
        answer = post(stack, {"task_id": "t", "status": "whatever it says"})
        assert (answer.status, answer.body) == (204, b"")
        barrier.wait_arrived(1)
    stack.wait_until(lambda: stack.task("t").json()["data"]["status"] == "SUCCESS", what="the new view")
    assert stack.standin.count("t") == 2
    assert stack.metric("hooks_total", result="taken") == 1


def test_an_ended_task_is_not_asked_again(hooked):
    stack = hooked()
    stack.standin.switch("t", state="SUCCESS")
    stack.task("t")
    for _ in range(3):
        assert post(stack, {"data": {"task_id": "t"}}).status == 204
    stack.task("other")
    assert stack.standin.count("t") == 1


def test_a_flood_for_one_task_is_one_query_an_interval(hooked):
    stack = hooked(providers={"sora": {"poll": {"min": "400ms", "max": "400ms"}}}, config={"workers": 1})
    for _ in range(50):
        assert post(stack, {"task_id": "t"}).status == 204
    stack.wait_metric("hooks_total", 1, result="collapsed")
    hooks = stack.metrics()
    stack.wait_until(lambda: stack.metric("fetches") == 0 and stack.standin.count("t") >= 2, what="the last of them")
    first, *_, last = (query.at for query in stack.standin.seen("t"))
    assert stack.standin.count("t") <= 2 + (last - first) / 0.4
    assert hooks.sum("hooks_total") == 50


def test_a_flood_for_many_tasks_is_cut_off(hooked):
    stack = hooked(providers=SLOW, config={"workers": 1})
    for number in range(260):
        assert post(stack, {"task_id": f"t_{number}"}).status == 204
    assert stack.metric("hooks_total", result="taken") == 256
    assert stack.metric("hooks_total", result="dropped") == 4
    stack.standin.wait_count(256)


@pytest.mark.parametrize("secret, provider", [
    ("hook-secret_0123456789.abc", "sora"), ("HOOK-SECRET_0123456789.ABC~", "sora"), ("", "sora"),
    (SECRET, "kling"), (SECRET, "nothing"), (SECRET + "/", "sora"), (SECRET + "x", "sora"), ("%68" + SECRET[1:], "sora"),
])
def test_the_wrong_secret_is_a_path_that_is_not_there(hooked, secret, provider):
    stack = hooked()
    for method in ("POST", "GET", "PUT"):
        assert code(post(stack, {"task_id": "t"}, secret, provider, method)) == (404, "not_found")
    assert stack.standin.count() == 0


def test_only_post_is_taken(hooked):
    stack = hooked()
    for method in ("GET", "PUT", "DELETE"):
        answer = post(stack, {"task_id": "t"}, method=method)
        assert code(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"\"t\"", b"\xff\xfe", b"task_id=t", b"{\"task_id\":null}", b"{\"task_id\":[\"t\"]}", b"{\"task_id\":\"\"}",
    b"{\"task_id\":\"a/b\"}", b"{\"task_id\":\"a\\u0000b\"}", b"{\"id\":\"t\"}", b"{\"task_id\":\"" + b"a" * 129 + b"\"}",
    b"{\"task_id\":\"t\",\"task_id\":\"u\"}", b"[" * 1000, b"{\"task_id\":\"t\"} {}",
], ids=range(17))
def test_a_body_that_names_no_task_is_refused(hooked, body):
    stack = hooked()
    assert code(post(stack, body)) == (400, "bad_request")
    assert stack.standin.count() == 0


def test_a_number_and_the_second_place_will_do(hooked):
    stack = hooked()
    assert post(stack, {"task_id": 12345}).status == 204
    assert post(stack, {"task_id": {}, "data": {"task_id": "second"}}).status == 204
    stack.standin.wait_count(1, "12345")
    stack.standin.wait_count(1, "second")


def test_a_body_that_is_too_large_is_refused_by_both(hooked):
    stack = hooked()
    body = json.dumps({"task_id": "t", "more": "x" * 33_000}).encode()
    assert code(post(stack, body)) == (413, "bad_request")
    answer = stack.ask_worker(f"/v1/hooks/sora/{SECRET}", method="POST", body=body)
    assert code(answer) == (413, "bad_request")
    body = json.dumps({"task_id": "t", "more": "x" * 32_000}).encode()
    assert post(stack, body).status == 204
    stack.standin.wait_count(1, "t")


def test_nothing_of_a_hook_is_stored_or_logged(hooked):
    stack = hooked(config={"log_level": "debug"})
    post(stack, {"task_id": "t", "more": "canary-in-the-body"})
    post(stack, b"canary-in-the-body")
    post(stack, {"task_id": "t", "more": "x" * 40_000})
    post(stack, {"task_id": "t"}, method="GET")
    stack.standin.wait_count(1, "t")
    logged = stack.daemon.stderr() + stack.nginx.log() + "".join(
        path.read_text(errors="replace") for path in stack.folder.rglob("*.log"))
    stored = stack.redis.cli("KEYS", "*") + "".join(stack.redis.cli("GET", key) for key in stack.redis.keys("*"))
    assert "canary-in-the-body" not in logged + stored
    assert SECRET not in logged + stored + stack.daemon.run("--print-config").stdout


@pytest.mark.parametrize("content, words", [
    ("short", "at least"), ("two\nlines-of-it", "one line"), ("with/a/slash/in/it", "letters, digits"), ("", "at least"),
])
def test_a_bad_secret_is_refused_with_its_place(hooked, content, words):
    stack = hooked()
    (stack.folder / "hook-secret").write_text(content)
    result = stack.daemon.run("--check-config")
    assert result.returncode == 1
    assert "/routes/0/hook_secret_file" in result.stderr and words in result.stderr


@pytest.mark.parametrize("hook, words", [([], "has no \"hook\""), (["/ids/*"], "there can be no '*'"), ("task_id", "/hook")])
def test_a_provider_whose_hooks_name_no_task_takes_none(hooked, hook, words):
    stack = hooked(providers={"sora": {}})
    file = stack.providers_dir / "sora.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hook": hook}))
    result = stack.daemon.run("--check-config")
    assert result.returncode == 1 and words in result.stderr
