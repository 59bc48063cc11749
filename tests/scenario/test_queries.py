"""Queries to the upstream contain only the task and our key, share few connections, and stay within max_in_flight."""

import contextlib
import os
import signal

import pytest

from helpers import step_until
from parts import PATIENCE, Nginx, children_of
from port import Port
from standin import Standin

PATH = "/sora/v1/videos/"
ERROR, TIMEOUT = (502, "upstream_error"), (504, "upstream_timeout")
OF_THE_CLIENT = {
    "Authorization": "Bearer of-the-client", "Cookie": "session=of-the-client", "X-Api-Key": "of-the-client",
    "Referer": "https://of-the-client/", "User-Agent": "of-the-client", "X-Forwarded-For": "of-the-client",
    "Accept-Language": "of-the-client", "Range": "bytes=0-9", "Accept-Encoding": "gzip", "X-Tenant": "of-the-client",
}


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def one_worker(**upstream) -> dict:
    return {"workers": 1, "upstreams": {"main": upstream}}


def test_query_contains_only_the_task_from_the_client(stack):
    assert stack.get(PATH + "through-nginx?token=of-the-client", OF_THE_CLIENT, body=b"of-the-client").status == 200
    params = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in OF_THE_CLIENT.items()}
    assert stack.ask_worker(PATH + "straight", HTTP_PROXY="http://127.0.0.1:1", **params).status == 200

    for query in stack.standin.seen():
        assert query.method == "GET"
        assert query.target == PATH + query.task_id
        assert query.headers.pop("authorization") == f"Bearer {stack.key}"
        assert query.headers.pop("host") == stack.standin.url.removeprefix("https://")
        assert query.headers.keys() <= {"user-agent", "accept"}
        assert not any("of-the-client" in value for value in query.headers.values())


