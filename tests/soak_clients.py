"""The clients of `make soak`: new tasks start evenly and are followed to their ends; some of the ended ones are read again."""

import asyncio
import json
import time
import zlib

import chaos_clients

ABREAST = 400  # followed at a time, at most: tasks, or lists of them
LISTED = 10  # tasks in a list
READ_AGAIN = 0.3  # part of the ended tasks
RECENT = 500  # ended tasks, from which half of the repeated reads choose
EVERY_MISSING, EVERY_FAILED = 50, 21  # tasks


class Clients(chaos_clients.Clients):
    """Nothing is broken on purpose: every answer must be a 200, or a 404 for tasks that do not exist."""

    problems = frozenset()

    def __init__(self, stack, tokens: dict, keys: list, seed: int):
        super().__init__(stack, tokens, keys, seed)
        self.started = 0
        self._room = asyncio.Semaphore(ABREAST)
        self._known = []  # ended tasks: (id, checksum of the last document)
        self._read_again = 0

    async def follow(self, tasks: int, seconds: float) -> None:
        """Starts that many tasks evenly over that time; returns when all have ended."""
        began = time.monotonic()
        listed = []
        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                await asyncio.sleep(began + seconds * number / tasks - time.monotonic())
                task, how = self._plan(self.started)
                self.started += 1
                if how:
                    group.create_task(self._follow(how, task))
                    continue
                listed.append(task)
                if len(listed) == LISTED:
                    group.create_task(self._follow(self._list, listed))
                    listed = []
            if listed:
                group.create_task(self._follow(self._list, listed))

    def _plan(self, number: int) -> tuple:
        """The task's id, and how it is followed; None: in a list."""
        if number % EVERY_MISSING == 0:
            return f"missing_{number}", self._missing
        task = f"{'fail' if number % EVERY_FAILED == 0 else 'task'}_{number}"
        return task, (self.poll, self.wait, self.stream, None)[number % 4]

    async def _follow(self, how, what) -> None:
        async with self._room:
            found = await self._follow_one(how, what, self._token())
            for document in [found] if isinstance(found, dict) else found or []:
                self._known.append((document["task_id"], checksum(document)))
                if self._rng.random() < READ_AGAIN:
                    await self._follow_one(self._again, self._ended_task(), self._token())

    def _token(self) -> str:
        return self._rng.choice(self._tokens)

    def _ended_task(self) -> tuple:
        return self._rng.choice(self._known[-RECENT:] if self._rng.random() < 0.5 else self._known)

    async def _again(self, known: tuple, token: str) -> None:
        """Reads an ended task, whether it is still cached or not: the document must be the same."""
        task, expected = known
        document = self._ended(await self._ask(task, token))
        self._read_again += 1
        if not document or checksum(document) != expected:
            self._find(task, f"changed after its end: {document}")

    async def _missing(self, task: str, token: str) -> None:
        reply = await self._request(f"/v1/tasks/sora/{task}", token)
        self._check_head(task, reply)
        if reply.status != 404 or json.loads(reply.body)["code"] != "task_not_found":
            self._find(task, f"does not exist, but: {reply.status} {reply.body[:300]!r}")

    async def _list(self, tasks: list, token: str) -> list:
        while True:
            reply = await self._request(f"/v1/tasks?ids={','.join(f'sora/{task}' for task in tasks)}", token)
            self._check_head(tasks[0], reply)
            documents = json.loads(reply.body)["tasks"]
            if reply.status != 200 or len(documents) != len(tasks):
                self._find(tasks[0], f"bad list: {reply.status} {reply.body[:300]!r}")
            for task, document in zip(tasks, documents):
                self._check_document(task, 200, json.dumps(document).encode())
            if all(document.get("status") in chaos_clients.ENDED for document in documents):
                return documents
            await asyncio.sleep(self._rng.uniform(0.4, 0.8))

    def summary(self) -> str:
        return (f"{self.started:,} tasks started, {len(self._known):,} ended, {self._read_again:,} read again; "
                f"{self._answer_counts()}")


def checksum(document: dict) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())
