"""The stand-in's side of a TCP connection: TLS, HTTP/1.1, and the ways to break both.

Does not use http.server, so that switches control every byte, and a query takes 0.1 ms.
"""

import os
import select
import socket
import socketserver
import struct
import sys

import pages
import players
from switches import Query, Switch, as_bytes

CHUNK = 64 * 1024


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, standin, listening: int):
        """Wraps a duplicate of that descriptor."""
        self.standin = standin
        super().__init__((standin.host, standin.port), Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=os.dup(listening))

    def handle_error(self, request, client_address):
        """Ignores peers that disconnect or reject the certificate; anything else is a bug and is reported."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Closed(Exception):
    """Ends the connection, as requested by the peer or a switch."""


class Connection(socketserver.BaseRequestHandler):
    """One connection: queries one after the other, each read completely, then answered."""

    def setup(self):
        self.standin = self.server.standin
        self.received = b""
        self.answered = False  # whether this connection had an earlier query
        self.query = None  # the last one
        self.socket = self.request
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.standin.context:
            # The handshake is made in handle(), because finish() is always called after that.
            self.socket = self.standin.context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
        self.standin.opened(self.socket)

    def finish(self):
        self.standin.closed(self.socket)
        if self.query and not self.query.closed:
            self.query.closed = self.standin.time()
        self.socket.close()

    def handle(self):
        try:
            if self.standin.context:
                self.socket.do_handshake()
            while True:
                self._answer(*self._read())
        except Closed:
            pass

    def _read(self) -> tuple:
        head = self._read_until(b"\r\n\r\n").decode("latin-1")
        request_line, *lines = head.split("\r\n")
        method, target, _ = request_line.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._read_body(int(headers.get("content-length", 0)))
        return method, target, headers

    def _read_until(self, end: bytes) -> bytes:
        while end not in self.received:
            self._receive()
        head, _, self.received = self.received.partition(end)
        return head

    def _read_body(self, length: int) -> None:
        while len(self.received) < length:
            self._receive()
        self.received = self.received[length:]

    def _receive(self) -> None:
        more = self.socket.recv(CHUNK)
        if not more:
            raise Closed
        self.received += more

    def _answer(self, method: str, target: str, headers: dict) -> None:
        found = pages.find(target)
        if not found:
            message = f"Invalid URL ({method} {target})"
            self._send(players.reply_json(404, {"error": {"message": message, "type": "invalid_request_error"}}), Switch())
            return
        player, task_id = found
        query = self.query = Query(method, target, headers, task_id, self.standin.time())
        query.host, query.port = self.client_address[:2]
        query.closed = query.at if self._is_closed() else None
        switch, barrier = self.standin.admit(query)
        try:
            if barrier:
                barrier.arrive()
            self._misbehave(switch)
            reply = self.standin.reply(query, switch, player)
            query.answer = f"{reply.status}, {len(reply.body)} bytes"
            self._send(reply, switch)
            self.answered = True
        finally:
            self.standin.left()

    def _is_closed(self) -> bool:
        """Whether the peer has closed the connection; there may be unread data."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _misbehave(self, switch: Switch) -> None:
        if switch.delay:
            self._pause(switch.delay)
        if switch.hang:
            self._pause(None)
        if switch.swallow and self.answered:
            raise Closed
        if switch.reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
            raise Closed
        if switch.wire is not None:
            self.socket.sendall(as_bytes(switch.wire))
            raise Closed

    def _pause(self, seconds: float | None) -> None:
        """Waits this long, forever if None, but only until the peer disconnects."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if poll.poll(None if seconds is None else 1000 * seconds):
            raise Closed

    def _send(self, reply: players.Reply, switch: Switch) -> None:
        chunked = switch.chunked or switch.endless
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(reply.body))}
        head = f"HTTP/1.1 {reply.status} Stand-in\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in {**reply.headers, **framing}.items()
        )
        body = reply.body[: len(reply.body) // 2] if switch.truncated else reply.body
        if self.query and self.query.method == "HEAD":
            body = b""
        self.socket.sendall(head.encode("latin-1") + b"\r\n" + (chunk(body) if chunked else body))
        while switch.endless:
            if switch.pace:
                self._pause(switch.pace)
            self.socket.sendall(chunk(b" " * CHUNK if not switch.pace else b" "))
        if switch.truncated:
            raise Closed
        if chunked:
            self.socket.sendall(b"0\r\n\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
