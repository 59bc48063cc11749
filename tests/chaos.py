#!/usr/bin/python3
"""`make chaos`, after the build: breaks parts of a running stack at random while 100 clients follow 50 tasks.

Checked: clients get only documented answers, in time, and each learns that its task has ended. Checked at the end: the
upstream has received one query per task and interval, or at most four while workers could not know of each other's queries;
no file but the key file contains a key; no request, query or descriptor of the master is left over.

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
QUERIES_MEANWHILE = 4  # at most, for a task and interval: by two workers, and two of the generation before a reload
GAUGES = ("waiters", "streams", "watched_tasks", "team_held_requests", "unsent_bytes", "fetches", "upstream_in_flight")  # 0 at the end


class Chaos:
    """One run. After run(), `findings` has a line for each violation, and report() the figures."""

    def __init__(self, seed: int, seconds: float):
        self.seed, self.seconds = seed, seconds
        self.findings = []
        self.stack = make_stack()
        self.faults = chaos_faults.Faults(self.stack, seed, seconds)
        self.clients = None
        self._judged = [0, 0]  # intervals while workers knew of each other's queries, and others

    def run(self) -> list:
        with self.stack:
            self.stack.standin.reset_counts(keep=None)
            self.stack.wait_metric("redis_up", self.stack.config["workers"])
            descriptors = count_descriptors(self.stack.daemon.pid)
            self.clients = chaos_clients.Clients(self.stack, teaming.TOKENS, self.faults.keys, self.seed)
            asyncio.run(self._break_and_follow())
            self.findings += self.clients.findings
            self.findings += left_over(self.stack, descriptors)
            self._check_queries()
            self._check_keys()
        return self.findings

    async def _break_and_follow(self) -> None:
        following = asyncio.ensure_future(self.clients.follow(self.seconds))
        reading = asyncio.ensure_future(self._read_log())
        await asyncio.gather(*(asyncio.to_thread(self.faults.run, part) for part in chaos_faults.PARTS))
        await asyncio.wait([following], timeout=CALM_SECONDS)
        if not following.done():
            self.findings += [f"{client} does not learn of the end of {task}" for client, task in self.clients.waiting.items()]
            following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        reading.cancel()

    async def _read_log(self) -> None:
        """On a busy machine, workers also lose Redis, or are killed because they do not respond, when nothing is broken."""
        with open(self.stack.daemon.log_path, encoding="utf-8") as log:
            while True:
                if any(map(APART.search, log.readlines())):
                    self.faults.add_apart(time.time() - BEFORE_LINE, time.time())
                await asyncio.sleep(0.1)

    def _check_queries(self) -> None:
        """Ignores queries that their worker abandoned, and could repeat, before the stand-in read them."""
        times = {}
        for query in self.stack.standin.seen():
            if not query.abandoned:
                times.setdefault((query.task_id, query.headers.get("authorization")), []).append(query.at)
        for (task, _), sent in times.items():
            for early, late in zip(sent, sent[1:]):
                apart = self.faults.were_apart(late, AFTER_FAULT)
                self._judged[apart] += 1
                if late - early < INTERVAL - EARLY and not apart:
                    self.findings.append(f"{task}: queries {late - early:.2f} s apart, at {late - self.faults.began:.2f} s")
            for first, last in zip(sent, sent[QUERIES_MEANWHILE:]):
                if last - first < INTERVAL - EARLY:
                    self.findings.append(f"{task}: {QUERIES_MEANWHILE + 1} queries within {last - first:.2f} s")

    def _check_keys(self) -> None:
        keys = [key.encode() for key in self.faults.keys]
        for path in self.stack.folder.rglob("*"):
            if path.is_file() and path != self.stack.key_file and any(key in path.read_bytes() for key in keys):
                self.findings.append(f"{path.relative_to(self.stack.folder)} contains an API key")

    def report(self) -> str:
        together, apart = self._judged
        return "\n".join([
            f"  {self.faults.summary()}",
            f"  {self.clients.summary()}",
            f"  {self.stack.standin.count():,} queries at the upstream; {together} of {together + apart} intervals had to be complete",
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


def count_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def main() -> int:
    minutes = float(os.environ.get("MINUTES") or 2)
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    print(f"chaos: {minutes:g} minutes; SEED={seed} repeats the faults", flush=True)
    chaos = Chaos(seed, 60 * minutes)
    findings = chaos.run()
    print(chaos.report())
    for finding in findings[:50]:
        print(f"  FOUND: {finding}")
    print(f"chaos: seed {seed}: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
