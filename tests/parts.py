"""The programs that a Stack runs, each of which can be started and stopped separately: Redis, the daemon, nginx."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import fastcgi
from port import Port

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 20  # seconds; the default time-out of a wait
WEB_GROUP = "www-data"  # also the user that nginx and the workers run as when started by root
SANITIZER_REPORT = re.compile(r"ERROR: AddressSanitizer|runtime error:|LeakSanitizer")
os.environ["PATH"] += ":/usr/sbin"  # nginx is there, and a user's PATH lacks it


def wait_until(condition, seconds: float = PATIENCE, what: str = "the condition"):
    """Calls condition() until it returns a true value, and returns that; a TimeoutError names `what` it waited for."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out after {seconds} s waiting for {what}")
        time.sleep(0.005)
    return result


def process_state(pid: int) -> tuple:
    """The state letter and the parent of a process; ("X", 0) if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X", 0
    state, parent = stat.rpartition(") ")[2].split()[:2]  # the name, in parentheses, may contain anything
    return state, int(parent)


def children_of(pid: int) -> list:
    """The pids of the process's live children, oldest first; empty if the process is gone.

    The kernel keeps this list for each thread. taskproxy and nginx start their children from their first thread.
    """
    listed = _listed_children(pid)
    while (again := _listed_children(pid)) != listed:  # a child that ends while the list is read can hide another one
        listed = again
    return [child for child in listed if process_state(child)[0] not in "ZX"]


def open_files(pid: int) -> dict:
    """What the descriptors of the process refer to, by number; without those that are closed while the list is read, and
    empty if the process is gone."""
    found = {}
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


def _listed_children(pid: int) -> list:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers_of(master: int) -> list:
    """The pids of the master's live workers, oldest first."""
    return _children_with(master, b"--worker")


def status_servers_of(master: int) -> list:
    """The pids of the master's live status servers, oldest first: one, or several during a reload."""
    return _children_with(master, b"--status-server")


def _children_with(master: int, option: bytes) -> list:
    def first_option(pid: int) -> list:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2]
        except OSError:
            return []

    return [pid for pid in children_of(master) if first_option(pid) == [option]]


