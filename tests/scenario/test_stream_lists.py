"""The event stream of a list: one connection for many tasks."""

from fastcgi import Connection, task_params
from teaming import bearer, teams_stack
from watching import EVEN, UNIFIED, Stream, end, quick, run, wait_queries

WANTED = {"Accept": "text/event-stream"}
MARK = 8  # characters for each task in an id


def many(*tasks) -> str:
    return "/v1/tasks?ids=" + ",".join(task if "/" in task else f"sora/{task}" for task in tasks)


def take(stream, count) -> dict:
    """The next events: {(type, provider, task id): the data}."""
    events = [stream.next() for _ in range(count)]
    return {(event.type, event.data["provider"], event.data["task_id"]): event.data for event in events}


def test_each_change_of_each_task_is_an_event_until_all_have_ended(make_stack):
    stack = make_stack(**quick())
    end(stack, "a")
    for task in "bc":
        run(stack, "7%", task)
    path = many("a", "b", "c", "b", "missing", "no!id", "nowhere/x/y")
    with Stream(stack, path) as stream:
        told = take(stream, 6)
        assert {name: data.get("status") for name, data in told.items()} == {
            ("status", "sora", "a"): "succeeded", ("status", "sora", "b"): "running", ("status", "sora", "c"): "running",
            ("problem", "sora", "missing"): 404, ("problem", "sora", "no!id"): 400, ("problem", "nowhere", "x/y"): 404}
        assert told["status", "sora", "b"] == stack.get(UNIFIED + "b").json()
        assert stack.metric("streams") == 1
        for progress in (20, 50):
            run(stack, f"{progress}%", "b")
            event = stream.next()
            assert (event.type, event.data["task_id"], event.data["progress"]) == ("status", "b", progress)
        half = event.id
        end(stack, "b")
        assert stream.next().data == stack.get(UNIFIED + "b").json()
        end(stack, "c")
        (last,) = stream.rest()
        assert last.data == stack.get(UNIFIED + "c").json()
        assert len(last.id) == 6 * MARK and 1000 <= stream.retries[-1] <= 2000
    stack.wait_metric("streams", lambda streams: streams == 0)
    answer = stack.get(path, {**WANTED, "Last-Event-ID": last.id})
    assert (answer.status, answer.body) == (204, b"")
    with Stream(stack, path, Last_Event_ID=half) as stream:
        assert {event.data["task_id"] for event in stream.rest()} == {"b", "c"}


def test_last_event_id_may_be_any_bytes(make_stack):
    stack = make_stack(redis=False, nginx=False)
    end(stack)
    for last in (b"", b"x", b"0" * 15, b"0" * 16, b"0" * 17, b"-" * 16, b"\xff" * 16, b"\r\ndata: injected", b"\ndata: injected",
                 b"%n%s" * 4, b"%n%s" * 1000):
        with Connection(stack.worker_socket()) as connection:
            params = task_params(many("a", "b"), HTTP_ACCEPT=WANTED["Accept"], HTTP_LAST_EVENT_ID=last)
            status, _, body = connection.ask(params)
        assert status == 200 and body.count(b"event: status\n") == 2 and b"injected" not in body, last


def test_reconnect_during_the_first_lookup_is_told_only_what_is_new(make_stack):
    stack = make_stack(**quick(), redis=False)
    end(stack, "a")
    run(stack, "7%", "b")
    with Stream(stack, many("a", "b")) as stream:
        take(stream, 2)
        stack.daemon.reload(wait_for_old=False)
        assert stream.rest() == [] and 1 <= stream.retries[-1] <= 1000
        known = stream.last_id
    with Stream(stack, many("a", "b"), Last_Event_ID=known) as stream:
        wait_queries(stack, 2, "b")
        end(stack, "b")
        (event,) = stream.rest()
        assert event.data["task_id"] == "b"


