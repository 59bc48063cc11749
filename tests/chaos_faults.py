"""The faults of `make chaos`: what is broken, for how long, and how it is mended."""

import contextlib
import os
import random
import secrets
import signal
import time
from typing import NamedTuple

from chaos_clients import HUNG_AFTER

PAUSE_SECONDS = (0.5, 4.0)  # between two faults of a part
FAULT_SECONDS = (0.2, 3.0)


class Fault(NamedTuple):
    """One fault of the schedule."""

    wait: float  # seconds after the previous one was mended
    name: str
    seconds: float
    choice: int  # which worker, if it concerns one


class Faults:
    """Each part has a thread that breaks and mends it; one fault of a part at a time."""

    def __init__(self, stack, seed: int, seconds: float):
        self.stack = stack
        self.keys = [stack.key]
        self.began = None
        self._seconds = seconds
        self._schedules = {part: schedule(random.Random(f"{seed} {part}"), names) for part, names in PARTS.items()}
        self._apart = []  # (begin, end) of the faults in which workers may not know of each other's queries
        self._counts = {}

    def run(self, part: str) -> None:
        """Breaks and mends the part until the time is over."""
        self.began = self.began or time.time()
        end = self.began + self._seconds
        for fault in self._schedules[part]:
            if time.time() + fault.wait + fault.seconds > end:
                return
            time.sleep(fault.wait)
            self._one(part, fault)

    def _one(self, part: str, fault: Fault) -> None:
        began = time.time()
        self._counts[fault.name] = self._counts.get(fault.name, 0) + 1
        print(f"  {began - self.began:6.2f} s: {fault.name.replace('_', ' ')} for {fault.seconds:.1f} s", flush=True)
        mend = getattr(self, fault.name)(fault)
        time.sleep(fault.seconds)
        if mend:
            mend()
        if part in ("workers", "redis") or fault.name == "reload":
            stopped = HUNG_AFTER + 1 if fault.name == "worker_stopped" else 0  # until the master kills it
            self.add_apart(began, max(time.time(), began + stopped))

    def add_apart(self, begin: float, end: float) -> None:
        """Workers may not know of each other's queries during that time."""
        self._apart.append((begin, end))

    def were_apart(self, at: float, seconds_after: float) -> bool:
        """Whether workers may not have known of each other's queries at that time, or within the seconds before it."""
        return any(begin <= at <= end + seconds_after for begin, end in self._apart)

    def summary(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(self._counts.items()))

    # The workers

    def _signal_worker(self, number: int, fault: Fault) -> None:
        workers = self.stack.daemon.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[fault.choice % len(workers)], number)

    def worker_killed(self, fault: Fault):
        self._signal_worker(signal.SIGKILL, fault)

    def worker_stopped(self, fault: Fault):
        """The master kills it after hung_after."""
        self._signal_worker(signal.SIGSTOP, fault)

    # The master

    def reload(self, _):
        self.stack.daemon.hup()

    def key_rotated(self, _):
        """The upstream accepts both keys until the fault is mended; a worker that is late sees rejections."""
        key, old = f"sk-{secrets.token_hex(16)}", self.keys[-1]
        self.stack.standin.keys.add(key)
        self.keys.append(key)
        self.stack.write_key(key)
        return lambda: self.stack.standin.keys.discard(old)

    # Redis

    def redis_killed(self, _):
        self.stack.redis.kill()
        return self.stack.redis.start

    def redis_frozen(self, _):
        self.stack.redis.freeze()
        return self.stack.redis.thaw

    def redis_full(self, _):
        self.stack.redis.cli("CONFIG", "SET", "maxmemory", "1")
        return lambda: self.stack.redis.cli("CONFIG", "SET", "maxmemory", "0")

    def redis_demoted(self, _):
        self.stack.redis.cli("REPLICAOF", "127.0.0.1", "1")
        return lambda: self.stack.redis.cli("REPLICAOF", "NO", "ONE")

    # The upstream

    def _switch(self, **settings):
        self.stack.standin.switch(**settings)
        return lambda: self.stack.standin.switch(**dict.fromkeys(settings))

    def upstream_fails(self, _):
        return self._switch(status=500)

    def upstream_is_busy(self, _):
        return self._switch(retry_after=1)

    def upstream_resets(self, _):
        return self._switch(reset=True)

    def upstream_talks_garbage(self, _):
        return self._switch(garbage=True)

    def upstream_is_silent(self, _):
        self.stack.standin.hold()
        return self.stack.standin.release

    def upstream_is_down(self, _):
        self.stack.standin.stop()
        return self.stack.standin.start

    # The clock

    def clock_set_back(self, fault: Fault):
        return self._set_wall(-(fault.choice % 3600))

    def clock_set_forward(self, fault: Fault):
        return self._set_wall(fault.choice % 3600)

    def _set_wall(self, seconds: int):
        self._step(seconds)
        return lambda: self._step(-seconds)

    def _step(self, seconds: int) -> None:
        """It is also the clock of Redis, which then expires views and leases."""
        self.stack.clock.set_wall(seconds)
        self.add_apart(time.time(), time.time())


PARTS = {
    "workers": ["worker_killed", "worker_stopped"],
    "master": ["reload", "key_rotated"],
    "redis": ["redis_killed", "redis_frozen", "redis_full", "redis_demoted"],
    "upstream": ["upstream_fails", "upstream_is_busy", "upstream_resets", "upstream_talks_garbage", "upstream_is_silent",
                 "upstream_is_down"],
    "clock": ["clock_set_back", "clock_set_forward"],
}


def schedule(rng: random.Random, names: list):
    """Faults without end, the same ones for the same seed."""
    while True:
        yield Fault(rng.uniform(*PAUSE_SECONDS), rng.choice(names), rng.uniform(*FAULT_SECONDS), rng.randrange(1_000_000))
