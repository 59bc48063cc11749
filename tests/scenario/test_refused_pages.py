"""nginx's own errors, as web pages of other origins and their EventSources get them."""

import json

import pytest

from stack import Stack
from test_ingress import SECRET, access_log, assert_problem, request, send
from watching import NATIVE, UNIFIED

APP = "https://app.example.com"
ORIGINS = [APP, "http://127.0.0.1:3000", "https://[2001:db8::1]:8443"]
NOT_ORIGINS = ["null", "*", "", "app.example.com", "https://APP.example.com", "https://app.example.com/", "https://a b", "file://x",
               "https://\x80", "https://a\tb", 'https://a"b']
STREAM = "Accept: text/event-stream"
REFUSED = {
    413: ("POST /sora/v1/videos/t HTTP/1.1", "Content-Length: 17000"),
    404: ("GET /taskproxy-refusal HTTP/1.1",),
    405: ("TRACE / HTTP/1.1",),
    501: ("GET / HTTP/1.1", "Transfer-Encoding: zip"),
    503: ("GET /sora/v1/videos/t HTTP/1.1",),
}


@pytest.fixture(scope="module")
def away():
    """No worker can be reached."""
    with Stack(redis=False, daemon=False) as running:
        yield running


@pytest.fixture(scope="module")
def limited():
    """One request a minute of each address, which is spent."""
    with Stack(redis=False, daemon=False, nginx=False) as running:
        running.nginx.changes = {"#limit_": "limit_", "rate=50r/s": "rate=1r/m", " burst=100 nodelay": ""}
        running.nginx.start()
        assert running.task("t").status == 503
        yield running


def get(stack, path, *headers, method="GET", origin=APP):
    return send(stack, request(f"{method} {path} HTTP/1.1", f"Origin: {origin}", *headers))


def may_read(headers: dict, origin: str) -> None:
    assert headers["access-control-allow-origin"] == origin and "access-control-allow-credentials" not in headers
    assert set(headers["access-control-expose-headers"].split(", ")) >= {"retry-after", "x-request-id"}
    assert (headers["vary"], headers["cache-control"]) == ("accept, origin", "no-store")


@pytest.mark.parametrize("status", REFUSED)
def test_pages_may_read_errors_of_nginx(away, status):
    line, *headers = REFUSED[status]
    for origin in ORIGINS:
        answer = send(away, request(line, *headers, f"Origin: {origin}"))
        assert answer[0] == status
        may_read(answer[1], origin)
        assert_problem(*answer, json.loads(answer[2])["code"])


def test_pages_may_read_that_a_url_is_too_long(away):
    status, headers, _ = send(away, request(f"GET /{20_000 * 'x'} HTTP/1.1", f"Origin: {APP}"))
    assert status == 414
    may_read(headers, "*")  # nginx refuses the request before it reads the origin


@pytest.mark.parametrize("origin", NOT_ORIGINS, ids=repr)
def test_origins_of_no_page_are_not_repeated(away, origin):
    status, headers, _ = send(away, request("GET / HTTP/1.1", f"Origin: {origin}").decode().encode("latin-1"))
    assert status in (400, 503) and headers.get("access-control-allow-origin") is None


def test_limit_of_an_address_is_readable_too(limited):
    status, headers, body = get(limited, NATIVE + "t")
    assert status == 429
    may_read(headers, APP)
    assert_problem(status, headers, body, "rate_limited")


# Event streams: any status but 200 ends an EventSource for good


def assert_event(answer, status: int, code: str) -> None:
    assert answer[0] == 200
    headers = answer[1]
    may_read(headers, APP)
    assert headers["content-type"] == "text/event-stream" and "retry-after" not in headers
    retry, _, event, data, *rest = answer[2].split("\n")
    assert (retry, event, rest) == ("retry: 2000", "event: problem", ["", ""])
    problem = json.loads(data.removeprefix("data: "))
    assert problem.pop("retry_after") == 2
    headers["content-type"] = "application/problem+json"
    assert_problem(status, headers, json.dumps(problem), code)


@pytest.mark.parametrize("accept", ["text/event-stream", "text/event-stream;q=1", "*/*;q=0.1, text/event-stream", "text/html,text/event-stream"])
@pytest.mark.parametrize("path", [NATIVE + "t", UNIFIED + "t", f"/v1/tasks?ids=sora/t&sig={SECRET}", "/api/fal/proxy"])
def test_event_stream_gets_an_event_while_no_worker_can_be_reached(away, path, accept):
    assert_event(get(away, path, f"Accept: {accept}"), 503, "overloaded")


def test_event_stream_gets_an_event_at_the_limit_of_its_address(limited):
    assert_event(get(limited, UNIFIED + "t", STREAM), 429, "rate_limited")


@pytest.mark.parametrize("refused", [
    ("/healthz", STREAM), ("/readyz?x", STREAM), (UNIFIED + "t/content/0", STREAM), (UNIFIED + "t", "Accept: */*"), (UNIFIED + "t", "Accept: text/event-streams"),
    (UNIFIED + "t", "X-Accept: text/event-stream"), ("/text/event-stream", "Accept: text/html"),
], ids=repr)
def test_other_requests_get_the_status(away, refused):
    assert get(away, *refused)[0] == 503


@pytest.mark.parametrize("method, status", [("POST", 503), ("HEAD", 503), ("TRACE", 405)])
def test_other_methods_get_the_status(away, method, status):
    connection = away.nginx.connection()
    connection.request(method, UNIFIED + "t", headers={"Accept": "text/event-stream", "Origin": APP})
    assert connection.getresponse().status == status
    connection.close()


def test_log_has_the_stream_and_the_workers_status(make_stack):
    stack = make_stack(redis=False, daemon=False)
    get(stack, UNIFIED + "t", STREAM)
    stack.wait_until(lambda: "\n" in access_log(stack), what="the line")
    assert f'"GET {UNIFIED}t HTTP/1.1" 200 ' in access_log(stack) and " worker_status=502" in access_log(stack)
    assert " refused_origin=- " in access_log(stack)


# Preflight requests


def preflight(stack, wanted="authorization, if-none-match"):
    status, headers, body = send_without_body(stack, request(f"OPTIONS {NATIVE}t HTTP/1.1", f"Origin: {APP}",
                                                             f"Access-Control-Request-Headers: {wanted}"))
    assert (status, body) == (204, b"")
    may_read(headers, APP)
    assert headers["access-control-allow-methods"] == "get, head"
    return headers.get("access-control-allow-headers")


def send_without_body(stack, data: bytes) -> tuple:
    connection = stack.nginx.connection()
    connection.connect()
    connection.sock.sendall(data)
    head, _, body = connection.sock.makefile("rb").read().partition(b"\r\n\r\n")
    connection.close()
    first, *lines = head.decode().lower().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def test_preflight_succeeds_so_that_the_page_can_read_the_error(away, limited):
    assert preflight(away) == preflight(limited) == "authorization, if-none-match"
    for wanted in ("x: y", "a;b", 3000 * "x", "<script>"):
        assert preflight(away, wanted) is None
