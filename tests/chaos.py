#!/usr/bin/python3
"""`make chaos`, after the build: breaks parts of a running stack at random while 100 clients follow 50 tasks.

The clients check that they get only documented answers, in time, and learn that each task has ended. At the end, the program
checks that the upstream has received one query per task and interval (one from each worker while the workers could not see each
other's queries), that only the key file contains a key, that no request or query remains, and that the master has no more
descriptors than at the start.

MINUTES=2    how long
SEED=        repeats the faults of the run that printed it; default: a random one
"""

import asyncio
import contextlib
import os
import re
import secrets
import sys
import time
from pathlib import Path

import chaos_clients
import chaos_faults
import parts
import stack

sys.path.append(str(parts.ROOT / "tests" / "scenario"))
import teaming

CALM_SECONDS = 60  # for all clients to learn of the ends once nothing is broken any more
INTERVAL = 1.0  # seconds between two queries for a task
EARLY = 0.4  # seconds by which queries may be too close: workers measure from the start of an iteration of their loop
AFTER_FAULT = 3.0  # seconds until workers know of each other's queries again
APART = re.compile("Redis at .*(unavailable|rejected|again)|exited on signal|unresponsive")  # log lines
BEFORE_LINE = 1.0  # seconds from such an event until its line is read; Redis replies later than its time-out
GAUGES = ("waiters", "streams", "watched_tasks", "team_held_requests", "unsent_bytes", "fetches", "upstream_in_flight")  # 0 at the end


class Chaos:
    """One run. After run(), `findings` has a line for each violation, and report() the figures."""

    def __init__(self, seed: int, seconds: float):
        self.seed, self.seconds = seed, seconds
        self.findings = []
        self.stack = make_stack()
        self.faults = chaos_faults.Faults(self.stack, seed, seconds)
        self.clients = None
        self._owners = {}  # {port: [(time, worker)]}: connections to the upstream
        self._intervals = [0, 0]  # between queries: ignored, and checked

    def run(self) -> list:
        with self.stack:
            self.stack.standin.reset_counts(keep=None)
            self.stack.wait_metric("redis_up", self.stack.config["workers"])
            descriptors = count_descriptors(self.stack.daemon.pid)
            self.clients = chaos_clients.Clients(self.stack, teaming.written_tokens(), self.faults.keys, self.seed)
            asyncio.run(self._break_and_follow())
            self.findings += self.clients.findings
            self.findings += left_over(self.stack, descriptors)
            self._check_queries()
            self._check_keys()
        return self.findings

    async def _break_and_follow(self) -> None:
        following = asyncio.ensure_future(self.clients.follow(self.seconds))
        watching = [asyncio.ensure_future(watch) for watch in (self._read_log(), self._find_owners())]
        await asyncio.gather(*(asyncio.to_thread(self.faults.run, part) for part in chaos_faults.PARTS))
        await asyncio.wait([following], timeout=CALM_SECONDS)
        if not following.done():
            self.findings += [f"{client} does not learn of the end of {task}" for client, task in self.clients.waiting.items()]
            following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        for watch in watching:
            watch.cancel()

    async def _read_log(self) -> None:
        """On a busy machine, workers also lose Redis, or are killed because they do not respond, when nothing is broken."""
        with open(self.stack.daemon.log_path, encoding="utf-8") as log:
            while True:
                if any(map(APART.search, log.readlines())):
                    self.faults.add_apart(time.time() - BEFORE_LINE, time.time())
                await asyncio.sleep(0.1)

    async def _find_owners(self) -> None:
        while True:
            for port, pid in connections(self.stack.daemon.workers(), self.stack.standin.port):
                self._owners.setdefault(port, []).append((time.time(), pid))
            await asyncio.sleep(0.2)

    def _check_queries(self) -> None:
        """Ignores queries that a worker may repeat at once: those whose connection breaks, those with a rejected key, and those
        that it abandoned before the stand-in read them. Another worker may also repeat those that it abandoned later, and those
        with a 429, which pauses the key in one worker."""
        by_task, by_worker = {}, {}
        for query in self.stack.standin.seen():
            name = (query.task_id, query.headers.get("authorization"))
            if not query.answer.startswith(("200", "429", "500")) or query.closed == query.at:
                continue
            abandoned = query.closed and query.closed <= query.at + chaos_clients.TIMEOUT + EARLY
            if not abandoned and not query.answer.startswith("429"):
                by_task.setdefault(name, []).append(query)
            by_worker.setdefault((*name, self._owner(query)), []).append(query)
        for queries in by_task.values():
            self._check_intervals(queries, "two workers", lambda query: not self.faults.were_apart(query.at, AFTER_FAULT))
        for (*_, pid), queries in by_worker.items():
            self._check_intervals(queries, f"process {pid}", lambda _, pid=pid: pid is not None)

    def _owner(self, query) -> int | None:
        """The worker that has sent it; None if its connection was never found."""
        found = [(abs(at - query.at), pid) for at, pid in self._owners.get(query.port, [])]
        return min(found)[1] if found else None

    def _check_intervals(self, queries: list, whose: str, counts) -> None:
        for early, late in zip(queries, queries[1:]):
            self._intervals[counts(late)] += 1
            if counts(late) and late.at - early.at < INTERVAL - EARLY:
                self.findings.append(f"{late.task_id}: {late.at - early.at:.2f} s between queries of {whose}, "
                                     f"at {late.at - self.faults.began:.2f} s")

    def _check_keys(self) -> None:
        keys = [key.encode() for key in self.faults.keys]
        for path in self.stack.folder.rglob("*"):
            if path.is_file() and path != self.stack.key_file and any(key in path.read_bytes() for key in keys):
                self.findings.append(f"{path.relative_to(self.stack.folder)} contains an API key")

    def report(self) -> str:
        ignored, checked = self._intervals
        return "\n".join([
            f"  {self.faults.summary()}",
            f"  {self.clients.summary()}",
            f"  {self.stack.standin.count():,} queries at the upstream, {checked} intervals checked, {ignored} ignored",
        ])


