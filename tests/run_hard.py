#!/usr/bin/python3
"""`make test-hard`: runs the scenario tests under conditions in which tests that depend on timing or order fail, and then
`make chaos` for two minutes at a time.

Everything shares one core with a busy loop. Each run has a different random order, and each chaos a different seed.

HARD_RUNS=5     number of runs
HARD_SEED=      seed of the first run, to repeat it; each further run adds 1
HARD_CHAOS=3    number of runs of chaos
HARD_ARGS=      additional arguments for pytest, such as "-k hooks"
"""

import contextlib
import os
import random
import shlex
import subprocess
import sys

import run_tests

CHAOS_MINUTES = 2
HOG = "while True: pass"


def main() -> int:
    os.environ["FAILOVERS"] = "1"  # see test_redis_failover.py
    runs = int(os.environ.get("HARD_RUNS") or 5)
    seed = int(os.environ.get("HARD_SEED") or random.randrange(1_000_000))
    arguments = shlex.split(os.environ.get("HARD_ARGS", ""))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # child processes inherit it
    counts = []
    with hog():
        for number in range(runs):
            print(f"== run {number + 1} of {runs}; HARD_SEED={seed + number} HARD_RUNS=1 repeats it", flush=True)
            counts.append(run_tests.scenario(f"--order-seed={seed + number}", "--ignore=tests/scenario/test_chaos.py", *arguments))
        for number in range(int(os.environ.get("HARD_CHAOS") or 3)):
            counts.append(run_tests.chaos(CHAOS_MINUTES, seed + number))
    return run_tests.close(counts)


@contextlib.contextmanager
def hog():
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", HOG]) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
