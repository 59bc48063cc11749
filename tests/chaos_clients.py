"""The clients of `make chaos` and `make soak`: they follow tasks by polling, with held requests or by event stream."""

import asyncio
import collections
import json
import random
import time
from typing import NamedTuple

CLIENTS, TASKS = 100, 50  # clients, and tasks that run at a time
HUNG_AFTER, TIMEOUT = 5, 2  # seconds; the program's settings
LONGEST = 2 * (HUNG_AFTER + 1) + TIMEOUT + 3  # seconds: both workers stopped in turn, then a query; and some more
NAP = 0.05  # seconds; the clients measure how much longer such pauses take on a busy machine
RAMP = 3  # seconds in which the clients begin
FURTHER_TASKS = 2  # in a list
WAIT = 5  # seconds that a request is held
SILENCE = 40  # seconds without a byte of a stream, in which two comments are due
ENDED = {"succeeded", "failed", "cancelled"}
STATES = {"queued", "running", *ENDED}
PROBLEMS = {"rate_limited", "upstream_error", "upstream_invalid", "upstream_auth", "overloaded", "upstream_unavailable",
            "upstream_timeout"}
RETRY_AFTER_MAX = 60


class Reply(NamedTuple):
    """An answer, complete or, for a stream, its head."""

    status: int
    headers: dict
    body: bytes
    seconds: float  # without those that the machine was too busy for


