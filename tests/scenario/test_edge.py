"""The FastCGI edge: records that no web server sends, peers that dawdle, and what happens to the others meanwhile."""

import contextlib
import itertools
import json
import random
import struct

import pytest

import fastcgi
from fastcgi import (
    ABORT_REQUEST, AUTHORIZER, BEGIN_REQUEST, DATA, FILTER, GET_VALUES, PARAMS, STDIN, Connection,
    begin, pairs, record, request, stream, task_params,
)
from stack import Metrics, Stack

TASK = "/sora/v1/videos/task_1"
GOOD = request(task_params(TASK))
MANY = 300_000  # bytes: more than any socket holds


@pytest.fixture(scope="module")
def stack():
    """One stack for the whole file: what a test leaves behind, the next ones would notice."""
    with Stack(nginx=False, config={"cache": {"terminal_ttl": "24h"}}) as running:
        running.standin.switch(state="SUCCESS")
        yield running
        assert running.daemon.log().count(" ended ") == 0  # no worker has died


@pytest.fixture
def worker(stack):
    return stack.worker_socket(0)


def metric(stack, name, **labels):
    """Straight from the master; nginx is not there."""
    return Metrics(fastcgi.ask(stack.status_socket, "/metrics")[2].decode()).sum(name, **labels)


def wait_metric(stack, name, good):
    stack.wait_until(lambda: good(metric(stack, name)), what=name)


def assert_served(stack, index=0):
    """Others get their answers: on a new connection, and twice on a kept one."""
    assert stack.ask_worker(TASK, index).status == 200
    with Connection(stack.worker_socket(index)) as connection:
        assert [connection.ask(task_params(TASK))[0] for _ in range(2)] == [200, 200]


def values(*names):
    return record(GET_VALUES, pairs({name: "" for name in names}), request_id=0)


def padded_with(data, padding):
    """The record with this padding; record() itself pads with zeros."""
    return data[:6] + bytes([len(padding)]) + data[7:] + padding


