"""Invalid requests are rejected with a problem, cause no query to Redis or the upstream, and do not affect later requests."""

import re

import pytest

import fastcgi

PATH = "/sora/v1/videos/"


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def assert_nobody_was_asked(stack) -> None:
    assert stack.metric("redis_commands_total") == 0
    assert stack.metric("upstream_requests_total") == 0
    assert stack.standin.counts()["connections"] == 0


# Paths and ids


def test_unknown_path_is_not_found(stack):
    for path in (
        "/", "/nothing", "/sora", "/sora/v1/videos", "/sora/v1/videos/a/b", "/sora/v1/videos/a/", "/SORA/v1/videos/a",
        "//sora/v1/videos/a", "/x/sora/v1/videos/a", "/sora/v1/videos%2Fa", "/sora/v2/videos/a", "/?/sora/v1/videos/a",
    ):
        assert outcome(stack.get(path)) == (404, "not_found"), path
        assert outcome(stack.ask_worker(path)) == (404, "not_found"), path
    assert_nobody_was_asked(stack)


BAD_IDS = (
    "", ".", "..", "a.b", "a b", "a+b", "a%20b", "a%2Fb", "a%00", "%00", "%", "%4", "%zz", "a%0d%0aSET", "%C3%A9", "ä", "a:b",
    "a*", "'", "%2e%2e", "a;b", "a" * 129, "%61" * 129, "a" * 5000,
)


def test_invalid_id_is_rejected_without_asking_redis_or_the_upstream(stack):
    for bad in BAD_IDS:
        assert outcome(stack.ask_worker(PATH + bad)) == (400, "bad_request"), bad
    for bad in ("", "a.b", "a%20b", "a%2Fb", "%C3%A9", "a%0d%0aSET", "..%2fa", "a" * 129):
        assert outcome(stack.get(PATH + bad)) == (400, "bad_request"), bad
    assert_nobody_was_asked(stack)
    assert stack.task("a" * 128).status == 200


def test_percent_encoded_id_is_the_same_task(stack):
    stack.standin.switch(state="SUCCESS")
    plain, encoded = stack.task("task_1"), stack.get(PATH + "%74ask%5F1")
    assert (encoded.headers["x-cache"], encoded.body) == ("HIT", plain.body)
    assert stack.standin.count() == 1


def test_unknown_query_parameters_are_ignored(stack):
    stack.standin.switch(state="SUCCESS")
    plain = stack.task("t")
    for query in ("?", "?a=b", "?task_id=other", "?%zz&&=%00", "?/../..", "?" + "q" * 5000):
        answer = stack.get(PATH + "t" + query)
        assert (answer.status, answer.body) == (200, plain.body), query
    assert stack.standin.count() == 1


def test_very_long_uri_is_rejected_and_the_next_request_works(stack):
    for target in ("/" + "x" * 60000, PATH + "x" * 60000, PATH + "%41" * 20000):
        answer = stack.ask_worker(target)
        assert answer.status in (400, 404), target[:30]
        assert len(answer.body) < 1000
    assert stack.get(PATH + "x" * 7000).status == 400
    assert stack.get(PATH + "x" * 20000).status == 414  # sent by nginx itself
    assert_nobody_was_asked(stack)
    assert stack.task("t").status == 200
    assert stack.ask_worker(PATH + "t").status == 200


# Methods and bodies


def test_other_methods_get_405_with_allow(stack):
    for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND"):
        answer = stack.task("t", method=method)
        assert outcome(answer) == (405, "method_not_allowed"), method
        assert answer.headers["allow"] == "GET, HEAD"
    for method in ("get", "GETS", "TRACE", "CONNECT", "", "\x01", "G" * 5000):
        assert outcome(stack.ask_worker(PATH + "t", method=method)) == (405, "method_not_allowed"), method
    assert outcome(stack.get("/nothing", method="POST")) == (404, "not_found")
    assert_nobody_was_asked(stack)


