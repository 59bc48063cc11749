#!/usr/bin/python3
"""`make soak`, after the build: 100,000 tasks an hour through small caches; answers stay right, memory and descriptors flat.

The optimized build runs, because the allocator of the sanitizers hides growth. It has two workers, whose caches hold some
thousand tasks (fewer in runs of less than an hour), two teams, nginx, and a Redis that evicts. The run has sixteen sections,
and rests after each until all tasks have ended. Reloads and rotations replace the workers, so they are made only in the first
four sections, while the clients are busy, and after the last one.

Memory (RssAnon) and descriptors are measured at the rests, because the load changes them at other times; the connections that
nginx and the workers keep are subtracted from the sum of the descriptors. The lowest values of sections 5 to 8 are compared
with those of sections 13 to 16: all processes together may gain 8 descriptors, and each process 3 MiB, plus 64 KiB for each
descriptor by which its peak has risen, because when the machine becomes busier, a process serves more requests at a time, and
its allocator keeps the memory. No process may be replaced after section 4. Reloads and rotations after the end may add 0.5 MiB
to the master. At each rest, nothing of a client may be left, the master may have no more descriptors than at the start, and the
caches must be within their limits. Tasks that have ended must not change, and the log must contain no warning.

HOURS=1      how long
"""

import asyncio
import contextlib
import os
import re
import secrets
import sys
from pathlib import Path
from typing import NamedTuple

import chaos
import parts
import soak_clients
import stack
import teaming

TASKS_PER_HOUR = 100_000
TASK_SECONDS = 1.5
CACHE_MIB = 8  # of a worker, in a run of an hour; at least 1
SECTIONS, RENEWED_SECTIONS = 16, 4
RENEWALS, RENEWALS_AFTER = 3, 18  # reloads and rotations in each of those sections, and after the last one
SAMPLE_SECONDS = 2.0
MAX_MORE_MIB, MAX_MORE_DESCRIPTORS = 3.0, 8
MIB_PER_DESCRIPTOR = 1 / 16
MAX_MORE_MIB_OF_MASTER = 0.5
TOGETHER = "together"  # without kept connections


class Usage(NamedTuple):
    """What one process uses."""

    pid: int
    mib: float
    descriptors: int
    peak: int = 0  # the most descriptors in a sample so far


class Soak:
    """One run. After run(), `findings` has a line for each violation, and report() the figures."""

    def __init__(self, hours: float):
        self.findings = []
        self._tasks, self._seconds = round(TASKS_PER_HOUR * hours / SECTIONS), 3600 * hours / SECTIONS  # of a section
        self._cache_mib = round(max(1, CACHE_MIB * min(hours, 1)))
        self._rests = []  # {process: Usage}
        self._highest = {}  # {process: Usage}, each value separately
        self._descriptors = None  # of the master at the start
        self.stack = make_stack(self._cache_mib)
        self.renewals = Renewals(self.stack)
        self.clients = soak_clients.Clients(self.stack, teaming.written_tokens(), self.renewals.keys, 0)

    def run(self) -> list:
        with self.stack:
            self.stack.redis.cli("CONFIG", "SET", "maxmemory", f"{4 * self._cache_mib}mb", "maxmemory-policy", "allkeys-lru")
            self.stack.wait_metric("redis_up", self.stack.config["workers"])
            self._descriptors = chaos.count_descriptors(self.stack.daemon.pid)
            asyncio.run(self._soak())
            self.findings += self.clients.findings
            self.findings += growth(self._rests)
            self._renew_master()
            self.findings += [line for line in self.stack.daemon.log().splitlines() if re.search(" (warn|error) ", line)]
        return self.findings

    async def _soak(self) -> None:
        for section in range(SECTIONS):
            sampling = asyncio.create_task(self._sample())
            async with asyncio.TaskGroup() as group:
                group.create_task(self.clients.follow(self._tasks, self._seconds))
                if section < RENEWED_SECTIONS:
                    group.create_task(self._renew())
            sampling.cancel()
            self._rest()
            print(f"  {self._progress()}", flush=True)

    async def _renew(self) -> None:
        for _ in range(RENEWALS):
            await asyncio.gather(asyncio.to_thread(self.renewals.renew), asyncio.sleep(self._seconds / (RENEWALS + 1)))

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(OSError, LookupError):  # a process is being replaced
                for name, use in usage(self.stack).items():
                    self._highest[name] = Usage(*map(max, use, self._highest.get(name, use)))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _rest(self) -> None:
        self.findings += chaos.left_over(self.stack, self._descriptors)
        mib = self.stack.metric("cache_bytes") / 2**20
        if mib > self._cache_mib * self.stack.config["workers"]:
            self.findings.append(f"the caches contain {mib:.1f} MiB")
        used = {name: use._replace(peak=self._highest[name].descriptors) for name, use in usage(self.stack).items()}
        self._rests.append(used | {TOGETHER: usage_together(self.stack)})

    def _renew_master(self) -> None:
        for _ in range(RENEWALS_AFTER):
            self.renewals.renew()
        self._rest()
        before, after = self._rests[-2]["master"].mib, self._rests[-1]["master"].mib
        if after > before + MAX_MORE_MIB_OF_MASTER:
            self.findings.append(f"master: {RENEWALS_AFTER} reloads and rotations have added {after - before:.1f} MiB")

    def _progress(self) -> str:
        uses = ", ".join(f"{name} {use.mib:.1f} MiB {use.descriptors}" for name, use in self._rests[-1].items())
        return f"{self.clients.started:7,} tasks, {len(self.findings + self.clients.findings)} findings; {uses}"

    def report(self) -> str:
        return "\n".join([
            f"  {self.clients.summary()}",
            f"  {self.stack.standin.count():,} queries at the upstream; {self.renewals.count} reloads and rotations",
            *table(self._rests, self._highest),
        ])


