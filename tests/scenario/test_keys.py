"""A pool of keys for one upstream: which key a query uses, and what happens to keys that the upstream rejects."""

import hashlib
import re
from pathlib import Path

import pytest

from helpers import PLAIN_BINARY, readiness, step_until, wait_stored

PATH = "/sora/v1/videos/"
QUICK = {"sora": {"poll": {"min": "100ms", "max": "100ms"}}}
AUTH, UNAVAILABLE, MISSING = (502, "upstream_auth"), (503, "upstream_unavailable"), (404, "task_not_found")


def outcome(answer):
    return answer.status, answer.json().get("code")


def judged(pool):
    page = readiness(pool.stack)
    return page["status"], page["why"]


class Pool:
    """A stack whose upstream has several keys; `number` is the index of a key."""

    def __init__(self, make_stack, count=3, **settings):
        config = {"workers": 1} | settings.pop("config", {})
        self.stack = make_stack(daemon=False, config=config, **{"redis": False} | settings)
        self.keys = [f"sk-of-account-{number}-{self.stack.key}" for number in range(count)]
        self.files = [self.stack.folder / f"key-{number}" for number in range(count)]
        for file, key in zip(self.files, self.keys):
            self.stack.write_key(key, file=file)
        self.standin = self.stack.standin
        self.standin.keys = set(self.keys)
        self.stack.configure(upstreams={"main": {"key_files": [str(file) for file in self.files]}})
        self.stack.daemon.start()

    def asked(self, task_id=None):
        """The indexes of the keys that the queries had."""
        return [self.keys.index(q.headers["authorization"].removeprefix("Bearer ")) for q in self.standin.seen(task_id)]

    def owns(self, number, *task_ids):
        for task_id in task_ids:
            self.standin.owners[task_id] = self.keys[number]

    def ask_again(self, task_id, answer=lambda answer: True):
        """Repeats the request until a query is sent, and until the answer is a 200."""
        before = self.standin.count(task_id)
        return self.stack.wait_until(
            lambda: (a := self.stack.task(task_id)) and self.standin.count(task_id) > before and answer(a) and a,
            what=f"the expected answer for {task_id}")


@pytest.fixture
def pool(make_stack):
    return Pool(make_stack, providers=QUICK)


# Choice of the key


def test_new_tasks_use_the_keys_in_turn(pool):
    for number in range(7):
        assert pool.stack.task(f"task_{number}").status == 200
    assert pool.asked() == [0, 1, 2, 0, 1, 2, 0]


def test_task_is_searched_with_each_key_once_and_then_queried_with_its_owner(pool):
    pool.owns(2, "t")
    for _ in range(4):
        pool.ask_again("t", lambda answer: answer.status == 200)
    assert pool.asked()[:3] == [0, 1, 2]
    assert set(pool.asked()[3:]) == {2}
    assert pool.stack.metric("key_retries_total") == 2


def test_other_workers_learn_the_owner_from_redis(make_stack):
    pool = Pool(make_stack, providers=QUICK, redis=True, config={"workers": 2})
    pool.stack.wait_metric("redis_up", 2)
    pool.owns(2, "t")
    assert pool.stack.ask_worker(PATH + "t", index=0).status == 200
    value = wait_stored(pool.stack, "t")
    assert f" {hashlib.sha256(pool.keys[2].encode()).hexdigest()[:8]} " in value.partition("\n")[0]
    assert pool.asked() == [0, 1, 2]
    pool.stack.wait_until(
        lambda: pool.stack.ask_worker(PATH + "t", index=1).status == 200 and len(pool.asked()) > 3, what="the other worker")
    assert set(pool.asked()[3:]) == {2}
    assert not [key for key in pool.keys for name in pool.stack.redis.keys("*") if key in pool.stack.redis.cli("GET", name)]


def test_second_query_uses_the_key_of_the_first(make_stack):
    pool = Pool(make_stack, every_provider=True)
    pool.standin.switch("12", state="SUCCESS")
    pool.standin.switch("13", state="SUCCESS")
    keys = []
    for task_id in ("12", "13"):
        assert pool.stack.get(f"/v1/tasks/fal/fal-ai/flux/{task_id}").json()["status"] == "succeeded"
        keys.append({query.headers["authorization"] for query in pool.standin.seen() if task_id in query.target})
    assert [len(each) for each in keys] == [1, 1] and keys[0] != keys[1]


# Missing tasks


def test_task_is_missing_when_every_key_says_so(pool):
    pool.owns(0, "elsewhere")
    pool.standin.owners["nowhere"] = "nobody"
    assert outcome(pool.stack.task("nowhere")) == MISSING
    assert sorted(pool.asked("nowhere")) == [0, 1, 2]
    assert outcome(pool.stack.task("nowhere")) == MISSING  # from memory
    assert len(pool.asked("nowhere")) == 3


# Rejected keys


@pytest.mark.problem("The upstream rejects a key")
def test_revoked_key_fails_no_request_and_is_logged_once(pool):
    pool.standin.keys.remove(pool.keys[0])
    assert {pool.stack.task(f"task_{number}").status for number in range(10)} == {200}
    assert pool.asked().count(0) == 1
    assert pool.stack.daemon.log().count(f"upstream main: rejected API key {pool.files[0]} (HTTP 401)\n") == 1
    assert str(pool.files[1]) not in pool.stack.daemon.log()
    assert pool.stack.metric("key_refusals_total") == 1
    assert judged(pool) == ("degraded", ["upstream main rejects the key of key-0"])  # before it is suspended
    assert pool.stack.get("/status").json()["keys"][0]["state"] == "rejected"
    assert pool.stack.metric("keys_set_aside") == 0


