#!/usr/bin/python3
"""`make test`, after the build: runs lint, unit tests and scenario tests, and prints one line with the totals.

NO_SKIPS=1   skipped tests count as failed
"""

import collections
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = ["/usr/bin/python3", "-m", "pytest", "-q", "-n", "4", "-rfEsx", "--durations=15", "-p", "no:cacheprovider", "tests/scenario"]


class Count(NamedTuple):
    """Numbers of tests by result."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed" + (f", {self.skipped} skipped" if self.skipped else "")


failures: list[str] = []  # lines that name the failures, printed again at the end


def main() -> int:
    return close([lint(), unit(), scenario()])


def close(counts: list) -> int:
    """Prints the line with the totals; returns the exit status."""
    total = Count(*map(sum, zip(*counts)))
    print("".join(f"\nfailed: {line}" for line in failures))
    if total.skipped and os.environ.get("NO_SKIPS", "0") != "0":
        print(f"\n{total.skipped} tests were skipped and count as failed (NO_SKIPS)", end="")
        total = Count(total.passed, total.failed + total.skipped)
    print(f"\n{total}")
    return 1 if total.failed else 0


def lint() -> Count:
    status, _ = run(["tests/lint"])
    return Count(passed=1) if status == 0 else Count(failed=1)


def unit() -> Count:
    sources = sorted(ROOT.glob("tests/unit/test_*.c"))  # build/ may also hold programs whose sources are gone
    return counted(["tests/unit/run-unit", *(f"build/asan/unit/{source.stem}" for source in sources)])


def chaos(minutes: float, seed: int) -> Count:
    """The whole run is one test."""
    status, _ = run(["env", f"MINUTES={minutes}", f"SEED={seed}", "tests/chaos.py"])
    return Count(passed=1) if status == 0 else Count(failed=1)


def scenario(*options: str) -> Count:
    return counted([*SCENARIO, *options])


def counted(command: list[str]) -> Count:
    """The numbers in the command's last lines; a command that fails without reporting a failure counts as one."""
    status, output = run(command)
    passed, failed, skipped, errors = (
        sum(map(int, re.findall(rf"\b(\d+) {word}\b", output))) for word in ("passed", "failed", "skipped", "errors?")
    )
    failed += errors
    return Count(passed, max(failed, 1) if status else failed, skipped)


def run(command: list[str]) -> tuple[int, str]:
    """Prints the output as it arrives; returns the status and the last lines."""
    print(f"== {' '.join(command[:1] if 'unit' in command[0] else command)}", flush=True)
    lines: collections.deque[str] = collections.deque(maxlen=2000)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        failures.extend(telling(lines))
    return process.returncode, "".join([*lines][-3:])


def telling(lines) -> list[str]:
    """The lines that name failed tests, or the last ten lines if none does."""
    named = [line.rstrip() for line in lines if re.match(r" *FOUND: |FAILED |ERROR |\[  FAILED  \] |--- |.*ERROR: \w+Sanitizer|SUMMARY: ", line)]
    return named or [line.rstrip() for line in [*lines][-10:]]


if __name__ == "__main__":
    sys.exit(main())
