"""The answers about a task: their content, their source, and how long they are fresh."""

import json
import re

import fastcgi
from stack import ROOT, read_json

PATH = "/sora/v1/videos/"


def polled_every(interval: str) -> dict:
    return {"sora": {"poll": {"min": interval, "max": interval}}}


def cache_status(answer) -> dict:
    """The members of a Cache-Status that is well-formed (RFC 9211): {"hit": True, "ttl": "17"}."""
    name, *parts = answer.headers["cache-status"].split("; ")
    assert name == "taskproxy"
    assert all(re.fullmatch(r"[a-z]+(=[A-Za-z0-9-]+)?", part) for part in parts)
    return {key: value if equals else True for key, equals, value in (part.partition("=") for part in parts)}


def max_age(answer) -> int:
    (seconds,) = re.fullmatch(r"private, max-age=(\d+)", answer.headers["cache-control"]).groups()
    return int(seconds)


def wait_not_hit(stack, task_id: str):
    return stack.wait_until(lambda: (answer := stack.task(task_id)).headers["x-cache"] != "HIT" and answer, what="a result other than HIT")


# Cache results


def test_first_request_is_a_miss_and_second_is_a_hit_with_identical_body(make_frozen):
    stack = make_frozen()
    stack.standin.switch("ended", state="SUCCESS")
    first, second = stack.task("ended"), stack.task("ended")
    assert (first.status, first.headers["x-cache"], cache_status(first)) == (200, "MISS", {"fwd": "miss", "stored": True})
    assert (second.status, second.headers["x-cache"], second.body) == (200, "HIT", first.body)
    assert cache_status(second).keys() == {"hit", "ttl"}
    assert cache_status(second)["ttl"] == "86400"
    assert stack.standin.count("ended") == 1
    assert stack.metric("cache_hits_total", level="memory") == 1


def test_task_is_polled_until_it_ends_and_never_again(make_stack):
    stack = make_stack(providers=polled_every("100ms"))

    def wait_state(state):
        return stack.wait_until(lambda: (a := stack.task("t")).json()["data"]["status"] == state and a, what=state)

    assert wait_state("NOT_START").headers["cache-control"] == "private, no-cache"
    stack.standin.advance(10)
    assert re.fullmatch(r"[5-9]\d%", wait_state("IN_PROGRESS").json()["data"]["progress"])
    stack.standin.advance(10)
    ended = wait_state("SUCCESS")
    assert max_age(ended) > 0

    queries = stack.standin.count("t")
    assert {stack.task("t").headers["x-cache"] for _ in range(5)} == {"HIT"}
    assert stack.standin.count("t") == queries


def test_redis_serves_other_workers_and_a_restarted_daemon(stack):
    stack.standin.switch("ended", state="SUCCESS")
    first = stack.ask_worker(PATH + "ended", 0)
    stack.wait_until(stack.redis.stored, what="the result in Redis")
    other_worker = stack.ask_worker(PATH + "ended", 1)
    stack.daemon.stop()
    stack.daemon.start()
    after_restart = stack.ask_worker(PATH + "ended", 0)

    for answer in (other_worker, after_restart):
        assert (answer.status, answer.headers["x-cache"], answer.body) == (200, "HIT", first.body)
        assert answer.headers["etag"] == first.headers["etag"]
        assert cache_status(answer)["hit"] is True
    assert stack.standin.count("ended") == 1
    assert stack.metric("cache_hits_total", level="redis") == 1  # since this daemon started


def test_running_snapshot_of_one_worker_is_used_by_the_other(make_stack):
    stack = make_stack(providers=polled_every("30s"))
    first = stack.ask_worker(PATH + "t", 0)
    stack.wait_until(stack.redis.stored, what="the snapshot in Redis")
    other = stack.ask_worker(PATH + "t", 1)
    assert (other.headers["x-cache"], other.body) == ("HIT", first.body)
    assert stack.standin.count("t") == 1


# Headers


def test_matching_etag_gives_304(stack):
    stack.standin.switch("ended", state="SUCCESS")
    etag = stack.task("ended").headers["etag"]
    assert re.fullmatch(r'"[^"]+"', etag)

    for known in (etag, f"W/{etag}", "*", f'"other", {etag}', f'W/"a,b" ,W/{etag},"c"', f'"",{etag}'):
        answer = stack.task("ended", {"If-None-Match": known})
        assert (answer.status, answer.body) == (304, b""), known
        assert answer.headers["etag"] == etag
        assert {"cache-control", "vary", "x-request-id", "cache-status"} <= answer.headers.keys()
    for unknown in ('"other"', etag[:-2] + '"', etag.strip('"'), f'"x{etag[1:]}', ""):
        assert stack.task("ended", {"If-None-Match": unknown}).status == 200, unknown


