#!/usr/bin/python3
"""A stand-in for the upstream: serves its pages (pages.py) over TLS on 127.0.0.1, with counters and switches for tests.

In a test:      with Standin(folder, keys=["sk-test"]) as standin: … standin.url, standin.ca_file
As a program:   standin.py --dir FOLDER --key KEY [--port N] [--task-seconds N]
Remotely:       StandinClient(folder) controls a running one through FOLDER/control.sock, with the same methods.

Each connection has its own thread. One condition protects everything that threads share; tests also use it to wait for
queries instead of sleeping.
"""

import argparse
import collections
import re
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import authority
import players
from connection import Server
from control import Control, StandinClient
from port import Port
from switches import PATIENCE, SWITCHES, Barrier, Query, Switch, unusual_body

__all__ = ["Standin", "StandinClient"]

SIGNED_HOSTS = re.compile(rb"https://(?:videos\.openai\.com|v3\.fal\.media|cdn\.discordapp\.com)(?=/)")
KEYED_HOST = b"https://generativelanguage.googleapis.com/"


class Standin:
    """The upstream of the tests. Starts on entry or at start(); stop() and start() keep port and tasks."""

    def __init__(self, folder, keys=("sk-standin",), forbidden=(), port=0, task_seconds=20.0, tls=True, host="127.0.0.1"):
        self.folder = Path(folder)
        self.keys = set(keys)
        self.forbidden = set(forbidden)
        self.busy = {}  # keys that get a 429, and the seconds of its Retry-After
        self.owners = {}  # task ids, and the one key that can see them
        self.host, self.port = host, port
        self._bound = None  # a Port, from the first start to close()
        self.task_seconds = task_seconds
        self.ca_file = str(self.folder / "ca.pem")
        self.context = self._make_context() if tls else None
        self._changed = threading.Condition()
        self._server = None
        self._open = set()  # connections
        self._tasks = {}
        self._switches = {}  # by task id; None: all tasks
        self._barriers = {}  # likewise
        self.time = time.time
        self._clock_offset = 0.0
        self._connections = 0
        self._in_flight = 0
        self.reset_counts()

    def _make_context(self) -> ssl.SSLContext:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "server.pem").exists():
            authority.make(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.set_alpn_protocols(["http/1.1"])
        return context

    def move(self, host: str, make_socket) -> None:
        """Before the first start: it will listen on this address, on sockets of make_socket()."""
        self.host = host
        authority.issue(self.folder, "server", f"IP:{host}", f"DNS:{host}")
        self.context = self._make_context()
        self._bound = Port(host, 0, make_socket)
        self.port = self._bound.number

    # Start and stop

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.host}:{self.port}"

    def start(self):
        if not self._bound:
            self._bound = Port(self.host, self.port)
            self.port = self._bound.number
        self._server = Server(self, self._bound.open())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuses new connections and breaks the open ones."""
        if not self._server:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        self._bound.refuse()
        self.release()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Breaks the open connections, and keeps accepting new ones."""
        with self._changed:
            for connection in self._open:
                try:
                    # Not SSLSocket.shutdown, which drops the TLS state while another thread uses it.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer has just closed it

    def close(self) -> None:
        """Stops, and releases the port."""
        self.stop()
        if self._bound:
            self._bound.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    # For tests: switches

    def switch(self, task_id: str | None = None, **settings) -> None:
        """Sets switches (see Switch) for one task or, without task_id, for all; they add to those already set."""
        if unknown := settings.keys() - SWITCHES:
            raise TypeError(f"unknown switch: {', '.join(sorted(unknown))}")
        with self._changed:
            self._switches.setdefault(task_id, {}).update(settings)

    def clear(self, task_id: str | None = None) -> None:
        """Clears the task's switches or, without task_id, all switches, and releases held queries."""
        with self._changed:
            if task_id is None:
                self._switches.clear()
            self._switches.pop(task_id, None)
        self.release(task_id)

    def hold(self, task_id: str | None = None) -> Barrier:
        """Makes queries (for this task) wait at a barrier after they are counted."""
        with self._changed:
            barrier = self._barriers[task_id] = Barrier()
        return barrier

    def release(self, task_id: str | None = None) -> None:
        """Releases the barrier of the task, or without task_id every barrier."""
        with self._changed:
            names = list(self._barriers) if task_id is None else [task_id]
            barriers = [self._barriers.pop(name) for name in names if name in self._barriers]
        for barrier in barriers:
            barrier.release()

    def wait_arrived(self, task_id: str | None = None, count: int = 1, seconds: float = PATIENCE) -> int:
        """Barrier.wait_arrived for the barrier of this task."""
        with self._changed:
            barrier = self._barriers[task_id]
        return barrier.wait_arrived(count, seconds)

    def advance(self, seconds: float) -> None:
        """Advances the stand-in's clock, so that tasks progress without waiting."""
        with self._changed:
            self._clock_offset += seconds

    def ends_at(self, task_id: str) -> float:
        """The unix time at which a known task ends."""
        with self._changed:
            task = self._tasks[task_id]
            return task.born + task.seconds - self._clock_offset

    # For tests: counts

    def count(self, task_id: str | None = None) -> int:
        """The number of queries (for this task)."""
        with self._changed:
            return self._by_task[task_id] if task_id else self._queries

    def counts(self) -> dict:
        with self._changed:
            return {
                "queries": self._queries,
                "tasks": dict(self._by_task),
                "connections": self._connections,
                "open": len(self._open),
                "in_flight": self._in_flight,
                "peak": self._peak,
            }

    def wait_count(self, count: int, task_id: str | None = None, seconds: float = PATIENCE) -> int:
        """Waits for at least `count` queries (for this task), and returns their number."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(task_id) >= count, seconds):
                raise TimeoutError(f"{self.count(task_id)} of {count} queries arrived in {seconds} s")
            return self.count(task_id)

    def seen(self, task_id: str | None = None) -> list:
        """The latest queries (for this task), oldest first: list of Query."""
        with self._changed:
            return [query for query in self._seen if task_id in (None, query.task_id)]

    def log(self) -> str:
        """The latest queries, a line each, oldest first."""
        return "".join(f"{query}\n" for query in self.seen())

    def reset_counts(self, keep: int | None = 10_000) -> None:
        """Resets the counts, but not open connections, tasks and switches. Keeps as many of the latest queries from now on;
        None: all."""
        with self._changed:
            self._queries = 0
            self._peak = self._in_flight
            self._by_task = collections.Counter()
            self._seen = collections.deque(maxlen=keep)

    # For connections

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections += 1
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)

    def admit(self, query: Query) -> tuple:
        """Counts the query; returns its switch and the barrier that it has to wait at, or None."""
        with self._changed:
            self._queries += 1
            self._by_task[query.task_id] += 1
            self._seen.append(query)
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
            self._changed.notify_all()
            barrier = self._barriers.get(query.task_id) or self._barriers.get(None)
            return self._take_switch(query.task_id), barrier

    def _take_switch(self, task_id: str) -> Switch:
        merged = {}
        for name in (None, task_id):
            settings = self._switches.get(name, {})
            merged.update(settings)
            if settings.get("times") is not None:
                settings["times"] -= 1
                if settings["times"] <= 0:
                    del self._switches[name]
        return Switch(**merged)

    def left(self) -> None:
        with self._changed:
            self._in_flight -= 1

    def reply(self, query: Query, switch: Switch, player) -> players.Reply:
        """The answer to this query: rejections first, then the player's answer, modified by the switch."""
        key = player.key(query.headers, self.keys | self.forbidden)
        if key in self.forbidden:
            reply = player.refuse(403)
        elif key not in self.keys:
            reply = player.refuse(401)
        elif key in self.busy:
            reply = player.error(429, "You ask too often.", "too_many_requests")
            reply.headers["Retry-After"] = str(self.busy[key])
        elif self.owners.get(query.task_id, key) != key:
            reply = player.missing()
        else:
            reply = self._play(query, switch, player)
        if switch.repeat_key and key:
            reply.body = players.repeat_key(reply.body, key, player.kept_texts)
            reply.headers["X-Received-Authorization"] = f"Bearer {key}"
        return reply

    def _play(self, query: Query, switch: Switch, player) -> players.Reply:
        with self._changed:
            now = self.time() + self._clock_offset
            life = self.task_seconds if switch.seconds is None else switch.seconds
            task = self._tasks.setdefault(query.task_id, players.Task(query.task_id, now, life))
        reply = player.play(task, now, query.headers, switch)
        status = switch.status or (429 if switch.retry_after is not None else None)
        if status and status >= 400:
            reply = player.error(status, "The upstream is not well.", "upstream_not_well")
        elif status:
            reply.status = status
        if switch.redirect:
            reply = players.Reply(302, b"", {"Location": switch.redirect})
        if (body := unusual_body(switch)) is not None:
            reply.body = body
        if switch.own_urls:
            own = self.url if switch.own_urls is True else switch.own_urls
            reply.body = SIGNED_HOSTS.sub(own.encode(), reply.body).replace(KEYED_HOST, f"{self.url}/".encode())
        if switch.retry_after is not None:
            reply.headers["Retry-After"] = str(switch.retry_after)
        reply.headers.update(switch.headers or {})
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays the upstream on 127.0.0.1, over TLS.")
    parser.add_argument("--dir", required=True, help="folder for the certificates and control.sock")
    parser.add_argument("--key", required=True, action="append", help="a key that is accepted; may be repeated")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--task-seconds", type=float, default=20, help="from a task's first query to its end; default: 20")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Standin(options.dir, options.key, port=options.port, task_seconds=options.task_seconds) as standin:
        with Control(standin) as control:
            print(f"stand-in upstream at {standin.url}, its CA in {standin.ca_file}", flush=True)
            try:
                control.serve_forever()
            except KeyboardInterrupt:
                pass


if __name__ == "__main__":
    main()
