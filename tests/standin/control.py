"""Controls the stand-in from another process: a UNIX socket in its directory, and a client.

One JSON object a line, {"do": METHOD, "args": […], "kwargs": {…}}, answered by {"result": …} or {"error": …}.
"""

import functools
import json
import socket
import socketserver
from pathlib import Path

from switches import PATIENCE

REMOTE = {"switch", "clear", "hold", "release", "wait_arrived", "advance", "count", "counts", "wait_count", "reset_counts",
          "drop_connections", "stop", "start"}


class Control(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, standin):
        self.standin = standin
        path = standin.folder / "control.sock"
        path.unlink(missing_ok=True)
        super().__init__(str(path), ControlConnection)


class ControlConnection(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            try:
                answer = {"result": self._do(json.loads(line))}
            except Exception as error:  # whatever it is, report it to the client
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _do(self, order: dict):
        if order["do"] not in REMOTE:
            raise ValueError(f"cannot do {order['do']}")
        result = getattr(self.server.standin, order["do"])(*order.get("args", ()), **order.get("kwargs", {}))
        return result if isinstance(result, (int, dict)) else None  # a barrier cannot be sent


class StandinClient:
    """The methods of Standin listed in REMOTE, executed by the stand-in with this directory."""

    def __init__(self, folder):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(Path(folder) / "control.sock"))
        self._lines = self._socket.makefile("r")

    def _ask(self, method: str, *args, **kwargs):
        self._socket.sendall(json.dumps({"do": method, "args": args, "kwargs": kwargs}).encode() + b"\n")
        answer = json.loads(self._lines.readline())
        if "error" in answer:
            raise RuntimeError(f"the stand-in reports: {answer['error']}")
        return answer["result"]

    def __getattr__(self, method: str):
        if method not in REMOTE:
            raise AttributeError(method)
        return functools.partial(self._ask, method)

    def hold(self, task_id: str | None = None):
        self._ask("hold", task_id)
        return RemoteBarrier(self, task_id)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class RemoteBarrier:
    def __init__(self, client: StandinClient, task_id: str | None):
        self._client, self._task_id = client, task_id

    def wait_arrived(self, count: int = 1, seconds: float = PATIENCE) -> int:
        return self._client.wait_arrived(self._task_id, count, seconds)

    def release(self) -> None:
        self._client.release(self._task_id)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()