def test_first_request_can_be_a_304_until_the_view_changes(make_stack):
    stack = make_stack(providers=polled_every("100ms"))
    stack.standin.switch("t", state="IN_PROGRESS", progress="7%")
    etag = stack.task("t").headers["etag"]
    assert stack.task("t", {"If-None-Match": etag}).status == 304
    stack.standin.switch("t", progress="8%")
    news = stack.wait_until(lambda: (a := stack.task("t", {"If-None-Match": etag})).status == 200 and a, what="a changed view")
    assert news.headers["etag"] != etag
    assert news.json()["data"]["progress"] == "8%"


def test_head_has_the_headers_of_get_and_no_body(stack):
    stack.standin.switch("ended", state="SUCCESS")
    head, get = stack.task("ended", method="HEAD"), stack.task("ended")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body))
    assert [head.headers[name] == get.headers[name] for name in ("etag", "content-type", "vary")] == [True] * 3
    assert stack.task("ended", {"If-None-Match": get.headers["etag"]}, method="HEAD").status == 304
    assert stack.standin.count("ended") == 1  # a HEAD fills the cache as well


def test_only_an_ended_task_is_cacheable_by_clients(make_frozen):
    stack = make_frozen(providers=polled_every("3s"))
    stack.standin.switch("ended", state="SUCCESS", headers={"Set-Cookie": "a=b", "X-Of-Upstream": "1", "Age": "9"})
    stack.standin.switch("running", state="IN_PROGRESS")
    ended, running = stack.task("ended"), stack.task("running")

    assert max_age(ended) == 86400
    assert "retry-after" not in ended.headers
    assert ended.headers["content-type"] == "application/json"
    assert not {"set-cookie", "x-of-upstream"} & ended.headers.keys()
    assert running.headers["cache-control"] == "private, no-cache"
    assert running.headers["retry-after"] == "3"
    for answer in (ended, running):
        assert answer.headers["age"] == "0" and "Accept" in answer.headers["vary"]
    stack.step(1)
    older = stack.task("running")
    assert (older.headers["x-cache"], older.headers["age"], older.headers["retry-after"]) == ("HIT", "1", "2")


def test_worker_makes_the_request_id_or_takes_a_valid_one_from_nginx(stack):
    ids = {stack.task("t").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)
    assert stack.ask_worker(PATH + "t", REQUEST_ID="req-1_A.b").headers["x-request-id"] == "req-1_A.b"

    for hostile in ("", "a\r\nSet-Cookie: a=b", "x" * 5000, '"><script>', "a b", "ä"):
        answer = stack.ask_worker(PATH + "t", REQUEST_ID=hostile)
        assert re.fullmatch(r"[A-Za-z0-9._-]{16,64}", answer.headers["x-request-id"]), hostile
        assert "set-cookie" not in answer.headers
    with fastcgi.Connection(stack.worker_socket()) as connection:
        _, headers, _ = connection.ask({"REQUEST_METHOD": "GET", "REQUEST_URI": PATH + "t"})
        assert re.fullmatch(r"[A-Za-z0-9._-]{16,64}", headers["x-request-id"])


# The view


def test_failed_task_is_a_200(stack):
    stack.standin.switch("fail", state="FAILURE")
    answer = stack.task("fail")
    assert (answer.status, answer.json()["data"]["status"]) == (200, "FAILURE")
    assert answer.json()["data"]["fail_reason"] == "The prompt was refused by the content policy."
    assert 86000 < max_age(answer) <= 86400
    assert stack.task("fail").headers["x-cache"] == "HIT"


def kept(value, pointers: list):
    """A copy of the value with only the members that the pointers (lists of segments) name."""
    if [] in pointers or value is None:
        return value
    if isinstance(value, list):
        return [kept(item, [rest for name, *rest in pointers if name == "*"]) for item in value]
    wanted = {name: [rest for first, *rest in pointers if first == name] for name, *_ in pointers}
    return {name: kept(member, wanted[name]) for name, member in value.items() if name in wanted}


def test_native_view_has_exactly_the_listed_members(stack):
    example = (ROOT / "tests" / "standin" / "sora.json").read_text()
    stack.standin.switch("ended", raw=example)
    answer, original = stack.task("ended"), json.loads(example)
    keep = read_json(stack.providers_dir / "sora.json")["keep"]
    assert answer.json() == kept(original, [pointer.split("/")[1:] for pointer in keep])

    text = answer.body.decode()
    generation = original["data"]["data"]["generations"][0]
    for url in (generation["url"], *(encoding["path"] for encoding in generation["encodings"].values())):
        assert f'"{url}"' in text  # byte for byte
    (key,) = stack.wait_until(stack.redis.stored, what="the result in Redis")
    value = stack.redis.cli("GET", key)
    for private in ("user", "moderation", "classifier", "caption", "feedback", "actions", "notify_hook", "cf_thumbnail"):
        assert private not in text
        assert private not in value
    assert len(answer.body) < 6000 < len(example)


