"""The shipped provider files and the recorded answers, for tests that use all of them."""

import json
import re

import jsonschema
from recorded import ANSWERS, expectation, read_answer
from stack import OTHER_PATHS, ROOT, read_json

PROVIDERS = {file.stem: read_json(file) for file in sorted((ROOT / "conf" / "providers").glob("*.json"))}

UNIFIED_VIEW = jsonschema.Draft202012Validator(
    json.loads((ROOT / "conf" / "unified-view.schema.json").read_text()), format_checker=jsonschema.FormatChecker()
)

# The client's problem for each outcome without a task.
PROBLEMS = {
    "missing": (404, "task_not_found"),
    "refused": (502, "upstream_auth"),
    "forbidden": (502, "upstream_auth"),
    "busy": (503, "upstream_unavailable"),
    "error": (502, "upstream_error"),
    "server_error": (502, "upstream_error"),
    "invalid": (502, "upstream_invalid"),
}


def cases(provider: str) -> list:
    """The names of the provider's recorded answers."""
    return sorted(file.name.removesuffix(".expect.json") for file in (ANSWERS / provider).glob("*.expect.json"))


def record(stack, provider: str, case: str, bare_id: str) -> dict:
    """Makes the stand-in give the recorded answers for the task; returns the expectation, adapted to this task."""
    status, body = read_answer(ANSWERS / provider / f"{case}.answer")
    file_id = bare_id
    if provider == "minimax":
        file_id = "176844028768320"  # as recorded: the second query uses it
    stack.standin.switch(bare_id, raw=body, status=status)
    if (ANSWERS / provider / f"{case}.result.answer").exists():
        status, body = read_answer(ANSWERS / provider / f"{case}.result.answer")
        stack.standin.switch(f"{file_id}/result", raw=body, status=status)
    expected = dict(expectation(provider, case))
    expected["task"] = "/".join([*expected["task"].split("/")[:-1], bare_id])
    if "unified" in expected:
        results = [
            {**row, "url": content if row["url"] == row["content"] else row["url"], "content": content}
            for n, row in enumerate(expected["unified"]["results"])
            for content in [f"{unified_path(provider, expected['task'])}/content/{n}"]
        ]
        expected["unified"] = {**expected["unified"], "task_id": expected["task"], "results": results}
    return expected


def native_path(provider: str, task: str) -> str:
    """The path of the provider's route for a task named as in the unified path."""
    parts = iter(task.split("/"))
    return re.sub(r"\{\w+\}", lambda _: next(parts), OTHER_PATHS.get(provider, PROVIDERS[provider]["path"]))


def unified_path(provider: str, task: str) -> str:
    return f"/v1/tasks/{provider}/{task}"


def upstream_of(stack, provider: str) -> str:
    """The name of the upstream of the provider's route."""
    (name,) = (route["upstream"] for route in stack.config["routes"] if route["provider"] == provider)
    return name
