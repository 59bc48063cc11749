"""Chromium for the tests of web pages: one process, and a page of its own context for each test."""

import contextlib
import http.server
import itertools
import json
import os
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

import needs
from stack import ROOT

DRIVER = Path(__file__).with_name("browser.cjs")
SCREENSHOTS = ROOT / "build" / "screenshots"
PATIENCE = 90  # seconds


class Browser:
    """One Chromium, driven through playwright by a node process. Tests may use its pages from several threads."""

    def __init__(self):
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", "node", str(DRIVER), needs.chromium()],
            env={**os.environ, "NODE_PATH": needs.npm_modules()}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers = itertools.count()
        self._asked, self._changing = {}, threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for answer in map(json.loads, self._process.stdout):
            asked = self._asked.pop(answer["id"])
            if "error" in answer:
                asked.set_exception(AssertionError(answer["error"]))
            else:
                asked.set_result(answer["result"])
        for asked in self._asked.values():
            asked.set_exception(AssertionError("the browser has exited"))

    def ask(self, page, method: str, *args):
        future = Future()
        with self._changing:
            number = next(self._numbers)
            self._asked[number] = future
            self._process.stdin.write(json.dumps({"id": number, "page": page, "do": method, "args": args}) + "\n")
            self._process.stdin.flush()
        return future.result(PATIENCE)

    def page(self, width: int = 1440, height: int = 900, **context) -> "Page":
        """A new page; `context` are options of playwright's browser.newContext()."""
        number = next(self._numbers)
        self.ask(None, "open", {"id": number, "viewport": {"width": width, "height": height}, **context})
        return Page(self, number)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join()
        self._process.stdout.close()


class Page:
    def __init__(self, browser: Browser, number: int):
        self._browser, self._number = browser, number

    def _ask(self, method: str, *args):
        return self._browser.ask(self._number, method, *args)

    def goto(self, url: str) -> None:
        self._ask("page", "goto", url)

    def do(self, method: str, *args) -> None:
        """A method of playwright's Page, such as "click"."""
        self._ask("page", method, *args)

    def evaluate(self, script: str):
        """The value of the JavaScript expression; a promise is awaited."""
        return self._ask("evaluate", script)

    def wait(self, condition: str):
        """Waits until the JavaScript expression is true; returns its value."""
        return self._ask("wait", condition)

    def offline(self, off: bool) -> None:
        self._ask("offline", off)

    def refuse_streams(self) -> None:
        self._ask("refuseStreams")

    def errors(self) -> list:
        """Errors and warnings in the console, and uncaught exceptions."""
        return self._ask("seen")["errors"]

    def requests(self) -> list:
        """The URLs of all requests so far."""
        return self._ask("seen")["requests"]

    def hosts(self) -> set:
        return {urlsplit(url).netloc for url in self.requests() if not url.startswith(("data:", "blob:"))}

    def serious(self) -> list:
        """The names of what axe-core finds serious or critical, with the places."""
        return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in self._ask("axe") if rule["impact"] in ("serious", "critical")]

    def screenshot(self, name: str) -> None:
        """Saves build/screenshots/NAME.png, for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self._ask("screenshot", {"path": str(SCREENSHOTS / f"{name}.png"), "fullPage": True})

    def close(self) -> None:
        self._ask("close")


class EmptyPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another origin</title><link rel=icon href=data:,>")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def other_server():
    """A web server with empty pages; yields its port. It has two origins, because localhost is another one than 127.0.0.1."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def one_browser():
    """Makes a fixture."""
    browser = Browser()
    yield browser
    browser.close()