# URLs that expire


def test_ended_task_expires_one_minute_before_its_urls(make_frozen):
    stack = make_frozen()
    stack.standin.switch("ended", state="SUCCESS", expires=stack.clock.time() + 1000)
    assert max_age(stack.task("ended")) == 940
    (key,) = stack.wait_until(stack.redis.stored, what="the result in Redis")
    stack.step(939)
    answer = stack.task("ended")
    assert (answer.headers["x-cache"], cache_status(answer)["ttl"]) == ("HIT", "1")
    assert (max_age(answer), answer.headers["age"]) == (940, "939")
    assert stack.redis.cli("TTL", key) == "1"


def test_expiring_urls_are_refreshed_by_one_collapsed_query(make_frozen):
    stack = make_frozen(providers=polled_every("100ms"))
    stack.standin.switch("ended", state="SUCCESS", expires=stack.clock.time() + 62)
    old = stack.task("ended")
    assert max_age(old) == 2
    stack.wait_until(stack.redis.stored, what="the result in Redis")
    stack.standin.switch("ended", expires=stack.clock.time() + 86400)
    stack.step(2.001)
    assert stack.redis.stored() == []
    with stack.standin.hold("ended") as barrier:
        asks = [stack.background(stack.task, "ended") for _ in range(10)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 10)
    answers = [ask.result() for ask in asks]
    assert len({answer.body for answer in answers} - {old.body}) == 1
    assert all(max_age(answer) > 80000 for answer in answers)
    assert stack.standin.count("ended") == 2


def test_expired_urls_are_served_but_not_cacheable(make_frozen):
    stack = make_frozen(providers=polled_every("100ms"))
    stack.standin.switch("ended", state="SUCCESS", expires=stack.clock.time() - 1000)
    first = stack.task("ended")
    assert (first.status, first.json()["data"]["status"], max_age(first)) == (200, "SUCCESS", 0)
    second = stack.task("ended")
    assert (second.headers["x-cache"], max_age(second)) == ("HIT", 0)
    assert stack.standin.count("ended") == 1


# Poll intervals


def test_task_is_queried_once_per_poll_interval(make_frozen):
    stack = make_frozen(providers=polled_every("10s"))
    stack.standin.switch("t", state="IN_PROGRESS")
    stack.task("t")
    stack.step(9.999)
    assert {stack.task("t").headers["x-cache"] for _ in range(5)} == {"HIT"}
    assert stack.standin.count("t") == 1
    stack.step(0.001)
    assert [stack.task("t").headers["x-cache"] for _ in range(3)] == ["MISS", "HIT", "HIT"]
    assert stack.standin.count("t") == 2


def test_poll_interval_grows_with_task_age_up_to_its_maximum(make_frozen):
    stack = make_frozen()
    stack.standin.switch(state="IN_PROGRESS")
    for age, interval in ((0, 2), (80, 10), (8000, 15)):
        stack.standin.advance(-age)
        assert int(stack.task(f"of-age-{age}").headers["retry-after"]) == interval
        stack.standin.advance(age)


def test_retry_after_from_the_upstream_extends_the_poll_interval(make_frozen):
    stack = make_frozen(providers=polled_every("100ms"))
    stack.standin.switch("t", state="IN_PROGRESS", headers={"Retry-After": "20"})
    assert stack.task("t").headers["retry-after"] == "20"
    stack.step(19)
    assert cache_status(stack.task("t"))["ttl"] == "1"


# Unknown status, missing tasks


def test_unknown_status_is_served_as_running_counted_logged_and_not_stored(make_frozen):
    stack = make_frozen()
    stack.standin.switch("t", state="ON_HOLIDAY")
    answer = stack.task("t")
    assert (answer.status, answer.json()["data"]["status"]) == (200, "ON_HOLIDAY")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["retry-after"] == "2"
    assert stack.task("t").headers["x-cache"] == "HIT"  # for the poll interval, like any running task
    assert stack.metric("unknown_status_total") == 1
    assert "sora" in stack.wait_log("ON_HOLIDAY")
    assert stack.redis.stored() == []


def test_missing_task_is_remembered_for_missing_ttl_in_memory_only(make_frozen):
    stack = make_frozen(config={"workers": 1, "cache": {"missing_ttl": "10s"}})
    first = stack.task("missing")
    stack.step(9.999)
    second = stack.task("missing")
    for answer in (first, second):
        assert (answer.status, answer.json()["code"]) == (404, "task_not_found")
    assert second.headers["x-cache"] == "HIT"
    assert stack.standin.count("missing") == 1
    assert stack.redis.stored() == []
    stack.task("there")
    assert stack.metric("cache_entries") == 1  # missing tasks are stored separately
    stack.step(0.001)
    assert stack.task("missing").headers["x-cache"] == "MISS"
    assert stack.standin.count("missing") == 2