@pytest.mark.parametrize(
    "body", [b"x", b"\x00" * 1000, fastcgi.begin(), b"{}" * 14000], ids=["short", "zeros", "record", "long"],
)
def test_request_body_is_ignored_and_does_not_break_the_kept_connection(stack, body):
    with fastcgi.Connection(stack.worker_socket()) as connection:
        for method, status in (("GET", 200), ("POST", 405), ("GET", 200), ("HEAD", 200)):
            answer = connection.ask(fastcgi.task_params(PATH + "t", method, CONTENT_LENGTH=len(body)), body)
            assert answer[0] == status
        assert connection.ask(fastcgi.task_params(PATH + "t"))[0] == 200
    assert stack.get(PATH + "t", body=body[:10000]).status == 200
    assert stack.metric("connections_refused_total") == 0


def test_wrong_content_length_is_ignored(stack):
    with fastcgi.Connection(stack.worker_socket()) as connection:
        for length in ("999999", "0", "-1", "x", ""):
            assert connection.ask(fastcgi.task_params(PATH + "t", CONTENT_LENGTH=length), b"body")[0] == 200


def test_missing_parameters_are_harmless(stack):
    with fastcgi.Connection(stack.worker_socket()) as connection:
        get, uri = {"REQUEST_METHOD": "GET"}, {"REQUEST_URI": PATH + "t"}
        for params in ({}, get, uri, {**get, "REQUEST_URI": ""}, {**uri, "REQUEST_METHOD": ""}):
            status, headers, _ = connection.ask(params)
            assert 400 <= status < 500, params
            assert headers["content-type"] == "application/problem+json"
        assert connection.ask(fastcgi.task_params(PATH + "t"))[0] == 200


def test_body_too_large_for_nginx_is_rejected_with_a_problem(stack):
    answer = stack.get(PATH + "t", body=b"x" * 20000)
    assert answer.status == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert stack.task("t").status == 200


# Problems


def test_problem_has_all_members_and_nothing_from_the_upstream(stack):
    stack.standin.switch("broken", status=500, headers={"X-Of-Upstream": "1", "Server": "openresty"})
    stack.standin.switch("refused", status=403)
    stack.standin.switch("garbage", garbage=True)
    cases = {
        "/nothing": (404, "not_found"),
        PATH + "a.b": (400, "bad_request"),
        PATH + "missing": (404, "task_not_found"),
        PATH + "broken": (502, "upstream_error"),
        PATH + "refused": (502, "upstream_auth"),
        PATH + "garbage": (502, "upstream_invalid"),
    }
    foreign = ("not well", "not_well", "new_api", "may not use", "task_not_exist", "127.0.0.1", "https:", "Stand-in", "html>",
               "openresty", "x-of-upstream", str(stack.standin.port), stack.key)
    for path, (status, code) in cases.items():
        answer = stack.get(path)
        problem = answer.json()
        assert (answer.status, problem["status"], problem["code"]) == (status, status, code), path
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id", "message", "error"}
        assert re.match(r"[a-z]+:.*" + code, problem["type"])  # a URI
        assert problem["title"] and problem["detail"] and problem["message"]
        assert problem["error"] == {"message": problem["message"], "type": problem["error"]["type"], "code": code}
        assert problem["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["cache-status"].startswith("taskproxy; ")
        assert answer.headers["x-cache"] in ("MISS", "HIT")
        assert answer.headers["cache-control"] == "no-store"
        assert "vary" in answer.headers
        whole = (answer.body.decode() + repr(answer.headers)).lower()
        assert [text for text in foreign if text.lower() in whole] == []


def test_hostile_path_is_not_echoed(stack):
    answer = stack.get("/" + '"<script>alert(1)</script>\\'.replace("<", "%3C") + "%0d%0aX-Injected:%201")
    assert outcome(answer) == (404, "not_found")
    assert b"script" not in answer.body
    assert "x-injected" not in answer.headers


def test_head_of_a_problem_has_its_headers_and_no_body(stack):
    for path, status in (("/nothing", 404), (PATH + "a.b", 400), (PATH + "missing", 404)):
        head, get = stack.get(path, method="HEAD"), stack.get(path)
        assert (head.status, head.body) == (status, b"")
        assert head.headers["content-type"] == "application/problem+json"
        assert head.headers["content-length"] == str(len(get.body))
    with fastcgi.Connection(stack.worker_socket()) as connection:
        assert connection.ask(fastcgi.task_params("/nothing", "HEAD"))[2] == b""
        assert connection.ask(fastcgi.task_params(PATH + "t"))[0] == 200
