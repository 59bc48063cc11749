"""HUP starts new workers on the same sockets, with the new configuration if it is valid, and no client notices."""

import os
import signal

import pytest

from helpers import clients, finished_tasks, sockets, wait_gone


def hup_and_wait(stack, reloads):
    """Sends SIGHUP and waits until that many reloads are done and the old workers are gone."""
    old = stack.daemon.workers()
    stack.daemon.hup()
    stack.wait_metric("reloads_total", reloads, result="done")
    wait_gone(stack, *old)
    stack.wait_metric("workers_ready", stack.config["workers"])


def test_hundred_reloads_under_load_fail_no_request(make_stack):
    stack = finished_tasks(make_stack)
    with clients(stack) as failures:
        for reload in range(1, 101):
            stack.daemon.hup()
            stack.wait_metric("reloads_total", reload, result="done")
    assert failures == []
    assert stack.metric("worker_deaths_total") == 0
    stack.wait_until(lambda: len(stack.daemon.workers()) == 2, what="the end of the old workers")


def test_burst_of_hups_applies_the_newest_configuration(make_stack):
    stack = make_stack(redis=False)
    for workers in (3, 4, 1, 3):
        stack.configure(workers=workers)
        stack.daemon.hup()
    stack.wait_until(lambda: sockets(stack) == ["status.sock", *(f"worker-{i}.sock" for i in range(3))], what="3 sockets")
    stack.wait_until(lambda: len(stack.daemon.workers()) == 3, what="3 workers")


def test_held_request_is_answered_during_a_reload(make_stack):
    stack = make_stack()
    with stack.standin.hold("held") as barrier:
        held = [stack.background(stack.task, "held") for _ in range(3)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 3)
        stack.daemon.reload(wait_for_old=False)
        assert stack.task("other").status == 200
    assert [answer.result().status for answer in held] == [200] * 3
    stack.wait_until(lambda: len(stack.daemon.workers()) == 2, what="the end of the old worker")


@pytest.mark.problem("A reload is refused")
def test_invalid_configuration_leaves_everything_unchanged(make_stack):
    stack = make_stack()
    workers = stack.daemon.workers()
    stack.configure(workers="many")
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 1, result="refused")
    assert "/workers: must be a whole number" in stack.wait_log("reload refused, the old configuration stays in force")

    stack.configure(workers=2)
    stack.write_key("a-new-key-of-ours", mode=0o644)
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 2, result="refused")
    assert "can be read by others" in stack.daemon.log()

    stack.configure(socket_dir=str(stack.folder / "elsewhere"))
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 3, result="refused")
    assert stack.daemon.workers() == workers
    assert stack.task("task_1").status == 200
    assert stack.standin.seen("task_1")[0].headers["authorization"] == f"Bearer {stack.key}"
    assert stack.metric("reloads_total", result="done") == 0
    os.kill(workers[0], signal.SIGKILL)  # its replacement has the configuration in force, not the one on the disk
    stack.wait_metric("worker_starts_total", 3)
    stack.wait_metric("workers_ready", 2)
    assert stack.task("task_2").status == 200


def test_changed_configuration_takes_effect(make_stack):
    stack = make_stack(config={"cache": {"missing_ttl": "1h"}})
    assert [stack.task("missing").status for _ in range(3)] == [404] * 3
    assert stack.standin.count("missing") == 1

    stack.standin.keys = {"sk-the-second-key"}
    stack.write_key("sk-the-second-key")
    stack.configure(workers=3, cache={"missing_ttl": "0s"})
    hup_and_wait(stack, 1)
    assert sockets(stack) == ["status.sock", "worker-0.sock", "worker-1.sock", "worker-2.sock"]
    assert [stack.ask_worker("/sora/v1/videos/missing", index=2).status for _ in range(2)] == [404] * 2
    assert stack.standin.count("missing") == 3
    assert stack.task("task_1").status == 200

    stack.configure(workers=1)
    hup_and_wait(stack, 2)
    assert sockets(stack) == ["status.sock", "worker-0.sock"]
    assert {stack.task(f"task_{number}").status for number in range(10)} == {200}  # nginx is still configured for two


def test_each_reload_leaves_the_sockets_of_its_workers(make_stack):
    stack = make_stack(redis=False, config={"workers": 4})
    for reloads, workers in enumerate((2, 3, 1, 4), 1):
        stack.configure(workers=workers)
        hup_and_wait(stack, reloads)
        assert sockets(stack) == ["status.sock", *(f"worker-{index}.sock" for index in range(workers))]
        assert {stack.ask_worker("/sora/v1/videos/task_1", index).status for index in range(workers)} == {200}
