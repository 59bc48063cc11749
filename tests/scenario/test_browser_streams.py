"""Event streams in Chromium, in a page of another origin that follows tasks by signed links: what an EventSource learns of failures
and limits, what it does at the end, and which answers the page can read."""

import contextlib
import json
import re

import pytest

from browsing import one_browser, other_server
from helpers import step_until
from stack import Stack
from teaming import bearer, link, list_link, teams_stack
from test_ingress import access_log
from watching import EVEN, UNIFIED, end, quick, run

# Puts an EventSource into the page that never closes itself, and a record of its events.
SOURCE = """(() => {{
    const source = new EventSource('{url}'), record = window['{name}'] = {{ source, events: [], opened: 0, errors: 0 }};
    source.addEventListener('open', () => record.opened++);
    source.addEventListener('error', () => record.errors++);
    for (const type of ['status', 'problem', 'stale']) {{
        source.addEventListener(type, (event) => record.events.push({{ type, data: JSON.parse(event.data) }}));
    }}
}})()"""
# What the page can read of an answer; null if it can read nothing.
FETCH = """fetch('{url}', {options}).then(async (answer) => ({{
    status: answer.status,
    code: (await answer.json().catch(() => null))?.code ?? null,
    headers: ['Retry-After', 'ETag', 'Age', 'Cache-Status', 'X-Request-Id'].filter((name) => answer.headers.has(name)),
}}), () => null)"""


browser = pytest.fixture(scope="module")(one_browser)


@pytest.fixture(scope="module")
def site():
    """The port of the page's server."""
    with other_server() as port:
        yield port


@pytest.fixture
def page(browser, site):
    """A page of an origin that the teams list."""
    page = browser.page()
    page.goto(f"http://127.0.0.1:{site}/")
    yield page
    page.close()


def admitting(site) -> dict:
    return {"web": {"origins": [f"http://127.0.0.1:{site}"]}}


@pytest.fixture(scope="module")
def frozen(site):
    """Tasks are queried when the test steps the clock. The second team has two queries a minute."""
    poor = {"link_secret_file": "web-links", "providers": ["sora"], "queries_per_minute": 2, **admitting(site)["web"]}
    with contextlib.ExitStack() as stacks:
        stack = teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), {**admitting(site), "poor": poor}, port=0,
                            clock=True, redis=False, providers=EVEN, config={"upstreams": {"main": {"breaker_failures": 0}}})
        stack.freeze()
        yield stack


def signed(stack, task: str, team: str = "web") -> str:
    return f"{stack.nginx.url}{UNIFIED}{task}?{link(f'sora/{task}', int(stack.clock.time()) + 86_400 if stack.clock else None, team)}"


def follow(page, url: str, name: str) -> None:
    page.evaluate(SOURCE.format(url=url, name=name))


def count(name: str, kind: str, condition: str = "") -> str:
    """A JavaScript expression: how many such events have come."""
    return f"{name}.events.filter(({{ type, data }}) => type === '{kind}' {condition and f'&& {condition}'}).length"


def events(page, name: str) -> list:
    return page.evaluate(f"{name}.events.map(({{ type, data }}) => [type, data.code ?? data.status])")


def read(page, url: str, options: str = "{}"):
    return page.evaluate(FETCH.format(url=url, options=options))


# Failures of the upstream


