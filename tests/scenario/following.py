"""Runs taskproxy --watch in a pipe or in a terminal; and a server with scripted answers."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import threading

import needs
from parts import PATIENCE, SANITIZER_REPORT, children_of, process_state, wait_until

SUCCEEDED, FAILED, USAGE, UNKNOWN, UNREACHED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def command(stack, target, *options):
    return [stack.daemon.binary, "--watch", target, *options]


def base_url(stack):
    return ["--url", stack.nginx.url]


def watch(stack, target, *options, **environment) -> subprocess.CompletedProcess:
    """Runs it to its end, with pipes."""
    done = subprocess.run(command(stack, target, *options), env=stack.daemon.environment(**environment),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert not SANITIZER_REPORT.search(done.stderr), done.stderr
    return done


@contextlib.contextmanager
def follower(stack, target, *options):
    """Starts it with pipes; the test waits for its end."""
    process = subprocess.Popen(command(stack, target, *options), env=stack.daemon.environment(), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """Runs it on a controlling terminal with this many columns.

With `shell`, it is the child of a shell that prints "ended STATUS" and stays, because the settings of a terminal
    are reset when its first process ends.
    """

    SHELL = ("sh", "-c", 'trap : INT QUIT HUP; "$@"; echo "ended $?"; exec cat > /dev/null', "sh")

    def __init__(self, stack, target, *options, columns=80, shell=False):
        needs.terminal()
        self._master, slave = pty.openpty()
        self.resize(columns)
        # setsid makes standard input the controlling terminal, and becomes the command.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *(self.SHELL if shell else ()), *command(stack, target, *options)],
            env=stack.daemon.environment(), stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def resize(self, columns):
        """The kernel sends SIGWINCH to the process."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def echoes_control_characters(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHOCTL)

    def signal_child(self, number):
        """Signals the shell's child."""
        (child,) = children_of(self.process.pid)
        os.kill(child, number)

    def child_is_stopped(self) -> bool:
        (child,) = children_of(self.process.pid)
        return process_state(child)[0] == "T"

    def press(self, key: bytes):
        os.write(self._master, key)

    def _read(self):
        if select.select([self._master], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                self.text += os.read(self._master, 65536).decode()

    def wait(self, pattern) -> re.Match:
        """Waits until the output since the last wait matches the pattern, and discards it up to the end of the match."""

        def look():
            self._read()
            return re.search(pattern, self.text)

        match = wait_until(look, what=f"{pattern!r} on the terminal")
        self.text = self.text[match.end():]
        return match

    def end(self) -> int:
        """Waits for the end of the process, which closes the terminal, and reads the rest of its output: the kernel may not
        have passed all of it on yet when the process has ended."""
        status = self.process.wait(PATIENCE)
        with contextlib.suppress(OSError):  # EIO: the end of the output
            while data := os.read(self._master, 65536):
                self.text += data.decode()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def view(status="running", **members) -> dict:
    return {"provider": "sora", "task_id": "t", "status": status, "progress": None, "error": None, "results": [], **members}


def answer(document, etag='"e1"', length=None) -> bytes:
    """A view; with `length`, that is the Content-Length, whatever the body's length."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", "Content-Type: application/json", *([f"ETag: {etag}"] if etag else []),
                                             f"Content-Length: {length or len(body)}", "Connection: close", ""))
    return lines.encode() + body


def problem(status, code, detail, *headers) -> bytes:
    body = json.dumps({"status": status, "code": code, "detail": detail})
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} Trouble\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


class Scripted:
    """A server that gives one answer after the other, each on a new connection, and records the heads of the requests."""

    def __init__(self, *answers: bytes):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self.heads = []
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers):
        with self._listener:
            for answer in answers:
                with contextlib.suppress(OSError):
                    connection = self._listener.accept()[0]
                    with connection:
                        head = b""
                        while not head.endswith(b"\r\n\r\n") and (more := connection.recv(4096)):
                            head += more
                        self.heads.append(head.decode())
                        connection.sendall(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # do not wait for missing clients
        self._thread.join()
