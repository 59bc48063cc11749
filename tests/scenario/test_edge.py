"""The FastCGI server: valid and invalid requests; an invalid one does not affect any other."""

import contextlib
import random
import struct

import pytest

import fastcgi
from fastcgi import (
    ABORT_REQUEST, AUTHORIZER, BEGIN_REQUEST, DATA, FILTER, GET_VALUES, PARAMS, STDIN, Connection,
    begin, pairs, record, request, stream, task_params,
)
from helpers import GOOD_REQUEST, TASK, assert_served, metric, one_without_nginx, wait_connections, wait_metric


@pytest.fixture(scope="module")
def stack():
    yield from one_without_nginx()


@pytest.fixture
def worker(stack):
    return stack.worker_socket(0)


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
    "padding behind the body": begin() + stream(PARAMS, PARAMS_OF_TASK) + record(STDIN, b"x") + record(STDIN, padding=255),
    "an unknown type": record(77, b"what is this"),
    "type 0": record(0),
    "an unknown type inside a request": begin() + record(200, b"x") + stream(PARAMS, PARAMS_OF_TASK) + REST,
    "version 0": record(BEGIN_REQUEST, struct.pack("!HB5x", 1, 1), version=0),
    "version 2 in the middle": begin() + record(PARAMS, PARAMS_OF_TASK, version=2) + record(PARAMS) + REST,
    "an authorizer's role": begin(AUTHORIZER) + GOOD_REQUEST[16:],
    "a filter's role": begin(FILTER) + GOOD_REQUEST[16:],
    "a filter's data": begin() + stream(PARAMS, PARAMS_OF_TASK) + stream(DATA, b"x") + REST,
    "role 0": begin(0) + GOOD_REQUEST[16:],
    "request id 0": request(task_params(TASK), request_id=0),
    "an id that changes": begin() + stream(PARAMS, PARAMS_OF_TASK, request_id=2) + stream(STDIN, b"", request_id=2),
    "an id that changes at the end": begin() + stream(PARAMS, PARAMS_OF_TASK) + stream(STDIN, b"", request_id=9),
    "a short beginning": record(BEGIN_REQUEST, b"\0\1") + GOOD_REQUEST[16:],
    "two beginnings": begin() + GOOD_REQUEST,
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
    "two requests at once": GOOD_REQUEST + GOOD_REQUEST,
    "garbage behind a request": GOOD_REQUEST + b"\xff" * 100,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(100_000),
    "all bits": b"\xff" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_connection_with_a_malformed_request_is_closed_silently(stack, name):
    for path in (stack.worker_socket(0), stack.status_socket):
        refused = metric(stack, "connections_refused_total")
        with Connection(path) as connection:
            with contextlib.suppress(BrokenPipeError):
                connection.send(HOSTILE[name])
            with contextlib.suppress(ConnectionResetError):
                assert connection.socket.recv(1) == b""
        assert metric(stack, "connections_refused_total") == refused + 1
    assert_served(stack)


def test_request_in_small_pieces_gets_the_same_answer(stack, worker):
    whole = fastcgi.ask(worker, TASK)[2]
    with Connection(worker) as connection:
        connection.socket.settimeout(None)  # with a timeout, Python polls before it sends
        for at in range(len(GOOD_REQUEST)):
            connection.send(GOOD_REQUEST[at : at + 1])
        connection.socket.settimeout(10)
        assert connection.read_answer()[2] == whole
        for part in (GOOD_REQUEST[:3], GOOD_REQUEST[3:20], GOOD_REQUEST[20:]):  # and the next one on the same connection
            connection.send(part)
        assert connection.read_answer()[2] == whole


