#!/usr/bin/python3
"""`make bench`: measures taskproxy, side by side with reference programs. Exits with 1 if a figure misses its target.

BENCH lists the figures to measure, as in BENCH="hits fanout". The default is all but "peers" and "growth", which need
further packages and several minutes. BENCH_SECONDS is the duration of the measurement of hits (default 20) and the maximum of the other ones. With
BENCH_QUICK=1, "peers" and "growth" only show that they work.
"""

import os
import shutil
import sys

import fanout
import frozen
import growth
import held
import herd
import hits
import hosts
import isolation
import memory
import peers
import polled
import reload
import teams
import views
from measure import PROGRAMS

HERDS = 7
ON_DEMAND = {"peers", "growth"}  # measured only if BENCH names them
NEEDED = ("wrk", "nginx", "redis-server", *(PROGRAMS / name for name in ("floor", "ask", "follow", "libfcgi", "views", "tokens")))


def seconds(default: int, most: int | None = None) -> int:
    chosen = int(os.environ.get("BENCH_SECONDS") or default)
    return min(chosen, most or chosen)


FIGURES = {
    "hits": lambda: hits.measure(seconds(20)),
    "teams": lambda: teams.measure(seconds(20)),
    "herd": lambda: herd.measure(HERDS),
    "polled": lambda: polled.measure(seconds(30, 30)),
    "fanout": lambda: fanout.measure(seconds(20, 20)),
    "held": held.measure,
    "shares": isolation.shares,
    "lists": isolation.lists,
    "readers": isolation.readers,
    "hosts": lambda: hosts.measure(seconds(15, 15)),
    "frozen": lambda: frozen.measure(seconds(20, 20)),
    "reload": lambda: reload.measure(90),
    "memory": memory.measure,
    "views": views.measure,
    "peers": peers.measure,
    "growth": growth.measure,
}


def main() -> int:
    names = os.environ.get("BENCH", "").split() or [name for name in FIGURES if name not in ON_DEMAND]
    if unknown := [name for name in names if name not in FIGURES]:
        print(f"bench: unknown figure {', '.join(unknown)}; the figures are {', '.join(FIGURES)}", file=sys.stderr)
        return 1
    for program in NEEDED:
        if not shutil.which(program):
            print(f"bench: {program} is missing; `make bench` installs and builds what it needs", file=sys.stderr)
            return 1
    good = True
    for name in names:
        table = FIGURES[name]()
        table.print()
        good = good and table.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