@pytest.mark.parametrize("name, answer, told", [
    ("error", {"status": 500}, ("upstream_error", 502)),
    ("invalid", {"raw": "?"}, ("upstream_invalid", 502)),
    ("late", None, ("upstream_timeout", 504)),
    ("limited", {"status": 429}, ("upstream_unavailable", 503)),
])
def test_eventsource_outlives_a_failing_upstream(frozen, page, name, answer, told):
    """The upstream fails during one stream, and before the first view of another one."""
    during, before = tasks = [f"{when}_{name}" for when in ("during", "before")]
    run(frozen)
    follow(page, signed(frozen, during), during)
    page.wait(count(during, "status"))
    if answer:
        frozen.standin.switch(**answer)
    else:
        frozen.standin.hold()
    follow(page, signed(frozen, before), before)
    frozen.standin.wait_count(1, before)
    step_until(frozen, lambda: all(page.evaluate(count(task, "problem")) for task in tasks), "the problems", 31 if name == "late" else 3)
    for task in tasks:
        problem = page.evaluate(f"{task}.events.find(({{ type }}) => type === 'problem').data")
        assert (problem["code"], problem["status"]) == told and problem["retry_after"] >= 1
    frozen.standin.clear()
    run(frozen, "8%")
    recovered = "data.progress === 8"
    step_until(frozen, lambda: all(page.evaluate(count(task, "status", recovered)) for task in tasks), "the views", 3)
    end(frozen)
    step_until(frozen, lambda: all(page.evaluate(count(task, "status", "data.status === 'succeeded'")) for task in tasks), "the ends", 3)
    for task in tasks:
        page.wait(f"{task}.source.readyState === EventSource.CLOSED")
        assert page.evaluate(f"[{task}.opened, {task}.errors]") == [1, 2]  # the only errors are the end, and the refused reconnect
    assert page.errors() == []


def test_eventsource_is_told_once_that_the_team_has_no_queries_left(frozen, page):
    run(frozen, task_id="spent")
    follow(page, signed(frozen, "spent", "poor"), "spent")
    page.wait(count("spent", "status"))
    for progress, expected in ((8, count("spent", "status", "data.progress === 8")), (9, count("spent", "stale"))):
        run(frozen, f"{progress}%", "spent")
        frozen.step(3)
        page.wait(expected)
    stale = page.evaluate("spent.events.at(-1).data")
    assert (stale["code"], stale["task_id"]) == ("rate_limited", "spent") and 1 <= stale["retry_after"] <= 60
    for _ in range(2):
        frozen.step(30)
    page.wait(count("spent", "status", "data.progress === 9"))
    assert [kind for kind, _ in events(page, "spent")] == ["status", "status", "stale", "status"]
    page.evaluate("spent.source.close()")


# Ends, and refusals


def test_eventsource_reconnects_once_after_the_end_and_is_closed_by_a_204(frozen, page):
    end(frozen, "ended")
    url = signed(frozen, "ended")
    follow(page, url, "ended")
    page.wait("ended.source.readyState === EventSource.CLOSED")
    assert events(page, "ended") == [["status", "succeeded"]]
    assert page.evaluate("[ended.opened, ended.errors]") == [1, 2]
    assert page.requests().count(url) == 2
    assert page.errors() == []


@pytest.mark.parametrize("name, status", [("foreign", 403), ("missing", 404)])
def test_eventsource_is_refused_for_good_what_cannot_heal(frozen, page, name, status):
    frozen.standin.switch("missing", status=404)
    url = signed(frozen, name) if status == 404 else signed(frozen, "other").replace("other", name)
    follow(page, url, name)
    page.wait(f"{name}.source.readyState === EventSource.CLOSED")
    assert events(page, name) == [] and page.requests().count(url) == 1
    assert read(page, url)["status"] == status


# What the page can read


def test_page_reads_headers_and_problems(frozen, page):
    run(frozen, task_id="read")
    assert read(page, signed(frozen, "read")) == {
        "status": 200, "code": None, "headers": ["Retry-After", "ETag", "Age", "Cache-Status", "X-Request-Id"]}
    assert read(page, f"{frozen.nginx.url}{UNIFIED}read")["code"] == "unauthorized"
    assert read(page, signed(frozen, "read") + "&wait=x")["code"] == "bad_request"


def test_browser_caches_the_preflight(frozen, page):
    """But Chromium sends one before each request with an If-None-Match of the page's own, whatever the answer allowed."""
    run(frozen, task_id="preflight")
    url = f"{frozen.nginx.url}{UNIFIED}preflight"
    for _ in range(3):
        assert read(page, url, f"{{ headers: {json.dumps(bearer('web'))} }}")["status"] == 200

    def lines(method):
        return access_log(frozen).count(f'"{method} {UNIFIED}preflight ')

    frozen.wait_until(lambda: lines("GET") == 3, what="the log of the requests")
    assert lines("OPTIONS") == 1


