"""The capacity table: how much a load takes, computed from measured figures. See conf/production.md, "Capacity"."""

import json
from dataclasses import dataclass
from math import ceil

from parts import ROOT

FIGURES = ROOT / "conf" / "figures"
PEAK = 5  # times the average of a day
BUSY = 0.5  # of a core at the peak: the other half is for reloads, and for the failure of a host
LIFE = 120  # seconds that a task takes at the upstream
POLL_MIN, POLL_MAX, POLL_GROWTH = 2, 15, 8  # seconds; "poll" of sora.json, and the divisor of a task's age
DAY = 86400


@dataclass
class Load:
    """Tasks and polls a day."""

    tasks: int
    polls: int


LOADS = (Load(1_000_000, 50_000_000), Load(100_000_000, 5_000_000_000))


def queries_per_task() -> int:
    """Of one that is polled all the time: the interval grows with its age."""
    age, queries = 0.0, 1
    while age < LIFE:
        age += max(POLL_MIN, min(age / POLL_GROWTH, POLL_MAX))
        queries += 1
    return queries


def measured() -> dict:
    return json.loads((FIGURES / "growth.json").read_text())


def cores(load: Load, us: float) -> int:
    """The cores that requests with this CPU time need at the peak."""
    return ceil(peak(load) * us / 1e6 / BUSY)


def peak(load: Load) -> float:
    return PEAK * load.polls / DAY


def gib(kib: float) -> str:
    return f"{kib / 2**20:,.0f} GiB"


def columns(load: Load, figures: dict) -> list:
    """The cells of one load, in the order of ROWS."""
    most = min(queries_per_task() * load.tasks, load.polls)  # no query without a poll
    running = load.tasks * LIFE / DAY * PEAK
    return [
        f"{load.polls / DAY:,.0f}", f"{peak(load):,.0f}",
        f"{cores(load, figures['connections']['worker_us']):,}", f"{cores(load, figures['connections']['nginx_us']):,}",
        gib(load.tasks * figures["tasks"]["redis_kib"]), f"{running:,.0f}",
        f"{queries_per_task()}", f"{most / DAY:,.0f}", f"{PEAK * most / DAY:,.0f}", f"{load.polls / most:.1f}",
    ]


ROWS = ("polls/s, average", f"polls/s, peak ({PEAK} times the average)", "workers, one core each", "cores for nginx",
        "Redis, for 24 h (`terminal_ttl`)", "running tasks, peak", "upstream queries per task", "upstream queries/s, average",
        "upstream queries/s, peak", "polls per upstream query")


def table() -> str:
    """As Markdown."""
    figures = measured()
    heads = [f"{load.tasks / 1e6:,.0f} M tasks and {load.polls / 1e6:,.0f} M polls a day" for load in LOADS]
    cells = zip(ROWS, *(columns(load, figures) for load in LOADS))
    lines = [["what", *heads], ["---", *["---:"] * len(heads)], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sentences() -> str:
    figures = measured()
    connections = figures["connections"]
    return (f"Measured on {figures['cores']} cores, for answers of 4 KiB: {connections['worker_us']:.0f} µs of a worker's and "
            f"{connections['nginx_us']:.0f} µs of nginx's CPU time per poll, {figures['tasks']['redis_kib']:.1f} KiB of Redis per finished "
            f"task, and {figures['held']['kib']:.0f} KiB of a worker per held request.\n")


if __name__ == "__main__":
    print(sentences() + "\n" + table(), end="")
