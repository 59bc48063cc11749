"""Results that need the upstream's key: nginx sends it and streams the result."""

import contextlib
import hashlib
import os
import re

import pytest

import authority
from files import ELSEWHERE, SIZE, Files, part
from helpers import IDS_OF_A_PROXY_IN_FRONT, status_of
from parts import children_of
from stack import Stack
from teaming import bearer, given, link, refusal, write_teams

KEY = "sk-canary-0123456789abcdef"
OPENAI = {"routes": [{"provider": "openai", "upstream": "main"}]}
PAGE = "https://app.example.com"
TEAMS = {"access": {"mode": "teams", "teams_file": "teams.json"}}


def content(task) -> str:
    return f"/v1/tasks/openai/{task}/content/0"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with Files(tmp_path_factory.mktemp("files"), KEY) as files:
        yield files


@pytest.fixture(scope="module")
def upstream(files):
    key_file = os.path.join(os.path.dirname(files.ca_file), "key")
    with open(os.open(key_file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write(KEY + "\n")
    return {"base_url": files.url, "key_file": key_file, "ca_file": files.ca_file}


@pytest.fixture(scope="module", params=[{}, {"nginx_cache": "10s"}], ids=["", "beside nginx's cache"])
def stack(upstream, request):
    config = {**OPENAI, **TEAMS, **request.param}
    with contextlib.ExitStack() as stacks:
        stack = stacks.enter_context(Stack(upstream=upstream, config=config, port=0, redis=False, daemon=False, nginx=False))
        write_teams(stack, {"web": {"providers": ["openai"], "origins": [PAGE]}, "film": {"providers": []}, "music": {"providers": ["openai"]}})
        stack.daemon.start()
        stack.nginx.changes["alert;"] = "info;"
        stack.nginx.changes |= IDS_OF_A_PROXY_IN_FRONT
        stack.nginx.changes["limit_conn taskproxy_content 32;"] = "limit_conn taskproxy_content 2;"
        stack.nginx.start()
        yield stack


def resident(pid) -> int:
    """In KiB."""
    return int(status_of(pid, "VmRSS")[0][0])


def get(stack, task, method="GET", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.get(content(task), {**bearer("web"), **named}, method)


def test_video_arrives_whole_and_nothing_grows(stack, files):
    processes = [*children_of(stack.nginx.pid), *stack.daemon.workers()]
    before = sum(map(resident, processes))
    connection = stack.nginx.connection(120)
    with contextlib.closing(connection):
        connection.request("GET", content("t"), headers=bearer("web"))
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-length"], answer.headers["content-type"]) == (200, str(SIZE), "video/mp4")
        assert (answer.headers["etag"], answer.headers["accept-ranges"], answer.headers["content-disposition"]) == ('"v1"', "bytes", "attachment")
        assert answer.headers["content-security-policy"] == "sandbox" and answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-cache"
        for hidden in ("set-cookie", "openai-version", "x-accel-redirect"):
            assert hidden not in answer.headers
        assert not [name for name in answer.headers if name.lower().startswith("x-taskproxy")] and KEY not in str(answer.headers)
        received, sent = hashlib.sha256(), hashlib.sha256()
        while data := answer.read(1024 * 1024):
            received.update(data)
    for piece in part(0, SIZE):
        sent.update(piece)
    assert received.digest() == sent.digest()
    assert sum(map(resident, processes)) < before + 16 * 1024
    _, _, headers = files.seen[-1]
    assert headers["Host"] == files.url.removeprefix("https://") and headers["Authorization"] == f"Bearer {KEY}"
    assert not {"X-Request-Id", "Cookie", "Accept"} & headers.keys()


def test_view_refers_to_the_content(stack):
    row, = stack.get("/v1/tasks/openai/t", bearer("web")).json()["results"]
    assert row["url"] == row["content"] == content("t") and "needs_key" not in row


def test_ranges_and_conditions(stack, files):
    answer = get(stack, "t", Range="bytes=1000-2999")
    assert (answer.status, answer.body) == (206, b"".join(part(1000, 3000)))
    assert answer.headers["content-range"] == f"bytes 1000-2999/{SIZE}"
    assert get(stack, "t", Range=f"bytes={SIZE - 5}-").body == b"".join(part(SIZE - 5, SIZE))
    assert get(stack, "t", Range="bytes=0-9", If_Range='"v1"').status == 206
    assert get(stack, "t", "HEAD", Range="bytes=0-9", If_Range='"v0"').status == 200
    assert get(stack, "t", If_None_Match='"v1"').status == 304
    head = get(stack, "t", "HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(SIZE), b"")
    past = get(stack, "t", Range=f"bytes={SIZE}-")
    assert (refusal(past), past.headers["content-range"]) == ((416, "bad_request"), f"bytes */{SIZE}")


@pytest.mark.parametrize("task, outcome", [
    ("401", (502, "upstream_auth")), ("403", (502, "upstream_auth")), ("404", (404, "content_not_found")), ("410", (410, "content_expired")),
    ("400", (502, "upstream_error")), ("500", (502, "upstream_error")), ("503", (503, "upstream_unavailable")),
    ("429", (503, "upstream_unavailable")), ("520", (502, "upstream_error")),
])
def test_failure_of_the_upstream_is_a_problem(stack, task, outcome):
    answer = get(stack, task)
    assert refusal(answer) == outcome
    assert b"own words" not in answer.body and "set-cookie" not in answer.headers


def test_redirect_of_the_upstream_is_passed_on_without_the_key(stack, files):
    files.location = "https://storage.example.com/v?sig=1"
    answer = get(stack, "302", Origin=PAGE)
    assert (answer.status, answer.headers["location"]) == (302, files.location)
    assert (answer.headers["access-control-allow-origin"], answer.headers["access-control-allow-credentials"]) == (PAGE, "true")
    assert KEY not in str(answer) and "set-cookie" not in answer.headers
    files.location = "javascript:alert(1)"
    assert refusal(get(stack, "307")) == (502, "upstream_error")


def test_upstream_that_dies_ends_the_answer(stack):
    connection = stack.nginx.connection(60)
    with contextlib.closing(connection):
        connection.request("GET", content("dies"), headers=bearer("web"))
        with pytest.raises(Exception, match="IncompleteRead|reset"):
            connection.getresponse().read()


def test_server_with_an_unknown_certificate_gets_no_key(files, upstream, tmp_path):
    authority.make(tmp_path)
    with Stack(upstream=upstream, config=OPENAI, redis=False, nginx=False) as stack:
        stack.nginx.changes["/etc/ssl/certs/ca-certificates.crt"] = str(tmp_path / "ca.pem")
        stack.nginx.start()
        seen = len(files.seen)
        assert refusal(stack.get(content("t"))) == (502, "upstream_error")
        assert [path for _, path, _ in files.seen[seen:]] == ["/v1/videos/t"]  # the worker's query


def test_team_has_a_limit_of_downloads_which_ends_with_clients_that_leave(stack, files):
    with contextlib.ExitStack() as open_ones:
        for _ in range(2):
            connection = stack.nginx.connection(60)
            open_ones.callback(connection.close)
            connection.request("GET", content("waits"), headers=bearer("web"))
            assert connection.getresponse().status == 200
        refused = get(stack, "t", Origin=PAGE)
        assert refusal(refused) == (429, "rate_limited")
        assert (refused.headers["retry-after"], refused.headers["access-control-allow-origin"]) == ("1", PAGE)
        assert stack.get(content("t"), {**bearer("music"), "Range": "bytes=0-9"}).status == 206
    for _ in range(2):
        assert files.left.acquire(timeout=20), "nginx does not close the connection of a client that has left"
    stack.wait_until(lambda: get(stack, "t", "HEAD").status == 200, what="the downloads to end")


def test_access_is_checked_first(stack, files):
    seen = len(files.seen)
    assert refusal(stack.get(content("t"))) == (401, "unauthorized")
    assert refusal(stack.get(content("t"), bearer("film"))) == (403, "forbidden")
    for path in ("/taskproxy_content", "/@taskproxy_content", "/%40taskproxy_content"):
        assert refusal(stack.get(path, {**bearer("web"), "X-Taskproxy-Origin": "https_evil"})) == (404, "not_found")
    assert len(files.seen) == seen


def test_native_path_of_openai(stack, files):
    answer = stack.get("/v1/videos/t/content", {**bearer("web"), "Range": "bytes=0-99"})
    assert (answer.status, answer.body) == (206, b"".join(part(0, 100)))


@pytest.mark.parametrize("path", ["/v1/tasks/openai/t", "/v1/videos/t"])
def test_watch_prints_where_the_result_is(stack, path):
    query = link("openai/t")
    done = stack.daemon.run("--watch", f"{stack.nginx.url}{path}?{query}")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"openai/t succeeded\n{stack.nginx.url}{content('t')}?{query}\n")
    assert stack.get(f"{content('t')}?{query}", {"Range": "bytes=0-9"}).status == 206


# What the FastCGI modules of other web servers add to a request.
OTHER_SERVERS = {
    "lighttpd": {"SERVER_SOFTWARE": "lighttpd/1.4.69", "SCRIPT_NAME": "", "DOCUMENT_ROOT": "/var/www", "REDIRECT_STATUS": "200"},
    "Apache": {"SERVER_SOFTWARE": "Apache/2.4.62 (Debian)", "SCRIPT_FILENAME": "proxy:fcgi://localhost/v1", "CONTEXT_PREFIX": "", "UNIQUE_ID": "x"},
    "Caddy": {"SERVER_SOFTWARE": "Caddy/v2.6.2", "GATEWAY_INTERFACE": "CGI/1.1", "PATH_INFO": "", "DOCUMENT_URI": "/", "HTTP_X_FORWARDED_PROTO": "https"},
    "CGI": None,
}


@pytest.mark.parametrize("server", OTHER_SERVERS)
def test_web_server_that_cannot_send_the_key(stack, files, server):
    def ask(target):
        params = {**given("web"), "HTTP_CONTENT_OFFLOAD": "1", **(OTHER_SERVERS[server] or {})}
        return stack.daemon.cgi(target, **params) if server == "CGI" else stack.ask_worker(target, **params)

    row, = ask("/v1/tasks/openai/t").json()["results"]
    assert (row["needs_key"], row["url"], row["content"]) == (True, f"{files.url}/v1/videos/t/content", content("t"))
    listed, = ask("/v1/tasks?ids=openai/t").json()["tasks"]
    assert listed["results"] == [row]
    refused = ask(content("t"))
    assert refusal(refused) == (501, "content_not_offloaded") and "only nginx can send" in refused.json()["detail"]
    assert KEY not in str(refused)
    redirect = ask(content("elsewhere"))
    assert (redirect.status, redirect.headers["location"]) == (302, ELSEWHERE)


@pytest.mark.parametrize("task, status", [("t", 200), ("500", 502), ("elsewhere", 302)])
def test_download_has_the_request_id_of_the_worker(stack, task, status):
    given = f"lb-{task}"
    answers = [get(stack, task, "HEAD"), get(stack, task, "HEAD", X_Request_Id=given)]
    assert [answer.status for answer in answers] == [status, status]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert re.fullmatch("[0-9a-f]{32}", ids[0]) and ids[1] == given
    log = stack.folder / "access.log"
    stack.wait_until(lambda: all(f" id={name} " in log.read_text() for name in ids), what="both in the log")


def test_downloads_are_counted(stack):
    def counts():
        modes = {"keyed": "200", "none": "501", "redirect": "302"}
        return [stack.metric("content_requests_total", provider="openai", mode=mode, code=code) for mode, code in modes.items()]

    before = counts()
    get(stack, "t", "HEAD")
    get(stack, "404")  # the worker's answer is counted; how the download ended is in the access log
    stack.ask_worker(content("t"), **given("web"))
    get(stack, "elsewhere")
    stack.wait_until(lambda: all(now >= was + new for now, was, new in zip(counts(), before, (2, 1, 1))), what="the four requests")


def test_logs_and_files_have_no_key(stack, files):
    get(stack, "500")
    line = stack.wait_until(
        lambda: re.search(r'.*/openai/500/content/0 .* 502 .*', (stack.folder / "access.log").read_text()), what="the line")[0]
    assert "team=web" in line and "content=localhost:" in line
    for path in stack.folder.rglob("*"):
        assert not path.is_file() or KEY not in path.read_bytes().decode("latin-1"), path
