"""nginx/www/taskproxy.js in Chromium: watches follow tasks to their ends, whatever happens to the server, the network and the links."""

import json

import pytest

from browsing import one_browser
from helpers import metric, use_tls
from stack import Stack
from teaming import in_seconds, link, teams_stack
from watching import UNIFIED, end, quick, run

# Puts a watch into the page: what it yields and reports, and how it ended.
WATCH = """(async (what, options) => {{
    const {{ watchTask, watchTasks, contentUrl }} = await import('/taskproxy.js');
    const watch = window.{name} = {{ views: [], statuses: 0, problems: [], links: [], ended: null, abort: new AbortController() }};
    const all = {{
        onStatus: () => watch.statuses++,
        onProblem: (problem) => watch.problems.push(problem && {{ code: problem.code, status: problem.status, task: problem.task }}),
        signal: watch.abort.signal,
        ...options,
    }};
    if (options.links) all.getLink = (task) => (watch.links.push(task), options.links[watch.links.length - 1] ?? options.links.at(-1));
    const views = Array.isArray(what) ? watchTasks(what, all) : watchTask(what, all);
    (async () => {{
        for await (const view of views) {{
            watch.views.push(view);
            if (view.results.length) watch.content = contentUrl(view);
        }}
        return 'done';
    }})().catch((error) => error.code && error.name === 'TaskError' ? error.code : error.name).then((ended) => {{ watch.ended = ended; }});
}})({what}, {options})"""


browser = pytest.fixture(scope="module")(one_browser)


@pytest.fixture(scope="module")
def stack():
    with Stack(**quick(), port=0) as stack:
        yield stack


@pytest.fixture
def open_page(browser):
    """A page of nginx's origin."""
    pages = []

    def open_one(stack, **settings):
        pages.append(browser.page(**settings))
        pages[-1].goto(f"{stack.nginx.url}/taskproxy.js")
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()


def watch(page, what, name: str = "watch", **options) -> None:
    page.evaluate(WATCH.format(name=name, what=json.dumps(what), options=json.dumps(options)))


def progress(page, name: str = "watch") -> list:
    return page.evaluate(f"{name}.views.map((view) => view.progress)")


def wait_progress(page, value: int, name: str = "watch") -> None:
    page.wait(f"{name}.views.at(-1)?.progress === {value}")


def wait_end(page, name: str = "watch") -> str:
    page.wait(f"{name}.ended")
    return page.evaluate(f"{name}.ended")


def requests(page, task: str, wait: bool = False) -> int:
    """Requests for the task: streams and plain ones, or long polls."""
    return sum(task in url and ("wait=" in url) is wait for url in page.requests())


def listed(tasks) -> list:
    return [f"sora/{task}" for task in tasks]


def test_task_is_followed_to_its_end_on_one_stream(stack, open_page):
    page, task = open_page(stack), "one-stream"
    run(stack, "7%", task)
    watch(page, UNIFIED + task)
    for percent in (7, 20, 50):
        run(stack, f"{percent}%", task)
        wait_progress(page, percent)
    end(stack, task)
    assert wait_end(page) == "done"
    assert page.evaluate("watch.views.at(-1)") == stack.get(UNIFIED + task).json()
    assert progress(page) == [7, 20, 50, 100] and page.evaluate("watch.statuses") == 4
    assert page.evaluate("watch.problems") == []
    assert page.evaluate("watch.content") == f"{stack.nginx.url}{UNIFIED}{task}/content/0"
    assert (requests(page, task), requests(page, task, wait=True)) == (1, 0)
    assert page.errors() == []


def test_watch_ends_with_the_loop_and_with_the_signal(stack, open_page):
    page = open_page(stack)
    run(stack, "7%", "left")
    for name in ("first", "second"):
        watch(page, UNIFIED + "left", name)
        wait_progress(page, 7, name)
    stack.wait_metric("streams", 2)
    page.evaluate("first.abort.abort()")
    assert wait_end(page, "first") == "AbortError"
    stack.wait_metric("streams", lambda count: count == 1)
    page.evaluate(f"""(async () => {{
        const {{ watchTask }} = await import('/taskproxy.js');
        for await (const view of watchTask('{UNIFIED}left')) break;
    }})()""")
    page.evaluate("second.abort.abort()")
    stack.wait_metric("streams", lambda count: count == 0)


@pytest.mark.parametrize("how", ["by option", "without EventSource", "refused"])
def test_long_polls_take_the_place_of_streams(stack, open_page, how):
    page, task = open_page(stack), f"polled-{how.split()[-1]}"
    if how == "without EventSource":
        page.evaluate("delete window.EventSource")
    if how == "refused":
        page.refuse_streams()
    run(stack, "7%", task)
    watch(page, UNIFIED + task, **({"stream": False} if how == "by option" else {}))
    wait_progress(page, 7)
    stack.wait_metric("waiters", 1)  # the long poll
    run(stack, "20%", task)
    wait_progress(page, 20)
    end(stack, task)
    assert wait_end(page) == "done"
    assert progress(page) == [7, 20, 100]
    assert requests(page, task, wait=True) >= 1
    assert page.evaluate("watch.problems") == []


def test_failed_and_missing_tasks(stack, open_page):
    page = open_page(stack)
    stack.standin.switch("failed", state="FAILURE")
    end(stack, "good")
    for name in ("failed", "missing"):
        watch(page, UNIFIED + name, name)
    watch(page, listed(["good", "missing", "failed", "good"]), "list")
    assert wait_end(page, "failed") == "done" and wait_end(page, "missing") == "task_not_found"
    assert page.evaluate("failed.views.map((view) => view.status)") == ["failed"]
    assert wait_end(page, "list") == "done"
    assert sorted(page.evaluate("list.views.map((view) => view.status)")) == ["failed", "succeeded"]
    assert [problem for problem in page.evaluate("list.problems") if problem and problem["task"]] == [
        {"code": "task_not_found", "status": 404, "task": "sora/missing"}]


