"""Common tools for the measurements, and the table in which results are printed."""

import contextlib
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from parts import ROOT, children_of, wait_until
from stack import Stack

PROGRAMS = ROOT / "build" / "bench"
WINDOW_TICKS = 10 * os.cpu_count()  # a tenth of a second


def bench_stack(http: str = "", **settings) -> Stack:
    """The default stack: one worker of the production build behind one nginx process, without an access log."""
    settings["config"] = {"workers": 1, **settings.get("config", {})}
    settings.setdefault("binary", ROOT / "build" / "taskproxy")
    settings.setdefault("nginx_processes", 1)
    return Stack(access_log=False, http=http, **settings)


def server(port: int, passes: str = "fastcgi_pass taskproxy;", more: str = "", cached: bool = False) -> str:
    """An nginx server with the shipped locations. `passes` replaces the directive that passes requests to taskproxy, so that
    other programs are reached in the same way. `cached`: with nginx's own cache; the stack needs "nginx_cache"."""
    shipped = (ROOT / "nginx" / "taskproxy.conf").read_text().replace("fastcgi_pass taskproxy;", passes)
    shipped += (ROOT / "nginx" / "taskproxy-cache.conf").read_text() if cached else ""
    return f"server {{\nlisten 127.0.0.1:{port} backlog=4096;\nkeepalive_timeout 1h;\n{more}\n{shipped}}}\n"


def free_port() -> int:
    """A free port. Benchmarks run alone, so no other program takes it before nginx does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def worker(stack: Stack) -> int:
    (pid,) = stack.daemon.workers()
    return pid


def nginx_worker(stack: Stack) -> int:
    return children_of(stack.nginx.pid)[0]


def cpu_us(pid: int) -> float:
    """The CPU time of the process so far, in microseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def resident_mib(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def private_kib(pid: int) -> int:
    """The private memory: what the system would free without the process."""
    return int(re.search(r"Private_Dirty:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])


def machine_ticks() -> tuple:
    """Idle ticks and all ticks of all cores since boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def settle(seconds: float = 1) -> None:
    """Waits until the machine is idle, but no longer than this."""
    start = machine_ticks()

    def quiet():
        nonlocal start
        idle, total = (now - then for now, then in zip(machine_ticks(), start))
        if total < WINDOW_TICKS:
            return False
        start = machine_ticks()
        return idle >= 0.9 * total

    with contextlib.suppress(TimeoutError):
        wait_until(quiet, seconds)


@contextlib.contextmanager
def nginx_folder(parent: str = "/tmp"):
    """A directory accessible to nginx, for sockets of floor programs, or in memory, for nginx's caches."""
    with tempfile.TemporaryDirectory(prefix="tp-", dir=parent) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def cgi_answer(headers: dict, body: bytes) -> bytes:
    """The answer as a CGI program writes it."""
    lines = ["Status: 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


# The default answer of the floor.
KIB = cgi_answer({"Content-Type": "text/plain", "Content-Length": "1024"}, b"x" * 1024)


class Floor:
    """Runs floor.c on a socket with this answer."""

    def __init__(self, socket: Path, answer: bytes, delay_ms: int = 0):
        file = socket.with_suffix(".answer")
        file.write_bytes(answer)
        command = [PROGRAMS / "floor", socket, file, str(delay_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.requests = 0  # set by stop()
        wait_until(socket.exists, what=f"the floor program at {socket}")

    def stop(self) -> None:
        self.requests = int(self._process.communicate()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def wrk(url: str, *more: str) -> tuple:
    """Runs wrk for one second with 64 connections; returns the number of answered requests and the seconds."""
    done = subprocess.run(["wrk", "-t1", "-c64", "-d1s", *more, url], stdout=subprocess.PIPE, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk {url}:\n{done.stdout}")
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s,", done.stdout).groups()
    return int(requests), float(seconds)


def ask(port: int, connections: int, paths: list, *header: str, warm: str = "/warm") -> list:
    """Requests each of the paths with ask.c; returns the milliseconds of each answer."""
    done = subprocess.run([PROGRAMS / "ask", str(port), str(connections), warm, *header], input="\n".join(paths),
                          stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


@dataclass
class Seen:
    """An answer, or an event of a stream, read by a client of follow.c. Times are unix times, in seconds."""

    client: int
    due: float  # scheduled time of its request
    at: float  # time when it had been read
    status: int
    says: str  # the progress, or "ended"


def follow(port: int, manner: str, seconds: float, paths: list, period: float = 1, header: tuple = ()) -> list:
    """Runs follow.c with one client for each path, for this long or until the tasks have ended; returns what they read."""
    command = [PROGRAMS / "follow", str(port), manner, str(seconds), str(1000 * period), *header]
    done = subprocess.run(command, input="\n".join(paths), stdout=subprocess.PIPE, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return [Seen(int(client), float(due) / 1000, float(at) / 1000, int(status), says) for client, due, at, status, says in lines]


def percentile(values, part: float) -> float:
    """The smallest value that is not exceeded by this percentage of the values; NaN if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)] if ordered else math.nan


class Table:
    """The results of one figure, and whether its targets are met."""

    def __init__(self, title: str, *columns: str):
        self.good = True
        self._title = title
        self._rows = [("", *columns)] if columns else []
        self._verdicts = []

    def row(self, name: str, *values: str) -> None:
        self._rows.append((name, *values))

    def note(self, text: str) -> None:
        self._verdicts.append(f"   {text}")

    def hold(self, what: str, good: bool) -> None:
        self.good = self.good and good
        self._verdicts.append(f"   {'holds' if good else 'DOES NOT HOLD'}: {what}")

    def print(self) -> None:
        widths = [max(map(len, column)) for column in zip(*self._rows)]
        lines = [self._title, ""]
        for name, *values in self._rows:
            cells = [value.rjust(width) for value, width in zip(values, widths[1:])]
            lines.append("   ".join(["  ", name.ljust(widths[0]), *cells]).rstrip())
        print("\n".join([*lines, *self._verdicts, ""]), flush=True)
