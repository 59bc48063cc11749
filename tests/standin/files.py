"""An upstream of OpenAI's form that gives the videos to clients with the key: TLS, Range, and some ways to fail."""

import contextlib
import http.server
import json
import re
import select
import socket
import ssl
import threading
from pathlib import Path

import authority

BLOCK = bytes(range(256)) * 1024
SIZE = 200 * 1024 * 1024
ELSEWHERE = "https://cdn.example.com/v.mp4?sig=1"  # a result that needs no key


def part(start: int, end: int):
    """The bytes of the video from start to end, in pieces. Every 256 KiB begin with their number."""
    while start < end:
        number, offset = divmod(start, len(BLOCK))
        block = number.to_bytes(8, "big") + BLOCK[8:]
        piece = block[offset:offset + end - start]
        yield piece
        start += len(piece)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", **headers) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        with contextlib.suppress(OSError):  # the client has left
            self.play(*re.fullmatch(r"/v1/videos/([^/]+)(/content)?", self.path).groups())

    do_HEAD = do_GET

    def play(self, task: str, content: str | None) -> None:
        files = self.server.files
        files.seen.append((self.command, self.path, dict(self.headers.items())))
        if self.headers["Authorization"] != f"Bearer {files.key}":
            self.answer(401, b'{"error":{"message":"the key is wrong"}}')
        elif not content:
            video = {"id": task, "status": "completed", "created_at": 1759964699, "object": "video"}
            if task == "elsewhere":
                video["url"] = ELSEWHERE
            self.answer(200, json.dumps(video).encode(), Content_Type="application/json")
        elif task.isdigit():
            self.answer(int(task), b"the upstream's own words", Location=files.location, Set_Cookie="a=b")
        else:
            self.send_video(task)

    def send_video(self, task: str) -> None:
        start, end, status = 0, SIZE, 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            if self.headers.get("If-Range", '"v1"') == '"v1"':
                start, end, status = int(span[1]), min(int(span[2] or SIZE) + 1, SIZE), 206
        headers = {"Content-Type": "video/mp4", "ETag": '"v1"', "Accept-Ranges": "bytes", "Set-Cookie": "a=b", "OpenAI-Version": "1",
                   "X-Accel-Redirect": "/status", "Content-Disposition": "attachment", "Content-Length": str(end - start)}
        if start >= SIZE:
            return self.answer(416, b"the upstream's own words", Content_Range=f"bytes */{SIZE}")
        if self.headers.get("If-None-Match") == '"v1"':
            return self.answer(304, ETag='"v1"')
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{SIZE}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in part(start, end if self.command == "GET" else start):
            self.wfile.write(piece)
            if task == "dies":
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            if task == "waits":
                self.wait_for_end()
        return None

    def wait_for_end(self) -> None:
        """Sends nothing more until the peer closes the connection."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        if poll.poll(60_000):
            self.server.files.left.release()
        raise ConnectionError


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # peers that leave


class Files:
    def __init__(self, folder: Path, key: str):
        self.key, self.seen, self.location, self.left = key, [], "", threading.Semaphore(0)
        authority.make(folder)
        self.ca_file = str(folder / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.files = self
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
