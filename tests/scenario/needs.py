"""Prerequisites that not every machine has. Each function skips the test, with the reason, if its prerequisite is missing.

With NO_SKIPS=1 in the environment run_tests.py counts a skipped test as a failure.
"""

import ctypes
import fcntl
import functools
import os
import pty
import shutil
import subprocess

import pytest

from stack import ROOT

LOCKED = ROOT / "tests" / "npm"  # package.json and package-lock.json
INSTALLED = ROOT / "build" / "npm"
CHROMIUM = "chromium-headless-shell"

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


def or_skip(why_not) -> None:
    """Skips the test if why_not() returns a reason; an empty text means that the prerequisite is there."""
    if reason := why_not():
        pytest.skip(reason)


# Namespaces and terminals


def namespaces(*kinds: str) -> None:
    """Probes unshare with these options, and a bind mount inside."""
    or_skip(lambda: _no_namespaces(*kinds))


@functools.cache
def _no_namespaces(*kinds: str) -> str:
    done = subprocess.run(["unshare", *kinds, "mount", "--bind", "/etc/hosts", "/etc/hosts"], capture_output=True, text=True)
    return f"no bind mount within unshare {' '.join(kinds)} here: {done.stderr.strip()}" if done.returncode else ""


def terminal() -> None:
    or_skip(_no_terminal)


@functools.cache
def _no_terminal() -> str:
    try:
        for end in pty.openpty():
            os.close(end)
    except OSError as trouble:
        return f"no pseudo-terminal can be opened here: {trouble}"
    return ""


def landlock() -> None:
    or_skip(_no_landlock)


@functools.cache
def _no_landlock() -> str:
    landlock_create_ruleset = 444  # on all architectures; with these arguments it returns the version
    return "" if ctypes.CDLL(None).syscall(landlock_create_ruleset, None, 0, 1) > 0 else "this kernel has no Landlock"


# Browsers and packages of npm


def chromium() -> str:
    """The path of Chromium's program without a window."""
    or_skip(lambda: "" if shutil.which(CHROMIUM) else f"{CHROMIUM} is not installed")
    return shutil.which(CHROMIUM)


def npm_modules() -> str:
    """The directory with the locked packages, for NODE_PATH. They stay in build/ for the next run."""
    or_skip(_not_installed)
    return str(INSTALLED / "node_modules")


@functools.cache
def _not_installed() -> str:
    if not shutil.which("npm"):
        return "npm is not installed"
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with open(INSTALLED / "busy", "w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)  # one of the parallel test processes installs
        lock, done = (LOCKED / "package-lock.json").read_text(), INSTALLED / "done"
        if done.exists() and done.read_text() == lock:
            return ""
        done.unlink(missing_ok=True)
        if not _npm_answers("view", "openai", "version", "--fetch-retries=0"):
            return "npm reaches no registry"
        for file in LOCKED.iterdir():
            shutil.copy(file, INSTALLED)
        assert _npm_answers("ci", "--no-audit", "--no-fund", "--ignore-scripts"), "npm ci failed; its log is above"
        done.write_text(lock)
    return ""


def _npm_answers(*command: str) -> bool:
    return subprocess.run(["npm", *command], cwd=INSTALLED, stdin=subprocess.DEVNULL).returncode == 0
