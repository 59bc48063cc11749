"""CORS: preflight requests, and which web pages may read an answer."""

import contextlib
import re

import pytest

from stack import Stack
from teaming import SECRET, bearer, link, refusal, teams_stack
from test_ingress import access_log
from watching import NATIVE, UNIFIED, Stream, run

APP, FILM = "https://app.example.com", "https://film.example.com:8443"
OTHERS = ["null", "*", "https://APP.example.com", "https://app.example.com:443", "https://app.example.com/", "http://app.example.com",
          "https://app.example.com.evil.example", "https://app.example.com evil", "\x80\xff", ""]
ALLOWED = ("access-control-allow-origin", "access-control-allow-credentials")


@pytest.fixture(scope="module")
def shared():
    with contextlib.ExitStack() as stacks:
        teams = {"film": {"origins": [FILM]}}
        yield teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), teams, redis=False)


def allowed(answer) -> bool:
    """Whether a page may read the answer: the header repeats the origin and is never `*`."""
    assert answer.headers["vary"] == "Accept, Prefer, Origin, Authorization"
    named = [answer.headers.get(name) for name in ALLOWED]
    assert named[0] != "*" and named in ([None, None], [named[0], "true"])
    return named[0] is not None


def ask(stack, origin, path=NATIVE + "t", method="GET", **headers):
    return stack.get(path, {"Origin": origin, **bearer("web"), **headers}, method)


@pytest.mark.parametrize("path", [NATIVE + "t", UNIFIED + "t", "/v1/tasks?ids=sora/t", NATIVE + "t?wait=1"])
def test_listed_origin_may_read_answers(shared, path):
    shared.standin.switch("t", state="SUCCESS")
    answer = ask(shared, APP, path)
    assert answer.status == 200 and allowed(answer) and answer.headers["access-control-allow-origin"] == APP
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"etag", "retry-after", "cache-status", "x-request-id", "preference-applied"} <= set(exposed)


@pytest.mark.parametrize("origin", [*OTHERS, FILM], ids=repr)
def test_other_origins_may_not(shared, origin):
    answer = ask(shared, origin)
    assert answer.status == 200 and not allowed(answer)


def test_answer_without_an_origin_is_cached_separately(shared):
    assert not allowed(shared.task("t", bearer("web")))


def test_listed_origin_may_read_errors(shared):
    for answer in (shared.get(NATIVE + "t", {"Origin": APP}), ask(shared, APP, NATIVE + "a.b"), ask(shared, APP, NATIVE + "t?wait=x"),
                   ask(shared, APP, NATIVE + "missing"), ask(shared, APP, method="POST"),
                   shared.get(f"{NATIVE}t?{link('sora/u')}", {"Origin": APP})):
        assert answer.status >= 400 and allowed(answer)
    assert not allowed(shared.get(NATIVE + "t", {"Origin": "https://evil.example"}))


def test_listed_origin_may_read_a_304(shared):
    shared.standin.switch("t", state="SUCCESS")
    answer = ask(shared, APP, **{"If-None-Match": "*"})
    assert answer.status == 304 and allowed(answer)


def test_listed_origin_may_read_a_stream_by_link(shared):
    run(shared, "7%", "streamed")
    with Stream(shared, f"{NATIVE}streamed?{link('sora/streamed')}", Origin=APP) as stream:
        headers = dict((name.lower(), value) for name, value in stream.response.getheaders())
        assert (headers["access-control-allow-origin"], headers["vary"]) == (APP, "Accept, Prefer, Origin, Authorization")
        stream.next()


# Preflight


def preflight(stack, origin=APP, path=NATIVE + "t", wanted="authorization, if-none-match"):
    return stack.get(path, {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": wanted},
                     "OPTIONS")


@pytest.mark.parametrize("path", [NATIVE + "t", UNIFIED + "t", "/v1/tasks?ids=sora/t", NATIVE + "t?team=web&exp=1&sig=0"])
@pytest.mark.parametrize("origin", [APP, FILM])
def test_preflight_of_a_listed_origin_is_allowed(shared, path, origin):
    before = shared.standin.count()
    answer = preflight(shared, origin, path)
    assert (answer.status, answer.body) == (204, b"") and allowed(answer)
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert answer.headers["access-control-allow-headers"] == "authorization, if-none-match"
    assert int(answer.headers["access-control-max-age"]) >= 600
    assert shared.standin.count() == before


@pytest.mark.parametrize("origin", [origin for origin in OTHERS if origin], ids=repr)
def test_preflight_of_another_origin_is_denied(shared, origin):
    answer = preflight(shared, origin)
    assert refusal(answer) == (403, "forbidden") and not allowed(answer)


def test_options_without_an_origin_lists_the_methods(shared):
    answer = shared.get(NATIVE + "t", method="OPTIONS")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS") and not allowed(answer)


@pytest.mark.parametrize("path", ["/nowhere", "/", NATIVE, NATIVE + "a.b", "/v1/tasks", "/v1/tasks?ids=,", "/v1/tasks/nobody/t",
                                  NATIVE + "t?wait=x", UNIFIED + "t/content/0", "/v1/hooks/sora/0123"])
def test_preflight_of_any_path_is_allowed_so_that_the_page_can_read_the_problem(shared, path):
    for origin in (APP, FILM):
        answer = preflight(shared, origin, path)
        assert answer.status == 204 and allowed(answer)
    assert allowed(ask(shared, APP, path))


def test_preflight_does_not_reveal_the_secret_of_a_webhook(make_stack, tmp_path):
    (tmp_path / "hook").write_text(SECRET + "\n")
    (tmp_path / "hook").chmod(0o600)
    routes = [{"provider": "sora", "upstream": "main", "hook_secret_file": str(tmp_path / "hook")}]
    stack = teams_stack(make_stack, redis=False, config={"routes": routes})
    answers = [preflight(stack, path=f"/v1/hooks/sora/{secret}") for secret in (SECRET, SECRET[::-1])]
    assert [answer.status for answer in answers] == [204, 204]
    del answers[0].headers["x-request-id"], answers[1].headers["x-request-id"]
    del answers[0].headers["date"], answers[1].headers["date"]
    assert answers[0].headers == answers[1].headers


def test_log_has_origins_that_no_team_lists(make_stack):
    stack = teams_stack(make_stack, redis=False)
    for origin in (APP, "https://evil.example"):
        assert ask(stack, origin).status == 200
    preflight(stack, "https://other.example")
    stack.wait_until(lambda: access_log(stack).count("\n") == 3, what="three lines")
    assert re.findall(r" refused_origin=(\S+) ", access_log(stack)) == ["-", "https://evil.example", "https://other.example"]


def test_malformed_header_names_are_not_echoed(shared):
    for wanted in ("x: y", "a;b", 3000 * "x", "\x80", "<script>"):
        answer = preflight(shared, wanted=wanted)
        assert answer.status == 204 and "access-control-allow-headers" not in answer.headers


def test_mode_open_has_no_preflight(stack):
    answer = preflight(stack)
    assert refusal(answer) == (405, "method_not_allowed") and "access-control-allow-origin" not in answer.headers