def test_stream_is_open_before_slow_answers(make_frozen):
    """A browser sees no stream before its head. A reconnect may still be answered with 204 for a second."""
    stack = make_frozen(providers=EVEN, redis=False, config={"workers": 1, "cache": {"terminal_ttl": "10s"}})
    run(stack)
    with stack.standin.hold("slow") as barrier:
        with Stream(stack, many("slow", "a")) as stream:
            assert take(stream, 1)["status", "sora", "a"]["progress"] == 7
        with Stream(stack, many("slow")) as stream:
            assert stream.response.status == 200 and stream.next_line().startswith("retry: ")
            barrier.release()
            take(stream, 1)
    stack.wait_metric("watched_tasks", lambda watched: watched == 0)
    end(stack)
    stack.step(3)
    with stack.standin.hold("slow") as barrier:
        reconnect = stack.background(Stream, stack, many("slow"), Last_Event_ID=stream.last_id)
        barrier.wait_arrived(1)
        stack.step(1)
        with reconnect.result() as stream:
            assert stream.response.status == 200 and stream.next_line().startswith("retry: ")
            barrier.release()
            (event,) = stream.rest()
    stack.step(11)
    asked = stack.standin.count()
    assert stack.get(many("slow"), {**WANTED, "Last-Event-ID": event.id}).status == 204
    assert stack.standin.count() == asked + 1


def test_failing_and_hanging_tasks_do_not_delay_others(make_frozen):
    stack = make_frozen(providers=EVEN, redis=False)
    run(stack)
    stack.standin.switch("fails", status=500)
    with stack.standin.hold("hangs") as barrier, Stream(stack, many("fails", "runs", "hangs")) as stream:
        barrier.wait_arrived(1)
        told = take(stream, 2)
        assert told["problem", "sora", "fails"]["retry_after"] >= 1
        assert told["status", "sora", "runs"]["progress"] == 7
        run(stack, "8%", "runs")
        stack.standin.switch("fails", status=200, state="SUCCESS")
        stack.step(3)
        told = take(stream, 2)
        assert told["status", "sora", "runs"]["progress"] == 8
        assert told["status", "sora", "fails"]["status"] == "succeeded"
        barrier.release()
        assert take(stream, 1)["status", "sora", "hangs"]["progress"] == 7


def test_failure_of_a_running_task_is_told_once_and_ends_with_a_status(make_frozen):
    stack = make_frozen(providers=EVEN, redis=False)
    run(stack)
    with Stream(stack, many("a", "b")) as stream:
        take(stream, 2)
        stack.standin.switch("a", status=500)
        stack.step(3)
        assert list(take(stream, 1)) == [("problem", "sora", "a")]
        stack.standin.wait_count(4)
        stack.wait_metric("fetches", lambda fetches: fetches == 0)
        stack.standin.clear("a")
        run(stack, task_id="a")
        stack.step(3)
        assert list(take(stream, 1)) == [("status", "sora", "a")]


def test_tasks_are_judged_and_counted_each(make_stack):
    stack = teams_stack(make_stack, {"web": {"providers": ["sora"], "watchers": 2}}, redis=False, every_provider=True, **quick())
    run(stack)
    with Stream(stack, many("a", "kling/text2video/b"), **bearer("web")) as stream:
        told = take(stream, 2)
        assert told["problem", "kling", "text2video/b"]["code"] == "forbidden"
        assert ("status", "sora", "a") in told
        assert stack.metric("team_held_requests", team="web") == 1  # requests; the limit counts tasks
        with Stream(stack, many("a"), **bearer("web")) as refused:
            (event,) = refused.rest()
        assert (event.type, event.data["code"], event.data["retry_after"]) == ("problem", "rate_limited", 1)
        end(stack)
        assert [event.data["status"] for event in stream.rest()] == ["succeeded"]
    stack.wait_metric("team_held_requests", lambda held: held == 0, team="web")
    assert stack.get(many("a"), WANTED).status == 401


def test_hundred_tasks_on_one_stream(make_frozen):
    stack = make_frozen(providers=EVEN, redis=False)
    run(stack)
    names = [f"t{number}" for number in range(100)]
    with Stream(stack, many(*names)) as stream:
        assert {task for _, _, task in take(stream, 100)} == set(names)
        end(stack)
        stack.step(3)
        last = stream.rest()
    assert sorted(event.data["task_id"] for event in last) == sorted(names)
    assert len(last[-1].id) == 100 * MARK
    assert stack.get(many(*names), {**WANTED, "Last-Event-ID": last[-1].id}).status == 204
