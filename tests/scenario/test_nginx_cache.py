"""nginx's own cache in front of the workers ("nginx_cache"): what it may repeat, to whom, and for how long.

nginx reads the clock of the test, too, which is frozen: an answer that may be repeated is repeated until the test steps the
clock. An answer of nginx's cache has "nginx; hit" in Cache-Status.
"""

import contextlib
import os
import re
import signal

import pytest

import hooking
from clustering import make_certificates, on_loopback, passed_on
from helpers import IDS_OF_A_PROXY_IN_FRONT, wait_gone
from parts import children_of
from stack import Stack, merged
from teaming import TOKENS, bearer, digest, link, list_link, teams_stack, write_teams

KEPT_FOR = 5  # seconds: longer than the poll interval of a new sora task, which is 2 s
APP, FOREIGN = {"Origin": "https://app.example.com"}, {"Origin": "https://other.example.com"}
HEYGEN = "/v1/video_status.get?video_id={}"
TASK, VIEW, LIST = "/sora/v1/videos/{}", "/v1/tasks/sora/{}", "/v1/tasks?ids=sora/{0},sora/{0}-2"
WEB, FILM = bearer("web"), bearer("film")
PROVIDERS = {team: {"providers": ["sora", "heygen"]} for team in ("web", "film")}


def start(stack, **changes):
    """Starts nginx with the stack's clock, and freezes it."""
    stack.nginx.changes |= changes
    stack.nginx.variables = stack.clock.environment
    stack.freeze()
    stack.nginx.start()
    return stack


@pytest.fixture(scope="module", params=["own workers", "another host"])
def stack(request, tmp_path_factory):
    """Teams that own tasks, and a careless http {}; all tasks have ended. With "another host", requests are passed on as in a
    cluster."""
    with contextlib.ExitStack() as stacks:
        running = teams_stack(
            lambda **settings: stacks.enter_context(Stack(**settings)), daemon=False, clock=True,
            teams=PROVIDERS, access={"ownership": "first-reader"}, http="underscores_in_headers on; ignore_invalid_headers off;",
            config={"workers": 1, "nginx_cache": f"{KEPT_FOR}s", "audit": True,
                    "routes": [{"provider": name, "upstream": "main"} for name in ("sora", "heygen")]},
        )
        running.standin.switch(state="SUCCESS")
        if request.param == "another host":
            certificates = tmp_path_factory.mktemp("certificates")
            make_certificates(certificates)
            on_loopback(certificates, running)
        running.daemon.start()
        yield start(running)


@pytest.fixture
def shared(make_stack):
    """The access mode "open"."""

    def make(**settings):
        own = {"redis": False, "task_seconds": 600, "config": {"workers": 1, "nginx_cache": f"{KEPT_FOR}s"}}
        return start(make_stack(clock=True, nginx=False, **merged(own, settings)))

    return make


def is_repeated(answer) -> bool:
    return answer.headers.get("cache-status", "").endswith(", nginx; hit")


def is_in_cluster(stack) -> bool:
    return "cluster.conf" in stack.nginx.sites


def reload(stack) -> None:
    """Reloads nginx, whose new process has no connection to the workers, and then the daemon, whose old workers exit at once."""
    old = children_of(stack.nginx.pid)
    stack.nginx.signal(signal.SIGHUP)
    wait_gone(stack, *old)
    stack.daemon.reload()


def request(stack, task_id, path, headers=None, method="GET"):
    signed = link(f"sora/{task_id}", int(stack.clock.time()) + 3600) + "&"
    return stack.get(path.format(task_id).replace("LINK&", signed).rstrip("?&"), headers, method)


# The table: what was answered before, the request, its status, and who answers it.

