"""The player of sora's API page, and the code that all players share.

A player finds the task in a path, reads the key from the headers and makes the answers; it knows nothing about sockets,
valid keys, or most switches. The others are in recorded.py; pages.py lists all.
"""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import credentials

TASK_ID = r"[A-Za-z0-9_-]{1,128}"
QUEUED_PART = 0.1  # of a task's life
URL_LIFE = 6 * 86400 + 3600  # seconds, as on the page


@dataclass
class Task:
    """The state of one task at the upstream."""

    id: str
    born: float  # unix time of the first query
    seconds: float  # from there to the end


@dataclass
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: dict = field(default_factory=lambda: {"Content-Type": "application/json"})


def reply_json(status: int, document) -> Reply:
    return Reply(status, json.dumps(document, ensure_ascii=False).encode())


class NewApi:
    """Common behavior of the aggregator's pages: the header of the key, and the error format of new-api."""

    key = staticmethod(credentials.scheme("Bearer"))

    def refuse(self, status: int) -> Reply:
        if status == 403:
            return self.error(403, "This key may not use this model.", "access_denied")
        return self.error(401, "Invalid token.", "invalid_api_key")

    def error(self, status: int, message: str, code: str = "") -> Reply:
        return reply_json(status, {"error": {"message": message, "type": "new_api_error", "code": code}})

    def missing(self) -> Reply:
        return reply_json(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})


class Sora(NewApi):
    """GET /sora/v1/videos/{task_id}. A finished task is the example of the documentation, with adapted ids, times and URLs."""

    path = re.compile(r"/sora/v1/videos/([^/]*)")
    kept_texts = ("message", "fail_reason", "title", "prompt", "url")  # where repeat_key puts the key

    def __init__(self):
        self._example = Path(__file__).with_name("sora.json").read_text(encoding="utf-8")

    def find(self, path: str, query: str) -> str | None:
        match = self.path.fullmatch(path)
        return match and match[1]

    def play(self, task: Task, now: float, headers: dict, switch) -> Reply:
        """The task's answer at `now`; values of the switch override those from the task's age."""
        state, progress = switch.state, switch.progress
        if not re.fullmatch(TASK_ID, task.id) or "missing" in task.id or task.id.startswith("404"):
            return self.missing()
        if state in ("SUCCESS", "FAILURE"):
            task = replace(task, born=task.born - task.seconds)  # it ended at the first query
        life = (now - task.born) / task.seconds if task.seconds > 0 else 1.0
        state = state or self._state(task, life)
        if state == "SUCCESS":
            return Reply(200, self._finished(task, progress, switch.expires))
        return reply_json(200, self._unfinished(task, state, progress or f"{int(100 * min(life, 0.99))}%"))

    def _state(self, task: Task, life: float) -> str:
        if life < QUEUED_PART:
            return "NOT_START"
        if life < 1:
            return "IN_PROGRESS"
        return "FAILURE" if "fail" in task.id else "SUCCESS"

    def _unfinished(self, task: Task, state: str, progress: str) -> dict:
        """Every state but SUCCESS; a failed task has no result either."""
        failed, started = state == "FAILURE", state not in ("NOT_START", "SUBMITTED", "QUEUED")
        return {"code": "success", "message": "", "data": {
            "task_id": task.id,
            "notify_hook": "",
            "action": "sora-video",
            "status": state,
            "fail_reason": "The prompt was refused by the content policy." if failed else "",
            "submit_time": int(task.born),
            "start_time": int(task.born + QUEUED_PART * task.seconds) if started else 0,
            "finish_time": int(task.born + task.seconds) if failed else 0,
            "progress": "100%" if failed else progress if started else "0%",
            "data": None,
        }}

    def _finished(self, task: Task, progress: str | None, expires: float | None) -> bytes:
        end = task.born + task.seconds
        text = self._example
        for example, ours in (
            ("task_01jhjp54x0f759wceyasz6xrge", task.id),
            ("gen_01jhjp646berwt0ezg1faay7mt", "gen_" + hashlib.sha256(task.id.encode()).hexdigest()[:26]),
            ('"submit_time": 1736867805', f'"submit_time": {int(task.born)}'),
            ('"finish_time": 1736867860', f'"finish_time": {int(end)}'),
            ('"progress": "100%"', f'"progress": {json.dumps(progress or "100%")}'),
            ("2025-01-14T15:15:46.724124Z", _utc(task.born, "%Y-%m-%dT%H:%M:%S.724124Z")),
            ("2025-01-14T15:16:28.791941Z", _utc(end, "%Y-%m-%dT%H:%M:%S.791941Z")),
            ("2025-01-14T13%3A28%3A09Z", _utc(task.born - 3600, "%Y-%m-%dT%H%%3A%M%%3A%SZ")),
            ("2025-01-20T14%3A28%3A09Z", _utc(expires or end + URL_LIFE, "%Y-%m-%dT%H%%3A%M%%3A%SZ")),
        ):
            text = text.replace(example, ours)
        return text.encode()


class Video:
    """The results themselves, for clients with the key (`key`: see credentials.py) or, without it, for everyone."""

    kept_texts = ()
    body = base64.b64decode(Path(__file__).with_name("video.b64").read_text(encoding="ascii"))  # 4 s
    image = base64.b64decode(Path(__file__).with_name("image.b64").read_text(encoding="ascii"))

    def __init__(self, path: str, key=None):
        self._path, self._key = re.compile(path), key

    def find(self, path: str, query: str) -> str | None:
        match = self._path.fullmatch(path)
        return match and f"{match[1]}/{'image' if path.endswith(('.png', '.webp')) else 'content'}"

    def key(self, headers: dict, keys: set) -> str | None:
        return self._key(headers, keys) if self._key else min(keys)

    def refuse(self, status: int) -> Reply:
        return self.error(status, "Incorrect API key provided.", "invalid_api_key")

    def error(self, status: int, message: str, code: str = "") -> Reply:
        return reply_json(status, {"error": {"message": message, "code": code}})

    def play(self, task: Task, now: float, headers: dict, switch) -> Reply:
        if task.id.endswith("/image"):
            return Reply(200, self.image, {"Content-Type": "image/webp"})
        return Reply(200, self.body, {"Content-Type": "video/mp4"})


def _utc(seconds: float, form: str) -> str:
    return time.strftime(form, time.gmtime(seconds))


def repeat_key(body: bytes, key: str, members: tuple) -> bytes:
    """Puts the key into the named text members, once as it is and once with every character as \\u00XX."""
    try:
        document = json.loads(body)
    except ValueError:
        return body + key.encode()
    marker = "@escaped-key@"

    def spoil(value, name=None):
        if isinstance(value, dict):
            return {member: spoil(inner, member) for member, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return f"{value}&key={key}&{marker}" if isinstance(value, str) and name in members else value

    text = json.dumps(spoil(document), ensure_ascii=False)
    return text.replace(marker, "".join(f"\\u{ord(char):04x}" for char in key)).encode()
