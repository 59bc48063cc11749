"""taskproxy --try: what a recorded answer becomes, as one sees it who writes a provider file."""

import json
import os
import subprocess

import pytest

from parts import ROOT

BINARY = os.environ.get("TASKPROXY_BINARY") or ROOT / "build/asan/taskproxy"
ANSWERS = ROOT / "tests" / "answers"
PROVIDERS = sorted(path.name for path in ANSWERS.iterdir() if path.is_dir())


def run(*arguments) -> tuple:
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def files_of(case) -> list:
    result = case.with_suffix(".result.answer")
    return [case, result] if result.exists() else [case]


def documents(printed: str) -> list:
    """The JSON documents behind the two titles, native and unified."""
    return [json.loads(part.split(":\n", 1)[1]) for part in printed.split("\nnative view")[1].split("\nunified view")]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_recorded_answer_becomes_what_is_expected_of_it(provider):
    cases = [case for case in sorted((ANSWERS / provider).glob("*.answer")) if not case.name.endswith(".result.answer")]
    assert cases
    for case in cases:
        expected = json.loads(case.with_suffix(".expect.json").read_text())
        status, printed, errors = run("--try", ROOT / "conf" / "providers" / f"{provider}.json", *files_of(case))
        assert (status, errors) == (0, ""), case
        assert printed.startswith(f"answer: {expected['outcome']}"), (case, printed)
        if expected["outcome"] == "ok":
            assert f"\nstate: {expected['state']}" in printed, case
            native, unified = documents(printed)
            assert native == expected["native"], case
            assert {**unified, "task_id": expected["unified"]["task_id"]} == expected["unified"], case


def test_an_answer_that_has_only_its_first_half_names_the_next_query():
    status, printed, _ = run("--try", ROOT / "conf/providers/fal.json", ANSWERS / "fal" / "succeeded.answer")
    assert (status, printed) == (0, "answer: half\nnext query: /owner/app/requests/task_id\n")


def test_a_provider_is_a_file_or_the_name_of_one_beside_the_configuration():
    answer = ANSWERS / "sora" / "succeeded-page.answer"
    by_file = run("--try", ROOT / "conf/providers/sora.json", answer)
    assert by_file[0] == 0
    assert run("-c", ROOT / "conf/taskproxy.json", "--try", "sora", answer) == by_file


@pytest.mark.parametrize("arguments, message", [
    (["no-such.json", "x"], "no-such.json: cannot be read: No such file or directory"),
    ([ROOT / "conf/providers/sora.json", "no-such"], "no-such: cannot be read: No such file or directory"),
    ([ROOT / "conf/providers/sora.json"], "--try needs a provider and one or two files with answers"),
])
def test_what_cannot_be_read_is_named(arguments, message):
    assert run("--try", *arguments) == (1, "", f"taskproxy: {message}\n")