class Renewals:
    """Reloads, and rotations of the key and the teams file, in turn."""

    def __init__(self, running: stack.Stack):
        self.count = 0
        self.keys = [running.key]
        self._stack = running

    def renew(self) -> None:
        """Returns when the old workers have exited."""
        daemon = self._stack.daemon
        old = set(daemon.workers())
        (daemon.hup, self._rotate_key, self._rotate_teams)[self.count % 3]()
        self.count += 1
        parts.wait_until(lambda: len(set(daemon.workers()) - old) >= len(old), what="new workers")
        parts.wait_until(lambda: not old & set(daemon.workers()), what="the exit of the old workers")

    def _rotate_key(self) -> None:
        """Until the next rotation, the upstream also accepts the old key."""
        self.keys.append(f"sk-{secrets.token_hex(16)}")
        self._stack.standin.keys = set(self.keys[-2:])
        self._stack.write_key(self.keys[-1])

    def _rotate_teams(self) -> None:
        token = teaming.digest(secrets.token_hex(16))
        teaming.write_teams(self._stack, {f"team-{self.count}": {"providers": ["sora"], "token_sha256": [token]}})


def make_stack(cache_mib: int) -> stack.Stack:
    made = stack.Stack(
        binary=stack.ROOT / "build/taskproxy", task_seconds=TASK_SECONDS, access_log=False,
        providers={"sora": {"poll": {"min": "1s", "max": "1s"}}},
        config={"access": {"mode": "teams", "teams_file": "teams.json"}, "cache": {"memory": f"{cache_mib}MiB"}})
    teaming.write_teams(made)
    return made


# Memory and descriptors


def usage(running: stack.Stack) -> dict:
    """The processes by name, without those that a reload has replaced."""
    pids = {"master": running.daemon.pid, "status server": running.daemon.status_servers()[-1]}
    pids |= {f"worker {number}": pid for number, pid in enumerate(running.daemon.workers()[-running.config["workers"]:])}
    pids |= {"nginx worker": parts.children_of(running.nginx.pid)[0]}
    return {name: process_usage(pid) for name, pid in pids.items()}


def process_usage(pid: int) -> Usage:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Usage(pid, int(fields["RssAnon"].split()[0]) / 1024, chaos.count_descriptors(pid))


def usage_together(running: stack.Stack) -> Usage:
    """The sums, without the connections that nginx keeps to the workers, and the workers to the upstream."""
    kept = 2 * int(running.metric("connections")) + running.standin.counts()["open"]
    used = usage(running).values()
    return Usage(0, sum(use.mib for use in used), sum(use.descriptors for use in used) - kept)


def growth(rests: list) -> list:
    """Findings: processes that have grown from the second quarter of the sections to the last one, or were replaced."""
    quarter = SECTIONS // 4
    early, late, kept = rests[quarter:2 * quarter], rests[-quarter:], rests[quarter - 1:]

    def grown(name: str, field: str, limit: float) -> list:
        before, after = (min(getattr(rest[name], field) for rest in few) for few in (early, late))
        return [f"{name}: {field} have grown from {before:g} to {after:g}"] if after > before + limit else []

    findings = grown(TOGETHER, "descriptors", MAX_MORE_DESCRIPTORS)
    for name in late[0].keys() - {TOGETHER}:
        busier = late[-1][name].peak - early[-1][name].peak
        findings += grown(name, "mib", MAX_MORE_MIB + MIB_PER_DESCRIPTOR * busier)
        if len({rest[name].pid for rest in kept}) > 1:
            findings.append(f"{name} was replaced without a reload")
    return findings


def table(rests: list, highest: dict) -> list:
    """Lines: what each process used at some of the rests, and at most."""
    shown = [number * SECTIONS // 8 for number in (1, 2, 3, 4, 5, 6, 7, 8)]
    heads = "".join(f"{number:7}" for number in shown)
    lines = []
    for title, field, form in (("MiB", "mib", "7.1f"), ("descriptors", "descriptors", "7")):
        lines.append(f"  {title + ' at rest':22}{heads}   highest")
        for name in rests[0]:
            values = "".join(f"{getattr(rests[number - 1][name], field):{form}}" for number in shown)
            most = f"   {getattr(highest[name], field):{form}}" if name in highest else ""
            lines.append(f"    {name:20}{values}{most}")
    return lines


def main() -> int:
    hours = float(os.environ.get("HOURS") or 1)
    print(f"soak: {hours:g} hours", flush=True)
    soak = Soak(hours)
    findings = soak.run()
    return chaos.judge("soak", soak.report(), findings)


if __name__ == "__main__":
    sys.exit(main())
