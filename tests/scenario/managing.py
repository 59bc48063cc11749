"""A service manager like systemd for the daemon of a stack: it receives the daemon's reports and passes it sockets."""

import fcntl
import os
import shutil
import socket
import threading

from parts import PATIENCE, WEB_GROUP, wait_until

LISTEN_FIRST = 3  # the number of the first descriptor passed


class Manager:
    """Create it before the stack's daemon starts.

    abstract  use an abstract socket address
    watchdog  seconds within which the daemon must report that it is alive
    listen    paths of sockets that it opens and passes
    """

    def __init__(self, stack, *, abstract=False, watchdog=None, listen=()):
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = str(stack.folder / "notify.sock")
        self._ear.bind(f"\0{name}" if abstract else name)
        if not abstract:
            os.chmod(name, 0o777)  # whatever user the daemon runs as
        self._reports = []
        self._passed = []
        self.variables = stack.daemon.variables
        self.variables["NOTIFY_SOCKET"] = f"@{name}" if abstract else name
        if watchdog:
            self.variables["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
        self.sockets = [self._listen(path) for path in listen]
        if listen:
            self.hand_over(stack.daemon)
        threading.Thread(target=self._hear, daemon=True).start()

    def close(self):
        self._ear.shutdown(socket.SHUT_RDWR)
        for passed in self.sockets:
            passed.close()
        self._close_passed()

    def _close_passed(self):
        for number in self._passed:
            os.close(number)

    # Reports

    def _hear(self):
        while datagram := self._ear.recv(65536):
            self._reports.append(dict(line.split("=", 1) for line in datagram.decode().split("\n")))
        self._ear.close()

    def reports(self, *names):
        """The reports so far that have one of these names, or all; each is {name: value}, oldest first."""
        return [report for report in list(self._reports) if not names or set(names) & report.keys()]

    def wait(self, name, value="1", count=1):
        """Waits for this many such reports, and returns the last one."""

        def look():
            found = [report for report in self.reports(name) if report[name] == value]
            return len(found) >= count and found[count - 1]

        return wait_until(look, 2 * PATIENCE, f"{name}={value}, {count} times; there were {self.reports()}")

    def states(self):
        """The states reported so far, in order."""
        return [name for report in self.reports() for name in ("READY", "RELOADING", "STOPPING") if name in report]

    # Sockets

    def _listen(self, path):
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(path)
        os.chmod(path, 0o660)
        if os.geteuid() == 0:
            shutil.chown(path, group=WEB_GROUP)
        opened.listen(1000)
        return opened

    def hand_over(self, daemon, pid="$$"):
        """Makes the daemon's next start inherit them as 3 and up; only in the process that becomes the daemon are those free."""
        self._close_passed()
        daemon.passed = [fcntl.fcntl(passed, fcntl.F_DUPFD, 100) for passed in self.sockets]
        moves = " ".join(f"{LISTEN_FIRST + i}<&{number} {number}<&-" for i, number in enumerate(daemon.passed))
        script = f'exec {moves}; export LISTEN_PID={pid} LISTEN_FDS={len(self.sockets)}; exec "$@"'
        daemon.wrapper = ["bash", "-c", script, "bash"]
        self._passed = daemon.passed