@pytest.mark.problem("The upstream rejects a key")
def test_task_of_a_revoked_key_is_not_missing_and_recovers_with_the_key(pool):
    pool.owns(0, "t", "finished")
    pool.standin.switch("finished", state="SUCCESS")
    assert [pool.stack.task(task).status for task in ("t", "finished")] == [200, 200]
    pool.standin.keys.remove(pool.keys[0])
    refused = pool.ask_again("t", lambda answer: outcome(answer) == AUTH)
    assert "retry-after" not in refused.headers or int(refused.headers["retry-after"]) >= 1
    pool.stack.wait_until(lambda: outcome(pool.stack.task("t")) == AUTH and pool.stack.metric("keys_set_aside") == 1,
                          what="the suspended key")
    assert pool.stack.wait_log(f"API key {pool.files[0]} suspended; probing it now and then")
    assert [pool.stack.task(task).status for task in ("another", "finished")] == [200, 200]

    pool.standin.keys.add(pool.keys[0])
    pool.stack.wait_until(lambda: pool.stack.task("t").status == 200, what="a probe of the key")
    assert pool.stack.wait_log(f"upstream main: API key {pool.files[0]} accepted again")
    assert pool.stack.metric("keys_set_aside") == 0


def test_upstream_is_only_probed_when_all_keys_are_revoked(pool):
    pool.standin.keys = set()
    for number in range(30):
        assert outcome(pool.stack.task(f"task_{number}")) == AUTH
    assert len(pool.asked()) <= 18  # three times each, and some probes
    assert pool.stack.metric("keys_set_aside") == 3
    pool.standin.keys = set(pool.keys)
    pool.stack.wait_until(lambda: pool.stack.task("task_1").status == 200, what="a probe")


def test_key_that_may_not_see_one_task_is_not_suspended(pool):
    for number in range(5):
        pool.standin.switch(f"foreign_{number}", status=403)
        assert outcome(pool.stack.task(f"foreign_{number}")) == AUTH
    assert sorted(pool.asked("foreign_4")) == [0, 1, 2]
    assert pool.stack.metric("keys_set_aside") == 0
    assert {pool.stack.task(f"task_{number}").status for number in range(5)} == {200}


# Busy keys


@pytest.mark.problem("The upstream returns 429")
def test_busy_key_is_paused_and_the_others_are_used(pool):
    pool.standin.busy = {pool.keys[0]: 30}
    assert {pool.stack.task(f"task_{number}").status for number in range(10)} == {200}
    assert pool.asked().count(0) == 1


@pytest.mark.problem("The upstream returns 429")
def test_retry_after_is_the_time_until_the_first_paused_key_resumes(make_stack):
    pool = Pool(make_stack, providers=QUICK, clock=True)
    pool.stack.freeze()
    pool.standin.busy = {pool.keys[0]: 40, pool.keys[1]: 20, pool.keys[2]: 60}
    told = [pool.stack.task(f"task_{number}") for number in range(3)]
    assert {outcome(answer) for answer in told} == {UNAVAILABLE}
    assert {answer.headers["retry-after"] for answer in told} == {"20"}
    assert pool.asked() == [0, 1, 2]
    assert judged(pool) == ("degraded", ["every key of upstream main is suspended or paused"])
    assert pool.stack.metric("upstream_keys_exhausted", upstream="main") == 1
    assert pool.stack.daemon.log().count("upstream main: every API key is suspended or paused\n") == 1
    step_until(pool.stack, lambda: judged(pool) == ("ready", []), what="the end of the first pause")


def test_task_is_not_missing_while_its_key_is_paused(pool):
    pool.owns(1, "t")
    pool.ask_again("t", lambda answer: answer.status == 200)
    pool.standin.busy = {pool.keys[1]: 2}
    stale = pool.ask_again("t", lambda answer: answer.headers["x-cache"] == "STALE")
    assert (stale.status, stale.headers["cache-status"]) == (200, "taskproxy; fwd=stale; detail=upstream-unavailable")
    pool.standin.owners["unknown"] = pool.keys[1]
    assert outcome(pool.stack.task("unknown")) == UNAVAILABLE
    pool.standin.busy = {}
    pool.stack.wait_until(lambda: pool.stack.task("t").headers["x-cache"] == "MISS", what="the end of the pause")


# Storage


def locked_kib(pid: int) -> int:
    return int(re.search(r"^VmLck:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def test_keys_are_locked_in_memory(make_stack):
    """Uses the production binary, as the sanitizer's mlock() does nothing."""
    stack = make_stack(binary=PLAIN_BINARY, nginx=False)
    for pid in (stack.daemon.pid, *stack.daemon.workers()):  # one worker may still be starting
        stack.wait_until(lambda: locked_kib(pid) >= 8, what=f"locked memory of process {pid}")
    assert "cannot lock the keys" not in stack.daemon.log()


def test_each_key_signs_its_own_tokens(make_stack):
    stack = make_stack(every_provider=True, redis=False, daemon=False)
    other, file = "ak-of-another:sk-of-another-account", stack.folder / "other-signing-key"
    stack.write_key(other, file=file)
    stack.configure(workers=1, upstreams={"signed": {"key_files": [str(stack.signing_key_file), str(file)]}})
    stack.standin.keys = {stack.key, other}
    stack.daemon.start()
    assert {stack.get(f"/v1/videos/text2video/{number}").status for number in range(10)} == {200}