def test_sixty_tasks_on_one_connection(stack, open_page):
    page, tasks = open_page(stack), [f"many-{number}" for number in range(60)]
    for task in tasks:
        run(stack, "7%", task)
    watch(page, listed(tasks))
    page.wait("watch.views.length === 60")
    for task in tasks:
        end(stack, task)
    assert wait_end(page) == "done"
    assert page.evaluate("watch.views.filter((view) => view.status === 'succeeded').length") == 60
    assert page.evaluate("new Set(watch.views.map((view) => view.task_id)).size") == 60


def test_sixty_streams_on_one_page_need_http2(browser, make_stack):
    """With HTTP/1.1, a browser opens six connections to a server, and further streams wait."""
    stack = make_stack(**quick(), port=0, redis=False, nginx=False)
    use_tls(stack)
    stack.nginx.start()
    run(stack, "7%")
    page = browser.page(ignoreHTTPSErrors=True)
    page.goto(f"https://127.0.0.1:{stack.nginx.port}/taskproxy.js")
    names = [f"watch{number}" for number in range(60)]
    for name in names:
        watch(page, UNIFIED + name, name)
    page.wait(f"[{', '.join(names)}].every((watch) => watch.views.length === 1)")
    stack.wait_until(lambda: metric(stack, "streams") == 60, what="sixty streams")
    end(stack)
    page.wait(f"[{', '.join(names)}].every((watch) => watch.ended === 'done')")
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    page.close()


def test_lost_network(stack, open_page):
    page, task = open_page(stack), "offline"
    run(stack, "7%", task)
    watch(page, UNIFIED + task)
    wait_progress(page, 7)
    page.offline(True)  # does not break open connections
    stack.nginx.stop()
    page.wait("watch.problems.at(-1)?.code === 'interrupted'")
    stack.nginx.start()
    run(stack, "20%", task)
    page.offline(False)
    wait_progress(page, 20)
    assert page.evaluate("watch.problems.at(-1)") is None
    end(stack, task)
    assert wait_end(page) == "done"
    assert progress(page) == [7, 20, 100]


def test_page_that_becomes_visible_opens_a_new_stream(stack, open_page):
    page, task = open_page(stack), "visible"
    run(stack, "7%", task)
    watch(page, UNIFIED + task)
    wait_progress(page, 7)
    for hidden in ("true", "false"):
        page.evaluate(f"Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    stack.wait_until(lambda: requests(page, task) == 2, what="a second stream")
    stack.wait_metric("streams", lambda count: count == 1)
    end(stack, task)
    assert wait_end(page) == "done"
    assert progress(page) == [7, 100]


def test_reload_of_the_server(make_stack, open_page):
    stack = make_stack(**quick(), port=0)
    page = open_page(stack)
    run(stack, "7%", "reloaded")
    watch(page, UNIFIED + "reloaded")
    watch(page, listed(["reloaded"]), "list")
    wait_progress(page, 7)
    wait_progress(page, 7, "list")
    stack.daemon.reload()
    run(stack, "20%", "reloaded")
    wait_progress(page, 20)
    wait_progress(page, 20, "list")
    end(stack, "reloaded")
    assert (wait_end(page), wait_end(page, "list")) == ("done", "done")


def test_upstream_is_away_for_a_while(make_stack, open_page):
    stack = make_stack(**quick(), port=0)
    page = open_page(stack)
    run(stack, "7%", "early")
    watch(page, UNIFIED + "early", "early")
    wait_progress(page, 7, "early")
    stack.standin.stop()
    watch(page, UNIFIED + "late", "late")
    watch(page, listed(["late"]), "list")
    page.wait("late.problems.some((problem) => problem?.status >= 502)")
    stack.standin.start()
    for task in ("early", "late"):
        end(stack, task)
    assert [wait_end(page, name) for name in ("early", "late", "list")] == ["done"] * 3
    assert page.evaluate("late.problems.at(-1)") is None


# Signed links


def test_refused_link_is_replaced_once(make_stack, open_page):
    stack = teams_stack(make_stack, **quick(), redis=False, port=0)
    page = open_page(stack)
    end(stack, "linked")
    good, wrong = (f"{UNIFIED}linked?{link(task)}" for task in ("sora/linked", "sora/other"))
    watch(page, wrong, "replaced", links=[good])
    assert wait_end(page, "replaced") == "done"
    assert page.evaluate("replaced.links") == ["sora/linked"]
    assert page.evaluate("replaced.content") == f"{stack.nginx.url}{UNIFIED}linked/content/0?{good.partition('?')[2]}"
    watch(page, wrong, "refused", links=[wrong])
    assert wait_end(page, "refused") == "forbidden"
    assert page.evaluate("refused.links") == ["sora/linked"]
    watch(page, wrong, "kept")
    assert wait_end(page, "kept") == "forbidden"


def test_link_that_expires_during_the_watch_is_replaced(make_frozen, open_page):
    stack = teams_stack(make_frozen, **quick(), redis=False, port=0)
    page = open_page(stack)
    run(stack, "7%", "linked")
    links = [f"{UNIFIED}linked?{link('sora/linked', in_seconds(seconds))}" for seconds in (1000, 4000)]
    watch(page, links[0], links=links[1:])
    wait_progress(page, 7)
    stack.step(2000)
    stack.wait_until(lambda: requests(page, links[1].partition("?")[2]) >= 1, what="a request with the new link")
    end(stack, "linked")
    stack.clock.run()
    assert wait_end(page) == "done"
    assert page.evaluate("watch.links") == ["sora/linked"]
