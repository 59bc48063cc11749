"""Debian systems with systemd as process 1, in namespaces of their own, on a network that has no connection to any other.

A Machine is an overlay in memory on a Debian root of tests/in-debian; its changes are lost when it is stopped. All machines are
connected to one bridge. It, and this process after enter_network(), are in another network namespace.
"""

import contextlib
import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path

from parts import ROOT, wait_until

BRIDGE = "machines"
BOOT_SECONDS = 120
CLONE_NEWNET = 0x40000000
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive"}


def load_in_debian():
    """tests/in-debian as a module."""
    loader = importlib.machinery.SourceFileLoader("in_debian", str(ROOT / "tests" / "in-debian"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("in_debian", loader))
    loader.exec_module(module)
    return module


in_debian = load_in_debian()
run = in_debian.run


def enter_network(address: str, *others: str) -> None:
    """Moves this process, which must have a single thread, to a network that consists of a bridge with these addresses."""
    in_debian.enter_namespace(CLONE_NEWNET)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "name", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    for one in (address, *others):
        run("ip", "address", "add", one, "dev", BRIDGE)


class Machine:
    """A running system. Its root is at `path` for this process, too."""

    # Becomes process 1 of the machine. Its control groups are those below the one in which this script runs.
    BOOT = """
        cd "$1"
        mount --make-rprivate /
        mount -t proc proc proc
        mount -t sysfs -o ro sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        pivot_root . mnt
        exec chroot . sh -ec 'umount -l /mnt; mount --make-rshared /; exec env -i container=taskproxy-test /lib/systemd/systemd'
    """
    ENTER_GROUP = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
    NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")

    def __init__(self, name: str, lower: Path, folder: Path, groups: Path):
        """Prepares the root; `folder` is in memory, `groups` a directory of control groups (version 2)."""
        self.name, self._group, self._process, self.init = name, groups / name, None, None
        self.path = folder / name / "root"
        for part in ("upper", "work", "root"):
            (folder / name / part).mkdir(parents=True)
        upper, work = folder / name / "upper", folder / name / "work"
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", self.path)
        in_debian.mount_all(self.path)
        (self.path / "etc/hostname").write_text(f"{name}\n")

    def start(self, address: str, gateway: str) -> None:
        self._group.mkdir()
        unshare = ["unshare", *self.NAMESPACES, "--fork", "--kill-child", "--propagation", "unchanged"]
        self._process = subprocess.Popen([*in_debian.KILLED_WITH_THIS, "sh", "-c", self.ENTER_GROUP, "sh", self._group, *unshare,
                                          "sh", "-ec", self.BOOT, "sh", self.path], stdout=subprocess.DEVNULL)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.init = int(wait_until(children.read_text, what=f"process 1 of {self.name}"))
        self._connect(address, gateway)
        wait_until(self._is_running, BOOT_SECONDS, f"the start of {self.name}: {self.systemctl('list-jobs', '--failed').stdout}")

    def _is_running(self) -> bool:
        return self.systemctl("is-system-running").stdout.strip() in ("running", "degraded")

    def systemctl(self, *arguments):
        return self.run("systemctl", *arguments, check=False)

    def _connect(self, address: str, gateway: str) -> None:
        run("ip", "link", "add", "name", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.init)
        run("ip", "link", "set", self.name, "master", BRIDGE, "up")
        inside = ["nsenter", "--net", "--target", self.init, "ip"]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", address, "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", gateway)

    def command(self, *command) -> list[str]:
        """A command line that runs the command in the machine, in root's home directory."""
        enter = ["nsenter", *self.NAMESPACES, "--target", str(self.init)]
        settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return [*enter, "env", "-i", "-C", "/root", *settings, *map(str, command)]

    def run(self, *command, check: bool = True) -> subprocess.CompletedProcess:
        """Runs a command to its end, by default one that must succeed. stdout has its whole output."""
        done = subprocess.run(self.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=600)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}")
        return done

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            wait_until(lambda: "populated 0" in (self._group / "cgroup.events").read_text(), what=f"the end of {self.name}")
            remove_groups(self._group)


def mount_groups(at: Path) -> None:
    run("mount", "-t", "cgroup2", "cgroup2", at)


def remove_groups(group: Path) -> None:
    for inner in group.iterdir():
        if inner.is_dir():
            remove_groups(inner)
    group.rmdir()