ROWS = {
    # credentials
    "the same token": ([(TASK, WEB)], (TASK, WEB), 200, "nginx"),
    "the team that does not own the task": ([(TASK, WEB)], (TASK, FILM), 404, "worker"),
    "the owner, after another team": ([(TASK, WEB), (TASK, FILM)], (TASK, WEB), 200, "nginx"),
    "no token": ([(TASK, WEB)], (TASK, {}), 401, "worker"),
    "an unknown token": ([(TASK, WEB)], (TASK, {"Authorization": f"Bearer {TOKENS['music']}"}), 401, "worker"),
    "the token in another header": ([(TASK, WEB)], (TASK, {"X-Api-Key": TOKENS["web"]}), 401, "worker"),
    "the provider's own header": ([(HEYGEN, {"X-Api-Key": TOKENS["web"]})], (HEYGEN, {"X-Api-Key": TOKENS["web"]}), 200, "nginx"),
    "another token there": ([(HEYGEN, {"X-Api-Key": TOKENS["web"]})], (HEYGEN, {"X-Api-Key": TOKENS["film"]}), 404, "worker"),
    "the token as Bearer there": ([(HEYGEN, {"X-Api-Key": TOKENS["web"]})], (HEYGEN, WEB), 200, "worker"),
    "no token there": ([(HEYGEN, {"X-Api-Key": TOKENS["web"]})], (HEYGEN, {}), 401, "worker"),
    "an underscore in the header": ([(HEYGEN, {"X-Api-Key": TOKENS["web"]})], (HEYGEN, {"X_Api_Key": TOKENS["web"]}), 401, "worker"),
    "a signed link": ([(TASK + "?LINK&", {})], (TASK + "?LINK&", {}), 200, "worker"),
    "a signed link after a token": ([(TASK, WEB)], (TASK + "?LINK&", {}), 200, "worker"),
    "a signed link and a token": ([(TASK + "?LINK&", WEB)], (TASK + "?LINK&", WEB), 200, "worker"),
    # methods and conditions
    "HEAD": ([(TASK, WEB, "HEAD")], (TASK, WEB, "HEAD"), 200, "nginx"),
    "HEAD after GET": ([(TASK, WEB)], (TASK, WEB, "HEAD"), 200, "worker"),
    "GET after HEAD": ([(TASK, WEB, "HEAD")], (TASK, WEB), 200, "worker"),
    "POST": ([(TASK, WEB)], (TASK, WEB, "POST"), 405, "worker"),
    "a preflight": ([(TASK, {**WEB, **APP})] * 2, (TASK, APP, "OPTIONS"), 204, "worker"),
    "a matching tag": ([(TASK, WEB)], (TASK, {**WEB, "If-None-Match": "*"}), 304, "nginx"),
    "another tag": ([(TASK, WEB)], (TASK, {**WEB, "If-None-Match": '"x"'}), 200, "nginx"),
    "a matching tag at first": ([], (TASK, {**WEB, "If-None-Match": "*"}), 304, "worker"),
    "no tag, after a matching one": ([(TASK, {**WEB, "If-None-Match": "*"})], (TASK, WEB), 200, "nginx"),
    "HEAD with a matching tag": ([(TASK, WEB, "HEAD")], (TASK, {**WEB, "If-None-Match": "*"}, "HEAD"), 304, "nginx"),
    "If-Match": ([(TASK, WEB)], (TASK, {**WEB, "If-Match": '"x"'}), 200, "worker"),
    "If-Modified-Since": ([(TASK, WEB)], (TASK, {**WEB, "If-Modified-Since": "Fri, 01 Jan 2038 00:00:00 GMT"}), 200, "worker"),
    "If-Unmodified-Since": ([(TASK, WEB)], (TASK, {**WEB, "If-Unmodified-Since": "Fri, 01 Jan 2010 00:00:00 GMT"}), 200, "worker"),
    "Range": ([(TASK, WEB)], (TASK, {**WEB, "Range": "bytes=0-3"}), 200, "nginx"),
    # what the view depends on
    "another Accept": ([(TASK, WEB)], (TASK, {**WEB, "Accept": "application/json"}), 200, "worker"),
    "the same Accept": ([(TASK, {**WEB, "Accept": "a/b, c/d"})], (TASK, {**WEB, "Accept": "a/b, c/d"}), 200, "nginx"),
    "another Prefer": ([(TASK, WEB)], (TASK, {**WEB, "Prefer": "view=unified"}), 200, "worker"),
    "the same Prefer": ([(TASK, {**WEB, "Prefer": "view=unified"})], (TASK, {**WEB, "Prefer": "view=unified"}), 200, "nginx"),
    "no Prefer, after one": ([(TASK, {**WEB, "Prefer": "view=unified"})], (TASK, WEB), 200, "worker"),
    "the unified path": ([(TASK, WEB), (VIEW, WEB)], (VIEW, WEB), 200, "nginx"),
    "the origin of a page": ([(TASK, WEB)], (TASK, {**WEB, **APP}), 200, "worker"),
    "the same origin": ([(TASK, {**WEB, **APP})], (TASK, {**WEB, **APP}), 200, "nginx"),
    "an origin that no team lists": ([(TASK, {**WEB, **APP})], (TASK, {**WEB, **FOREIGN}), 200, "worker"),
    # queries
    "a list": ([(LIST, WEB)], (LIST, WEB), 200, "nginx"),
    "a list with a matching tag": ([(LIST, WEB)], (LIST, {**WEB, "If-None-Match": "*"}), 304, "nginx"),
    "a list in another order": ([(LIST, WEB)], ("/v1/tasks?ids=sora/{0}-2,sora/{0}", WEB), 200, "worker"),
    "a list with a problem": ([("/v1/tasks?ids=sora/{},sora/", WEB)] * 2, ("/v1/tasks?ids=sora/{},sora/", WEB), 200, "worker"),
    "another team's list": ([(LIST, WEB)], (LIST, FILM), 200, "worker"),
    "a query that names no task": ([(TASK + "?key=x", WEB)], (TASK + "?key=x", WEB), 200, "worker"),
    "wait": ([(TASK + "?wait=1", WEB)], (TASK + "?wait=1", WEB), 200, "worker"),
    "wait without a time": ([(TASK, WEB)], (TASK + "?wait=0", WEB), 200, "worker"),
    "Prefer: wait": ([(TASK, {**WEB, "Prefer": "a, WAIT=1"})], (TASK, {**WEB, "Prefer": "a, WAIT=1"}), 200, "worker"),
    # what is not a view
    "an event stream": ([(TASK, {**WEB, "Accept": "text/event-stream"})], (TASK, {**WEB, "Accept": "text/event-stream"}), 200, "worker"),
    "a stream of a list": ([(LIST, {**WEB, "Accept": "text/event-stream"})], (LIST, {**WEB, "Accept": "text/event-stream"}), 200, "worker"),
    "content": ([(VIEW + "/content/0", WEB)], (VIEW + "/content/0", WEB), 302, "worker"),
    "content at the native path": ([(TASK + "/content", WEB)], (TASK + "/content", WEB), 302, "worker"),
    "an unknown path": ([("/{}", WEB)], ("/{}", WEB), 404, "worker"),
    "an invalid id": ([("/sora/v1/videos/{}!", WEB)], ("/sora/v1/videos/{}!", WEB), 400, "worker"),
    "a provider that is not served": ([("/v1/tasks/fal/{}", WEB)], ("/v1/tasks/fal/{}", WEB), 404, "worker"),
    "a webhook": ([("/v1/hooks/sora/{}", {}, "POST")], ("/v1/hooks/sora/{}", {}, "POST"), 404, "worker"),
}


