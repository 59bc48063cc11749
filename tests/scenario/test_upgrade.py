"""Upgrades: after the program's file is replaced, HUP executes the new program."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import fastcgi
from helpers import assert_status_answered, half_sent, wait_gone
from managing import Manager
from parts import ROOT, process_state
from test_stalled_log import Reader, ask_until_lines_are_dropped, assert_whole


def lay(stack, source) -> None:
    """Replaces the daemon's program, as a package manager does."""
    new = stack.folder / "taskproxy.new"
    shutil.copy(source, new)
    os.replace(new, stack.daemon.binary)


def program_of(pid) -> int:
    return Path(f"/proc/{pid}/exe").stat().st_ino


@pytest.fixture
def upgradable(make_stack, tmp_path):
    """Makes stacks whose daemon runs from a copy of the program."""

    def make(**settings):
        tmp_path.chmod(0o755)
        for parent in list(tmp_path.parents)[:2]:
            parent.chmod(0o755)
        binary = tmp_path / "taskproxy"
        shutil.copy(ROOT / "build" / "asan" / "taskproxy", binary)
        return make_stack(binary=binary, **settings)

    return make


def upgrade(stack) -> None:
    old = set(stack.daemon.workers())
    lay(stack, stack.daemon.binary)
    new = Path(stack.daemon.binary).stat().st_ino
    stack.daemon.hup()
    stack.wait_until(lambda: program_of(stack.daemon.pid) == new, what="the master to be the new program")
    stack.wait_until(lambda: not old & set(stack.daemon.workers()), what="the exit of the old workers")
    stack.wait_metric("workers_ready", stack.config["workers"])
    assert {program_of(pid) for pid in stack.daemon.workers()} == {new}


@pytest.mark.problem("An upgrade")
def test_upgrades_under_load_fail_no_request_and_keep_the_process(upgradable):
    stack = upgradable()
    pid, failed, going = stack.daemon.pid, [], True

    def ask(number):
        while going:
            answer = stack.task(f"task_{number}")
            if answer.status != 200:
                failed.append(answer)

    clients = [stack.background(ask, number) for number in range(8)]
    for _ in range(3):
        upgrade(stack)
    going = False
    for client in clients:
        client.result()
    assert failed == []
    assert stack.daemon.pid == pid and stack.daemon.running


def test_held_request_gets_the_current_view_from_the_old_worker(upgradable):
    stack = upgradable(providers={"sora": {"poll": {"min": "60s", "max": "60s"}}})
    assert stack.task("t").status == 200
    held = [stack.background(stack.task, "t?wait=60") for _ in range(20)]
    stack.wait_metric("waiters", 20)
    upgrade(stack)
    assert {answer.result().status for answer in held} == {200}


def test_everything_works_after_an_upgrade(upgradable):
    stack = upgradable(config={"workers": 3})
    upgrade(stack)
    stack.configure(workers=2)
    stack.daemon.reload()
    assert stack.task("t").status == 200
    upgrade(stack)
    assert "Seccomp_filters:\t1\n" in Path(f"/proc/{stack.daemon.pid}/status").read_text()  # not one per upgrade
    assert sorted(path.name for path in stack.socket_dir.iterdir()) == ["status.sock", "worker-0.sock", "worker-1.sock"]
    workers = stack.daemon.workers()
    assert stack.daemon.term() == 0
    assert list(stack.socket_dir.iterdir()) == []
    assert all(process_state(pid)[0] in "ZX" for pid in workers)


def test_sockets_dropped_by_the_new_configuration_are_removed(upgradable):
    stack = upgradable(config={"workers": 3})
    stack.configure(workers=1)
    upgrade(stack)
    stack.wait_until(lambda: not (stack.socket_dir / "worker-2.sock").exists(), what="the third socket to be removed")
    assert stack.ask_worker("/sora/v1/videos/t").status == 200


@pytest.mark.parametrize("source", ["/bin/false", "/etc/hostname"], ids=["refuses", "no program"])
def test_broken_or_refusing_program_changes_nothing(upgradable, source):
    stack = upgradable()
    workers, program = stack.daemon.workers(), program_of(stack.daemon.pid)
    lay(stack, source)
    stack.daemon.hup()
    stack.wait_log("reload refused, the old configuration stays in force: the installed program")
    assert stack.metric("reloads_total", result="refused") == 1
    assert stack.daemon.workers() == workers and program_of(stack.daemon.pid) == program
    assert stack.task("t").status == 200
    lay(stack, ROOT / "build" / "asan" / "taskproxy")
    upgrade(stack)


