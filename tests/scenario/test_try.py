"""taskproxy --try shows authors of provider files the views of a recorded answer."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from parts import ROOT

BINARY = os.environ.get("TASKPROXY_BINARY") or ROOT / "build/asan/taskproxy"
ANSWERS = ROOT / "tests" / "answers"


def run(*arguments) -> tuple:
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def files_of(case) -> list:
    result = case.with_suffix(".result.answer")
    return [case, result] if result.exists() else [case]


def documents(printed: str) -> list:
    """The JSON documents behind the two titles, native and unified."""
    return [json.loads(part.split(":\n", 1)[1]) for part in printed.split("\nnative view")[1].split("\nunified view")]


def test_tutorial_works_as_written(tmp_path):
    """The commands of conf/providers/README.md print what stands below them. json-c's versions differ in white space."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "taskproxy").symlink_to(Path(BINARY).resolve())
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    text, printed = (ROOT / "conf" / "providers" / "README.md").read_text(), ""
    blocks = re.findall(r"^```(sh|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks].count("text") >= 4
    for kind, block in blocks:
        if kind == "text":
            assert "".join(printed.split()) == "".join(block.split())
            continue
        done = subprocess.run(["sh", "-ec", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block
        printed = done.stdout


# test_providers.py sends all recorded answers through the whole daemon.
@pytest.mark.parametrize("name", ["succeeded", "running", "missing-result", "refused", "busy-result", "error-in-200", "invalid-result"])
def test_answers_of_every_outcome_give_the_expected_result(name):
    case = ANSWERS / "fal" / f"{name}.answer"
    expected = json.loads(case.with_suffix(".expect.json").read_text())
    status, printed, errors = run("--try", ROOT / "conf/providers/fal.json", *files_of(case))
    assert (status, errors) == (0, "")
    assert printed.startswith(f"answer: {expected['outcome']}")
    if expected["outcome"] == "ok":
        assert f"\nstate: {expected['state']}" in printed
        native, unified = documents(printed.replace("owner/app/task_id", expected["task"]))  # it does not know the id
        assert (native, unified) == (expected["native"], expected["unified"])


def test_partial_answer_names_the_next_query():
    status, printed, _ = run("--try", ROOT / "conf/providers/fal.json", ANSWERS / "fal" / "succeeded.answer")
    assert (status, printed) == (0, "answer: partial\nnext query: /owner/app/requests/task_id\n")


def test_provider_is_a_file_or_a_name_in_providers_dir():
    answer = ANSWERS / "sora" / "succeeded-page.answer"
    by_file = run("--try", ROOT / "conf/providers/sora.json", answer)
    assert by_file[0] == 0
    assert run("-c", ROOT / "conf/taskproxy.json", "--try", "sora", answer) == by_file


@pytest.mark.parametrize("arguments, message", [
    (["no-such.json", "x"], "no-such.json: cannot be read: No such file or directory"),
    ([ROOT / "conf/providers/sora.json", "no-such"], "no-such: cannot be read: No such file or directory"),
    ([ROOT / "conf/providers/sora.json"], "--try requires a provider and one or two answer files"),
])
def test_unreadable_file_is_reported(arguments, message):
    assert run("--try", *arguments) == (1, "", f"taskproxy: {message}\n")
