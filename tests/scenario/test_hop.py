"""What a request and its answer keep on the way through another host (nginx/cluster.conf): here the host itself."""

import contextlib
import http.client
import re
import ssl

import pytest

from clustering import make_certificates, on_loopback, passed_on
from files import SIZE, Files, part
from stack import ROOT, Stack
from teaming import bearer, link, refusal, write_teams
from watching import NATIVE, UNIFIED, Stream, hold

KEY = "sk-canary-0123456789abcdef"
PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def stack(certificates, tmp_path_factory):
    """Sora is served from the stand-in, OpenAI from the upstream with the files; only the keyed results need the latter."""
    with contextlib.ExitStack() as exits:
        files = exits.enter_context(Files(tmp_path_factory.mktemp("files"), KEY))
        stack = exits.enter_context(Stack(redis=False, daemon=False, nginx=False, port=0))
        stack.write_key(KEY, file=stack.folder / "files-key")
        trusted = stack.folder / "trusted.pem"
        trusted.write_text("".join(open(file).read() for file in (files.ca_file, stack.standin.ca_file)))
        stack.configure(access={"mode": "teams", "teams_file": "teams.json"}, routes=[*stack.config["routes"], {"provider": "openai", "upstream": "files"}],
                        upstreams={"files": {"base_url": files.url, "key_files": ["files-key"], "ca_file": str(trusted)}})
        write_teams(stack, {"web": {"providers": ["sora", "openai"], "origins": [PAGE]}})
        on_loopback(certificates, stack)
        stack.nginx.changes["/etc/ssl/certs/ca-certificates.crt"] = str(trusted)
        stack.daemon.start()
        stack.nginx.start()
        stack.standin.switch(state="SUCCESS")
        yield stack


def get(stack, path, method="GET", **headers):
    """With the token of a team. Asserts that the request has taken the hop, once."""
    answer = stack.get(path, {**bearer("web"), **headers}, method)
    stack.wait_until(lambda: passed_on(stack, answer.headers["x-request-id"]), what="the line in the log")
    assert len(passed_on(stack, answer.headers["x-request-id"])) == 1
    assert not [name for name in answer.headers if name.startswith(("x-taskproxy", "x-accel"))]
    return answer


def ask_peer(stack, path, certificates, source="127.0.0.1", own=True, **headers):
    """Sends a request to the listener for other hosts; returns the status, or None if it is closed."""
    context = ssl.create_default_context(cafile=certificates / "hosts-ca.pem")
    context.check_hostname = False
    if own:
        context.load_cert_chain(certificates / "host.pem", certificates / "host.key")
    connection = http.client.HTTPSConnection("127.0.0.1", stack.peer_port, source_address=(source, 0), context=context, timeout=30)
    with contextlib.closing(connection):
        with contextlib.suppress(ConnectionError):
            connection.request("GET", path, headers={"Host": "taskproxy-hosts", **headers})
            return connection.getresponse().status
    return None


def test_every_header_that_a_worker_reads_is_passed_on():
    read = set(re.findall(r"^fastcgi_param HTTP_\w+ +\$http_(\w+)", (ROOT / "nginx/taskproxy-fastcgi.conf").read_text(), re.MULTILINE))
    text = (ROOT / "nginx/taskproxy-peer.conf").read_text()
    passed = dict(re.findall(r"^proxy_set_header +([\w-]+) +\$http_(\w+);", text, re.MULTILINE))
    assert all(name.lower().replace("-", "_") == variable for name, variable in passed.items())
    assert {*passed.values()} == read | {"range", "if_range", "if_modified_since"}


def test_answers_are_those_of_the_worker(stack):
    first = get(stack, NATIVE + "t")
    again = get(stack, NATIVE + "t", **{"If-None-Match": first.headers["etag"]})
    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert get(stack, NATIVE + "t", "HEAD").headers["etag"] == first.headers["etag"]
    assert get(stack, NATIVE + "t", Prefer="view=unified").json()["task_id"] == "t"
    assert get(stack, "/v1/tasks?ids=sora/t,sora/%75").json()["tasks"][1]["task_id"] == "u"
    assert get(stack, f"{NATIVE}t%2Fu").status == 400
    assert get(stack, f"{UNIFIED}t?wait=x").status == 400
    assert get(stack, NATIVE + "t", "POST").status == 405
    page = get(stack, NATIVE + "t", Origin=PAGE)
    assert page.headers["access-control-allow-origin"] == PAGE
    preflight = get(stack, NATIVE + "t", "OPTIONS", **{"Origin": PAGE, "Access-Control-Request-Method": "GET",
                                                         "Access-Control-Request-Headers": "authorization"})
    assert preflight.headers["access-control-allow-headers"] == "authorization"


