#!/usr/bin/python3
"""What `make bench` runs: the figures, side by side. Ends with 1 when one does not hold.

BENCH_SECONDS is for how long hits are measured, and the floor beside them (default 20); the rest takes half a minute.
"""

import os
import shutil
import sys

import herd
import hits
import memory
import views
from measure import PROGRAMS

HERDS = 7


def main() -> int:
    seconds = int(os.environ.get("BENCH_SECONDS") or 20)
    for program in ("wrk", "nginx", "redis-server", PROGRAMS / "floor", PROGRAMS / "ask"):
        if not shutil.which(program):
            print(f"bench: {program} is missing; `make bench` installs and builds what it needs", file=sys.stderr)
            return 1
    good = True
    for measure, *arguments in ((hits.measure, seconds), (herd.measure, HERDS), (memory.measure,), (views.measure,)):
        table = measure(*arguments)
        table.print()
        good = good and table.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
