"""Clients that time each of their requests, less the time that the machine was too busy for them."""

import contextlib
import itertools
import threading
import time

import fastcgi

NAP = 0.01  # seconds; a wait that ends later shows how late this machine is


class Timing:
    """`failures`, and `longest`: the time of the slowest request in seconds."""

    def __init__(self, stack):
        self.failures, self.longest, self.asked = [], 0.0, 0
        self._stack, self._stop = stack, threading.Event()
        self._late = 0.0  # seconds that the waits have taken too long so far

    def seconds(self) -> float:
        """A clock that stops while the machine is too busy."""
        return time.monotonic() - self._late

    def _measure(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(NAP):
            self._late += time.monotonic() - began - NAP
            began = time.monotonic()

    def _ask(self, index: int) -> None:
        """Clients of different workers ask for the same tasks: running ones, which are asked for again, and new ones."""
        with fastcgi.Connection(self._stack.worker_socket(index), 60) as connection:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                began = self.seconds()
                target = f"/sora/v1/videos/{'running' if number % 2 else 'new'}_{number // 2 % 8 if number % 2 else number}"
                status, _, body = connection.ask(fastcgi.task_params(target))
                self.longest = max(self.longest, self.seconds() - began)
                self.asked += 1
                if status != 200 or not body.endswith(b"}"):
                    self.failures.append((target, status, body))

    def _run(self, function, *args) -> None:
        try:
            function(*args)
        except (OSError, fastcgi.Closed) as trouble:
            self.failures.append(trouble)

    def start(self) -> list:
        threads = [threading.Thread(target=self._measure)]
        threads += [threading.Thread(target=self._run, args=(self._ask, index)) for index in (0, 1, 0, 1)]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        self._stop.set()


@contextlib.contextmanager
def timed_clients(stack):
    """Two clients of each of two workers send requests without pause."""
    timing = Timing(stack)
    threads = timing.start()
    try:
        stack.wait_until(lambda: timing.asked > 20, what="running clients")
        yield timing
        asked = timing.asked
        stack.wait_until(lambda: timing.asked > asked + 20, what="clients that still get answers")
    finally:
        timing.stop()
        for thread in threads:
            thread.join()