def test_nginx_has_no_warning(stack):
    assert "[warn]" not in stack.nginx.log()


def test_credentials_are_passed_on(stack):
    assert refusal(stack.get(NATIVE + "t")) == (401, "unauthorized")
    assert refusal(get(stack, NATIVE + "t", Authorization="Bearer wrong")) == (401, "unauthorized")
    assert stack.get(f"{NATIVE}t?{link('sora/t')}").status == 200


def test_both_logs_have_the_clients_address_the_team_and_the_id_of_the_request(stack):
    connection = http.client.HTTPConnection("127.0.0.1", stack.nginx.port, source_address=("127.0.0.5", 0), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", NATIVE + "t", headers=bearer("web"))
        request_id = connection.getresponse().headers["x-request-id"]
    logs = [stack.folder / "access.log", stack.folder / "peers.log"]
    for log in logs:
        stack.wait_until(lambda log=log: request_id in log.read_text(), what=f"the id in {log.name}")
        (line,) = [line for line in log.read_text().splitlines() if request_id in line]
        assert line.startswith("127.0.0.5 ") and " team=web " in line and " cache=- " not in line


def test_workers_count_wrong_credentials_by_the_clients_address(stack):
    """The limit of an address is reached by the client, and other clients of the same hop are served."""
    def ask(source, token):
        connection = http.client.HTTPConnection("127.0.0.1", stack.nginx.port, source_address=(source, 0), timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", NATIVE + "t", headers={"Authorization": token})
            return connection.getresponse().status

    assert 429 in [ask("127.0.0.6", "Bearer wrong") for _ in range(22)]
    assert ask("127.0.0.7", "Bearer wrong") == 401


def test_streams_and_waits_pass_unbuffered(stack):
    stack.standin.switch("live", state="IN_PROGRESS", progress="7%")
    with Stream(stack, NATIVE + "live", **bearer("web")) as stream:
        assert stream.next().data["data"]["progress"] == "7%"
        (held,) = hold(stack, ("live?wait=30", bearer("web")))
        stack.standin.switch("live", state="SUCCESS", progress="100%")
        assert stream.next().data["data"]["progress"] == "100%" and stream.next() is None
        assert held.result().json()["data"]["status"] == "SUCCESS"


def test_content_arrives_with_range_and_conditions(stack):
    path = "/v1/tasks/openai/t/content/0"
    some = get(stack, path, Range="bytes=1000-1999")
    assert (some.status, some.headers["content-range"], some.body) == (206, f"bytes 1000-1999/{SIZE}", b"".join(part(1000, 2000)))
    assert get(stack, path, **{"If-None-Match": '"v1"'}).status == 304
    assert get(stack, path, **{"Range": f"bytes={SIZE}-"}).status == 416
    assert get(stack, f"{UNIFIED}t/content/0").status == 302


def test_hosts_are_known_by_address_and_certificate(stack, certificates):
    own = bearer("web")
    assert ask_peer(stack, NATIVE + "t", certificates, **own) == 200
    assert ask_peer(stack, NATIVE + "t", certificates, source="127.0.0.9", **own) is None
    assert ask_peer(stack, NATIVE + "t", certificates, own=False, **own) == 400
    for path in ("/metrics", "/status"):
        assert ask_peer(stack, path, certificates, **own) == 404
    for path in ("/healthz", "/readyz"):
        assert ask_peer(stack, path, certificates, **own, **{"X-Taskproxy-Client": "192.0.2.1"}) == 403


def test_a_host_with_a_certificate_of_another_authority_gets_no_request(make_stack, certificates, tmp_path):
    """The workers of the host that has the request answer it."""
    make_certificates(tmp_path)
    stack = make_stack(redis=False, nginx=False, port=0)
    on_loopback(certificates, stack)
    for name in ("_key", ""):
        file = f"host.{'key' if name else 'pem'}"
        stack.nginx.changes[f"    ssl_certificate{name} {certificates}/{file};"] = f"    ssl_certificate{name} {tmp_path}/{file};"
    stack.nginx.start()
    answer = stack.task("t")
    assert answer.status == 200 and stack.task("t?wait=1").status == 200
    assert ask_peer(stack, NATIVE + "t", tmp_path, own=False) == 400  # it is there, with the other certificate
    assert passed_on(stack, answer.headers["x-request-id"]) == []
