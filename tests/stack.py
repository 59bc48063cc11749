"""A complete installation in a private directory: Redis, the stand-in upstream, the daemon, nginx.

    with Stack(config={"workers": 1}) as stack:
        answer = stack.get("/sora/v1/videos/task_1")
        assert stack.standin.count("task_1") == 1

Each part can be stopped and started separately. On exit everything is stopped and the directory removed; the daemon must
exit with status 0, leave no worker behind and have written no sanitizer report. The parts listen only on UNIX sockets and
on loopback ports chosen by the system, so any number of stacks can run in parallel.
"""

import concurrent.futures
import copy
import getpass
import grp
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in (".", "clock", "standin")]
import fastcgi
from clock import Clock
from parts import PATIENCE, ROOT, WEB_GROUP, Answer, Daemon, Nginx, Redis, headers_of, wait_until
from standin import Standin

# Time-outs of queries: on a busy machine they may take long, and must not fail.
PATIENT = {"connect_timeout": "30s", "timeout": "30s"}
# Paths of routes, here and at the stand-in, for providers whose own path is also another's.
OTHER_PATHS = {"xai": "/xai/v1/videos/{task_id}"}
LAST_LINES = 40  # of each log, in the report of a failed test
LINE_LENGTH = 400

stacks = []  # all made since the last forget_stopped(), and those still running


def merged(base: dict, changes: dict) -> dict:
    """A copy of base with the changes merged in recursively; None removes a member."""
    result = copy.deepcopy(base)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def read_json(path: Path) -> dict:
    """JSON with // and /* */ comments, as the daemon reads it."""
    string_or_comment = r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/'
    return json.loads(re.sub(string_or_comment, lambda match: match[1] or "", path.read_text(), flags=re.DOTALL))


class Metrics(dict):
    """One reading of /metrics: {'taskproxy_name{label="x"}': value}."""

    def __init__(self, text: str):
        super().__init__()
        self._known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        for name, labels, value in re.findall(r"^(\w+)(\{.*\})? (\S+)$", text, re.MULTILINE):
            self[name + labels] = float(value)
            self._known.add(name)

    def sum(self, name: str, **labels) -> float:
        """The sum over the series of taskproxy_<name> with these labels (`class_` for class); KeyError for an unknown metric."""
        name = f"taskproxy_{name}"
        if name not in self._known:
            raise KeyError(f"no metric {name}")
        wanted = [f'{label.rstrip("_")}="{value}"' for label, value in labels.items()]
        return sum(
            value for series, value in self.items()
            if series.partition("{")[0] == name and all(label in series for label in wanted)
        )


def forget_stopped() -> None:
    stacks[:] = [stack for stack in stacks if not stack.stopped]


def last_lines() -> list:
    """The ends of the logs of those stacks: (title, text) of each non-empty log."""
    return [section for stack in stacks for section in stack.last_lines()]


def end_of(log: str) -> str:
    lines = log.splitlines()
    left_out = [f"({len(lines) - LAST_LINES} lines before)"] if len(lines) > LAST_LINES else []
    return "\n".join(left_out + [line[:LINE_LENGTH] for line in lines[-LAST_LINES:]])


