"""Tools for the measurements, and the table that each is printed as."""

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
    """What all figures have in common: one worker of the plain build behind one nginx process, nothing logged."""
    settings["config"] = {"workers": 1, **settings.get("config", {})}
    settings.setdefault("binary", ROOT / "build" / "taskproxy")
    return Stack(nginx_processes=1, access_log=False, http=http, **settings)


def server(port: int, passes: str = "fastcgi_pass taskproxy;", more: str = "") -> str:
    """A server of nginx's with the shipped locations. `passes` stands where requests are passed on to taskproxy, so who
    answers in its place is reached in the very same way."""
    shipped = (ROOT / "nginx" / "taskproxy.conf").read_text().replace("fastcgi_pass taskproxy;", passes)
    return f"server {{\nlisten 127.0.0.1:{port} backlog=4096;\nkeepalive_timeout 1h;\n{more}\n{shipped}}}\n"


def free_port() -> int:
    """A port that is free now. Benchmarks run alone, so nothing else takes it before nginx does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def worker(stack: Stack) -> int:
    (pid,) = stack.daemon.workers()
    return pid


def nginx_worker(stack: Stack) -> int:
    return children_of(stack.nginx.pid)[0]


def cpu_us(pid: int) -> float:
    """Microseconds that the process has had of a core until now."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def resident_mib(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def private_kib(pid: int) -> int:
    """What nobody else has: the memory that would be free without the process."""
    return int(re.search(r"Private_Dirty:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])


def machine_ticks() -> tuple:
    """Idle ticks and all ticks of all cores since the machine was started."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def settle(seconds: float = 1) -> None:
    """Waits for a moment in which the machine has nothing else to do; so long at most, for it may never come."""
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
def socket_folder():
    """A folder for the sockets of floor programs, which nginx may enter."""
    with tempfile.TemporaryDirectory(prefix="tp-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def cgi_answer(headers: dict, body: bytes) -> bytes:
    """As a CGI program writes it."""
    lines = ["Status: 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


# What the floor answers unless it is to answer as somebody else does.
KIB = cgi_answer({"Content-Type": "text/plain", "Content-Length": "1024"}, b"x" * 1024)


class Floor:
    """floor.c at work on a socket, with an answer to give."""

    def __init__(self, socket: Path, answer: bytes, delay_ms: int = 0):
        file = socket.with_suffix(".answer")
        file.write_bytes(answer)
        command = [PROGRAMS / "floor", socket, file, str(delay_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.requests = 0  # that it has taken, known once it has stopped
        wait_until(socket.exists, what=f"the floor program at {socket}")

    def stop(self) -> None:
        self.requests = int(self._process.communicate()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def wrk(url: str, *more: str) -> tuple:
    """A second of wrk over 64 connections: how many requests were answered, in how many seconds."""
    done = subprocess.run(["wrk", "-t1", "-c64", "-d1s", *more, url], stdout=subprocess.PIPE, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk {url}:\n{done.stdout}")
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s,", done.stdout).groups()
    return int(requests), float(seconds)


def ask(port: int, connections: int, paths: list) -> list:
    """Asks for each of the paths with ask.c: the milliseconds that each answer took."""
    done = subprocess.run([PROGRAMS / "ask", str(port), str(connections), "/warm"], input="\n".join(paths),
                          stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


@dataclass
class Seen:
    """An answer, or an event of a stream, that a client of follow.c has read. Unix times, in seconds."""

    client: int
    due: float  # when its question was to be put
    at: float  # when it had been read
    status: int
    says: str  # the progress, or "ended"


def follow(port: int, manner: str, seconds: float, paths: list, period: float = 1) -> list:
    """Clients of follow.c, one for each of the paths, for so long or until their tasks have ended: what they saw."""
    command = [PROGRAMS / "follow", str(port), manner, str(seconds), str(1000 * period)]
    done = subprocess.run(command, input="\n".join(paths), stdout=subprocess.PIPE, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return [Seen(int(client), float(due) / 1000, float(at) / 1000, int(status), says) for client, due, at, status, says in lines]


def percentile(values, part: float) -> float:
    """The least of the values that so many percent of them do not exceed; not a number when there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)] if ordered else math.nan


class Table:
    """The lines of one figure, and whether what is to hold does."""

    def __init__(self, title: str, *columns: str):
        self.good = True
        self._title = title
        self._rows = [("", *columns)] if columns else []
        self._verdicts = []

    def row(self, name: str, *values: str) -> None:
        self._rows.append((name, *values))

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