PARAMS_OF_TASK = pairs(task_params(TASK))
REST = stream(STDIN, b"")
HOSTILE = {
    "a question for values": values("FCGI_MAX_CONNS", "FCGI_MPXS_CONNS"),
    "a question for long values": values("x" * 60_000),
    "a question for values with lengths past the end": record(GET_VALUES, b"\xff\xff\xff\xff\xff\xff\xff\xff", request_id=0),
    "a question for values inside a request": begin() + values("FCGI_MAX_CONNS") + stream(PARAMS, PARAMS_OF_TASK) + REST,
    "records hidden in the padding of a beginning":
        padded_with(begin(), values("FCGI_MAX_CONNS")) + stream(PARAMS, PARAMS_OF_TASK) + REST,
    "records hidden in the padding behind the names":
        begin() + record(PARAMS, PARAMS_OF_TASK) + padded_with(record(PARAMS), values("FCGI_MAX_CONNS")) + REST,
    "an unknown type": record(77, b"what is this"),
    "type 0": record(0),
    "an unknown type inside a request": begin() + record(200, b"x") + stream(PARAMS, PARAMS_OF_TASK) + REST,
    "version 0": record(BEGIN_REQUEST, struct.pack("!HB5x", 1, 1), version=0),
    "version 2 in the middle": begin() + record(PARAMS, PARAMS_OF_TASK, version=2) + record(PARAMS) + REST,
    "an authorizer's role": begin(AUTHORIZER) + GOOD[16:],
    "a filter's role": begin(FILTER) + GOOD[16:],
    "a filter's data": begin() + stream(PARAMS, PARAMS_OF_TASK) + stream(DATA, b"x") + REST,
    "role 0": begin(0) + GOOD[16:],
    "request id 0": request(task_params(TASK), request_id=0),
    "an id that changes": begin() + stream(PARAMS, PARAMS_OF_TASK, request_id=2) + stream(STDIN, b"", request_id=2),
    "an id that changes at the end": begin() + stream(PARAMS, PARAMS_OF_TASK) + stream(STDIN, b"", request_id=9),
    "a short beginning": record(BEGIN_REQUEST, b"\0\1") + GOOD[16:],
    "two beginnings": begin() + GOOD,
    "names before a beginning": stream(PARAMS, PARAMS_OF_TASK) + REST,
    "a body before the names": begin() + REST + stream(PARAMS, PARAMS_OF_TASK),
    "an abortion at once": record(ABORT_REQUEST),
    "an abortion in the middle": begin() + record(PARAMS, PARAMS_OF_TASK) + record(ABORT_REQUEST),
    "a name past the end": begin() + stream(PARAMS, b"\x7f\x01abc") + REST,
    "a value past the end": begin() + stream(PARAMS, b"\x03\x7fabcdef") + REST,
    "four-byte lengths past the end": begin() + stream(PARAMS, b"\xff\xff\xff\xff\xff\xff\xff\xffabc") + REST,
    "a length cut short": begin() + stream(PARAMS, b"\x80\x00") + REST,
    "a name without a value's length": begin() + stream(PARAMS, b"\x03") + REST,
    "an empty name": begin() + stream(PARAMS, b"\x00\x03abc") + REST,
    "a NUL in a value": begin() + stream(PARAMS, pairs({"REQUEST_URI": b"/a\0b"})) + REST,
    "an equals sign in a name": begin() + stream(PARAMS, pairs({"A=B": "c"})) + REST,
    "more names than fit": request(task_params(TASK, HTTP_X="x" * 65_536)),
    "a larger body than fits": request(task_params(TASK), body=b"x" * 65_536),
    "two requests at once": GOOD + GOOD,
    "garbage behind a request": GOOD + b"\xff" * 100,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(100_000),
    "all bits": b"\xff" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_who_sends_what_is_no_request_is_closed_without_a_word(stack, name):
    for path in (stack.worker_socket(0), stack.status_socket):
        refused = metric(stack, "connections_refused_total")
        with Connection(path) as connection:
            with contextlib.suppress(BrokenPipeError):
                connection.send(HOSTILE[name])
            with contextlib.suppress(ConnectionResetError):
                assert connection.socket.recv(1) == b""
        assert metric(stack, "connections_refused_total") == refused + 1
    assert_served(stack)


def test_who_asks_in_small_pieces_gets_the_same_answer(stack, worker):
    whole = fastcgi.ask(worker, TASK)[2]
    with Connection(worker) as connection:
        connection.socket.settimeout(None)  # with one, Python waits for room before it sends
        for at in range(len(GOOD)):
            connection.send(GOOD[at : at + 1])
        connection.socket.settimeout(10)
        assert connection.read_answer()[2] == whole
        for part in (GOOD[:3], GOOD[3:20], GOOD[20:]):  # and the next one on the same connection
            connection.send(part)
        assert connection.read_answer()[2] == whole


def test_names_and_values_may_run_over_the_borders_of_records_and_records_may_be_padded(worker):
    packed = pairs(task_params(TASK, HTTP_X_LONG="y" * 10_000))
    records = b"".join(record(PARAMS, packed[at : at + 7], padding=at % 5) for at in range(0, len(packed), 7))
    with Connection(worker) as connection:
        connection.send(begin() + records + record(PARAMS) + record(STDIN, padding=255))
        assert connection.read_answer()[0] == 200
        assert connection.ask(task_params(TASK, HTTP_X_LONG="y" * 60_000))[0] == 200


@pytest.mark.parametrize("method, status", [("GET", 200), ("POST", 405)])
def test_a_body_is_ignored_and_does_not_poison_the_connection(worker, method, status):
    with Connection(worker) as connection:
        for body in (b"x" * 60_000, b"", GOOD, b"x"):
            assert connection.ask(task_params(TASK, method), body=body)[0] == status


def test_a_connection_is_kept_when_the_peer_wants_it_and_closed_when_not(worker):
    with Connection(worker) as connection:
        for request_id in (1, 7, 65_535):
            connection.send(request(task_params(TASK), request_id=request_id))
            assert connection.read_record()[1] == request_id
            assert connection.read_answer()[1] == {}  # the rest of the answer
        assert connection.ask(task_params(TASK), flags=0)[0] == 200
        assert connection.socket.recv(1) == b""


def test_who_stops_in_the_middle_of_a_request_harms_nobody(stack, worker):
    cuts = [GOOD[:at] for at in (1, 7, 8, 16, 20, 30, len(GOOD) - 9, len(GOOD) - 1)]
    before = metric(stack, "connections")
    with contextlib.ExitStack() as opened:
        for cut in cuts * 10:
            opened.enter_context(Connection(worker)).send(cut)
        wait_metric(stack, "connections", lambda now: now == before + 80)
        assert_served(stack)
        late = opened.enter_context(Connection(worker))
        late.send(GOOD[:20])
        assert_served(stack)
        late.send(GOOD[20:])
        assert late.read_answer()[0] == 200
    wait_metric(stack, "connections", lambda now: now == before)


def test_who_leaves_while_he_is_held_is_forgotten_and_the_question_goes_on(stack, worker):
    gone, before = metric(stack, "requests_gone_total"), metric(stack, "connections")
    with stack.standin.hold("left") as barrier:
        with Connection(worker) as connection:
            connection.send(request(task_params("/sora/v1/videos/left")))
            barrier.wait_arrived(1)
        wait_metric(stack, "requests_gone_total", lambda now: now == gone + 1)
        assert metric(stack, "waiters") == 0
    wait_metric(stack, "fetches", lambda now: now == 0)
    assert stack.ask_worker("/sora/v1/videos/left").headers["x-cache"] == "HIT"
    wait_metric(stack, "connections", lambda now: now == before)


@pytest.mark.parametrize("more", [record(ABORT_REQUEST), GOOD, values("FCGI_MAX_CONNS"), b"\xff" * 70_000])
def test_what_comes_while_a_request_is_held_waits_behind_its_answer(stack, worker, more):
    task_id = f"busy_{len(more)}"
    with Connection(worker) as connection:
        with stack.standin.hold(task_id) as barrier:
            connection.send(request(task_params(f"/sora/v1/videos/{task_id}")))
            barrier.wait_arrived(1)
            connection.send(more)
            assert_served(stack)
        assert connection.read_answer()[0] == 200
        if more == GOOD:
            assert connection.read_answer()[0] == 200
        else:
            connection.wait_closed()


def mutations(count, seed):
    """Random changes of a good request."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(GOOD)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 10))):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(6)
            if kind == 0 and data:
                data[at % len(data)] = chance.choice((0, 1, 2, 9, 127, 128, 255, chance.randrange(256)))
            elif kind == 1:
                del data[at:]
            elif kind == 2:
                del data[at : at + chance.randrange(12)]
            elif kind == 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 40))
            elif kind == 4:
                data[at:at] = data[chance.randrange(len(data) + 1) :][:64]
            else:
                data[at:at] = record(chance.randrange(13), chance.randbytes(chance.randrange(30)), chance.randrange(3))
        yield bytes(data)


@pytest.mark.parametrize("index", [0, None], ids=["worker", "master"])
def test_two_thousand_mutations_of_a_request_harm_nobody(stack, index):
    path = stack.status_socket if index is None else stack.worker_socket(index)
    before = metric(stack, "connections")
    for data in mutations(2000, seed=20250222):
        with Connection(path) as connection, contextlib.suppress(BrokenPipeError):
            connection.send(data)
            connection.socket.shutdown(1)  # nothing more will come: it ends in an answer or without one
            connection.wait_closed()
    wait_metric(stack, "connections", lambda now: now == before)
    assert_served(stack)


def test_a_thousand_connections_come_and_go(stack, worker):
    before = metric(stack, "connections")
    for _ in range(500):
        Connection(worker).close()
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(worker)) for _ in range(500)]
        wait_metric(stack, "connections", lambda now: now == before + 500)
        for connection in connections:
            connection.send(GOOD)
        assert {connection.read_answer()[0] for connection in connections} == {200}
    wait_metric(stack, "connections", lambda now: now == before)
    assert_served(stack)


def large_task(stack, task_id):
    """A task whose view is too large for a socket; gives what it says."""
    prompt = "".join(itertools.islice(itertools.cycle("0123456789 äöü "), MANY))
    inner = {"id": "gen", "prompt": prompt}
    raw = {"code": "success", "message": "", "data": {"task_id": task_id, "status": "SUCCESS", "data": inner}}
    stack.standin.switch(task_id, raw=json.dumps(raw))
    return raw


def test_who_does_not_read_his_answer_stalls_nobody_and_gets_it_whole_when_he_does(stack, worker):
    expected = large_task(stack, "large")
    asked = request(task_params("/sora/v1/videos/large"))
    before = metric(stack, "connections")
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(Connection(worker)) for _ in range(20)]
        for connection in slow:
            connection.send(asked)
            connection.socket.recv(1, 2)  # MSG_PEEK: the answer has begun
        for _ in range(20):
            assert_served(stack)
        for connection in slow[:10]:
            status, headers, body = connection.read_answer()
            assert (status, json.loads(body)) == (200, expected)
            assert int(headers["content-length"]) == len(body) > MANY
            assert connection.ask(task_params(TASK))[0] == 200
    wait_metric(stack, "connections", lambda now: now == before)  # also those who never read
    assert_served(stack)


def test_who_does_not_read_his_answer_does_not_keep_the_daemon_from_leaving(make_stack):
    stack = make_stack(nginx=False, config={"drain": "300ms"})
    large_task(stack, "large")
    with Connection(stack.worker_socket(0)) as slow:
        slow.send(request(task_params("/sora/v1/videos/large")))
        slow.socket.recv(1, 2)
        assert stack.daemon.term() == 0


# Out of descriptors


def short_of_descriptors(make_stack, count):
    stack = make_stack(nginx=False, daemon=False, redis=False, config={"upstreams": {"main": {"max_in_flight": 200}}})
    stack.daemon.nofile = count
    stack.daemon.start()
    stack.standin.switch(state="SUCCESS")
    return stack


def assert_overloaded(answer):
    status, headers, body = answer
    assert (status, json.loads(body)["code"]) == (503, "overloaded")
    assert int(headers["retry-after"]) >= 1


def test_past_the_connections_that_descriptors_allow_each_gets_503_and_then_all_is_well(make_stack):
    stack = short_of_descriptors(make_stack, 80)
    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(Connection(stack.worker_socket(0))) for _ in range(40)]
        wait_metric(stack, "connections", lambda now: now >= 40)
        for _ in range(5):
            with Connection(stack.worker_socket(0)) as late:
                assert_overloaded(late.ask(task_params(TASK)))
                assert late.socket.recv(1) == b""
        assert metric(stack, "overloaded_total") == 5
        assert idle[0].ask(task_params(TASK))[0] == 200
        assert_served(stack, index=1)
    stack.wait_until(lambda: stack.ask_worker(TASK).status == 200, what="an answer as before")


def test_when_not_even_a_connection_can_be_taken_it_waits_and_one_line_says_so(make_stack):
    stack = short_of_descriptors(make_stack, 80)
    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(Connection(stack.worker_socket(0))) for _ in range(120)]
        stack.wait_log("cannot accept connections: Too many open files")
        waiting = opened.enter_context(Connection(stack.worker_socket(0)))
        waiting.send(GOOD)
        rounds = itertools.count()  # a hundred pauses of wait_until: several tries to accept
        stack.wait_until(lambda: assert_served(stack, index=1) or next(rounds) == 100, what="100 rounds")
        for connection in idle:
            connection.close()
        assert waiting.read_answer()[0] in (200, 503)
    stack.wait_until(lambda: stack.ask_worker(TASK).status == 200, what="an answer as before")
    assert stack.daemon.log().count("cannot accept connections") == 1


def test_when_no_descriptor_is_left_for_the_upstream_it_is_503_and_recovers(make_stack):
    stack = short_of_descriptors(make_stack, 60)
    with stack.standin.hold() as barrier:
        asked = [stack.background(fastcgi.ask, stack.worker_socket(0), f"/sora/v1/videos/task_{n}") for n in range(60)]
        barrier.wait_arrived(1)
        wait_metric(stack, "answers_total", lambda now: now >= 1)  # of those who are not held
    answers = [answer.result() for answer in asked]
    assert {status for status, _, _ in answers} == {200, 503}
    for answer in answers:
        if answer[0] == 503:
            assert_overloaded(answer)
    assert {stack.ask_worker(f"/sora/v1/videos/later_{n}").status for n in range(20)} == {200}