class Stack:
    """All parts. Those that are switched off are not started on entry; tests can start them later.

    binary      the daemon's; default: $TASKPROXY_BINARY or build/asan/taskproxy
    config      merged into the configuration below; None removes a member. With "nginx_cache", nginx has taskproxy-cache.conf
    providers   {"sora": {…}} merged into the shipped provider files
    redis       False also leaves "redis" out of the configuration
    upstream    {"base_url": …, "key_file": …, "ca_file": …} instead of the stand-in
    every_provider  True: a route for each shipped provider file, not only for sora
    http        more lines for nginx's http block
    clock       True: the daemon, Redis and the stand-in use the stack's own `clock`, which starts at the system's time; step it
                with step()
    """

    def __init__(self, *, binary=None, config=None, providers=None, redis=True, standin=True, daemon=True, nginx=True,
                 upstream=None, every_provider=False, task_seconds=20, port=None, nginx_processes=1, http="", access_log=True,
                 clock=False):
        self._starts = {"redis": redis, "standin": standin and not upstream, "daemon": daemon, "nginx": nginx}
        self.folder = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))  # short, because socket paths are limited to 107 bytes
        self.folder.chmod(0o755)  # nginx and the workers are not root
        try:
            self.key = "sk-" + secrets.token_hex(16)
            self.key_file = self.folder / "key"
            self.write_key(self.key)
            self.signing_key = f"ak-{secrets.token_hex(8)}:sk-{secrets.token_hex(16)}"
            self.signing_key_file = self.folder / "signing-key"
            self.write_key(self.signing_key, file=self.signing_key_file)
            self.clock = Clock(self.folder / "clock") if clock else None
            self.standin = Standin(self.folder / "standin", [self.key, self.signing_key], task_seconds=task_seconds)
            if clock:
                self.standin.time = self.clock.time
            self.redis = Redis(self)
            self.daemon = Daemon(self, Path(binary or os.environ.get("TASKPROXY_BINARY") or ROOT / "build/asan/taskproxy"))
            self.nginx = Nginx(self, port, nginx_processes, http, access_log)
            self.socket_dir = self.folder / "run"
            self.status_socket = str(self.socket_dir / "status.sock")
            self._write_providers(providers or {})
            self._upstream = upstream
            self._every_provider = every_provider
            self._changes = config or {}
            self._pool = concurrent.futures.ThreadPoolExecutor(1024)
            self.stopped = False
            self._last_lines = []  # after it has stopped
            stacks.append(self)
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    # Start and stop

    def __enter__(self):
        try:
            for part, starts in self._starts.items():
                if part == "daemon":
                    self.configure()  # the port of the stand-in is known now
                if starts:
                    getattr(self, part).start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind, *_):
        """Stops all parts. Errors are raised unless another exception is already being handled."""
        troubles = self._stop()
        if troubles and kind is None:
            raise troubles[0]

    def _stop(self) -> list:
        troubles = []
        if self.clock:
            self.clock.run()  # parts that take time to stop need a running clock
        self.standin.clear()
        self.standin.drop_connections()  # or the daemon would wait for answers that never come
        for part in (self.nginx, self.daemon, self.redis, self.standin):
            try:
                part.stop()
            except Exception as trouble:  # whatever it is, stop the other parts
                troubles.append(trouble)
        self._pool.shutdown()
        try:
            self.daemon.check()
        except AssertionError as trouble:
            troubles.append(trouble)
        self.standin.close()
        self.nginx.close()
        if self.clock:
            self.clock.close()
        self._last_lines, self.stopped = self.last_lines(), True
        shutil.rmtree(self.folder)
        return troubles

    def last_lines(self) -> list:
        """The ends of all logs in the folder, and of the stand-in's."""
        if self.stopped:
            return self._last_lines
        logs = {file.name: file.read_text(errors="replace") for file in sorted(self.folder.glob("*.log"))}
        logs["stand-in"] = self.standin.log()
        return [(f"{name} of {self.folder.name}", end_of(log)) for name, log in logs.items() if log]

    # Files

    def write_key(self, text: str, mode: int = 0o600, file: Path | None = None) -> None:
        file = file or self.key_file
        file.touch(mode=0o600)
        file.write_text(text + "\n")
        file.chmod(mode)

    def _write_providers(self, changes: dict) -> None:
        self.providers_dir = self.folder / "providers"
        shutil.copytree(ROOT / "conf" / "providers", self.providers_dir)
        for name, change in changes.items():
            file = self.providers_dir / f"{name}.json"
            file.write_text(json.dumps(merged(read_json(file), change), indent=2))

    def configure(self, **changes) -> None:
        """Writes the configuration file with these changes; the daemon reads it at its next start or SIGHUP."""
        self._changes = merged(self._changes, changes) if changes else self._changes
        self.config = merged(self._default_config(), self._changes)
        self.daemon.config_file.write_text(json.dumps(self.config, indent=2))

    def _default_config(self) -> dict:
        root = os.geteuid() == 0
        upstream = self._upstream or {
            "base_url": self.standin.url, "key_file": str(self.key_file), "ca_file": self.standin.ca_file,
        }
        config = {
            "workers": 2,
            "socket_dir": str(self.socket_dir),
            "socket_group": WEB_GROUP if root else grp.getgrgid(os.getegid()).gr_name,
            "user": WEB_GROUP if root else getpass.getuser(),
            "providers_dir": str(self.providers_dir),
            "upstreams": {"main": {
                "base_url": upstream["base_url"], "key_files": [upstream["key_file"]], "ca_file": upstream.get("ca_file"),
                **({} if self._upstream else PATIENT),
            }},
            "routes": [{"provider": "sora", "upstream": "main"}],
            # Five seconds, not the default of 50 ms: a busy machine must not look like a lost Redis.
            "redis": {"address": f"unix:{self.redis.socket}", "timeout": "5s"},
        }
        if self._every_provider:
            config = merged(config, self._all_routes(config["upstreams"]["main"]))
        return config if self._starts["redis"] else merged(config, {"redis": None})

    def _all_routes(self, main: dict) -> dict:
        """Providers with signed tokens have a key of two halves and so a separate upstream, here on the same host."""
        routes = []
        for file in sorted(self.providers_dir.glob("*.json")):
            signs = "jwt}" in read_json(file)["auth"]["value"]
            path = OTHER_PATHS.get(file.stem)
            routes.append({"provider": file.stem, "upstream": "signed" if signs else "main",
                           **({"path": path, "upstream_path": path} if path else {})})
        return {"upstreams": {"signed": {**main, "key_files": [str(self.signing_key_file)]}}, "routes": routes}

    @property
    def upstream_ca(self) -> str:
        """The certificates that nginx trusts."""
        return self.config["upstreams"].get("main", {}).get("ca_file") or "/etc/ssl/certs/ca-certificates.crt"

    def print_nginx(self) -> str:
        done = self.daemon.run("--print-nginx", binary=ROOT / "build/taskproxy")  # starts faster than the sanitizer build
        if done.returncode != 0:
            raise RuntimeError(f"--print-nginx exited with status {done.returncode}: {done.stderr}")
        return done.stdout

    # Requests

    def get(self, path: str, headers: dict | None = None, method: str = "GET", body: bytes | None = None) -> Answer:
        """One request to nginx, on a new connection."""
        connection = self.nginx.connection(status=path.partition("?")[0] in ("/metrics", "/status"))
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            names = headers_of(response)
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def task(self, task_id: str, headers: dict | None = None, method: str = "GET") -> Answer:
        """The native view of a sora task."""
        return self.get(f"/sora/v1/videos/{task_id}", headers, method)

    def background(self, function, *args, **kwargs) -> concurrent.futures.Future:
        """Calls the function in a thread; up to 1,024 at a time."""
        return self._pool.submit(function, *args, **kwargs)

    def worker_socket(self, index: int = 0) -> str:
        return str(self.socket_dir / f"worker-{index}.sock")

    def ask_worker(self, target: str, index: int = 0, method: str = "GET", **params) -> Answer:
        """One request directly to a worker's socket, bypassing nginx."""
        return Answer(*fastcgi.ask(self.worker_socket(index), target, method, **params))

    # Time

    def freeze(self) -> None:
        """Freezes the clock once all workers are connected to Redis, because a step could time out a connection attempt."""
        if self.config.get("redis") and self.daemon.running:
            wait_until(self.redis_is_connected, what="the connections to Redis")
        self.clock.freeze()

    def redis_is_connected(self) -> bool:
        """Whether all workers are connected and subscribed."""
        metrics, workers = self._metrics_without_nginx(), self.config["workers"]
        return metrics.sum("redis_up") >= workers and metrics.sum("redis_listening") >= workers

    def step(self, seconds: float) -> None:
        """Steps the clock when Redis has answered every command: a command that is still under way at the next step, too,
        is late, and its worker drops the connection. Tests that need a late reply use clock.step()."""
        self.wait_redis_answered()
        self.clock.step(seconds)

    def wait_redis_answered(self) -> None:
        if self.config.get("redis") and self.daemon.running:
            wait_until(self._redis_has_answered, what="the replies from Redis")

    def _redis_has_answered(self) -> bool:
        """The duration of each answered command is recorded; a command that is not answered is a failure."""
        metrics = self._metrics_without_nginx()
        ended = metrics.sum("redis_duration_seconds_count") + metrics.sum("redis_failures_total")
        return ended >= metrics.sum("redis_commands_total")

    def _metrics_without_nginx(self) -> Metrics:
        return Metrics(fastcgi.ask(self.status_socket, "/metrics")[2].decode())

    # Waiting

    def metrics(self) -> Metrics:
        return Metrics(self.get("/metrics").body.decode())

    def metric(self, name: str, **labels) -> float:
        """The sum over all series of taskproxy_<name> with these labels, now."""
        return self.metrics().sum(name, **labels)

    def wait_until(self, condition, seconds: float = PATIENCE, what: str = "the condition"):
        return wait_until(condition, seconds, what)

    def wait_metric(self, name: str, expected, seconds: float = PATIENCE, **labels) -> None:
        """Waits until the metric is at least the expected number or, if that is a function, until it returns true."""
        assert callable(expected) or expected > 0, "every value is at least 0"
        good = expected if callable(expected) else lambda value: value >= expected
        wait_until(lambda: good(self.metric(name, **labels)), seconds, f"taskproxy_{name}{labels or ''} ({expected})")

    def wait_log(self, text: str, seconds: float = PATIENCE) -> str:
        """Waits until the daemon has written a whole line that contains the text, and returns that line."""

        def look():
            return next((line for line in self.daemon.log().split("\n")[:-1] if text in line), None)

        return wait_until(look, seconds, f"a log line with {text!r}")