# No worker reads these headers; nginx would, without the hop.
NOT_PASSED_ON = {"If-Match", "If-Unmodified-Since"}


@pytest.mark.parametrize("name", ROWS)
def test_answer_is_repeated_only_to_the_same_client_and_request(stack, name):
    before, wanted, status, server = ROWS[name]
    task_id = "-".join(re.findall(r"\w+", name))
    answers = [request(stack, task_id, *asked) for asked in [*before, wanted]]
    last = answers[-1]
    if is_in_cluster(stack) and name in NOT_PASSED_ON:
        server = "nginx"
    assert (last.status, "nginx" if is_repeated(last) else "worker") == (status, server), last
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)  # each has its own
    assert {(answer.headers["x-request-id"].count(","), answer.headers["x-content-type-options"]) for answer in answers} == {(0, "nosniff")}
    if server == "nginx":
        assert_like_workers(stack, task_id, last, *wanted)
    if is_in_cluster(stack) and name != "a webhook":
        stack.wait_until(lambda: len(passed_on(stack, last.headers["x-request-id"])) == 1, what="a line in the log of the other host")


def assert_like_workers(stack, task_id, answer, path, headers, method="GET"):
    """Asserts that the worker's own answer would be the same."""
    params = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    own = stack.ask_worker(path.format(task_id), method=method, **params)
    assert (answer.status, answer.body) == (own.status, own.body)
    for header in ("etag", "age", "cache-control", "retry-after", "vary", "access-control-allow-origin", "content-type"):
        assert answer.headers.get(header) == own.headers.get(header), header


