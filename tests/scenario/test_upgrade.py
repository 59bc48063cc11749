"""An upgrade: another program lies where the running one was started from, and HUP makes it take over."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from parts import ROOT, process_state


def lay(stack, source) -> None:
    """Puts a program where the daemon's lies, as a package manager does."""
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
    stack.wait_until(lambda: not old & set(stack.daemon.workers()), what="the old workers' end")
    stack.wait_metric("workers_ready", stack.config["workers"])
    assert {program_of(pid) for pid in stack.daemon.workers()} == {new}


def test_no_request_fails_in_upgrades_under_load_and_the_process_stays(upgradable):
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


def test_who_is_held_gets_the_present_view_from_the_old_worker(upgradable):
    stack = upgradable(providers={"sora": {"poll": {"min": "60s", "max": "60s"}}})
    assert stack.task("t").status == 200
    held = [stack.background(stack.task, "t?wait=60") for _ in range(20)]
    stack.wait_metric("waiters", 20)
    upgrade(stack)
    assert {answer.result().status for answer in held} == {200}


def test_after_an_upgrade_all_is_as_ever(upgradable):
    stack = upgradable(config={"workers": 3})
    upgrade(stack)
    stack.configure(workers=2)
    stack.daemon.reload()
    assert stack.task("t").status == 200
    upgrade(stack)
    assert "Seccomp_filters:\t1\n" in Path(f"/proc/{stack.daemon.pid}/status").read_text()  # not one for each upgrade
    assert sorted(path.name for path in stack.socket_dir.iterdir()) == ["status.sock", "worker-0.sock", "worker-1.sock"]
    workers = stack.daemon.workers()
    assert stack.daemon.term() == 0
    assert list(stack.socket_dir.iterdir()) == []
    assert all(process_state(pid)[0] in "ZX" for pid in workers)


def test_sockets_that_the_new_configuration_does_not_want_go(upgradable):
    stack = upgradable(config={"workers": 3})
    stack.configure(workers=1)
    upgrade(stack)
    stack.wait_until(lambda: not (stack.socket_dir / "worker-2.sock").exists(), what="the third socket to go")
    assert stack.ask_worker("/sora/v1/videos/t").status == 200


@pytest.mark.parametrize("source", ["/bin/false", "/etc/hostname"], ids=["refuses", "no program"])
def test_a_program_that_is_none_or_refuses_changes_nothing(upgradable, source):
    stack = upgradable()
    workers, program = stack.daemon.workers(), program_of(stack.daemon.pid)
    lay(stack, source)
    stack.daemon.hup()
    stack.wait_log("not reloaded, the old configuration stays in force: the program that lies there now")
    assert stack.metric("reloads_total", result="refused") == 1
    assert stack.daemon.workers() == workers and program_of(stack.daemon.pid) == program
    assert stack.task("t").status == 200
    lay(stack, ROOT / "build" / "asan" / "taskproxy")
    upgrade(stack)


def test_a_configuration_that_the_new_program_refuses_changes_nothing(upgradable):
    stack = upgradable()
    stack.configure(workers="many")
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_log("the program that lies there now refuses the configuration")
    assert "/workers" in stack.daemon.log()
    assert stack.task("t").status == 200
    stack.configure(workers=2)
    upgrade(stack)


@pytest.mark.parametrize(("key", "kind"), [("user", "user"), ("socket_group", "group")])
def test_nor_does_one_whose_user_or_group_is_not_there(upgradable, key, kind):
    stack = upgradable()
    stack.configure(**{key: "nobody-at-all"})
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_log("the program that lies there now refuses the configuration")
    assert re.search(rf'/taskproxy.json:\d+: /{key}: there is no {kind} "nobody-at-all"$', stack.daemon.log(), re.MULTILINE)
    assert stack.task("t").status == 200


def test_the_paths_of_sockets_may_be_relative(upgradable):
    stack = upgradable(daemon=False, nginx=False)
    stack.configure(socket_dir="run")
    stack.daemon.wrapper = ["env", "-C", str(stack.folder)]
    stack.daemon.config_file = Path("taskproxy.json")
    stack.daemon.start()
    old = set(stack.daemon.workers())
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_until(lambda: (new := set(stack.daemon.workers())) and not old & new, what="the old workers' end")
    assert stack.ask_worker("/sora/v1/videos/t").status == 200


def test_signals_that_come_during_an_upgrade_are_not_lost(upgradable):
    stack = upgradable()
    lay(stack, stack.daemon.binary)
    for _ in range(20):
        stack.daemon.hup()
    new = Path(stack.daemon.binary).stat().st_ino
    stack.wait_until(lambda: program_of(stack.daemon.pid) == new, what="the new program")
    assert stack.daemon.term() == 0


def test_a_worker_that_cannot_leave_is_killed_when_its_time_is_over(upgradable):
    stack = upgradable(config={"drain": "100ms"})
    old = stack.daemon.workers()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    lay(stack, stack.daemon.binary)
    stack.daemon.hup()
    stack.wait_log("workers of the program before the upgrade do not leave: killed")
    stack.wait_until(lambda: not set(old) & set(stack.daemon.workers()), what="them to be gone")
    stack.wait_metric("workers_ready", 2)
    assert stack.task("t").status == 200