def test_page_of_an_unlisted_origin_reads_nothing_and_is_in_the_log(frozen, browser, site):
    end(frozen, "unlisted")
    page, url = browser.page(), signed(frozen, "unlisted")
    page.goto(f"http://localhost:{site}/")
    assert read(page, url) is None
    assert read(page, url, "{ headers: { 'If-None-Match': '\"x\"' } }") is None
    follow(page, url, "unlisted")
    page.wait("unlisted.source.readyState === EventSource.CLOSED")
    assert page.evaluate("[unlisted.events.length, unlisted.opened]") == [0, 0]
    page.close()
    logged = re.compile(rf'"(\w+) {UNIFIED}unlisted .* refused_origin=http://localhost:{site} ')
    frozen.wait_until(lambda: logged.findall(access_log(frozen)) == ["GET", "OPTIONS", "GET"], what="the origin in the access log")


# nginx's own refusals


def test_eventsource_outlives_the_limit_of_its_address_and_the_page_reads_errors_of_nginx(make_stack, page, site):
    """One request at a time of each address."""
    stack = teams_stack(make_stack, admitting(site), daemon=False, port=0, redis=False, **quick())
    stack.nginx.changes = {"#limit_conn": "limit_conn", "taskproxy_connections 200": "taskproxy_connections 1"}
    stack.daemon.start()
    stack.nginx.start()
    run(stack)
    follow(page, signed(stack, "admitted"), "admitted")
    page.wait(count("admitted", "status"))
    follow(page, signed(stack, "refused"), "refused")
    page.wait(f"{count('refused', 'problem')} >= 2")  # nginx has refused the reconnect, too
    assert events(page, "refused")[:2] == [["problem", "rate_limited"]] * 2
    assert read(page, signed(stack, "refused")) == {"status": 429, "code": "rate_limited", "headers": ["Retry-After", "X-Request-Id"]}
    page.evaluate("admitted.source.close()")
    page.wait(count("refused", "status"))
    page.evaluate("refused.source.close()")
    url = signed(stack, "admitted")
    page.wait(FETCH.format(url=url, options="{}") + ".then((answer) => answer?.status === 200)")  # nginx has seen the end of the stream
    assert read(page, url, f"{{ method: 'POST', body: '{17_000 * 'x'}' }}")["status"] == 413
    assert read(page, f"{stack.nginx.url}/{17_000 * 'x'}")["status"] == 414
    stack.daemon.stop()
    assert read(page, url) == {"status": 503, "code": "overloaded", "headers": ["Retry-After", "X-Request-Id"]}
    assert read(page, url, "{ headers: { 'If-None-Match': '\"x\"' } }")["status"] == 503


# The module


def test_module_follows_tasks_of_another_origin(make_stack, page, site):
    stack = teams_stack(make_stack, admitting(site), port=0, redis=False, **quick())
    run(stack)
    alone, together = signed(stack, "module"), f"{stack.nginx.url}/v1/tasks?{list_link('sora/module,sora/second')}"
    page.evaluate(f"""(async () => {{
        const {{ watchTask, watchTasks, contentUrl }} = await import('{stack.nginx.url}/taskproxy.js');
        const views = window.views = {{ stream: [], poll: [], list: [] }}, ended = window.ended = [];
        const take = async (name, watch) => {{
            for await (const view of watch) views[name].push([view.task_id, view.progress, view.results.length && contentUrl(view)]);
            ended.push(name);
        }};
        take('stream', watchTask('{alone}'));
        take('poll', watchTask('{alone}', {{ stream: false }}));
        take('list', watchTasks(['sora/module', 'sora/second'], {{ getLink: () => '{together}' }}));
    }})()""")
    page.wait("views.stream.length && views.poll.length && views.list.length === 2")
    stack.wait_metric("waiters", 3)
    end(stack)
    page.wait("ended.length === 3")
    for name, views in page.evaluate("views").items():
        assert len(views) == (4 if name == "list" else 2)
        for task, _, content in views[len(views) // 2:]:
            assert content.startswith(f"{stack.nginx.url}{UNIFIED}{task}/content/0?") and "sig=" in content
            assert read(page, content, "{ redirect: 'manual' }") is not None