def test_worker_logs_the_id_that_the_client_gets(stack):
    answers = [stack.task("logged", headers) for headers in (WEB, WEB, FILM)]
    assert [(answer.status, is_repeated(answer)) for answer in answers] == [(200, False), (200, True), (404, False)]
    log = stack.daemon.log()
    assert [answer.headers["x-request-id"] in log for answer in answers] == [True, False, True]


def test_id_stays_the_same_if_the_worker_dies(make_stack):
    config = {"workers": 1, "nginx_cache": f"{KEPT_FOR}s", "log_level": "debug"}
    stack = make_stack(redis=False, config=config)
    (first,) = stack.daemon.workers()
    with stack.standin.hold("t") as barrier:
        asked = stack.background(stack.task, "t")
        barrier.wait_arrived(1)
        os.kill(first, signal.SIGKILL)
    answer = asked.result()
    assert answer.status == 200
    assert stack.daemon.log().count(f"request {answer.headers['x-request-id']}: route -> ") == 2


def test_worker_whose_nginx_files_are_older_sends_no_answer_for_repetition(shared):
    """They pass NGINX_CACHE, and would not add what nginx adds now."""
    stack = shared()
    for name, complete in (("NGINX_CACHE", True), ("NGINX_REPEATS", False)):
        headers = stack.ask_worker(TASK.format("t"), **{name: "taskproxy"}).headers
        assert [header in headers for header in ("x-request-id", "x-content-type-options", "age", "x-cache")] == [complete] * 4
        assert ("x-taskproxy-facts" in headers) == ("x-accel-expires" in headers) != complete


def test_no_token_and_no_signature_is_in_a_file(stack):
    kept = stack.nginx.prefix / "taskproxy-cache"
    request(stack, "t", TASK, WEB)
    request(stack, "t", TASK + "?LINK&")
    request(stack, "t", TASK + "?LINK&", WEB)
    request(stack, "t", "/v1/tasks?ids=sora/t&" + list_link("sora/t", int(stack.clock.time()) + 3600))
    stack.get("/v1/hooks/sora/the-secret-of-a-webhook", method="POST")
    texts = [file.read_bytes() for file in kept.iterdir()]
    assert any(b"\nKEY: GET/sora/v1/videos/t\n" in text for text in texts)
    secrets = [stack.key, *TOKENS.values(), "&exp=", "the-secret-of-a-webhook"]
    assert [secret for text in texts for secret in secrets if secret.encode() in text] == []
    assert kept.stat().st_mode & 0o777 == 0o700


def test_locations_of_webhooks_and_refusals_precede_the_cache(stack):
    secret = "the-secret-of-another-webhook"
    for path in ("/v1/hooks/sora/", "//v1//hooks/sora/", "/%76%31/hooks%2Fsora%2F"):
        answers = [stack.get(path + secret, method="POST", body=bytes(size)) for size in (20_000, 33_000)]
        assert [answer.status for answer in answers] == [404, 413]
    for path in ("/taskproxy-refusal", "/taskproxy-refusal/event", "//taskproxy-refusal/preflight"):
        refused = stack.get(path)
        assert (refused.status, refused.json()["code"], refused.headers.get("cache-status")) == (404, "not_found", None)
    last = stack.task("t").headers["x-request-id"]
    stack.wait_until(lambda: last in (stack.folder / "access.log").read_text(), what="the line of the last request")
    logs = list(stack.folder.glob("*.log"))
    assert [file.name for file in logs if secret in file.read_text()] == []


def test_long_query_is_not_in_the_error_log(stack):
    """Regular expressions need memory for it, and nginx logs what it cannot match, in full."""
    queries = ["ids=&" * 3000, "ids=&" * 3000 + "x=y&", "ids=a&" * 2500 + "LINK&"]
    assert [request(stack, "t", f"{TASK}?{query}", WEB).status for query in queries] == [200] * 3
    assert "ids=" not in stack.nginx.log()


def test_large_answer_is_not_kept(stack):
    tasks = ",".join(f"sora/large-{number}" for number in range(20))
    assert [is_repeated(stack.get(f"/v1/tasks?ids={tasks}", WEB)) for _ in range(3)] == [False] * 3


