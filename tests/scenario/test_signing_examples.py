"""The README's examples of signing links, each run verbatim: it prints a link for a task, and one for a list."""

import re
import shutil
import subprocess

import pytest

from stack import ROOT
from teaming import refusal, teams_stack

RUNNERS = {"python": ["/usr/bin/python3", "-c"], "js": ["node", "-e"], "php": ["php", "-r"], "sh": ["sh", "-c"]}
CHAPTER = re.search(r"^### Signed links$(.*?)^##", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
EXAMPLES = dict(re.findall(r"^```(\w+)\n(.*?)^```", CHAPTER, re.MULTILINE | re.DOTALL))


@pytest.fixture
def stack(make_stack):
    return teams_stack(make_stack, {"web": {"link_secret_file": None, "link_secrets": {"2026-01": "web-links"}}}, redis=False)


def test_every_language_has_an_example():
    assert EXAMPLES.keys() == RUNNERS.keys()


@pytest.mark.parametrize("language", RUNNERS)
def test_example_prints_valid_links(stack, language):
    assert shutil.which(RUNNERS[language][0])
    done = subprocess.run([*RUNNERS[language], EXAMPLES[language]], cwd=stack.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 2)
    query, listed = done.stdout.splitlines()
    assert stack.get(f"/v1/tasks?ids=sora/task_01,sora/task_02&{listed}").status == 200
    for task in ("task_01", "task_02"):
        assert stack.get(f"/v1/tasks/sora/{task}?{listed}").status == 200
    for path in ("/v1/tasks/sora/", "/sora/v1/videos/"):
        assert stack.get(f"{path}task_01?{query}").status == 200
        assert refusal(stack.get(f"{path}task_02?{query}")) == (403, "forbidden")
