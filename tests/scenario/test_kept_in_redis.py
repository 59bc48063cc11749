"""Values in Redis: what is stored and for how long, and which values workers use or reject."""

from helpers import REDIS_KEY, mark, restart_daemon, said, wait_stored
from hooking import hook, hooked_maker
from sharing import second_host
from watching import NATIVE, SLOW, status


def test_stored_value_and_its_ttl(make_stack):
    stack = make_stack(clock=True, config={
        "workers": 1,
        "cache": {"terminal_ttl": "2h", "stale_for": "20m"},
        "redis": {"database": 3, "prefix": "ours/"},
    })
    standin = stack.standin
    standin.switch("unknown", state="DANCING")
    standin.switch("error", status=500)
    standin.switch("garbage", garbage=True)
    standin.switch("running", state="IN_PROGRESS")
    standin.switch("failed", state="FAILURE")
    standin.switch("expiring", state="SUCCESS")
    standin.switch("succeeded", state="SUCCESS")
    stack.freeze()
    standin.switch("expiring", expires=stack.clock.time() + 660)
    for task_id in ("missing", "unknown", "error", "garbage", "running", "failed", "expiring", "succeeded"):
        stack.task(task_id)

    def lifetime(task_id):
        key = f"ours/main:sora:{task_id}"
        return stack.wait_until(lambda: max(0, int(stack.redis.cli("-n", 3, "PTTL", key))), what=key) / 1000

    assert lifetime("succeeded") == lifetime("failed") == 7200
    assert lifetime("expiring") == 600  # a minute before its URLs expire
    assert lifetime("running") == 1200
    # Commands reach Redis in order: a key that is not there by now was never sent.
    kept = {f"ours/main:sora:{task_id}" for task_id in ("succeeded", "expiring", "failed", "running")}
    assert set(stack.redis.cli("-n", 3, "--scan").splitlines()) == kept
    assert stack.redis.stored() == []
    assert stack.key not in stack.redis.cli("-n", 3, "GET", "ours/main:sora:succeeded")


def test_workers_share_a_running_task_while_fresh_and_serve_it_stale_later(make_stack):
    stack = make_stack(providers={"sora": {"poll": {"min": "1h", "max": "1h"}}}, clock=True, config={"cache": {"stale_for": "2h"}})
    stack.wait_metric("redis_up", 2)
    first = stack.ask_worker("/sora/v1/videos/task_1", index=0)
    wait_stored(stack, "task_1")
    shared = stack.ask_worker("/sora/v1/videos/task_1", index=1)
    assert (shared.body, shared.headers["x-cache"]) == (first.body, "HIT")
    assert stack.metric("cache_hits_total", level="redis") == 1
    assert stack.standin.count("task_1") == 1

    restart_daemon(stack)  # only Redis has the snapshot now, and it becomes stale
    stack.standin.switch(status=500)
    stack.step(3600)
    stack.wait_metric("redis_up", 2)
    stale = stack.ask_worker("/sora/v1/videos/task_1")
    assert (stale.status, stale.headers["x-cache"], stale.body) == (200, "STALE", first.body)
    assert stale.headers["cache-status"] == "taskproxy; fwd=stale; detail=upstream-error"


def test_unusable_value_is_logged_once_and_replaced(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.standin.switch(state="SUCCESS")
    stack.wait_metric("redis_up", 1)
    stack.task("good")
    good = wait_stored(stack, "good")
    form, digest, rest = good.split(" ", 2)
    logged = set()
    for name, value, words in (
        ("other", f"taskproxy/999 {digest} {rest}", "another format"),
        ("digest", f"{form} {'0' * len(digest)} {rest}", "another provider file"),
        ("cut", good[:-1], "an incomplete value"),
        ("garbage", "\x01\x02\n" * 1000, "another format"),
        ("head", f"{form} {digest} succeeded -1 99999999999999999999 x 3 3\nabcdef", "a malformed head"),
        ("empty", "", "another format"),
        ("longer", good + "x", "an incomplete value"),
        ("state", f"{form} {digest} none 1 1 0 0 - 1 1\nxx", "a malformed head"),
        ("lengths", f"{form} {digest} succeeded 1 1 0 0 - {2**63 - 1} {2**63 - 1}\n", "an incomplete value"),
    ):
        since = mark(stack)
        for task_id in (f"{name}_1", f"{name}_2"):
            stack.redis.cli("SET", REDIS_KEY + task_id, value)
            answer = stack.task(task_id)
            assert (answer.status, answer.headers["x-cache"]) == (200, "MISS"), name
            assert stack.standin.count(task_id) == 1
            stack.wait_until(lambda: wait_stored(stack, task_id).startswith(f"{form} {digest} succeeded"), what=name)
        assert [words in line for line in said(stack, since)] == ([] if words in logged else [True]), name
        logged.add(words)


def test_ended_value_replaces_a_running_snapshot_with_a_later_time(make_stack, tmp_path):
    """The clock of the host with the running snapshot is an hour ahead of the one that has stored the end."""
    stack = hooked_maker(make_stack, tmp_path)(clock=True)
    stack.step(3600)
    other = second_host(make_stack, stack, providers=SLOW)
    stack.standin.switch("t", state="SUCCESS")
    assert status(other.ask_worker(NATIVE + "t")) == "SUCCESS"
    ended, ttl_ms = wait_stored(stack, "t"), stack.redis.cli("PTTL", REDIS_KEY + "t")
    stack.redis.cli("DEL", REDIS_KEY + "t")

    stack.standin.switch("t", state="IN_PROGRESS")
    assert status(stack.task("t")) == "IN_PROGRESS"
    assert wait_stored(stack, "t") != ended
    stack.redis.cli("SET", REDIS_KEY + "t", ended, "PX", ttl_ms)
    hook(stack, "t")
    stack.wait_until(lambda: status(stack.task("t")) == "SUCCESS", what="the end of the task")
    assert stack.standin.count("t") == 2