def test_revoked_token_gets_what_it_has_seen_until_the_cache_forgets_it(make_stack):
    config = {"workers": 1, "nginx_cache": f"{KEPT_FOR}s"}
    stack = teams_stack(make_stack, daemon=False, clock=True, redis=False, config=config)
    stack.standin.switch(state="SUCCESS")
    stack.daemon.start()
    start(stack)
    assert [is_repeated(stack.task("t", FILM)) for _ in range(2)] == [False, True]
    write_teams(stack, {"film": {"token_sha256": [digest("another-token")]}})
    reload(stack)
    assert stack.task("new", FILM).status == 401
    assert is_repeated(stack.task("t", FILM))
    stack.step(KEPT_FOR)
    assert stack.task("t", FILM).status == 401


# How long answers are repeated, and what they say then


def told(answer) -> tuple:
    """Whether nginx repeated it, and its headers about the time."""
    return (is_repeated(answer), *(answer.headers.get(name) for name in ("age", "retry-after", "cache-control")))


def test_running_task_is_repeated_until_it_can_have_changed(shared):
    stack = shared()
    assert told(stack.task("t")) == (False, "0", "2", "private, no-cache")
    stack.standin.switch("t", state="SUCCESS")
    assert told(stack.task("t")) == (True, "0", "2", "private, no-cache")
    stack.step(1)
    assert told(stack.task("t")) == (True, "1", "1", "private, no-cache")
    stack.step(1)
    assert told(stack.task("t")) == (False, "0", None, "private, max-age=86400")
    assert stack.standin.count("t") == 2


def test_end_of_a_task_is_seen_when_the_answer_before_is_forgotten(shared, tmp_path):
    """Even if a worker has learnt of it before, here from a webhook."""
    stack = shared(**hooking.settings(tmp_path))
    stack.task("t")
    stack.standin.switch("t", state="SUCCESS")
    hooking.hook(stack, "t")
    stack.wait_until(lambda: stack.ask_worker(TASK.format("t")).json()["data"]["status"] == "SUCCESS", what="the end of the task")
    answer = stack.task("t")
    assert is_repeated(answer) and answer.json()["data"]["status"] == "NOT_START"
    stack.step(KEPT_FOR)
    answer = stack.task("t")
    assert not is_repeated(answer) and answer.json()["data"]["status"] == "SUCCESS"


def test_ended_task_is_repeated_for_no_longer_than_configured(shared):
    stack = shared()
    stack.standin.switch("t", state="SUCCESS")
    for age in range(2 * KEPT_FOR + 1):
        assert told(stack.task("t")) == (age % KEPT_FOR > 0, str(age), None, "private, max-age=86400")
        stack.step(1)


def test_second_before_the_answer_was_made_counts_as_its_first(shared):
    """nginx reads the clock once for many requests, so its time can be behind the worker's."""
    stack = shared()
    stack.standin.switch("t", state="SUCCESS")
    stack.task("t")
    stack.step(-1)
    assert told(stack.task("t")) == (True, "0", None, "private, max-age=86400")


def test_part_of_a_second_is_not_repeated(shared):
    stack = shared(config={"nginx_cache": "1s"})
    stack.standin.switch("t", state="SUCCESS")
    stack.step(0.9)
    assert [is_repeated(stack.task("t")) for _ in range(2)] == [False, True]
    stack.step(0.1)
    assert [is_repeated(stack.task("t")) for _ in range(2)] == [False, True]


def test_urls_are_not_repeated_when_they_expire(shared):
    stack = shared()
    stack.standin.switch("t", state="SUCCESS", expires=stack.clock.time() + 63)
    assert told(stack.task("t")) == (False, "0", None, "private, max-age=3")
    stack.step(2)
    assert told(stack.task("t")) == (True, "2", None, "private, max-age=3")
    stack.step(1)
    stack.standin.switch("t", state="SUCCESS", expires=stack.clock.time() + 1000)
    assert told(stack.task("t")) == (False, "0", None, "private, max-age=940")


def test_failures_and_stale_answers_are_not_repeated(shared):
    stack = shared()
    stack.task("t")
    stack.standin.switch(status=500)
    stack.step(2)
    for _ in range(3):
        stale, failed = stack.task("t"), stack.task("new")
        assert (stale.headers["x-cache"], is_repeated(stale)) == ("STALE", False)
        assert (failed.status, is_repeated(failed)) == (502, False)


