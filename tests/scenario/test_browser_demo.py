"""The page of `make run` in Chromium: tasks run to their results, failures are shown, and nothing comes from elsewhere."""

import pytest

import demo
from browsing import one_browser
from shipped import PROVIDERS
from stack import Stack

QUICK = {name: {"poll": {"min": "100ms", "max": "100ms"}} for name in PROVIDERS}
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
VIDEOS = "[...document.querySelectorAll('video')]"


browser = pytest.fixture(scope="module")(one_browser)


@pytest.fixture
def open_page(browser):
    pages = []

    def open_one(url, **settings):
        pages.append(browser.page(**settings))
        pages[-1].goto(url)
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def stack():
    with Stack(every_provider=True, port=0, providers=QUICK, config={"workers": 1}, nginx=False, task_seconds=1000) as stack:
        stack.address = demo.serve(stack)
        yield stack


def states(page) -> dict:
    """The states of the cards, by the name of their task without its number."""
    return dict(page.evaluate("""[...document.querySelectorAll('#tasks > li')].map((card) => [
        card.querySelector('progress').getAttribute('aria-label').split(' ').pop().replace(/\\d+/, 'N'), card.dataset.state])"""))


def wait_states(stack, page, expected: dict) -> None:
    stack.wait_until(lambda: states(page) == expected, seconds=60, what=f"the states {expected}")


def count(page, figure: str) -> int:
    return int(page.evaluate(f"document.getElementById('{figure}').textContent"))


def assert_clean(page, stack) -> None:
    assert page.errors() == []
    assert page.hosts() == {f"127.0.0.1:{stack.nginx.port}"}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert page.serious() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_page_follows_tasks_to_their_results(stack, open_page, device, scheme):
    page = open_page(stack.address, **device, colorScheme=scheme)
    name = f"demo-{device['width']}-{scheme}"
    queued = {"openai/video_N": "queued", "sora/task_N": "queued", "midjourney/N": "queued", "runway/fail_N": "queued"}
    missing = {"sora/missing_N": "missing"}
    wait_states(stack, page, {**queued, **missing})
    for seconds in (400, 300):
        before = page.evaluate("[...document.querySelectorAll('progress')].map((bar) => bar.value)")
        stack.standin.advance(seconds)
        wait_states(stack, page, {**dict.fromkeys(queued, "running"), **missing})
        page.wait(f"document.querySelectorAll('progress')[1].value > {before[1]}")
    page.screenshot(f"{name}-running")
    assert_clean(page, stack)
    stack.standin.advance(400)
    wait_states(stack, page, {**dict.fromkeys(queued, "succeeded"), "runway/fail_N": "failed", **missing})
    for video in range(2):
        page.evaluate(f"{VIDEOS}[{video}].scrollIntoView({{ block: 'center' }})")
        page.wait(f"{VIDEOS}[{video}].currentTime > 0.2")
    page.wait("document.querySelector('img[alt^=The]').naturalWidth === 320")
    assert page.evaluate("[...document.querySelectorAll('.note:not([hidden])')].map((note) => note.textContent)") == [
        "Your input image was refused.", "The task does not exist at the upstream."]
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(f"{name}-end")
    assert_clean(page, stack)
    assert count(page, "changes") >= 12


def test_keyboard_adds_and_removes_a_task(stack, open_page):
    stack.standin.switch("keyboard", state="SUCCESS")
    page = open_page(f"{stack.nginx.url}/demo/", reducedMotion="reduce")
    page.do("focus", "#task")
    page.do("type", "#task", "sora/keyboard")
    page.do("press", "#task", "Enter")
    page.wait("document.querySelector('#announced').textContent === 'sora/keyboard: Succeeded'")
    page.wait("document.querySelector('video').readyState >= 2")
    assert page.evaluate("document.querySelector('video').paused"), "plays although little motion is preferred"
    assert page.evaluate("location.search") == "?tasks=sora/keyboard"
    assert "sora/keyboard" in page.evaluate("document.querySelector('#curl').textContent")
    page.do("press", "summary", "Enter")
    page.wait("document.querySelector('.view').checkVisibility()")
    page.screenshot("demo-one-task")
    assert_clean(page, stack)
    page.do("press", ".remove", "Enter")
    page.wait("document.querySelector('#empty').checkVisibility()")
    assert page.evaluate("document.activeElement.id") == "task"


def test_page_says_that_the_upstream_is_away_and_recovers(stack, open_page):
    stack.standin.switch("away", status=500)
    page = open_page(f"{stack.nginx.url}/demo/?tasks=sora/away")
    page.wait("document.querySelector('#trouble').textContent.startsWith('The upstream answered with an error.')")
    stack.standin.clear("away")
    page.wait("document.querySelector('#tasks [data-state=queued]')")
    page.wait("document.querySelector('#trouble').hidden")