def test_unusual_id_is_percent_encoded_and_logged_on_one_line(make_stack):
    stack = make_stack(providers={"sora": {"task_id": ".{1,128}"}}, config={"log_level": "debug"})
    for odd, sent in (
        ("a%20b", "a%20b"), ("a%3Fb%23c", "a%3Fb%23c"), ("100%25", "100%25"), ("%C3%A9", "%C3%A9"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"), ("a%0d%0aX-Injected:%201", "a%0D%0AX-Injected%3A%201"),
        ("%0aFORGED", "%0AFORGED"), ("a@b:c", "a%40b%3Ac"),
    ):
        stack.ask_worker(PATH + odd)
        assert stack.standin.seen()[-1].target == PATH + sent
        assert "x-injected" not in stack.standin.seen()[-1].headers
    stack.wait_log("FORGED")
    assert not any(line.startswith(("FORGED", "X-Injected")) for line in stack.daemon.log().splitlines())


def test_id_cannot_escape_the_upstream_path(make_stack):
    stack = make_stack(providers={"sora": {"task_id": ".{1,128}"}})
    for climber in ("..", ".", "%2e%2e", ".%2E", "..%2Fadmin", "a%2F..%2F..%2Fadmin"):
        assert outcome(stack.ask_worker(PATH + climber)) == (400, "bad_request"), climber
    assert stack.standin.count() == 0


def test_connections_are_reused(make_stack):
    stack = make_stack(config={"workers": 1})
    for number in range(20):
        assert stack.task(f"task_{number}").status == 200
    assert (stack.standin.count(), stack.standin.counts()["connections"]) == (20, 1)
    assert stack.metric("upstream_connections_total") == 1
    stack.standin.drop_connections()
    assert stack.task("after").status == 200
    assert stack.standin.counts()["connections"] == 2


def test_max_in_flight_queries_are_sent_and_the_rest_queued(make_stack):
    stack = make_stack(config=one_worker(max_in_flight=2))
    with stack.standin.hold() as barrier:
        asks = [stack.background(stack.task, f"task_{number}") for number in range(6)]
        barrier.wait_arrived(2)
        stack.wait_metric("fetches", 6)
        assert (stack.metric("upstream_in_flight"), stack.standin.count()) == (2, 2)
    assert {ask.result().status for ask in asks} == {200}
    assert stack.standin.counts()["peak"] == 2


def test_queued_query_times_out(make_frozen):
    stack = make_frozen(config=one_worker(max_in_flight=1, timeout="1s"))
    stack.standin.switch(hang=True)
    asks = [stack.background(stack.task, f"task_{number}") for number in range(4)]
    stack.wait_metric("fetches", 4)
    step_until(stack, lambda: all(ask.done() for ask in asks), what="the time-outs")
    assert {outcome(ask.result()) for ask in asks} == {TIMEOUT}
    stack.standin.clear()
    assert stack.task("task_4").status == 200


# TLS and HTTP/2


class Front(Nginx):
    """nginx in front of the stand-in, with the stand-in's certificate."""

    name = "front"

    def __init__(self, stack, port: Port):
        super().__init__(stack, port=None, processes=1, http="", access_log=False)
        self.ports = [port]

    def listen(self, address: str) -> None:
        folder, standin = self.stack.folder / "front", self.stack.standin
        folder.mkdir()
        places = "".join(f"{kind}_temp_path {kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"daemon off; pid nginx.pid; {'user www-data;' if os.geteuid() == 0 else ''} events {{}} http {{ {places}"
            "log_format seen '$server_protocol $connection'; access_log seen seen;"
            f"server {{ listen {address} ssl http2; ssl_certificate {standin.folder}/server.pem;"
            f"ssl_certificate_key {standin.folder}/server.key; location / {{ proxy_pass {standin.url}; }} }} }}"
        )
        self.run(folder)

    def seen(self) -> list:
        return (self.stack.folder / "front" / "seen").read_text().splitlines()


@contextlib.contextmanager
def front(make_stack, host: str):
    port = Port(host)
    address = f"{host}:{port.number}"
    stack = make_stack(config=one_worker(base_url=f"https://{address}"))
    front = Front(stack, port)
    front.listen(address)
    try:
        yield stack, front
    finally:
        front.stop()
        front.close()


def test_http_2_is_used_once_it_is_known_on_one_connection(make_stack):
    with front(make_stack, "127.0.0.1") as (stack, upstream):
        assert stack.task("t").status == 200
        old = set(children_of(upstream.pid))
        upstream.signal(signal.SIGHUP)
        stack.wait_until(lambda: not old & set(children_of(upstream.pid)), what="the end of the first connection")
        with stack.standin.hold() as barrier:
            asks = [stack.background(stack.task, f"task_{number}") for number in range(10)]
            barrier.wait_arrived(10)
        assert {ask.result().status for ask in asks} == {200}
        stack.wait_until(lambda: len(upstream.seen()) == 11, what="11 lines in the front's log")
        assert len(set(upstream.seen()[1:])) == 1
        assert all(line.startswith("HTTP/2.0 ") for line in upstream.seen())


@pytest.mark.parametrize("tls", [True, False])
def test_hanging_first_connection_blocks_no_other_query(make_stack, tmp_path, tls):
    with Standin(tmp_path, tls=tls) as upstream:  # it speaks HTTP/1.1
        ca_file = upstream.ca_file if tls else None
        stack = make_stack(config=one_worker(base_url=upstream.url, ca_file=ca_file, timeout="60s"), standin=False)
        upstream.keys = {stack.key}
        upstream.switch("hangs", hang=True)
        hanging = stack.background(stack.task, "hangs")
        upstream.wait_count(1, "hangs")
        asks = [stack.background(stack.task, f"task_{number}") for number in range(5)]
        assert {ask.result(PATIENCE).status for ask in asks} == {200}
        assert not hanging.done()
        upstream.drop_connections()
        assert outcome(hanging.result()) == ERROR


def test_certificate_of_another_host_is_rejected(make_stack):
    with front(make_stack, "127.0.0.2") as (stack, upstream):
        assert outcome(stack.task("t")) == ERROR
        assert upstream.seen() == []