class Clients:
    """All clients. `findings` are violations; `waiting` names the task that each client is following.

    poll(), wait(), stream() and stream_of_list() follow a task until an answer says that it has ended, and return its document.
    """

    problems = PROBLEMS  # allowed in answers about one task

    def __init__(self, stack, tokens: dict, keys: list, seed: int):
        self._socket, self._keys = stack.nginx.socket, keys  # the list grows when a key is rotated
        self._tokens = list(tokens.values())
        self._rng = random.Random(f"{seed} clients")
        self.findings = []
        self.waiting = {}
        self._answers = collections.Counter()
        self._ends = 0
        self._longest = 0.0
        self._late = 0.0  # seconds that the pauses have taken too long so far

    async def follow(self, seconds: float) -> None:
        """Follows tasks for that time, and then each client's last task to its end."""
        end = time.monotonic() + seconds
        measuring = asyncio.create_task(self._measure())
        await asyncio.gather(*(self._client(number, end) for number in range(CLIENTS)))
        measuring.cancel()

    async def _measure(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(NAP)
            self._late += time.monotonic() - began - NAP

    def _time(self) -> float:
        return time.monotonic() - self._late

    async def _client(self, number: int, end: float) -> None:
        how = (self.poll, self.wait, self.stream, self.stream_of_list)[number % 4]
        name = f"client {number} ({how.__name__})"
        token = self._tokens[number // 4 % len(self._tokens)]
        generation = 0
        await asyncio.sleep(self._rng.uniform(0, RAMP))  # the upstream of the tests is slow to accept hundreds of connections
        while time.monotonic() < end:
            task = f"task_{generation}_{self._rng.randrange(TASKS)}"
            self.waiting[name] = task
            await self._follow_one(how, task, token)
            generation += 1
        del self.waiting[name]

    async def _follow_one(self, how, task: str, token: str) -> dict | None:
        """None if nginx refuses a connection or closes it without an answer, or an answer is not JSON."""
        try:
            document = await how(task, token)
            self._ends += 1
            return document
        except (OSError, EOFError, ValueError) as trouble:
            self._find(task, repr(trouble))
            return None

    async def poll(self, task: str, token: str) -> dict:
        while not (document := self._ended(await self._ask(task, token))):
            await asyncio.sleep(self._rng.uniform(0.2, 0.8))
        return document

    async def wait(self, task: str, token: str) -> dict:
        while not (document := self._ended(reply := await self._ask(task, token, f"?wait={WAIT}", WAIT))):
            if reply.status != 200:
                await asyncio.sleep(0.3)
        return document

    async def stream(self, task: str, token: str) -> dict:
        return await self._stream_until_ended(f"/v1/tasks/sora/{task}", [task], token)

    async def stream_of_list(self, task: str, token: str) -> dict:
        """Follows some more tasks of the same generation, too."""
        generation = task.rpartition("_")[0]
        tasks = [task, *(f"{generation}_{number}" for number in self._rng.sample(range(TASKS), FURTHER_TASKS))]
        target = "/v1/tasks?ids=" + ",".join(f"sora/{one}" for one in tasks)
        return await self._stream_until_ended(target, tasks, token)

    async def _stream_until_ended(self, target: str, tasks: list, token: str) -> dict:
        """Opens the stream again, as a browser does, until events say that all tasks have ended; returns the first one's document."""
        ends = {}
        while not ends.keys() >= set(tasks):
            await self._one_stream(target, tasks, token, ends)
            await asyncio.sleep(0.3)
        return ends[tasks[0]]

    # Answers

    async def _ask(self, task: str, token: str, query: str = "", held: float = 0) -> Reply:
        reply = await self._request(f"/v1/tasks/sora/{task}{query}", token)
        self._check(task, reply, held)
        return reply

    async def _request(self, target: str, token: str) -> Reply:
        began = self._time()
        reader, writer = await self._send(target, token)
        try:
            status, headers = await self._head(reader)
            return Reply(status, headers, await reader.read(), self._time() - began)
        finally:
            writer.close()

    async def _send(self, target: str, token: str, accept: str = "application/json"):
        reader, writer = await asyncio.open_unix_connection(self._socket)
        writer.write(f"GET {target} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                     f"Accept: {accept}\r\n\r\n".encode())
        return reader, writer

    async def _head(self, reader) -> tuple:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    def _check(self, task: str, reply: Reply, held: float = 0) -> None:
        self._check_head(task, reply, held)
        self._check_document(task, reply.status, reply.body)

    def _check_head(self, task: str, reply: Reply, held: float = 0) -> None:
        self._answers[reply.status] += 1
        self._longest = max(self._longest, reply.seconds - held)
        if reply.seconds > held + LONGEST:
            self._find(task, f"{reply.status} after {reply.seconds:.1f} s, held for at most {held:g} s")
        self._check_keys(task, str(reply.headers).encode() + reply.body)
        if int(reply.headers.get("retry-after", 0)) > RETRY_AFTER_MAX:
            self._find(task, f"Retry-After: {reply.headers['retry-after']}")

    def _check_keys(self, task: str, sent: bytes) -> None:
        if any(key.encode() in sent for key in self._keys):
            self._find(task, "the answer contains an API key")

    def _check_document(self, task: str, status: int, body: bytes) -> None:
        try:
            document = json.loads(body)
            good = document["task_id"] == task and document["status"] in STATES if status == 200 else \
                document["status"] == status >= 429 and document["code"] in self.problems
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            self._find(task, f"undocumented answer: {status} {body[:300]!r}")

    def _ended(self, reply: Reply) -> dict | None:
        return ended(reply.body) if reply.status == 200 else None

    def _find(self, task: str, what: str) -> None:
        self.findings.append(f"{task}: {what}")

    # Event streams

    async def _one_stream(self, target: str, tasks: list, token: str, ends: dict) -> None:
        """Adds the documents of tasks that have ended to `ends`."""
        began = self._time()
        reader, writer = await self._send(target, token, accept="text/event-stream")
        try:
            status, headers = await self._head(reader)
            seconds = self._time() - began
            if status != 200 or headers.get("content-type") != "text/event-stream":
                self._check(tasks[0], Reply(status, headers, await reader.read(), seconds))
                return
            self._answers["stream" if len(tasks) == 1 else "stream of a list"] += 1
            await self._events(tasks, reader, ends)
        finally:
            writer.close()

    async def _events(self, tasks: list, reader, ends: dict) -> None:
        kind = b""
        while not ends.keys() >= set(tasks):
            try:
                line = await asyncio.wait_for(reader.readline(), SILENCE)
            except TimeoutError:
                return self._find(tasks[0], f"a stream without a byte for {SILENCE} s")
            if not line.endswith(b"\n"):
                return None  # the worker has ended
            if line.startswith(b"event:"):
                kind = line.removeprefix(b"event:").strip()
            elif line.startswith(b"data:"):
                self._take_event(tasks, kind, line.removeprefix(b"data:").strip(), ends)

    def _take_event(self, tasks: list, kind: bytes, data: bytes, ends: dict) -> None:
        document = json.loads(data)
        task = document.get("task_id", tasks[0])  # some problems concern all tasks
        self._check_keys(task, data)
        if task not in tasks:
            self._find(tasks[0], f"an event about {task}")
        self._check_document(task, 200 if kind == b"status" else document["status"], data)
        if document.get("status") in ENDED:
            ends[task] = document

    def summary(self) -> str:
        return f"{self._ends:,} ends learned; {self._answer_counts()}"

    def _answer_counts(self) -> str:
        answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(self._answers.items(), key=str))
        return f"answers: {answers}; longest beyond the time held: {self._longest:.1f} s"


def ended(body: bytes) -> dict | None:
    """The document, if it says that the task has ended."""
    document = json.loads(body)
    return document if document.get("status") in ENDED else None
