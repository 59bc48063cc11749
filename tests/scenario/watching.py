"""Helpers for the tests of waiting, of event streams and of a failing upstream."""

import json
from collections import namedtuple

import pytest

from parts import PATIENCE

NATIVE, UNIFIED = "/sora/v1/videos/", "/v1/tasks/sora/"
INTERVAL = 0.1  # seconds, between two queries for one task
QUICK = {"sora": {"poll": {"min": "100ms", "max": "100ms"}}}
EVEN = {"sora": {"poll": {"min": "2s", "max": "2s"}}}  # for a frozen clock: a step of 3 s is one query
SLOW = {"sora": {"poll": {"min": "60s", "max": "60s"}}}  # no task is queried again just because time passes
both_views = pytest.mark.parametrize("view", [NATIVE, UNIFIED], ids=["native", "unified"])

Event = namedtuple("Event", "type data id")


def quick(workers=1, **config) -> dict:
    """Settings of a Stack with one worker, so that counts are exact, and tasks that are polled every INTERVAL."""
    return {"providers": QUICK, "config": {"workers": workers, **config}}


def run(stack, progress="7%", task_id=None):
    """From now on the task, or every task, runs, and each query gets the same answer."""
    stack.standin.switch(task_id, state="IN_PROGRESS", progress=progress)


def end(stack, task_id=None):
    stack.standin.switch(task_id, state="SUCCESS", progress="100%")


def wait_queries(stack, more, task_id=None):
    """Waits for this many queries for the task from now on."""
    stack.standin.wait_count(stack.standin.count(task_id) + more, task_id)


def assert_one_query_an_interval(stack, task_id):
    """Checks all queries so far; allows one more, because the first may have been delayed on a busy machine."""
    times = [query.at for query in stack.standin.seen(task_id)]
    assert len(times) - 1 <= (times[-1] - times[0]) / INTERVAL + 1


def assert_not_asked_any_more(stack, task_id):
    """Asserts that the task is not queried while another, watched one is queried several times."""
    before, streams = stack.standin.count(task_id), stack.metric("streams")
    run(stack, "7%", "meanwhile")
    with Stream(stack, NATIVE + "meanwhile"):
        wait_queries(stack, 5, "meanwhile")
    assert stack.standin.count(task_id) == before
    stack.wait_metric("streams", lambda now: now <= streams)


def hold(stack, *asks, path=NATIVE) -> list:
    """Sends requests, each (end of the path, headers), and waits until all are held, with no fetch running any more;
    returns futures."""
    before = stack.metric("waiters")
    held = [stack.background(stack.get, path + target, headers) for target, headers in asks]

    def all_held():
        assert not (answered := [ask.result() for ask in held if ask.done()]), answered
        return stack.metric("waiters") >= before + len(held) and stack.metric("fetches") == 0

    stack.wait_until(all_held, what=f"{len(held)} held requests")
    return held


def status(answer) -> str:
    document = answer.json()
    return document["status"] if "status" in document else document["data"]["status"]


class Stream:
    """An event stream through nginx, read as the WHATWG's HTML standard says ("Interpreting an event stream")."""

    def __init__(self, stack, path, patience=PATIENCE, **headers):
        self._connection = stack.nginx.connection(patience)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", path, headers={"Accept": "text/event-stream", **named})
        try:
            self.response = self._connection.getresponse()
        except BaseException:
            self._connection.close()  # or the next test would see it
            raise
        self.comments = []
        self.retries = []  # ms
        self.last_id = ""

    def next(self) -> Event | None:
        """The next event; None at the end of the stream. An end in the middle is an http.client.IncompleteRead."""
        kind, data = "message", []
        while line := self.next_line():
            if line == "\n":
                if data:
                    return Event(kind, json.loads("\n".join(data)), self.last_id)
                kind = "message"
            elif line.startswith(":"):
                self.comments.append(line[1:].strip())
            else:
                field, _, value = line.rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data.append(value)
                elif field == "id":
                    self.last_id = value
                elif field == "retry":
                    self.retries.append(int(value))
        return None

    def next_line(self) -> str:
        line = self.response.readline().decode()
        assert not line or line.endswith("\n"), "the stream ended within a line"
        assert "\r" not in line
        return line

    def rest(self) -> list:
        """All events up to the end of the stream."""
        return list(iter(self.next, None))

    def close(self):
        self._connection.close()
        self.response.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def begin(stack, path, **headers) -> Stream:
    """Opens a stream and reads its first event."""
    stream = Stream(stack, path, **headers)
    assert stream.next().type == "status"
    return stream