@dataclass
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def headers_of(response: http.client.HTTPResponse) -> dict:
    """Names in lower case; lines of the same name are joined."""
    return {name.lower(): ", ".join(response.headers.get_all(name)) for name in response.headers}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Process:
    """One program of the stack. Start it from a thread that outlives it: it is killed when that thread ends."""

    name = ""
    stop_signal = signal.SIGTERM

    def __init__(self, stack):
        self.stack = stack
        self.process = None
        self.passed = []  # descriptors inherited with the same numbers, from the next start on
        self.stderr = None  # a descriptor that replaces the log as standard error from the next start on
        self.inside = []  # a command that executes its arguments in other namespaces, from the next start on
        self.log_path = stack.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def spawn(self, command: list, environment: dict | None = None, nofile: int | None = None) -> None:
        # These programs apply the settings and then exec the command: Python code between fork and exec (preexec_fn)
        # can deadlock in a process with threads.
        settings = [*self.inside, "setpriv", "--pdeathsig", "TERM", "--"]
        if nofile:
            settings += ["prlimit", f"--nofile={nofile}:{nofile}", "--"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*settings, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=self.stderr or log,
                env=environment, cwd=self.stack.folder, start_new_session=True, pass_fds=self.passed,
            )

    def wait_ready(self, ready) -> None:
        """Waits until ready() is true; an OSError means not yet. Raises RuntimeError if the process ends."""

        def look():
            if not self.running:
                raise RuntimeError(f"{self.name} exited with status {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError, fastcgi.Closed):
                return ready()

        wait_until(look, 2 * PATIENCE, f"{self.name} to be ready")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Stops the process with SIGSTOP; returns once it has stopped, for the kernel does not stop it at once."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: process_state(self.pid)[0] == "T", what=f"{self.name} to be stopped")

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stops the process and everything else in its session; does nothing if it is not running."""
        if self.process is None:
            return
        try:
            self._end()
        finally:
            self.kill()

    def _end(self) -> None:
        """Sends the stop signal and waits for the exit; does nothing if the process has exited."""
        if not self.running:
            return
        self.thaw()
        self.signal(self.stop_signal)
        try:
            self.process.wait(2 * PATIENCE)
        except subprocess.TimeoutExpired as late:
            states = {pid: process_state(pid) for pid in (self.pid, *children_of(self.pid))}
            raise TimeoutError(f"{self.name} did not stop; it and its children: {states}\n{self.log()}") from late

    def kill(self) -> None:
        """Sends SIGKILL to the process and everything else in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Redis(Process):
    """redis-server on a UNIX socket, without persistence."""

    name = "redis"

    def __init__(self, stack):
        super().__init__(stack)
        self.socket = str(stack.folder / "redis.sock")
        self.password = None

    def start(self, *options: str, password: str | None = None) -> None:
        """Options are added to the command line, e.g. "--maxmemory", "1mb"."""
        self.password = password
        secret = ["--requirepass", password] if password else []
        self.spawn([
            "redis-server", "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "777",
            "--save", "", "--appendonly", "no", "--dir", str(self.stack.folder), *secret, *options,
        ], {**os.environ, **(self.stack.clock.environment if self.stack.clock else {})})
        self.wait_ready(self._answers)

    def _answers(self) -> bool:
        """Whether it has loaded; without a password it answers that one is needed."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.socket)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

    def cli(self, *command) -> str:
        """The output of redis-cli, including Redis errors, without the last line feed."""
        secret = ["-a", self.password, "--no-auth-warning"] if self.password else []
        done = subprocess.run(
            ["redis-cli", "-s", self.socket, *secret, *map(str, command)], capture_output=True, timeout=PATIENCE,
        )
        return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")

    def stored(self, pattern: str = "*") -> list:
        """All keys except leases, which expire by themselves."""
        return [key for key in self.keys(pattern) if not key.endswith("#lease")]

    def keys(self, pattern: str = "*") -> list:
        return sorted(self.cli("--scan", "--pattern", pattern).splitlines())


class Daemon(Process):
    """taskproxy itself: master, status server and workers."""

    name = "taskproxy"

    def __init__(self, stack, binary: Path):
        super().__init__(stack)
        self.binary = str(binary)
        self.config_file = stack.folder / "taskproxy.json"
        self.nofile = None  # descriptor limit, from the next start on
        self.variables = stack.clock.environment if stack.clock else {}  # additional environment variables, likewise
        self.wrapper = []  # a command that executes its arguments in the end, from the next start on

    def environment(self, **more: str) -> dict:
        ours = {name: value for name, value in os.environ.items() if name != "GATEWAY_INTERFACE"}
        ours.setdefault("ASAN_OPTIONS", "detect_leaks=1")
        ours.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        return {**ours, **self.variables, **more}

    def start(self) -> None:
        """Starts the daemon and waits for all workers; /readyz returns 200 as soon as one of them is ready."""
        self.spawn([*self.wrapper, self.binary, "-c", str(self.config_file)], self.environment(), self.nofile)
        self.wait_ready(self._all_ready)

    def _all_ready(self) -> bool:
        state = json.loads(fastcgi.ask(self.stack.status_socket, "/readyz")[2])
        return state["workers_ready"] == state["workers"]

    def run(self, *arguments: str, binary: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        """Runs the binary to its end, e.g. run("--check-config"); stdout and stderr are text."""
        return subprocess.run(
            [binary or self.binary, "-c", str(self.config_file), *arguments], env=self.environment(**environment),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )

    def cgi(self, target: str, method: str = "GET", **environment: str) -> Answer:
        """One request to the binary as a plain CGI program."""
        params = fastcgi.task_params(target, method, TASKPROXY_CONFIG=str(self.config_file), **environment)
        done = subprocess.run(
            [self.binary], env=self.environment(GATEWAY_INTERFACE="CGI/1.1", **params),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
        )
        if done.returncode != 0 or SANITIZER_REPORT.search(done.stderr.decode(errors="replace")):
            raise AssertionError(f"the CGI program exited with status {done.returncode}:\n{done.stderr.decode(errors='replace')}")
        return Answer(*fastcgi.parse_answer(done.stdout))

    def workers(self) -> list:
        """The pids of the master's live workers, oldest first."""
        return workers_of(self.pid)

    def status_servers(self) -> list:
        """The pids of its live status servers, oldest first."""
        return status_servers_of(self.pid)

    def hup(self) -> None:
        self.signal(signal.SIGHUP)

    def reload(self, wait_for_old: bool = True) -> None:
        """Sends SIGHUP and waits until all configured workers are new ones and, by default, the old ones have exited."""
        old = set(self.workers())
        self.hup()
        count = self.stack.config["workers"]
        wait_until(lambda: len(set(self.workers()) - old) >= count, what=f"{count} new workers")
        if wait_for_old:
            wait_until(lambda: not old & set(self.workers()), what="the exit of the old workers")

    def term(self, seconds: float = 20) -> int:
        """Sends SIGTERM, waits for the end, and returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def stop(self) -> None:
        """Stops the daemon; raises AssertionError unless it exits with status 0 and leaves no child."""
        if self.process is None:
            return
        try:
            children = self.workers() + self.status_servers()
            self._end()
            status = self.process.returncode
            left = [pid for pid in children if process_state(pid)[0] not in "ZX"]
        finally:
            self.kill()
        if status != 0:
            raise AssertionError(f"the daemon exited with status {status}:\n{self.log()}")
        if left:
            raise AssertionError(f"the master exited before its children {left}:\n{self.log()}")

    def check(self) -> None:
        """Raises AssertionError if a sanitizer has reported anything."""
        if SANITIZER_REPORT.search(self.log()):
            raise AssertionError(f"a sanitizer reports:\n{self.log()}")


class Nginx(Process):
    """nginx with the shipped files, on UNIX sockets or, with a port (0: any that is free), on 127.0.0.1."""

    name = "nginx"

    def __init__(self, stack, port: int | None, processes: int, http: str, access_log: bool):
        super().__init__(stack)
        self.prefix = stack.folder / "nginx"
        self.socket = str(stack.folder / "nginx.sock")
        self.status_socket = str(stack.folder / "nginx-status.sock")
        self.ports = [] if port is None else [Port(number=port), Port()]  # inherited from the next start on
        self.port, self.status_port = [port.number for port in self.ports] or (None, None)
        self._processes = processes
        self._http = http
        self._access_log = access_log
        self.connections = 8000  # of each process, from the next start on
        self.changes = {}  # {text in the shipped files: replacement}, from the next start on
        self.variables = {}  # additional environment variables, likewise
        self.sites = ["site.conf"]  # the shipped files that nginx.conf includes, from the next start on

    @property
    def url(self) -> str | None:
        """None without a port."""
        return f"http://127.0.0.1:{self.port}" if self.port else None

    @property
    def console_url(self) -> str | None:
        """None without a port."""
        return f"http://127.0.0.1:{self.status_port}/console.html" if self.port else None

    def connection(self, seconds: float = 30, status: bool = False) -> http.client.HTTPConnection:
        """To the public server, or to the one with the operator's pages."""
        if status:
            return UnixConnection(self.status_socket, seconds)
        if self.port:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        return UnixConnection(self.socket, seconds)

    def start(self) -> None:
        self._write_files()
        for path in (self.socket, self.status_socket):
            Path(path).unlink(missing_ok=True)
        self.run(self.prefix)

    def run(self, prefix: Path) -> None:
        """Starts nginx with the nginx.conf of that directory, which names nginx.pid as the pid file.

        If the address of a `listen` is that of an inherited socket, nginx uses that socket. The variable NGINX lists
        the descriptors; nginx itself uses it when it upgrades its binary.
        """
        pid_file = prefix / "nginx.pid"
        pid_file.unlink(missing_ok=True)  # nginx writes it when it listens
        self.passed = [port.open() for port in self.ports]
        inherited = {"NGINX": "".join(f"{number};" for number in self.passed)} if self.passed else {}
        variables = {**os.environ, **self.variables, **inherited}
        self.spawn(["nginx", "-p", str(prefix), "-c", "nginx.conf", "-e", str(self.log_path)], variables)
        # nginx misses a signal that arrives after it wrote the pid file and before it blocks signals to start its workers.
        self.wait_ready(lambda: pid_file.exists() and children_of(self.pid))

    def kill(self) -> None:
        super().kill()
        for port in self.ports:
            port.refuse()

    def close(self) -> None:
        """Releases the ports."""
        for port in self.ports:
            port.close()

    def _write_files(self) -> None:
        """Writes the shipped files, changed only in address and logs, and a minimal nginx.conf around them."""
        shipped = self.prefix / "taskproxy"
        shipped.mkdir(parents=True, exist_ok=True)
        cached = "nginx_cache" in self.stack.config
        address = f"127.0.0.1:{self.port}" if self.port else f"unix:{self.socket}"
        status_ports = f" listen 127.0.0.1:{self.status_port};" if self.port else ""
        access_log = f"{self.stack.folder}/access.log taskproxy" if self._access_log else "off"
        changes = {
            "listen 80;": f"listen {address};",
            "listen 127.0.0.1:9180;": f"listen unix:{self.status_socket};{status_ports}",
            "access_log /var/log/nginx/taskproxy.log taskproxy;": f"access_log {access_log};",
            "/var/log/nginx/taskproxy-error.log": str(self.log_path),
            "/etc/ssl/certs/ca-certificates.crt": self.stack.upstream_ca,
            "/usr/share/taskproxy/www": f"{shipped}/www",
            "/run/taskproxy-cache": f"{self.prefix}/taskproxy-cache",
            **({"#include taskproxy/taskproxy-cache.conf": "include taskproxy/taskproxy-cache.conf"} if cached else {}),
            **self.changes,
        }
        shutil.copytree(ROOT / "nginx" / "www", shipped / "www", dirs_exist_ok=True)
        texts = {file.name: file.read_text() for file in (ROOT / "nginx").glob("*.conf")}
        for name, text in {**texts, "upstream.conf": self.stack.print_nginx()}.items():
            for shipped_text, ours in changes.items():
                text = text.replace(shipped_text, ours)
            text = text.replace(f"listen {address};", f"listen {address} backlog=4096;", 1)
            ((self.prefix if name in self.sites else shipped) / name).write_text(text)
        (self.prefix / "tmp").mkdir(exist_ok=True)
        places = "".join(f"{kind}_temp_path tmp/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = f"user {WEB_GROUP};\n" if os.geteuid() == 0 else ""
        sites = " ".join(f"include {name};" for name in self.sites)
        (self.prefix / "nginx.conf").write_text(
            f"{user}daemon off; pid nginx.pid; worker_processes {self._processes}; "
            f"worker_rlimit_nofile {max(16384, self.connections + 500)};\n"
            "pcre_jit on;\n"
            f"events {{ worker_connections {self.connections}; }}\n"
            f"http {{\n    {places}\n    sendfile on; tcp_nopush on; # as in Debian's\n    access_log off;\n    keepalive_requests 1000000;\n"
            f"    {self._http}\n    {sites}\n}}\n"
        )