def test_pairs_may_span_records_and_records_may_be_padded(worker):
    packed = pairs(task_params(TASK, HTTP_X_LONG="y" * 10_000))
    records = b"".join(record(PARAMS, packed[at : at + 7], padding=at % 5) for at in range(0, len(packed), 7))
    with Connection(worker) as connection:
        connection.send(begin() + records + record(PARAMS) + record(STDIN, b"x", padding=255) + record(STDIN))
        assert connection.read_answer()[0] == 200
        assert connection.ask(task_params(TASK, HTTP_X_LONG="y" * 60_000))[0] == 200


@pytest.mark.parametrize("method, status", [("GET", 200), ("POST", 405)])
def test_request_body_is_ignored_and_does_not_break_the_connection(worker, method, status):
    with Connection(worker) as connection:
        for body in (b"x" * 60_000, b"", GOOD_REQUEST, b"x"):
            assert connection.ask(task_params(TASK, method), body=body)[0] == status


def test_connection_is_kept_only_if_the_peer_asks_for_it(worker):
    with Connection(worker) as connection:
        for request_id in (1, 7, 65_535):
            connection.send(request(task_params(TASK), request_id=request_id))
            assert connection.read_record()[1] == request_id
            assert connection.read_answer()[1] == {}  # the rest of the answer
        assert connection.ask(task_params(TASK), flags=0)[0] == 200
        assert connection.socket.recv(1) == b""


def test_incomplete_request_does_not_affect_others(stack, worker):
    cuts = [GOOD_REQUEST[:at] for at in (1, 7, 8, 16, 20, 30, len(GOOD_REQUEST) - 9, len(GOOD_REQUEST) - 1)]
    with contextlib.ExitStack() as opened:
        for cut in cuts * 10:
            opened.enter_context(Connection(worker)).send(cut)
        wait_connections(stack, 80)
        assert_served(stack)
        late = opened.enter_context(Connection(worker))
        late.send(GOOD_REQUEST[:20])
        assert_served(stack)
        late.send(GOOD_REQUEST[20:])
        assert late.read_answer()[0] == 200
    wait_connections(stack, 0)


def test_held_client_that_disconnects_is_dropped_and_its_query_continues(stack, worker):
    gone = metric(stack, "requests_gone_total")
    with stack.standin.hold("left") as barrier:
        with Connection(worker) as connection:
            connection.send(request(task_params("/sora/v1/videos/left")))
            barrier.wait_arrived(1)
        wait_metric(stack, "requests_gone_total", lambda now: now == gone + 1)
        assert metric(stack, "waiters") == 0
    wait_metric(stack, "fetches", lambda now: now == 0)
    assert stack.ask_worker("/sora/v1/videos/left").headers["x-cache"] == "HIT"
    wait_connections(stack, 0)


@pytest.mark.parametrize("more", [record(ABORT_REQUEST), GOOD_REQUEST, values("FCGI_MAX_CONNS"), b"\xff" * 70_000],
                         ids=["abort", "request", "management", "garbage"])
def test_pipelined_request_waits_for_the_held_answer(stack, worker, more):
    task_id = f"busy_{len(more)}"
    with Connection(worker) as connection:
        with stack.standin.hold(task_id) as barrier:
            connection.send(request(task_params(f"/sora/v1/videos/{task_id}")))
            barrier.wait_arrived(1)
            connection.send(more)
            assert_served(stack)
        assert connection.read_answer()[0] == 200
        if more == GOOD_REQUEST:
            assert connection.read_answer()[0] == 200
        else:
            connection.wait_closed()


def mutations(count, seed):
    """Random mutations of a valid request."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(GOOD_REQUEST)
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


@pytest.mark.parametrize("index", [0, None], ids=["worker", "status server"])
def test_two_thousand_mutated_requests_are_harmless(stack, index):
    path = stack.status_socket if index is None else stack.worker_socket(index)
    for data in mutations(2000, seed=20250222):
        with Connection(path) as connection, contextlib.suppress(BrokenPipeError):
            connection.send(data)
            connection.socket.shutdown(1)  # end of input: the connection ends with or without an answer
            connection.wait_closed()
    wait_connections(stack, 0)
    assert_served(stack)
