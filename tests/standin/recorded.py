"""The pages of the other upstreams, played from the recorded answers in tests/answers.

A task goes queued -> running -> succeeded (or failed) in its provider's own format: the answer recorded for that state,
with adapted ids and times.
"""

import functools
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs

import credentials
from players import Reply, Task, reply_json

ANSWERS = Path(__file__).resolve().parents[1] / "answers"
QUEUED_PART = 0.2  # of a task's life
STATES = {"NOT_START": "queued", "IN_PROGRESS": "running", "SUCCESS": "succeeded", "FAILURE": "failed"}

bearer = credentials.scheme("Bearer")


@dataclass
class Page:
    """One provider's task page."""

    provider: str
    path: str  # "*" is any segment, the last one the task id unless that is in the query
    key: object = bearer  # see credentials.py
    query: str | None = None  # name of the parameter with the task id
    result: str | None = None  # the page of its second query
    result_query: str | None = None
    needs: tuple = ()  # (header, pattern of its value)
    queued: str = "queued"  # which recorded answer plays which state
    running: str = "running"
    succeeded: str = "succeeded"
    failed: str = "failed"
    missing: str = "missing"


PAGES = (
    Page("openai", "/v1/videos/*", succeeded="expired"),
    Page("newapi", "/v1/video/generations/*"),
    Page("kling", "/kling/v1/videos/*/*", succeeded="expired-purged"),
    Page("kling-images", "/kling/v1/images/generations/*", succeeded="expired"),
    Page("kling-official", "/v1/videos/*/*", key=credentials.kling_key, succeeded="expired-purged"),
    Page("luma", "/dream-machine/v1/generations/*"),
    Page("luma-aggregator", "/luma/generations/*", succeeded="expired"),
    Page("runway", "/v1/tasks/*", needs=("x-runway-version", r"2024-11-06")),
    Page("zhipu", "/api/paas/v4/async-result/*"),
    Page("pixverse", "/openapi/v2/video/result/*", key=credentials.header("api-key"),
         needs=("ai-trace-id", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    Page("pixverse-feed", "/pixverse/v1/pro/feed", query="task_id", succeeded="expired"),
    Page("pika-feed", "/pika/feed/*", running="queued-listed"),
    Page("fal", "/*/*/requests/*/status", key=credentials.scheme("Key"), result="/*/*/requests/*"),
    Page("suno", "/suno/fetch/*", succeeded="expired"),
    Page("midjourney", "/mj/task/*/fetch", key=credentials.header("mj-api-secret")),
    Page("replicate", "/v1/predictions/*", succeeded="expired-hour"),
    Page("minimax", "/v1/query/video_generation", query="task_id", result="/v1/files/retrieve", result_query="file_id"),
    Page("minimax2", "/v2/query/video_generation/*", succeeded="expired"),
    Page("vidu", "/ent/v2/tasks/*/creations", key=credentials.scheme("Token")),
    Page("seedance", "/api/v3/contents/generations/tasks/*", succeeded="expired"),
    Page("dashscope", "/api/v1/tasks/*", succeeded="expired"),
    Page("fal-workflows", "/*/*/*/requests/*/status", key=credentials.scheme("Key"), result="/*/*/*/requests/*"),
    Page("gemini-interactions", "/v1beta/interactions/*", key=credentials.header("x-goog-api-key")),
    Page("heygen3", "/v3/videos/*", key=credentials.header("x-api-key"), succeeded="expired"),
    Page("luma-agents", "/v1/generations/*", succeeded="expired"),
    Page("openrouter", "/api/v1/videos/*", succeeded="expired-urls"),
    Page("xai", "/xai/v1/videos/*", queued="running"),
    Page("heygen", "/v1/video_status.get", query="video_id", key=credentials.header("x-api-key"), succeeded="expired"),
    Page("veo", "/v1beta/models/*/operations/*", key=credentials.header("x-goog-api-key"), queued="running",
         succeeded="succeeded-times"),
)


class Recorded:
    """The player of one page, or of the page of its second query."""

    kept_texts = ("message", "error", "prompt", "url", "video_url", "output")

    def __init__(self, page: Page, result: bool = False):
        self._page = page
        self._result = result
        self._pattern = re.compile((page.result if result else page.path).replace(".", r"\.").replace("*", "([^/]+)"))
        self._query = page.result_query if result else page.query

    def find(self, path: str, query: str) -> str | None:
        """The id of the requested task; "ID/result" for the second query, so that each can be switched separately."""
        match = self._pattern.fullmatch(path)
        if not match:
            return None
        task_id = parse_qs(query).get(self._query, [None])[0] if self._query else match[match.lastindex]
        return f"{task_id}/result" if task_id and self._result else task_id

    def key(self, headers: dict, keys: set) -> str | None:
        return self._page.key(headers, keys)

    def refuse(self, status: int) -> Reply:
        return self._recorded("refused")

    def error(self, status: int, message: str, code: str = "") -> Reply:
        return reply_json(status, {"detail": message, "error": {"message": message, "code": code}})

    def play(self, task: Task, now: float, headers: dict, switch) -> Reply:
        if self._page.needs:
            name, form = self._page.needs
            if not re.fullmatch(form, headers.get(name, "")):
                return self.error(400, f"{name} is missing or not what it must be.")
        task_id = task.id.removesuffix("/result")
        if "missing" in task_id or task_id.startswith("404"):
            return self._recorded(self._page.missing)
        if self._result:
            return self._told(self._page.succeeded, task_id, task.born, ".result.answer")
        return self._told(getattr(self._page, self._state(task, now, switch.state)), task_id, task.born)

    def _state(self, task: Task, now: float, wanted: str | None) -> str:
        if wanted:
            return STATES[wanted]
        life = (now - task.born) / task.seconds if task.seconds > 0 else 1.0
        if life < 1:
            return "queued" if life < QUEUED_PART else "running"
        return "failed" if "fail" in task.id or task.id.startswith("500") else "succeeded"

    def _recorded(self, case: str, suffix: str = ".answer") -> Reply:
        status, body = read_answer(ANSWERS / self._page.provider / f"{case}{suffix}")
        return Reply(status, body)

    def _told(self, case: str, task_id: str, born: float, suffix: str = ".answer") -> Reply:
        """The recorded answer, adapted to this task."""
        reply = self._recorded(case, suffix)
        example = expectation(self._page.provider, case)
        ids = {example["task"].rpartition("/")[2]: task_id}
        document = json.loads(reply.body)
        if self._page.provider == "minimax":
            ids["176844028768320"] = task_id  # the file's id
        created = example["unified"]["created_at"]
        anchor = seconds_of(created) if created else min(times_of(document), default=born)
        reply.body = json.dumps(changed(document, ids, int(born - anchor)), ensure_ascii=False).encode()
        return reply


def players() -> list:
    second = [Recorded(page, result=True) for page in PAGES if page.result]
    return [*(Recorded(page) for page in PAGES), *second]


@functools.cache
def read_answer(path: Path) -> tuple:
    """HTTP status and body of a recorded answer."""
    data = path.read_bytes()
    if not data.startswith(b"HTTP/"):
        return 200, data
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@functools.cache
def expectation(provider: str, case: str) -> dict:
    return json.loads((ANSWERS / provider / f"{case}.expect.json").read_text(encoding="utf-8"))


# Ids and times

FORMS = {  # times within a text
    "%Y-%m-%dT%H:%M:%S": r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d",
    "%Y-%m-%d %H:%M:%S": r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d",  # Beijing time, but only differences count
    "%Y%m%dT%H%M%S": r"20\d{6}T\d{6}",
}


def seconds_of(text: str, form: str = "%Y-%m-%dT%H:%M:%SZ") -> int:
    return int(datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp())


def is_time(number) -> bool:
    """Unix seconds or milliseconds of this century's first half."""
    return isinstance(number, int) and (1_600_000_000 < number < 2_500_000_000 or 1.6e12 < number < 2.5e12)


def times_of(value) -> list:
    """All times within a document, as unix seconds."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [found for inner in value for found in times_of(inner)]
    if isinstance(value, str):
        return [seconds_of(text, form) for form, pattern in FORMS.items() for text in re.findall(pattern, value)]
    return [value if value < 1e11 else value // 1000] if is_time(value) else []


def changed(value, ids: dict, shift: int):
    """A copy with other ids, and all times shifted by this many seconds."""
    if isinstance(value, dict):
        return {name: changed(inner, ids, shift) for name, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner, ids, shift) for inner in value]
    if isinstance(value, str):
        return moved(functools.reduce(lambda text, pair: text.replace(*pair), ids.items(), value), shift)
    if isinstance(value, int) and str(value) in ids:
        other = ids[str(value)]
        return int(other) if other.isdecimal() else other
    return value + (shift if value < 1e11 else 1000 * shift) if is_time(value) else value


def moved(text: str, shift: int) -> str:
    for form, pattern in FORMS.items():
        text = re.sub(pattern, lambda m: time.strftime(form, time.gmtime(seconds_of(m[0], form) + shift)), text)
    return re.sub(r"(?:(?<=Expires=)|(?<=[?&]e=))\d{10}|^1[67]\d{8}$", lambda m: str(int(m[0]) + shift), text)
