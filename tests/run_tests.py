#!/usr/bin/python3
"""What `make test` runs when all is built: lint, unit tests, scenario tests; then one line that sums up.

NO_SKIPS=1   a test that is skipped has failed
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = ["/usr/bin/python3", "-m", "pytest", "-q", "-n", "4", "-rfEsx", "--durations=15", "-p", "no:cacheprovider", "tests/scenario"]


class Count(NamedTuple):
    """Tests by how they ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed" + (f", {self.skipped} skipped" if self.skipped else "")


def main() -> int:
    return close([lint(), unit(), scenario()])


def close(counts: list) -> int:
    """Prints the closing line of all that ran; the exit status."""
    total = Count(*map(sum, zip(*counts)))
    if total.skipped and os.environ.get("NO_SKIPS", "0") != "0":
        print(f"\n{total.skipped} tests were skipped and count as failed (NO_SKIPS)", end="")
        total = Count(total.passed, total.failed + total.skipped)
    print(f"\n{total}")
    return 1 if total.failed else 0


def lint() -> Count:
    status, _ = run(["tests/lint"])
    return Count(passed=1) if status == 0 else Count(failed=1)


def unit() -> Count:
    return counted(["tests/unit/run-unit", *sorted(map(str, ROOT.glob("build/asan/unit/test_*")))])


def scenario(*options: str) -> Count:
    return counted([*SCENARIO, *options])


def counted(command: list[str]) -> Count:
    """By the command's last lines; a command that fails without counting anything is one failure."""
    status, output = run(command)
    passed, failed, skipped, errors = (
        sum(map(int, re.findall(rf"\b(\d+) {word}\b", output))) for word in ("passed", "failed", "skipped", "errors?")
    )
    failed += errors
    return Count(passed, max(failed, 1) if status else failed, skipped)


def run(command: list[str]) -> tuple[int, str]:
    """Shows the output as it comes; returns the status and the last lines."""
    print(f"== {' '.join(command[:1] if 'unit' in command[0] else command)}", flush=True)
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines = [*lines[-2:], line]
    return process.returncode, "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
