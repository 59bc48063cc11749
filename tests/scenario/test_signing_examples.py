"""The README's examples of signing links, each run verbatim."""

import re
import shutil
import subprocess

import pytest

from stack import ROOT
from teaming import refusal, teams_stack

RUNNERS = {"python": ["/usr/bin/python3", "-c"], "js": ["node", "-e"], "php": ["php", "-r"], "sh": ["sh", "-c"]}
EXAMPLES = dict(re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def stack(make_stack):
    return teams_stack(make_stack, {"web": {"link_secret_file": None, "link_secrets": {"2026-01": "web-links"}}}, redis=False)


def test_every_language_has_an_example():
    assert EXAMPLES.keys() == RUNNERS.keys()


@pytest.mark.parametrize("language", RUNNERS)
def test_example_prints_a_valid_link(stack, language):
    assert shutil.which(RUNNERS[language][0])
    done = subprocess.run([*RUNNERS[language], EXAMPLES[language]], cwd=stack.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    query = done.stdout.strip()
    for path in ("/v1/tasks/sora/", "/sora/v1/videos/"):
        assert stack.get(f"{path}task_01?{query}").status == 200
        assert refusal(stack.get(f"{path}task_02?{query}")) == (403, "forbidden")
