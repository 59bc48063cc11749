"""Under a service manager: the daemon's reports, inherited sockets, and hung workers."""

import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from helpers import beat_until, readiness, sockets, wait_gone, wait_ready, worker_pid
from managing import Manager
from parts import PATIENCE


@pytest.fixture
def managed(make_stack):
    """managed(**settings of the Manager) returns a stack whose daemon runs under a Manager, and the Manager."""
    managers = []

    def start(config=None, starts=True, clock=False, **settings):
        stack = make_stack(redis=False, daemon=False, config=config, clock=clock)
        listen = settings.pop("listen", ())
        if listen:
            stack.socket_dir.mkdir()
        managers.append(Manager(stack, listen=[str(stack.socket_dir / name) for name in listen], **settings))
        if starts:
            stack.daemon.start()
            managers[-1].wait("READY")
        return stack, managers[-1]

    yield start
    for manager in managers:
        manager.close()


# Notifications


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_start_reload_and_stop_are_notified_in_order(managed, abstract):
    stack, manager = managed(abstract=abstract)
    assert manager.wait("READY")["STATUS"] == "2 of 2 workers accept requests"
    before = time.monotonic_ns() // 1000
    stack.configure(workers=3)
    stack.daemon.hup()
    assert before <= int(manager.wait("RELOADING")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.wait("READY", count=2)["STATUS"] == "3 of 3 workers accept requests"
    assert stack.daemon.term() == 0
    assert int(manager.wait("STOPPING")["EXTEND_TIMEOUT_USEC"]) > 30_000_000  # "drain"
    assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]


@pytest.mark.problem("A reload is refused")
def test_refused_reload_ends_as_ready_with_a_status(managed):
    stack, manager = managed()
    stack.configure(workers="many")
    stack.daemon.hup()
    status = manager.wait("READY", count=2)["STATUS"]
    assert status.startswith("reload refused, the old configuration stays in force: ") and "/workers: must be" in status
    assert manager.states() == ["READY", "RELOADING", "READY"]


def test_failed_start_is_never_ready_and_logs_why(managed):
    stack, manager = managed(starts=False)
    stack.socket_dir.mkdir()
    Path(stack.worker_socket(1)).touch()
    assert stack.daemon.run().returncode == 1
    manager.wait("STATUS", f"{stack.worker_socket(1)} exists and is not a socket")
    assert manager.states() == []


def test_workers_do_not_inherit_the_masters_environment(managed):
    stack, _ = managed(watchdog=10, listen=["worker-0.sock"])
    for pid in stack.daemon.workers():
        names = {line.partition("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0")}
        assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS"}


def test_unreachable_manager_is_harmless(make_stack):
    stack = make_stack(redis=False, daemon=False)
    for address in ("/nowhere/notify.sock", "vsock:2:1234", "@", "/" + "x" * 200):
        stack.daemon.variables["NOTIFY_SOCKET"] = address
        stack.daemon.start()
        assert stack.task("task_1").status == 200
        stack.daemon.stop()
    assert stack.daemon.log().count("NOTIFY_SOCKET is not the address of a UNIX socket") == 3


# The watchdog


@pytest.mark.problem("A worker dies or hangs")
def test_hung_worker_is_replaced_and_stops_the_watchdog_until_then(managed):
    stack, manager = managed({"hung_after": "10s"}, watchdog=0.9, clock=True)
    manager.wait("WATCHDOG", count=1)
    hung = worker_pid(stack, 0)
    os.kill(hung, signal.SIGSTOP)
    stack.clock.freeze()
    beat_until(stack, lambda: readiness(stack)["status"] == "degraded", what="a hung worker")
    manager.wait("STATUS", "1 of 2 workers accept requests, 1 hung")
    why = ["1 of 2 workers do not respond"]
    assert readiness(stack) == {"status": "degraded", "workers": 2, "workers_ready": 1, "workers_hung": 1, "why": why}

    beat_until(stack, lambda: "worker 0 unresponsive for 10 s; killed" in stack.daemon.log(), what="the worker to be killed")
    stack.clock.run()
    wait_gone(stack, hung)
    stack.wait_metric("workers_ready", 2)
    assert stack.metric("worker_hangs_total") == 1
    assert stack.ask_worker("/sora/v1/videos/task_1", index=0).status == 200
    manager.wait("STATUS", "2 of 2 workers accept requests")
    fed = len(manager.reports("WATCHDOG"))
    manager.wait("WATCHDOG", count=fed + 1)
    told = [report.get("STATUS", "fed") for report in manager.reports("WATCHDOG", "STATUS")]
    assert told[told.index("1 of 2 workers accept requests, 1 hung") + 1].startswith("1 of 2 workers accept requests")


def test_worker_that_is_not_hung_is_left_alone(managed):
    stack, manager = managed({"hung_after": "1m"}, watchdog=0.9, clock=True)
    stack.wait_log('"hung_after" is 1m, more than half of WatchdogSec= (900ms)')
    workers = stack.daemon.workers()
    os.kill(workers[1], signal.SIGSTOP)
    stack.clock.freeze()
    beat_until(stack, lambda: readiness(stack)["status"] == "degraded", what="a hung worker")
    manager.wait("STATUS", "1 of 2 workers accept requests, 1 hung")
    fed = len(manager.reports("WATCHDOG"))
    stack.clock.run()
    os.kill(workers[1], signal.SIGCONT)
    manager.wait("STATUS", "2 of 2 workers accept requests")
    manager.wait("WATCHDOG", count=fed + 1)
    assert stack.daemon.workers() == workers
    assert stack.metric("worker_hangs_total") == 0