def test_refusals_of_nginx_are_its_own(shared):
    stack = shared()
    too_large = stack.get(TASK.format("t"), method="POST", body=bytes(17_000))
    assert (too_large.status, too_large.json()["code"]) == (413, "bad_request")
    stack.daemon.stop()
    away = stack.get(TASK.format("t"))
    assert (away.status, away.json()["code"], away.headers["retry-after"]) == (503, "overloaded", "1")


@pytest.mark.parametrize("header", ["If-Match", "If-Unmodified-Since"])
def test_empty_condition_is_refused_with_a_problem(shared, header):
    """nginx finds it false, whether or not it repeats the answer."""
    stack = shared()
    for task in ("t", "t", "other"):
        refused = stack.task(task, {header: ""})
        assert (refused.status, refused.json()["code"], refused.json()["title"]) == (412, "bad_request", "Precondition failed")


def test_settings_of_http_for_other_caches_do_not_apply(shared):
    stack = shared(http="fastcgi_cache_valid any 1h; fastcgi_cache_use_stale error http_503; fastcgi_cache_revalidate on; fastcgi_cache_lock on;")
    with stack.standin.hold("two") as barrier:
        both = [stack.background(stack.task, "two") for _ in range(2)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 2)
    assert [answer.result().status for answer in both] == [200, 200]
    tag = stack.task("t").headers["etag"]
    stack.standin.switch(status=500)
    failed = [stack.task("new") for _ in range(2)]
    assert {answer.status for answer in failed} == {502} and len({answer.headers["x-request-id"] for answer in failed}) == 2
    stack.step(2)
    stale = stack.task("t", {"If-None-Match": tag})
    assert (stale.status, stale.headers["x-cache"]) == (304, "STALE")
    stack.clock.run()
    stack.daemon.stop()
    assert stack.task("t").status == 503


def test_mode_open_ignores_tokens_and_the_target_of_a_proxy_protocol_is_heeded(shared):
    stack = shared(config={"routes": [{"provider": name, "upstream": "main"} for name in ("sora", "fal")]})
    stack.standin.switch(state="SUCCESS")
    assert [is_repeated(stack.task("t", headers)) for headers in ({}, WEB, {"X-Api-Key": "x"})] == [False, True, True]
    target = {"X-Fal-Target-Url": "https://queue.fal.run/fal-ai/pika/requests/a/status"}
    answers = [stack.get("/api/fal/proxy", target) for _ in range(3)]
    assert [(answer.status, is_repeated(answer)) for answer in answers] == [(200, False)] * 3


def test_id_can_be_that_of_a_proxy_in_front(make_stack):
    config = {"workers": 1, "nginx_cache": f"{KEPT_FOR}s"}
    stack = start(make_stack(clock=True, nginx=False, redis=False, config=config), **IDS_OF_A_PROXY_IN_FRONT)
    first, repeated, invalid, none = (stack.task("t", headers) for headers in (*({"X-Request-Id": name} for name in ("lb-1", "lb-2", "l b")), {}))
    assert (first.headers["x-request-id"], repeated.headers["x-request-id"]) == ("lb-1", "lb-2")
    assert all(re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]) for answer in (invalid, none))
    stack.step(1)
    assert told(stack.task("t")) == (True, "1", "1", "private, no-cache")


def test_reloads_keep_answers_and_apply_a_changed_duration(shared):
    stack = shared()
    stack.standin.switch("t", state="SUCCESS")
    stack.task("t")
    stack.configure(nginx_cache="0s")
    reload(stack)
    assert is_repeated(stack.task("t"))
    stack.step(KEPT_FOR)
    assert [is_repeated(stack.task("t")) for _ in range(2)] == [False, False]


def test_counters_are_those_of_workers_and_the_access_log_has_the_others(shared):
    stack = shared()
    ids = [stack.task("t").headers["x-request-id"] for _ in range(3)]
    assert stack.metric("requests_total") == 1
    log = stack.folder / "access.log"
    stack.wait_until(lambda: log.read_text().count("\n") == 3, what="three lines")
    lines = re.findall(r" cache=(\S+) .* worker_status=(\S+) id=(\S+)", log.read_text())
    assert lines == [("MISS", "200", ids[0]), ("NGINX", "-", ids[1]), ("NGINX", "-", ids[2])]
