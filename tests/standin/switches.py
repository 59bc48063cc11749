"""Switches that change the stand-in's behavior, and records of its queries."""

import threading
import time
from dataclasses import dataclass, fields

PATIENCE = 20  # seconds; the default time-out of the wait_* methods


@dataclass
class Switch:
    """Deviations from normal behavior. Members that are None or False change nothing."""

    # Before the answer
    delay: float | None = None  # seconds before the answer
    hang: bool = False  # read the query, never answer
    reset: bool = False  # answer with a TCP reset
    swallow: bool = False  # on a reused connection: read the query, close without a byte
    wire: bytes | str | None = None  # these bytes in place of the HTTP answer, then close

    # The task; of these, pages other than sora's know only the four states, and `seconds`
    state: str | None = None  # pin the state: NOT_START, IN_PROGRESS, SUCCESS, FAILURE or any other text
    progress: str | None = None  # this text instead of the "NN%" from the task's age
    expires: float | None = None  # unix time for the se= and ske= of the URLs
    seconds: float | None = None  # the task's life, instead of the stand-in's task_seconds

    # The answer
    status: int | None = None  # this status; with an error body if 400 or above, unless `raw` is given
    retry_after: int | str | None = None  # a Retry-After header; without `status` a 429
    redirect: str | None = None  # a 302 to this Location
    headers: dict | None = None  # more headers
    raw: bytes | str | None = None  # this body, byte for byte
    garbage: bool = False  # a body that is not JSON
    huge: bool | int = False  # a JSON body of this many bytes (True: 64 MiB)
    deep: bool | int = False  # this many arrays nested in /data/data (True: 10,000)
    repeat_key: bool = False  # the key received, in text members and in a header

    own_urls: bool | str = False  # the URLs of sora, fal, midjourney and Google lead to the stand-in; a text: signed ones there

    # Transmission
    chunked: bool = False  # without Content-Length
    truncated: bool = False  # half of the body, then close
    endless: bool = False  # a chunked body that does not end
    pace: float = 0  # seconds between the chunks of an endless body

    times: int | None = None  # only for this many queries, then off


SWITCHES = {field.name for field in fields(Switch)}


@dataclass
class Query:
    """One query as received."""

    method: str
    target: str
    headers: dict  # names in lower case
    task_id: str
    at: float
    answer: str = "no answer yet, or none because of a switch"
    host: str = ""  # the peer's address
    port: int = 0  # of the peer
    closed: float | None = None  # when the peer was seen to close the connection without another query on it

    def __str__(self):
        clock = time.strftime("%H:%M:%S", time.localtime(self.at))
        return f"{clock}.{int(1000 * self.at) % 1000:03d} {self.method} {self.target}: {self.answer}"


class Barrier:
    """Holds queries until released. A context manager, so that no query stays held after a test has failed."""

    def __init__(self):
        self._changed = threading.Condition()
        self._arrived = 0
        self._released = False

    def arrive(self) -> None:
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released)

    def wait_arrived(self, count: int = 1, seconds: float = PATIENCE) -> int:
        """Waits for at least `count` queries at the barrier, and returns their number."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= count, seconds):
                raise TimeoutError(f"{self._arrived} of {count} queries arrived at the barrier in {seconds} s")
            return self._arrived

    def release(self) -> None:
        """Releases waiting and future queries."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


def unusual_body(switch: Switch) -> bytes | None:
    if switch.raw is not None:
        return as_bytes(switch.raw)
    if switch.garbage:
        return b"<html><body><h1>200 It works!</h1></body></html>\n"
    if switch.huge:
        size = 64 * 1024 * 1024 if switch.huge is True else switch.huge
        head, tail = b'{"code": "success", "data": {"status": "SUCCESS", "padding": "', b'"}}'
        return head + b"x" * (size - len(head) - len(tail)) + tail
    if switch.deep:
        depth = 10_000 if switch.deep is True else switch.deep
        return b'{"code": "success", "data": {"status": "SUCCESS", "data": %b}}' % (b"[" * depth + b"]" * depth)
    return None


def as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
