"""Helpers for the tests of webhooks."""

import json
from pathlib import Path

from parts import Answer
from stack import Stack, merged
from watching import NATIVE, SLOW

SECRET = "hook-5f0c2e9b7d1a4c38a6e2b0d94c7f"
HOOK = f"/v1/hooks/sora/{SECRET}"


def secret_file(folder: Path) -> Path:
    return folder / "hook-secret"


def settings(folder: Path, **more) -> dict:
    """Settings for a Stack: accepts webhooks for sora but not for kling."""
    file = secret_file(folder)
    file.touch(0o600)
    file.write_text(SECRET + "\n")
    sora = {"provider": "sora", "upstream": "main", "hook_secret_file": str(file)}
    config = {"workers": 1, "routes": [sora, {"provider": "kling", "upstream": "main"}]}
    return {"providers": SLOW, **more, "config": merged(config, more.get("config", {}))}


# Fixtures


def hooked_maker(make_stack, tmp_path):
    """Like make_stack."""
    return lambda **more: make_stack(**settings(tmp_path, **more))


def one_hooked(tmp_path_factory):
    """One running stack for most of a file; each test uses its own tasks."""
    with Stack(**settings(tmp_path_factory.mktemp("hook"), config={"log_level": "debug", "cache": {"missing_ttl": "1h"}})) as stack:
        yield stack


# Requests


def naming(task: str) -> bytes:
    return json.dumps({"task_id": task, "status": "SUCCESS"}).encode()


def post(stack, body: bytes, path=HOOK, method="POST", **headers) -> Answer:
    """Sends a webhook through nginx."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.get(path, {"Content-Type": "application/json", **named}, method, body)


def post_to_worker(stack, body: bytes, index=0, path=HOOK, method="POST") -> Answer:
    return stack.ask_worker(path, index, method, body=body, CONTENT_LENGTH=str(len(body)), CONTENT_TYPE="application/json")


def hook(stack, task: str) -> None:
    answer = post(stack, naming(task))
    assert (answer.status, answer.body) == (204, b"")


def known(stack, task: str) -> None:
    """Fetches the task once; it is not queried again without a webhook."""
    assert stack.get(NATIVE + task).status == 200
    assert stack.standin.count(task) == 1


def problem(answer) -> tuple:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, answer.json()["code"]
