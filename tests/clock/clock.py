"""A clock controlled by a test: programs with its environment read it instead of the system's clocks (clock.c).

    clock.step(30)    advances the time by half a minute; timers that are due fire now
    clock.freeze()    stops the time except for step(); connections work, time-outs do not expire
    clock.run()       lets the time run on from its current value
    clock.set_wall(-5) sets the wall clock back; monotonic clocks are not affected

A step wakes sleeping programs at once. It is one jump, however: an interval timer of a second fires once in a step of a
minute.
"""

import mmap
import os
import struct
import time
from pathlib import Path

import parts

LIBRARY = parts.ROOT / "build" / "asan" / "clock.so"
SLOW_WRITES = parts.ROOT / "build" / "asan" / "slow_writes.so"
COUNT = struct.Struct("=q")  # of changes
SETTING = struct.Struct("=qqq")  # frozen, wall_ns, monotonic_ns; as many as SETTINGS
SETTINGS = 64


def slow_writes(milliseconds: int, clock=None) -> dict:
    """The environment in which a program stops for that long, in real time, after each write to a socket (slow_writes.c)."""
    preloaded = f"{LIBRARY}:{SLOW_WRITES}" if clock else str(SLOW_WRITES)
    own = {"LD_PRELOAD": preloaded, "TEST_SLOW_WRITES": str(milliseconds), "ASAN_OPTIONS": preloading()}
    return {**clock.environment, **own} if clock else own


def preloading() -> str:
    """ASAN_OPTIONS of a program that loads a library before the sanitizer's."""
    return f"{os.environ.get('ASAN_OPTIONS', 'detect_leaks=1')}:verify_asan_link_order=0"


class Clock:
    """One clock, in one file; programs that should read it need `environment`."""

    def __init__(self, path: Path):
        path.write_bytes(bytes(COUNT.size + SETTINGS * SETTING.size))
        path.chmod(0o644)
        self._file = open(path, "r+b")
        self._memory = mmap.mmap(self._file.fileno(), 0)
        self._changes = 0
        self._frozen, self._wall_ns, self._monotonic_ns = 0, 0, 0
        self.environment = {"LD_PRELOAD": str(LIBRARY), "TEST_CLOCK": str(path), "ASAN_OPTIONS": preloading()}

    def time(self) -> float:
        """Unix time by this clock."""
        return (self._wall_ns + (0 if self._frozen else time.time_ns())) / 1e9

    def step(self, seconds: float) -> None:
        self._set(self._frozen, self._wall_ns + round(seconds * 1e9), self._monotonic_ns + round(seconds * 1e9))

    def set_wall(self, seconds: float) -> None:
        """Sets the wall clock alone, back if negative, as an administrator or NTP does; monotonic clocks and timers go on."""
        self._set(self._frozen, self._wall_ns + round(seconds * 1e9), self._monotonic_ns)

    def freeze(self) -> None:
        """Freezes the clock at the next whole second, so that differences to unix times are whole, too."""
        if not self._frozen:
            wall_ns = self._wall_ns + time.time_ns()
            rest_ns = -wall_ns % 1_000_000_000
            self._set(1, wall_ns + rest_ns, self._monotonic_ns + time.monotonic_ns() + rest_ns)

    def run(self) -> None:
        if self._frozen:
            self._set(0, self._wall_ns - time.time_ns(), self._monotonic_ns - time.monotonic_ns())

    def _set(self, *setting: int) -> None:
        self._frozen, self._wall_ns, self._monotonic_ns = setting
        self._changes += 1
        SETTING.pack_into(self._memory, COUNT.size + self._changes % SETTINGS * SETTING.size, *setting)
        COUNT.pack_into(self._memory, 0, self._changes)
        os.pwrite(self._file.fileno(), COUNT.pack(self._changes), 0)  # wakes the programs

    def close(self) -> None:
        self._memory.close()
        self._file.close()
