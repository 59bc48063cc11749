"""Starts a service as systemd would: sets up sockets, credentials, user, capabilities and seccomp, then executes ExecStart.

Run as root, with the text of this file, in the root file system that has the units: python3 -c TEXT NAME NOTIFY_SOCKET
"""

import ctypes
import errno
import grp
import os
import pwd
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

LISTEN_FIRST = 3
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2}
PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 24, 47, 2
CAPABILITY_VERSION_3 = 0x20080522
libc = ctypes.CDLL(None)


def read_unit(name):
    """{setting: [value, …]} of all sections."""
    settings = {}
    for line in Path("/lib/systemd/system", name).read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            settings.setdefault(match[1], []).append(match[2])
    return settings


def open_sockets(unit):
    for path in unit["ListenStream"]:
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(path)
        shutil.chown(path, group=unit["SocketGroup"][0])
        os.chmod(path, int(unit["SocketMode"][0], 8))
        opened.listen(int(unit["Backlog"][0]))
        yield opened


def load_credentials(unit, user):
    """Copies files, and each file of a directory as ID_FILE; returns the directory of the copies."""
    folder = Path("/run/credentials")
    folder.mkdir(mode=0o755)
    for line in unit["LoadCredential"]:
        name, source = line.split(":")
        files = {f"{name}_{file.name}": file for file in Path(source).iterdir()} if Path(source).is_dir() else {name: source}
        for credential, file in files.items():
            shutil.copy(file, folder / credential)
            os.chmod(folder / credential, 0o400)
            shutil.chown(folder / credential, user)
    return str(folder)


def numbers(unit, setting):
    return [CAPABILITIES[name] for name in unit[setting][0].split()]


def bound_capabilities(unit):
    for number in set(range(64)) - set(numbers(unit, "CapabilityBoundingSet")):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # fails for those unknown to the kernel


def keep_capabilities(unit):
    """Drops all capabilities but the ambient ones."""
    ambient = numbers(unit, "AmbientCapabilities")
    mask = sum(1 << number for number in ambient)
    header, sets = struct.pack("Ii", CAPABILITY_VERSION_3, 0), struct.pack("6I", mask, mask, mask, 0, 0, 0)
    done = libc.capset(header, sets)
    for number in ambient:
        done |= libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)
    if done != 0:
        sys.exit("the capabilities cannot be given")


def become(unit):
    user = pwd.getpwnam(unit["User"][0])
    bound_capabilities(unit)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([grp.getgrnam(name).gr_gid for name in unit["SupplementaryGroups"]])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    keep_capabilities(unit)
    os.umask(int(unit["UMask"][0], 8))


def members(group):
    """The system calls of a systemd group, including those of its subgroups."""
    told = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", group], capture_output=True, text=True, check=True)
    for line in told.stdout.splitlines()[1:]:
        if (name := line.strip()) and not name.startswith("#"):
            yield from members(name) if name.startswith("@") else [name]


def allowed_calls(unit):
    calls = set()
    for line in unit["SystemCallFilter"]:
        names = {call for word in line.lstrip("~").split() for call in (members(word) if word[0] == "@" else [word])}
        calls = calls - names if line.startswith("~") else calls | names
    return calls


def make_filter(unit):
    """Returns a function that loads the filter."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    refuse = REFUSE | getattr(errno, unit["SystemCallErrorNumber"][0])
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(refuse)))
    for name in allowed_calls(unit):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0)  # unknown on this machine
    return lambda: seccomp.seccomp_load(context)


def main(name, notify_socket):
    service, listener = read_unit(f"{name}.service"), read_unit(f"{name}.socket")
    for number, opened in enumerate(list(open_sockets(listener)), LISTEN_FIRST):
        os.dup2(opened.detach(), number)
        os.set_inheritable(number, True)
    environment = {
        "PATH": os.environ["PATH"],
        "CREDENTIALS_DIRECTORY": load_credentials(service, service["User"][0]),
        "NOTIFY_SOCKET": notify_socket,
        "WATCHDOG_USEC": str(int(service["WatchdogSec"][0].removesuffix("s")) * 1_000_000),
        "LISTEN_FDS": str(len(listener["ListenStream"])),
        "LISTEN_PID": str(os.getpid()),
    }
    command, load_filter = shlex.split(service["ExecStart"][0]), make_filter(service)
    become(service)
    if load_filter() != 0:
        sys.exit("the filter of system calls cannot be loaded")
    os.execve(command[0], command, environment)


main(*sys.argv[1:])
