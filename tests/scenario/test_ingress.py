"""The shipped nginx files: requests rejected with a problem, the contents of the logs, and the commented-out parts."""

import json
import re
import socket
import ssl
import struct

import pytest

from helpers import use_tls
from stack import Stack
from teaming import bearer, teams_stack

LINK = "?team=web&exp=1900000000&sig=5ec2e7"
TRACE = f"00-{32 * 'a'}-{16 * 'b'}-01"
SECRET = "5ec2e7"  # in links and webhook URLs
CLOSE = b"Host: localhost\r\nConnection: close\r\n\r\n"


def request(line: str, *lines: str) -> bytes:
    return "\r\n".join([line, *lines, ""]).encode() + CLOSE


def fields(count: int, size: int) -> list:
    return [f"X-{number}: {size * 'x'}" for number in range(count)]


GET = "GET /sora/v1/videos/t HTTP/1.1"
CHUNKED = "Transfer-Encoding: chunked"
HOOK = f"POST /v1/hooks/sora/{SECRET} HTTP/1.1"
REFUSED = {  # request, status, code
    "what is no HTTP": (b"\x16\x03\x01\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "a version of tomorrow's": (request("GET / HTTP/3.0"), 505, "bad_request"),
    "a way out of the root": (request("GET /../../etc/passwd HTTP/1.1"), 400, "bad_request"),
    "a NUL in the path": (request("GET /%00 HTTP/1.1"), 400, "bad_request"),
    "a long path": (request(f"GET /{20_000 * 'x'} HTTP/1.1"), 414, "bad_request"),
    "a long header": (request(GET, *fields(1, 20_000)), 431, "bad_request"),
    "many headers": (request(GET, *fields(7, 10_000)), 431, "bad_request"),
    "TRACE": (request("TRACE / HTTP/1.1"), 405, "method_not_allowed"),
    "CONNECT": (request("CONNECT upstream.example:443 HTTP/1.1"), 400, "bad_request"),
    "an odd length": (request(GET, "Content-Length: -1"), 400, "bad_request"),
    "two lengths": (request(GET, "Content-Length: 1", "Content-Length: 2"), 400, "bad_request"),
    "an unknown coding": (request(GET, "Transfer-Encoding: zip"), 501, "bad_request"),
    "a length and a coding": (request(GET, "Content-Length: 1", CHUNKED), 400, "bad_request"),
    "chunks that are none": (request(GET, CHUNKED) + b"zz\r\n", 400, "bad_request"),
    "a large body": (request(GET, "Content-Length: 17000") + bytes(17_000), 413, "bad_request"),
    "a large webhook": (request(HOOK, "Content-Length: 33000") + bytes(33_000), 413, "bad_request"),
    "a webhook of no chunks": (request(HOOK, CHUNKED) + b"zz\r\n", 400, "bad_request"),
    "the page of refusals": (request("GET /taskproxy-refusal HTTP/1.1"), 404, "not_found"),
}


@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False) as running:
        yield running


def send(stack, data: bytes) -> tuple:
    """Sends these bytes: status, headers with names in lower case, and body of the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(stack.nginx.socket)
        client.sendall(data)
        with client.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            lines = iter(lambda: answer.readline().decode().strip(), "")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            return status, headers, answer.read(int(headers["content-length"])).decode()


def assert_problem(status: int, headers: dict, body: str, code: str) -> None:
    """Asserts a problem like taskproxy's own, in which nothing but the Server header mentions nginx."""
    problem = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "nginx" and "nginx" not in body
    assert problem == {
        "type": f"urn:taskproxy:problem:{code}", "title": problem["title"], "status": status, "detail": problem["detail"],
        "code": code, "request_id": headers["x-request-id"], "message": problem["detail"],
        "error": {"message": problem["detail"], "type": "taskproxy_error", "code": code},
    }
    assert problem["title"] and problem["detail"]


@pytest.mark.parametrize("name", REFUSED)
def test_nginx_errors_have_the_same_format_as_problems(stack, name):
    sent, expected, code = REFUSED[name]
    status, headers, body = send(stack, sent)
    assert status == expected
    assert_problem(status, headers, body, code)
    assert headers.get("allow") == ("get, head" if status == 405 else None)