def test_watchdog_of_another_process_is_ignored(managed):
    stack, manager = managed(starts=False, watchdog=0.3)
    stack.daemon.variables["WATCHDOG_PID"] = str(os.getpid())
    stack.daemon.start()
    manager.wait("READY")
    stack.daemon.reload()
    manager.wait("READY", count=2)
    assert manager.reports("WATCHDOG") == []


# Inherited sockets

ALL = ["status.sock", "worker-0.sock", "worker-1.sock"]


def inodes(stack):
    return {name: (stack.socket_dir / name).stat().st_ino for name in sockets(stack)}


def test_inherited_sockets_are_used_and_survive_the_daemon(managed):
    stack, _ = managed(starts=False, listen=ALL)
    before = inodes(stack)
    early = stack.background(stack.ask_worker, "/sora/v1/videos/task_1", 1)  # arrives before the daemon is started
    for _ in range(2):
        stack.daemon.start()
        assert early.result().status == 200
        assert stack.task("task_1").status == 200
        stack.daemon.stop()
        assert inodes(stack) == before
        early = stack.background(stack.ask_worker, "/sora/v1/videos/task_1", 1)
    stack.daemon.start()
    assert early.result().status == 200


@pytest.mark.problem("A start is refused")
def test_connections_wait_in_inherited_sockets_until_a_start_succeeds(managed):
    stack, manager = managed(starts=False, listen=ALL)
    stack.configure(no_such_key=1)
    early = stack.background(stack.ask_worker, "/sora/v1/videos/task_1", 1)
    stack.daemon.spawn([*stack.daemon.wrapper, stack.daemon.binary, "-c", str(stack.daemon.config_file)],
                       stack.daemon.environment())
    assert stack.daemon.process.wait(2 * PATIENCE) == 1
    assert f"{stack.daemon.config_file}:" in stack.daemon.log() and "/no_such_key: unknown key" in stack.daemon.log()
    assert manager.states() == [] and not early.done()
    stack.daemon.kill()
    stack.configure(no_such_key=None)
    stack.daemon.start()
    assert early.result().status == 200


@pytest.mark.problem("`workers` and `taskproxy.socket` differ")
def test_workers_without_an_inherited_socket_open_their_own(managed):
    stack, _ = managed({"workers": 3}, listen=ALL)
    assert sockets(stack) == [*ALL, "worker-2.sock"]
    assert {stack.ask_worker("/sora/v1/videos/task_1", index).status for index in range(3)} == {200}
    stack.wait_log(f"the service manager has not opened {stack.worker_socket(2)}: a restart of the service refuses connections")
    wait_ready(stack)
    stack.daemon.stop()
    assert sockets(stack) == ALL


UNSERVED = "no worker serves {}, which the service manager has opened: connections to it are closed"


def assert_closed_at_once(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(path)
        assert client.recv(1) == b""


@pytest.mark.problem("`workers` and `taskproxy.socket` differ")
def test_connections_to_inherited_sockets_without_a_worker_are_closed(managed):
    stack, _ = managed(listen=ALL)
    before, path = inodes(stack), stack.worker_socket(1)
    for reports in (1, 2):  # each reload reports them, even if nothing has changed
        stack.configure(workers=1)
        stack.daemon.reload()
        stack.wait_until(lambda: stack.daemon.log().count(UNSERVED.format(path)) == reports, what="the warning")
        for _ in range(2):
            assert_closed_at_once(path)
        assert {stack.task(f"task_{number}").status for number in range(8)} == {200}  # nginx still has two servers
        assert readiness(stack)["status"] == "degraded"
        assert json.loads(stack.get("/status").body)["troubles"] == ["no worker serves 1 of the service manager's sockets"]
    stack.configure(workers=2)
    stack.daemon.reload()
    stack.wait_metric("sockets_unserved", lambda value: value == 0)
    assert inodes(stack) == before
    assert stack.ask_worker("/sora/v1/videos/task_1", index=1).status == 200
    wait_ready(stack)


def test_upgrade_keeps_inherited_sockets(managed):
    stack, manager = managed(starts=False, listen=ALL, watchdog=0.9)
    program, new = stack.folder / "taskproxy", stack.folder / "taskproxy.new"
    shutil.copy(stack.daemon.binary, program)
    shutil.copy(stack.daemon.binary, new)
    stack.daemon.binary = str(program)
    stack.daemon.start()
    before = inodes(stack)
    new.rename(program)
    stack.daemon.hup()
    assert manager.wait("READY", count=2)["STATUS"] == "2 of 2 workers accept requests"
    assert Path(f"/proc/{stack.daemon.pid}/exe").samefile(program)
    assert stack.task("task_1").status == 200
    manager.wait("WATCHDOG", count=len(manager.reports("WATCHDOG")) + 1)
    stack.daemon.stop()
    assert inodes(stack) == before
    assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]


def test_sockets_for_another_process_are_not_touched(managed):
    stack, manager = managed(starts=False, listen=ALL)
    manager.hand_over(stack.daemon, pid=str(os.getpid()))
    stack.daemon.spawn([*stack.daemon.wrapper, stack.daemon.binary, "-c", str(stack.daemon.config_file)],
                       stack.daemon.environment())
    assert stack.daemon.process.wait(20) == 1
    assert re.search(r"already running: \S+/status.sock is in use", stack.daemon.log())
    stack.daemon.kill()


def test_unusable_inherited_sockets_are_logged(managed):
    stack, manager = managed(starts=False, listen=[*ALL, "worker-7.sock"])
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.sockets.append(datagrams)
    manager.hand_over(stack.daemon)
    stack.daemon.start()
    stack.wait_log(UNSERVED.format(stack.worker_socket(7)))
    assert_closed_at_once(stack.worker_socket(7))
    assert "ignoring descriptor 7, which was passed to this process: not a listening UNIX socket" in stack.daemon.log()
    assert stack.task("task_1").status == 200
