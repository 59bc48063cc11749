"""Reloads and upgrades under load: the number of failed requests, at a constant rate and held."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from measure import Table, bench_stack, follow, free_port, percentile, server, settle
from parts import ROOT, wait_until

CLIENTS, PERIOD = 500, 0.1  # 5,000 requests/s
HELD = 1_000
TASKS = 100
RELOADS, UPGRADES = 50, 5
GOOD = (200, 304)


def lay_anew(binary: Path) -> int:
    """Replaces the daemon's program with a copy of itself; returns the inode of the copy."""
    new = binary.with_suffix(".new")
    shutil.copy(ROOT / "build" / "taskproxy", new)
    os.replace(new, binary)
    return binary.stat().st_ino


def reload_all(stack, binary: Path) -> float:
    """Does all reloads, some of them upgrades; returns the seconds that they took."""
    begun = time.monotonic()
    for number in range(RELOADS + UPGRADES):
        program = lay_anew(binary) if number % (RELOADS // UPGRADES + 1) == RELOADS // UPGRADES else None
        stack.daemon.reload(wait_for_old=False)
        if program:
            wait_until(lambda: Path(f"/proc/{stack.daemon.pid}/exe").stat().st_ino == program, what="the upgrade")
        stack.wait_metric("workers_ready", stack.config["workers"])
    return time.monotonic() - begun


def measure(seconds: float) -> Table:
    """`seconds` is the duration of the load, which must be longer than the reloads take."""
    port = free_port()
    hits = [f"/sora/v1/videos/hit_{number % TASKS}" for number in range(CLIENTS)]
    held = [f"/sora/v1/videos/held_{number % TASKS}" for number in range(HELD)]
    with tempfile.TemporaryDirectory(prefix="tp-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        binary = Path(folder) / "taskproxy"
        shutil.copy(ROOT / "build" / "taskproxy", binary)
        with bench_stack(server(port), binary=binary, config={"workers": 2}) as stack:
            stack.standin.switch(state="IN_PROGRESS", progress="50%")
            for number in range(TASKS):
                stack.standin.switch(f"hit_{number}", state="SUCCESS")
            follow(port, "ask", 1, hits, PERIOD)
            settle()
            going = [stack.background(follow, port, "ask", seconds, hits, PERIOD),
                     stack.background(follow, port, "wait", seconds, held)]
            stack.wait_metric("waiters", HELD)
            took = reload_all(stack, binary)
            late = any(each.done() for each in going)
            asked, waited = (each.result() for each in going)
    return tell(asked, waited, took, late)


def tell(asked: list, waited: list, took: float, late: bool) -> Table:
    table = Table(f"{RELOADS} reloads and {UPGRADES} upgrades in {took:.0f} s, under load", "answers", "failed", "p50 ms", "p99 ms", "longest ms")
    for name, seen in ((f"{CLIENTS / PERIOD:,.0f} hits/s", asked), (f"{HELD:,} held requests", waited)):
        times = [1000 * (one.at - one.due) for one in seen] if seen is asked else []
        row = [f"{percentile(times, 50):.1f}", f"{percentile(times, 99):.1f}", f"{max(times):.0f}"] if times else ["", "", ""]
        table.row(name, f"{len(seen):,}", str(failures(seen)), *row)
    table.hold(f"{failures(asked) + failures(waited)} failed", failures(asked) + failures(waited) == 0)
    table.hold("the load lasted longer than the reloads", not late)
    return table


def failures(seen: list) -> int:
    return sum(one.status not in GOOD for one in seen)
