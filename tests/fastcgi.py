"""A small FastCGI client: complete requests for normal use, single records for malformed ones."""

import socket
import struct

BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES = range(1, 10)
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
KEEP_CONN = 1


def record(kind: int, content: bytes = b"", request_id: int = 1, version: int = 1, padding: int = 0) -> bytes:
    """One record. The header fields are written as given, even if invalid; content is at most 65,535 bytes."""
    return struct.pack("!BBHHBx", version, kind, request_id, len(content), padding) + content + bytes(padding)


def begin(role: int = RESPONDER, flags: int = KEEP_CONN, **header) -> bytes:
    return record(BEGIN_REQUEST, struct.pack("!HB5x", role, flags), **header)


def pairs(params: dict) -> bytes:
    """Names and values in the protocol's encoding."""
    def length(text: bytes) -> bytes:
        return bytes([len(text)]) if len(text) < 128 else struct.pack("!I", len(text) | 0x80000000)

    packed = b""
    for name, value in params.items():
        name, value = (part if isinstance(part, bytes) else str(part).encode() for part in (name, value))
        packed += length(name) + length(value) + name + value
    return packed


def stream(kind: int, content: bytes, request_id: int = 1) -> bytes:
    """The content in as many records as it takes, and the empty record that ends it."""
    parts = [content[at : at + 65535] for at in range(0, len(content), 65535)]
    return b"".join(record(kind, part, request_id) for part in [*parts, b""])


def request(params: dict, body: bytes = b"", flags: int = KEEP_CONN, request_id: int = 1) -> bytes:
    """A complete request as nginx would send it."""
    head = begin(flags=flags, request_id=request_id)
    return head + stream(PARAMS, pairs(params), request_id) + stream(STDIN, body, request_id)


def task_params(target: str, method: str = "GET", **more) -> dict:
    """The parameters that the shipped nginx files pass for this request; `more` adds to or replaces them."""
    return {"REQUEST_METHOD": method, "REQUEST_URI": target, **more}


class Closed(Exception):
    """The peer closed the connection before the answer was complete."""


class Connection:
    """A connection to a worker's or the master's socket."""

    def __init__(self, path: str, seconds: float = 20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_record(self) -> tuple:
        """(kind, request id, content) of the next record; Closed at the end of the connection."""
        _, kind, request_id, length, padding = struct.unpack("!BBHHBx", self._read(8))
        return kind, request_id, self._read(length + padding)[:length]

    def read_answer(self) -> tuple:
        """(status, headers with names in lower case, body) of the next answer."""
        output = b""
        while True:
            kind, _, content = self.read_record()
            if kind == END_REQUEST:
                return parse_answer(output)
            if kind == STDOUT:
                output += content

    def ask(self, params: dict, body: bytes = b"", flags: int = KEEP_CONN) -> tuple:
        self.send(request(params, body, flags))
        return self.read_answer()

    def wait_closed(self) -> None:
        """Reads until the peer closes the connection; raises TimeoutError if it does not."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise Closed(f"closed after {len(data)} of {length} bytes")
            data += more
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def parse_answer(output: bytes) -> tuple:
    """Parses a CGI answer, from FastCGI or plain CGI; without a Status header it is a 200."""
    head, _, body = output.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    headers = {}
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(headers.pop("status", "200").split()[0]), headers, body


def ask(path: str, target: str, method: str = "GET", body: bytes = b"", **params) -> tuple:
    """One request on a new connection: (status, headers, body)."""
    with Connection(path) as connection:
        return connection.ask(task_params(target, method, **params), body, flags=0)
