"""The upstream, all workers, and nginx are away, in three stacks at a time, while pages in Chromium follow tasks. The outages last
until each watcher has failed several times, which takes about ten seconds."""

import re

import pytest

from browsing import one_browser
from parts import ROOT
from watching import UNIFIED, end, quick, run

# What the README's example for a page without the module expects around it, and a record of what it does.
EXAMPLE = """(() => {{
    const link = '', bar = document.createElement('progress'), video = document.createElement('video'), shown = [];
    bar.max = 100;
    const show = (text) => shown.push(text);
    {code}
    window.example = {{ source, bar, video, shown, problems: 0, errors: 0 }};
    source.addEventListener('problem', () => example.problems++);
    source.addEventListener('error', () => example.errors++);
}})()"""
MODULE = """(async () => {{
    const {{ watchTask, watchTasks }} = await import('/taskproxy.js');
    const follow = async (name, start, what, options = {{}}) => {{
        const watch = window[name] = {{ views: [], problems: [], ended: false }};
        for await (const view of start(what, {{ ...options, onProblem: (problem) => watch.problems.push(problem) }})) watch.views.push(view);
        watch.ended = true;
    }};
    follow('one', watchTask, '{path}');
    follow('list', watchTasks, ['sora/task', 'sora/second']);
    follow('polls', watchTask, '{path}', {{ stream: false }});
}})()"""
WATCHES = "[one, list, polls]"
# When a watcher has noticed the outage, and has tried again.
NOTICED = {
    "standin": "example.problems >= 1",
    "daemon": "example.problems >= 4",  # an event in place of the stream, for each attempt to reconnect
    "nginx": "example.errors >= 4",  # an attempt to reconnect each
}


browser = pytest.fixture(scope="module")(one_browser)


def example_of_the_readme(url: str) -> str:
    code, = [block for block in re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "new EventSource" in block]
    return code.replace("https://HOST/v1/tasks/sora/task_01", url)


@pytest.fixture
def pages(browser, make_stack):
    """A page for each part that will be away: {name: (stack, page)}."""
    opened = {part: (make_stack(**quick(), redis=False, port=0), browser.page()) for part in NOTICED}
    yield opened
    for _, page in opened.values():
        page.close()


def test_pages_outlive_ten_seconds_without_upstream_workers_or_nginx(pages):
    for stack, page in pages.values():
        run(stack)
        page.goto(f"{stack.nginx.url}/taskproxy.js")
        page.evaluate(EXAMPLE.format(code=example_of_the_readme(f"{stack.nginx.url}{UNIFIED}task")))
        page.evaluate(MODULE.format(path=f"{UNIFIED}task"))
        page.wait(f"example.bar.value === 7 && {WATCHES}.every(({{ views }}) => views.length)")
        page.wait("list.views.length === 2")
        stack.wait_metric("waiters", 4)  # three streams and a long poll
    for part, (stack, _) in pages.items():
        getattr(stack, part).stop()
    for part, (_, page) in pages.items():
        page.wait(f"{NOTICED[part]} && one.problems.at(-1) && list.problems.at(-1)")
    for _, page in list(pages.values())[1:]:  # a long poll goes on while the upstream is away
        page.wait("polls.problems.length >= 3")
    for part, (stack, _) in pages.items():
        getattr(stack, part).start()
        run(stack, "50%")
    for stack, page in pages.values():
        page.wait(f"example.bar.value === 50 && {WATCHES}.every(({{ views }}) => views.at(-1).progress === 50)")
        assert page.evaluate(f"{WATCHES}.every(({{ problems }}) => !problems.at(-1))")
        end(stack)
        page.wait(f"example.video.src && {WATCHES}.every(({{ ended }}) => ended)")
        assert page.evaluate("example.video.src") == f"{stack.nginx.url}{UNIFIED}task/content/0"
        assert page.evaluate("example.source.readyState === EventSource.CLOSED && example.shown.at(-1)") == ""
        assert not page.evaluate("example.shown.includes('This task cannot be followed.')")
        assert page.evaluate("one.views.map(({ progress }) => progress)") == [7, 50, 100]
