#!/usr/bin/python3
"""What `make test` runs when all is built: lint, unit tests, scenario tests; then one line that sums up."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = ["/usr/bin/python3", "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "tests/scenario"]


def main() -> int:
    results = [lint(), unit(), scenario()]
    passed, failed = (sum(column) for column in zip(*results))
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


def lint() -> tuple[int, int]:
    status, _ = run(["tests/lint"])
    return (1, 0) if status == 0 else (0, 1)


def unit() -> tuple[int, int]:
    return counted(["tests/unit/run-unit", *sorted(map(str, ROOT.glob("build/asan/unit/test_*")))])


def scenario() -> tuple[int, int]:
    return counted(SCENARIO)


def counted(command: list[str]) -> tuple[int, int]:
    """Passed and failed by the command's last lines; a command that fails without counting anything is one failure."""
    status, output = run(command)
    passed, failed, errors = (sum(map(int, re.findall(rf"(\d+) {word}", output))) for word in ("passed", "failed", "errors?"))
    failed += errors
    return passed, max(failed, 1) if status else failed


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
