"""Smoke test: one task, from the first request to its cached result."""


def test_task_from_the_first_query_to_its_cached_result(make_stack):
    stack = make_stack(providers={"sora": {"poll": {"min": "100ms", "max": "100ms"}}})

    first = stack.task("task_1", headers={"Authorization": "Bearer of-the-client", "Cookie": "a=b"})
    assert (first.status, first.headers["x-cache"]) == (200, "MISS")
    assert first.json()["data"]["status"] == "NOT_START"
    (query,) = stack.standin.seen("task_1")
    assert query.headers["authorization"] == f"Bearer {stack.key}"
    assert "cookie" not in query.headers

    stack.standin.advance(20)
    finished = stack.wait_until(
        lambda: (answer := stack.task("task_1")).json()["data"]["status"] == "SUCCESS" and answer,
        what="the end of the task",
    )
    assert len(finished.body) < 6000
    assert stack.key not in finished.body.decode()

    queries = stack.standin.count("task_1")
    kept = stack.task("task_1")
    assert (kept.headers["x-cache"], kept.body) == ("HIT", finished.body)
    assert stack.standin.count("task_1") == queries
    assert stack.redis.stored("*task_1") != []
