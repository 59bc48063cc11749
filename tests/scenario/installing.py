"""Helpers for the tests of the installation: each test gets its own build and installation directories."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stack import ROOT


def run(*command, seconds=600, **settings):
    """Runs a command that must succeed, and returns its output."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=seconds, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy_tree(folder):
    """Copies the sources and the objects already built; returns the directory."""
    for name in ("conf", "fcgi", "nginx"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Makefile", "README.md"):
        shutil.copy2(ROOT / name, folder)
    (folder / "build").mkdir()
    rooms = {path.name for path in (ROOT / "fcgi").iterdir()}
    for path in (ROOT / "build").iterdir():
        if path.is_file():
            shutil.copy2(path, folder / "build")
        elif path.name in rooms:
            shutil.copytree(path, folder / "build" / path.name)
    return folder


class FreshRoot:
    """An overlay of this machine's root file system that tests may change; the changes are in memory and discarded.

    /proc, /dev and /tmp are the machine's own; /run is empty.
    """

    MOUNTS = """
        set -e; cd "$1"
        mount -t tmpfs none . && cd "$1" && mkdir upper work root
        mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
        for shared in proc dev tmp; do mount --rbind /$shared root/$shared; done
        mount -t tmpfs none root/run
        echo mounted; read line
    """

    def __init__(self, folder):
        self.folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", self.MOUNTS, "sh", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        if self._holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no overlay can be mounted here: {self._holder.stderr.read()}")
        self.inside = ["nsenter", "--mount", "--target", str(self._holder.pid), "chroot", str(folder / "root")]
        self.path = Path(f"/proc/{self._holder.pid}/root/{folder}/root")
        self._upper = Path(f"/proc/{self._holder.pid}/root/{folder}/upper")

    def close(self):
        self._holder.communicate("\n", timeout=60)

    def run(self, *command, **settings):
        return run(*self.inside, *command, **settings)

    def new_files(self):
        """The files that exist here but not on the machine."""
        paths = {"/" / path.relative_to(self._upper) for path in self._upper.rglob("*")}
        return {str(path) for path in paths if not os.path.lexists(path)}