def make_stack() -> stack.Stack:
    """Two workers, two teams, short time-outs; the shipped settings otherwise."""
    made = stack.Stack(
        clock=True, task_seconds=5,
        providers={"sora": {"poll": {"min": f"{INTERVAL:.0f}s", "max": f"{INTERVAL:.0f}s"}}},
        config={
            "access": {"mode": "teams", "teams_file": "teams.json"}, "hung_after": f"{chaos_clients.HUNG_AFTER}s",
            "upstreams": {"main": {"connect_timeout": "1s", "timeout": f"{chaos_clients.TIMEOUT}s", "breaker_pause": "1s"}},
            "redis": {"timeout": "500ms"},
        })
    made.standin.time = time.time  # steps of the program's clock do not end tasks
    teaming.write_teams(made)
    return made


def left_over(running: stack.Stack, descriptors: int) -> list:
    """Findings, if clients that have gone have left anything, or the master has more than that many descriptors."""
    calm = {gauge: lambda gauge=gauge: running.metric(gauge) == 0 for gauge in GAUGES}
    calm["workers"] = lambda: len(running.daemon.workers()) == running.config["workers"]
    calm["descriptors of the master"] = lambda: count_descriptors(running.daemon.pid) <= descriptors
    findings = []
    for what, condition in calm.items():
        try:
            parts.wait_until(condition, what=what)
        except TimeoutError:
            findings.append(f"{what}: not as before the run")
    return findings


def connections(pids: list, port: int) -> list:
    """The connections of the processes to that port of 127.0.0.1: (local port, pid)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    local = {f"socket:[{row[9]}]": int(row[1].partition(":")[2], 16) for row in rows if row[2] == f"0100007F:{port:04X}"}
    return [(local[name], pid) for pid in pids for name in parts.open_files(pid).values() if name in local]


def count_descriptors(pid: int) -> int:
    return len(parts.open_files(pid))


def main() -> int:
    minutes = float(os.environ.get("MINUTES") or 2)
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    print(f"chaos: {minutes:g} minutes; SEED={seed} repeats the faults", flush=True)
    chaos = Chaos(seed, 60 * minutes)
    findings = chaos.run()
    return judge(f"chaos: seed {seed}", chaos.report(), findings)


def judge(what: str, report: str, findings: list) -> int:
    """Prints the report and the findings; returns the exit status."""
    print(report)
    for finding in findings[:50]:
        print(f"  FOUND: {finding}")
    print(f"{what}: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
