"""The console, nginx/www/console.html: the operator's page about /status."""

import contextlib
import itertools
import os
import re
import signal

import pytest

from browsing import one_browser
from parts import ROOT
from stack import Stack
from teaming import bearer, teams_stack
from watching import QUICK

FILES = {"console.html": "text/html", "console.js": "text/javascript", "console.css": "text/css"}


def from_status_server(stack, path):
    connection = stack.nginx.connection(status=True)
    connection.request("GET", path, headers={"Host": "localhost"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


@pytest.mark.parametrize("name, kind", FILES.items())
def test_file_of_the_console_is_on_the_operators_server_only(stack, name, kind):
    status, headers, body = from_status_server(stack, f"/{name}")
    assert (status, headers["Content-Type"], body) == (200, f"{kind}; charset=utf-8", (ROOT / "nginx/www" / name).read_bytes())
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert stack.get(f"/{name}").status == 404 == 404


def test_start_page_of_the_operators_server_is_the_console(stack):
    status, headers, _ = from_status_server(stack, "/")
    assert (status, headers["Location"]) == (302, "/console.html")


def test_page_has_no_inline_script_or_style():
    page = (ROOT / "nginx/www/console.html").read_text()
    assert re.findall(r"<script[^>]*>(?=[^<])|<style|\son\w+=|\sstyle=", page) == []


# In Chromium


browser = pytest.fixture(scope="module")(one_browser)


@pytest.fixture(scope="module")
def watched():
    """A stack with a team, of which a test may break anything that it mends."""
    upstream = {"breaker_failures": 2, "breaker_pause": "1s"}
    with contextlib.ExitStack() as stacks:
        yield teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), port=0, providers=QUICK, task_seconds=3600,
                          config={"workers": 2, "upstreams": {"main": upstream}})


@pytest.fixture
def console(browser, watched):
    page = browser.page()
    page.goto(watched.nginx.console_url)
    page.wait(STATE.format("ready"))
    yield page
    page.close()


WEB = bearer("web")
STATE = "document.querySelector('#state').textContent === '{}'"
CELL = "document.querySelector('#{} tbody')?.innerText.includes('{}')"
TROUBLE = "document.querySelector('#troubles ul').innerText.includes('{}')"


def test_console_shows_a_healthy_service(console, watched):
    assert watched.task("task_1", WEB).status == 200
    console.wait(CELL.format("teams", "web"))
    console.wait(CELL.format("upstreams", "closed"))
    console.wait(CELL.format("keys", "in use"))
    console.wait(TROUBLE.format("None."))
    assert console.evaluate("document.querySelectorAll('#workers tbody tr').length") == 2
    for name, width, scheme in (("phone", 390, "light"), ("desk", 1440, "dark")):
        console.do("setViewportSize", {"width": width, "height": 900})
        console.do("emulateMedia", {"colorScheme": scheme})
        assert console.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert console.serious() == [], name
        console.screenshot(f"console-{name}-{scheme}")
    assert console.errors() == []
    assert console.hosts() == {f"127.0.0.1:{watched.nginx.status_port}"}


def test_console_shows_that_a_worker_was_killed(console, watched):
    os.kill(watched.daemon.workers()[0], signal.SIGKILL)
    console.wait("document.querySelector('#configuration').innerText.replace(/\\s+/g, ' ').includes('Workers that died 1')")
    console.wait(STATE.format("ready"))


def test_console_shows_an_open_breaker_and_a_rejected_key(console, watched):
    tasks = itertools.cycle([f"known_{number}" for number in range(20)])  # failures of known tasks count, and both workers have some

    def ask_until(condition):
        watched.wait_until(lambda: watched.task(next(tasks), WEB) and console.evaluate(condition), what=condition)

    for _ in range(20):
        assert watched.task(next(tasks), WEB).status == 200
    watched.standin.keys.clear()
    ask_until(TROUBLE.format("upstream main rejects the key of key"))
    ask_until("document.querySelector('#keys .bad')")
    watched.standin.keys.add(watched.key)
    watched.standin.switch(reset=True)
    ask_until(TROUBLE.format("upstream main is failing"))
    ask_until(CELL.format("upstreams", "open"))
    watched.standin.clear()
    ask_until(STATE.format("ready"))


def test_console_shows_why_a_reload_was_refused(console, watched):
    watched.configure(no_such_key=1)
    watched.daemon.hup()
    console.wait(TROUBLE.format("the last reload was refused"))
    console.wait("document.querySelector('#configuration').innerText.includes('/no_such_key: unknown key')")
    watched.configure(no_such_key=None)
    watched.daemon.reload()
    console.wait(STATE.format("ready"))


def test_console_survives_the_restart_of_the_service(console, watched):
    watched.daemon.stop()
    console.wait("!document.querySelector('#outage').hidden && document.querySelector('#outage').innerText.includes('503')")
    watched.daemon.start()
    console.wait("document.querySelector('#outage').hidden")
    console.wait(STATE.format("ready"))