@pytest.mark.problem("nginx reaches no worker")
def test_unavailable_daemon_is_a_problem_with_retry_after(make_stack):
    stack = make_stack(redis=False)
    stack.daemon.stop()
    for path in ("/sora/v1/videos/t", "/v1/tasks/sora/t", "/healthz"):
        status, headers, body = send(stack, request(f"GET {path} HTTP/1.1"))
        assert (status, headers["retry-after"]) == (503, "1"), path
        assert_problem(status, headers, body, "overloaded")
    stack.wait_until(lambda: access_log(stack).count("\n") == 3, what="three lines")
    tried = re.findall(r" worker_status=(.*?) id=", access_log(stack))
    assert [set(re.findall(r"\d+", statuses)) for statuses in tried] == [{"502"}] * 3


def on_status_server(stack, path: str) -> int:
    """The status of the answer from the operator's listener."""
    connection = stack.nginx.connection(status=True)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("path", ["/sora/v1/videos/t", "/status"])
@pytest.mark.parametrize("host", ["unknown.example", "127.0.0.1.unknown.example", "192.0.2.1", "[::1]"])
def test_request_for_an_unknown_host_is_closed_without_an_answer(stack, host, path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(stack.nginx.status_socket if path == "/status" else stack.nginx.socket)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert client.recv(1) == b""


def test_metrics_and_status_are_not_on_the_public_server(stack):
    for path in ("/metrics", "/status", "/status?format=text", "/%6detrics", "//metrics"):
        status, headers, body = send(stack, request(f"GET {path} HTTP/1.1"))
        assert (status, json.loads(body)["code"]) == (404, "not_found"), path
    for path in ("/metrics", "/status"):
        assert stack.get(path).status == 200
    for path in ("/healthz", "/readyz"):
        assert [send(stack, request(f"GET {path} HTTP/1.1"))[0], on_status_server(stack, path)] == [200, 200]
    assert on_status_server(stack, "/sora/v1/videos/t") == 404


def test_hundred_long_ids_are_accepted(stack):
    stack.standin.switch(state="SUCCESS")
    ids = [f"sora/{number:03}{125 * 'x'}" for number in range(100)]
    tasks = stack.get("/v1/tasks?ids=" + ",".join(ids)).json()["tasks"]
    assert [task["status"] for task in tasks] == 100 * ["succeeded"]


def test_incomplete_request_times_out(make_stack):
    stack = make_stack(nginx=False, redis=False)
    stack.nginx.changes = {"client_header_timeout 10s;": "client_header_timeout 300ms;"}
    stack.nginx.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(stack.nginx.socket)
        client.sendall(b"GET /sora/v1/videos/t HTTP/1.1\r\nHost: ")
        assert client.recv(1) == b""


# The logs


def access_log(stack) -> str:
    return (stack.folder / "access.log").read_text()


def test_logs_contain_no_link_signature_or_webhook_secret(make_stack):
    stack = make_stack(redis=False)
    targets = [f"{path}{LINK}" for path in ("/sora/v1/videos/t", "/v1/tasks/sora/t", "/nothing", "//v1//hooks/x", "/healthz")]
    targets += [f"{prefix}/v1/hooks/sora/{SECRET}{LINK}" for prefix in ("", "/", "/x/..", "//")]
    targets += [f"/%76%31/hooks/sora/{SECRET}", f"/v1/hooks%2Fsora%2F{SECRET}"]

    def ask():
        for target in targets:
            for method in ("GET", "POST", "TRACE"):
                send(stack, request(f"{method} {target} HTTP/1.1", f"Referer: https://web.example/{LINK}"))

    ask()
    stack.daemon.stop()
    ask()
    stack.wait_until(lambda: access_log(stack).count("/sora/v1/videos/t ") == 6, what="the lines of both rounds")
    assert re.search(r'"GET /sora/v1/videos/t HTTP/1.1" 503 .* worker_status=502[502 ,:]* id=', access_log(stack))
    assert SECRET not in access_log(stack) + stack.nginx.log() + stack.daemon.log()


def test_access_log_line_has_the_documented_fields(make_stack):
    stack = make_stack(redis=False)
    stack.standin.switch(state="SUCCESS")
    answers = [stack.task("t", {"User-Agent": 'x "y"', "traceparent": TRACE}) for _ in range(2)]
    stack.wait_until(lambda: access_log(stack).count("\n") == 2, what="two lines")
    lines = access_log(stack).splitlines()
    for answer, line, cache in zip(answers, lines, ("MISS", "HIT"), strict=True):
        who, when, method, path, version, status, length, *rest = line.split(" ")
        assert (who, method, path, version, status) == ("unix:", '"GET', "/sora/v1/videos/t", 'HTTP/1.1"', "200")
        assert int(length) == len(answer.body) and when.startswith("[20")
        seconds = [float(rest.pop(3).removeprefix(name)) for name in ("time=", "worker=")]
        assert all(0 <= number < 10 for number in seconds)
        assert rest.pop(3) == "worker_status=200"
        assert rest[:5] == [f"cache={cache}", "team=-", "content=-", f"id={answer.headers['x-request-id']}", f"trace={TRACE}"]
        assert rest[5:] == ["refused_origin=-", '"x', '\\x22y\\x22"']


def test_access_log_has_the_team_and_the_answer_does_not(make_stack):
    stack = teams_stack(make_stack, {"web": {"link_secret_file": None}}, redis=False)
    answer = stack.task("t", bearer("web"))
    assert answer.status == 200 and not [name for name in answer.headers if "team" in name]
    stack.wait_until(lambda: " team=web " in access_log(stack), what="the line")


@pytest.mark.parametrize("trace", [TRACE + "-x", TRACE.upper(), 5000 * "0", '" "'])
def test_malformed_trace_is_not_logged(make_stack, trace):
    stack = make_stack(redis=False)
    assert stack.task("t", {"traceparent": trace}).status == 200
    stack.wait_until(lambda: " trace=- " in access_log(stack), what="the line")


# Commented-out parts


def test_address_limit_gives_429_until_the_next_second(make_stack):
    stack = make_stack(nginx=False, redis=False)
    stack.nginx.changes = {"#limit_": "limit_", "rate=50r/s": "rate=1r/s", "burst=100 nodelay": "burst=2 nodelay"}
    stack.nginx.start()
    stack.standin.switch(state="SUCCESS")
    answers = []

    def refused():
        answers.append(send(stack, request(GET)))
        return answers[-1][0] == 429

    stack.wait_until(refused, what="a refusal")
    assert len(answers) > 3 and {status for status, _, _ in answers[:-1]} == {200}
    status, headers, body = answers[-1]
    assert headers["retry-after"] == "1"
    assert_problem(status, headers, body, "rate_limited")
    stack.wait_until(lambda: send(stack, request(GET))[0] == 200, what="the next second")


def test_commented_out_tls_configuration_works(make_stack):
    stack = make_stack(nginx=False, redis=False, port=0)
    site = use_tls(stack)
    stack.nginx.start()
    context = ssl.create_default_context(cafile=stack.standin.ca_file)
    with connect_tls(stack, context) as client:
        assert client.version() == "TLSv1.3"
        client.sendall(request(GET))
        answer = client.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 200 ") and "Strict-Transport-Security: max-age=63072000" in answer
    assert int(re.search(r"#limit_conn taskproxy_connections (\d+);", site)[1]) < concurrent_streams(stack)
    plain = stack.get("/sora/v1/videos/t")  # http.client without TLS
    assert (plain.status, plain.json()["code"]) == (400, "bad_request")
    context.set_ciphers("AES128-GCM-SHA256:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        connect_tls(stack, context)


def concurrent_streams(stack) -> int:
    """SETTINGS_MAX_CONCURRENT_STREAMS, from the first frame of the server (RFC 9113)."""
    context = ssl.create_default_context(cafile=stack.standin.ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect_tls(stack, context) as client:
        assert client.selected_alpn_protocol() == "h2"
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        frames = client.makefile("rb")
        head = frames.read(9)
        settings = dict(struct.iter_unpack("!HI", frames.read(int.from_bytes(head[:3], "big"))))
        assert head[3] == 4
        return settings[3]


def connect_tls(stack, context) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", stack.nginx.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")