def test_failed_exec_changes_nothing_and_leaks_no_descriptors(upgradable):
    """Workers exit when their master dies, so no other worker may hold the master's end of their control sockets."""
    stack = upgradable()
    old, program = stack.daemon.workers(), program_of(stack.daemon.pid)
    install_script(stack, f"chmod -x {stack.daemon.binary}")
    stack.daemon.hup()
    stack.wait_log("reload refused, the old configuration stays in force: Permission denied")
    assert stack.daemon.workers() == old and program_of(stack.daemon.pid) == program
    lay(stack, ROOT / "build" / "asan" / "taskproxy")
    os.kill(old[1], signal.SIGKILL)
    stack.wait_metric("worker_starts_total", 3)
    stack.wait_metric("workers_ready", 2)
    (new,) = set(stack.daemon.workers()) - set(old)
    os.kill(new, signal.SIGSTOP)  # it would close inherited descriptors
    os.kill(stack.daemon.pid, signal.SIGKILL)
    wait_gone(stack, old[0])
    os.kill(new, signal.SIGCONT)
    wait_gone(stack, new)
    stack.daemon.kill()


def test_configuration_refused_by_the_new_program_changes_nothing(upgradable):
    stack = upgradable()
    stack.configure(workers="many")
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_log("the installed program refuses the configuration")
    assert "/workers" in stack.daemon.log()
    assert stack.task("t").status == 200
    stack.configure(workers=2)
    upgrade(stack)


@pytest.mark.parametrize(("key", "kind"), [("user", "user"), ("socket_group", "group")])
def test_missing_user_or_group_changes_nothing(upgradable, key, kind):
    stack = upgradable()
    stack.configure(**{key: "nobody-at-all"})
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_log("the installed program refuses the configuration")
    assert re.search(rf'/taskproxy.json:\d+: /{key}: there is no {kind} "nobody-at-all"$', stack.daemon.log(), re.MULTILINE)
    assert stack.task("t").status == 200


def test_socket_paths_may_be_relative(upgradable):
    stack = upgradable(daemon=False, nginx=False)
    stack.configure(socket_dir="run")
    stack.daemon.wrapper = ["env", "-C", str(stack.folder)]
    stack.daemon.config_file = Path("taskproxy.json")
    stack.daemon.start()
    old = set(stack.daemon.workers())
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_until(lambda: (new := set(stack.daemon.workers())) and not old & new, what="the exit of the old workers")
    assert stack.ask_worker("/sora/v1/videos/t").status == 200


def test_signals_during_an_upgrade_are_not_lost(upgradable):
    stack = upgradable()
    lay(stack, stack.daemon.binary)
    for _ in range(20):
        stack.daemon.hup()
    new = Path(stack.daemon.binary).stat().st_ino
    stack.wait_until(lambda: program_of(stack.daemon.pid) == new, what="the new program")
    assert stack.daemon.term() == 0


def test_counters_continue_after_an_upgrade(upgradable):
    stack = upgradable()
    assert stack.task("t").status == 200
    before = [stack.metric(name) for name in ("requests_total", "upstream_requests_total")]
    stack.configure(workers="many")
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 1, result="refused")
    stack.configure(workers=2)
    upgrade(stack)
    assert [stack.metric(name) for name in ("requests_total", "upstream_requests_total")] == before
    assert stack.metric("reloads_total", result="refused") == 1
    stack.wait_metric("workers_ready", lambda ready: ready == 2)
    assert stack.metric("build_info") == 1


# A program whose workers cannot start


def install_script(stack, text) -> None:
    script = stack.folder / "script"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    lay(stack, script)


def install_program_without_workers(stack) -> None:
    """The master is run through the dynamic loader, so it starts the loader in place of workers, which exits at once."""
    real = stack.folder / "real"
    shutil.copy(stack.daemon.binary, real)
    loader = re.search(r"/\S*/ld-linux\S*", subprocess.run(["ldd", real], capture_output=True, text=True).stdout)[0]
    install_script(stack, f'case "$*" in *--check-config*) exec {real} "$@";; esac; exec {loader} {real} "$@"')


