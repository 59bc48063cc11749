"""A client that we have not written, as in a browser: npm's eventsource."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stack import ROOT
from teaming import link, teams_stack
from watching import UNIFIED, end, quick, run

EVENTSOURCE = "4.1.0"
FOLDER = ROOT / "build" / "npm-eventsource"
CLIENT = Path(__file__).with_name("eventsource.cjs")

pytestmark = pytest.mark.skipif(not shutil.which("npm"), reason="there is no npm")


@pytest.fixture
def modules() -> str:
    """The folder with the package, which is kept for the next time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of test processes side by side one installs
        if not (FOLDER / "node_modules" / "eventsource").exists():
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", f"eventsource@{EVENTSOURCE}"],
                           cwd=FOLDER, check=True, capture_output=True)
    return str(FOLDER / "node_modules")


def eventsource(modules, url) -> subprocess.Popen:
    return subprocess.Popen(["node", str(CLIENT), url], env={**os.environ, "NODE_PATH": modules}, stdout=subprocess.PIPE, text=True)


def test_an_eventsource_needs_no_header_where_it_has_a_link(make_stack, modules):
    stack = teams_stack(make_stack, **quick(), redis=False, port=0)
    end(stack, "linked")
    url = f"{stack.nginx.url}{UNIFIED}linked"
    with eventsource(modules, f"{url}?{link('sora/linked')}") as client:
        said = map(json.loads, client.stdout)
        assert next(said) == {"open": True}
        assert next(said)["status"]["status"] == "succeeded"
    with eventsource(modules, f"{url}?{link('sora/other')}") as client:
        assert [json.loads(line) for line in client.stdout] == [{"error": 403, "closed": True}]


def test_an_eventsource_follows_a_task_to_its_end_and_does_not_come_back(make_stack, modules):
    stack = make_stack(**quick(), port=0)  # as the client speaks to no UNIX socket
    run(stack, "7%", "followed")
    with eventsource(modules, f"{stack.nginx.url}{UNIFIED}followed") as client:
        said = map(json.loads, client.stdout)
        assert next(said) == {"open": True}
        assert next(said)["status"]["progress"] == 7
        run(stack, "50%", "followed")
        assert next(said)["status"]["progress"] == 50
        end(stack, "followed")
        last, etag = next(said), stack.get(UNIFIED + "followed").headers["etag"]
        assert (last["status"]["status"], f'"{last["id"]}"') == ("succeeded", etag)
        assert next(said) == {"error": None, "closed": False}  # that it was closed; it asks again, and then no more
        assert next(said) == {"error": 204, "closed": True}
        assert list(said) == [] and client.wait() == 0
