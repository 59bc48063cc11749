"""A third-party client that behaves like a browser's: npm's eventsource."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import needs
from teaming import link, teams_stack
from watching import UNIFIED, end, quick, run

CLIENT = Path(__file__).with_name("eventsource.cjs")


@pytest.fixture
def modules() -> str:
    return needs.npm_modules()


def eventsource(modules, url) -> subprocess.Popen:
    return subprocess.Popen(["node", str(CLIENT), url], env={**os.environ, "NODE_PATH": modules}, stdout=subprocess.PIPE, text=True)


def test_eventsource_with_a_signed_link_needs_no_header(make_stack, modules):
    stack = teams_stack(make_stack, **quick(), redis=False, port=0)
    end(stack, "linked")
    url = f"{stack.nginx.url}{UNIFIED}linked"
    with eventsource(modules, f"{url}?{link('sora/linked')}") as client:
        said = map(json.loads, client.stdout)
        assert next(said) == {"open": True}
        assert next(said)["status"]["status"] == "succeeded"
    with eventsource(modules, f"{url}?{link('sora/other')}") as client:
        assert [json.loads(line) for line in client.stdout] == [{"error": 403, "closed": True}]


def test_eventsource_follows_a_task_to_its_end_and_does_not_reconnect(make_stack, modules):
    stack = make_stack(**quick(), port=0)  # the client does not support UNIX sockets
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
        assert next(said) == {"error": None, "closed": False}  # the stream was closed; the client reconnects once, and then no more
        assert next(said) == {"error": 204, "closed": True}
        assert list(said) == [] and client.wait() == 0


def test_eventsource_survives_a_failing_upstream_and_a_limit(make_stack, modules):
    stack = make_stack(**quick(limits={"waiters": 1}), redis=False, port=0)
    stack.standin.switch("t", status=500)
    end(stack, "other")
    with eventsource(modules, f"{stack.nginx.url}{UNIFIED}t") as client:
        said = map(json.loads, client.stdout)
        assert next(said) == {"open": True}
        assert next(said)["problem"]["code"] == "upstream_error"
        with eventsource(modules, f"{stack.nginx.url}{UNIFIED}other") as other:
            stack.wait_metric("overloaded_total", lambda refused: refused >= 1)
            end(stack)
            stack.standin.clear("t")
            for client_said in (said, map(json.loads, other.stdout)):
                ended = [event for event in client_said if "status" in event]
                assert [event["status"]["status"] for event in ended] == ["succeeded"]


def test_eventsource_survives_while_no_worker_can_be_reached(make_stack, modules):
    stack = make_stack(**quick(), redis=False, port=0)
    end(stack, "survives")
    stack.daemon.stop()
    with eventsource(modules, f"{stack.nginx.url}{UNIFIED}survives") as client:
        said = map(json.loads, client.stdout)
        assert next(said) == {"open": True}
        assert next(said)["problem"]["code"] == "overloaded"
        assert next(said) == {"error": None, "closed": False}
        stack.daemon.start()
        last = next(event for event in said if "status" in event)
        assert last["status"]["status"] == "succeeded"
        assert {"error": 204, "closed": True} in said and client.wait() == 0