def test_old_workers_serve_and_count_when_new_ones_cannot_start(upgradable):
    stack = upgradable(redis=False, daemon=False, nginx=False, config={"hung_after": "5s"})
    stack.standin.switch(state="SUCCESS")
    manager = Manager(stack, watchdog=0.6)
    try:
        stack.daemon.start()
        old = stack.daemon.workers()
        install_program_without_workers(stack)
        stack.daemon.hup()
        stack.wait_log("restarting worker 1 in 200 ms")
        answers = [stack.ask_worker("/sora/v1/videos/t", number % 2).status for number in range(400)]
        assert answers == [200] * 400
        ready = json.loads(fastcgi.ask(stack.status_socket, "/readyz")[2])
        assert (ready["status"], ready["workers_ready"]) == ("ready", 2)
        shown = json.loads(fastcgi.ask(stack.status_socket, "/status")[2])["workers"]
        assert {(row["worker"], row["pid"]) for row in shown if row["state"] == "ready"} == set(enumerate(old))
        manager.wait("WATCHDOG", count=len(manager.reports("WATCHDOG")) + 3)

        os.kill(old[0], signal.SIGSTOP)
        stack.wait_log("worker 0 unresponsive for 5 s; killed", 20)
        wait_gone(stack, old[0])
        with pytest.raises((OSError, fastcgi.Closed)):  # refused at once, not after a worker has started
            stack.ask_worker("/sora/v1/videos/t", 0)
        assert stack.ask_worker("/sora/v1/videos/t", 1).status == 200
        assert stack.daemon.term() == 0
    finally:
        manager.close()


def test_upgrade_while_the_log_is_not_read(upgradable):
    stack = upgradable(redis=False, daemon=False, config={"log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    with Reader(stack, "pipe") as reader:
        reader.start_daemon()
        ask_until_lines_are_dropped(stack)
        upgrade(stack)
        reader.resume()
        assert stack.ask_worker("/sora/v1/videos/t", REQUEST_ID="f" * 32).status == 200
        stack.wait_log(f"request {'f' * 32}: answered with 200")
        assert stack.daemon.term() == 0
        reader.join()
    assert_whole(stack.daemon.log().splitlines())


def test_sigterm_during_the_exec_is_not_lost(upgradable):
    """A full pipe blocks the master as it logs its last line before exec."""
    stack = upgradable(daemon=False, nginx=False)
    pipe = stack.folder / "pipe"
    os.mkfifo(pipe)
    log = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    stack.daemon.wrapper = ["bash", "-c", f'exec "$@" 2> {pipe}', "bash"]
    stack.daemon.start()
    old = stack.daemon.workers()
    real, begun, go = (stack.folder / name for name in ("real", "begun", "go"))
    shutil.copy(stack.daemon.binary, real)
    os.mkfifo(go)
    install_script(stack, f'case "$*" in *--check-config*) echo $$ > {begun}.new; mv {begun}.new {begun}; : < {go}; exit 0;; esac\n'
                          f'exec {real} "$@"')
    stack.daemon.hup()
    stack.wait_until(begun.exists, what="the start of the check")
    with contextlib.suppress(BlockingIOError):
        while os.write(log, b"." * 4096):
            pass
    with contextlib.suppress(BlockingIOError):
        while os.write(log, b"."):
            pass
    go.write_text("")  # opened when the script has it open, too
    wait_gone(stack, int(begun.read_text()))
    stack.daemon.signal(signal.SIGTERM)

    def read_on():
        with contextlib.suppress(BlockingIOError):
            while os.read(log, 65536):
                pass
        return not stack.daemon.running

    stack.wait_until(read_on, 20, "the daemon to stop")
    os.close(log)
    assert stack.daemon.process.returncode == 0
    wait_gone(stack, *old)


def test_status_page_is_sent_across_an_upgrade(upgradable):
    stack = upgradable(nginx=False, redis=False)
    old = stack.daemon.status_servers()
    with half_sent(stack) as connection:
        lay(stack, stack.daemon.binary)
        new = Path(stack.daemon.binary).stat().st_ino
        stack.daemon.hup()
        stack.wait_until(lambda: program_of(stack.daemon.pid) == new, what="the new program")
        assert_status_answered(connection)
    wait_gone(stack, *old)
    assert [program_of(pid) for pid in stack.daemon.status_servers()] == [new]


def test_worker_that_cannot_exit_is_killed_after_drain(upgradable):
    stack = upgradable(config={"drain": "100ms"})
    old = stack.daemon.workers()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    for index in (0, 1):
        stack.wait_log(f"worker {index} did not exit in time; killed")
    stack.wait_until(lambda: not set(old) & set(stack.daemon.workers()), what="the workers to exit")
    stack.wait_metric("workers_ready", 2)
    assert stack.task("t").status == 200
