"""Master and workers: sockets, signals, and deaths that no client notices."""

import grp
import os
import pwd
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest

import fastcgi
import needs
from helpers import PLAIN_BINARY, clients, finished_tasks, metric, preload, sockets, status_of, wait_gone, worker_pid
from installing import run
from parts import WEB_GROUP


def user_of(pid):
    """The user that the process runs as: real, effective, saved and file system user are the same."""
    (uid,) = set(status_of(pid, "Uid")[0])
    return pwd.getpwuid(int(uid)).pw_name


# Sockets


def test_sockets_are_accessible_to_the_web_server_only(make_stack):
    stack = make_stack(redis=False, daemon=False)
    stack.daemon.wrapper = ["sh", "-c", 'umask 077 && exec "$@"', "sh"]
    stack.daemon.start()
    assert stat.S_IMODE(stack.socket_dir.stat().st_mode) == 0o755
    assert sockets(stack) == ["status.sock", "worker-0.sock", "worker-1.sock"]
    for name in sockets(stack):
        status = (stack.socket_dir / name).stat()
        assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o660
        assert grp.getgrgid(status.st_gid).gr_name == stack.config["socket_group"]
    stack.wait_metric("workers_ready", 2)
    if os.geteuid() == 0:
        assert {user_of(pid) for pid in stack.daemon.workers()} == {stack.config["user"]}
    stack.daemon.stop()
    assert sockets(stack) == []


def test_sockets_of_a_dead_daemon_are_replaced_but_not_of_a_live_one(make_stack):
    stack = make_stack(redis=False, nginx=False)
    stack.daemon.kill()
    assert len(sockets(stack)) == 3
    stack.daemon.start()
    workers = stack.daemon.workers()

    second = stack.daemon.run()
    assert second.returncode == 1
    assert f"already running: {stack.status_socket} is in use" in second.stderr
    assert stack.daemon.workers() == workers
    assert stack.ask_worker("/sora/v1/videos/task_1", index=1).status == 200
    assert fastcgi.ask(stack.status_socket, "/readyz")[0] == 200


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/dev/null")])
def test_file_that_is_not_a_socket_is_not_touched(make_stack, make):
    stack = make_stack(redis=False, daemon=False, nginx=False)
    stack.socket_dir.mkdir()
    path = Path(stack.worker_socket(1))
    make(path)
    before = path.lstat()
    refused = stack.daemon.run()
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"{path} exists and is not a socket\n")
    assert sockets(stack) == ["worker-1.sock"]
    assert path.lstat() == before


# Users, groups and the number of workers


@needs.root
def test_user_and_group_may_be_numbers_without_an_account(make_stack):
    stack = make_stack(redis=False, nginx=False, config={"user": 54321, "socket_group": 54322})
    stack.wait_until(lambda: metric(stack, "workers_ready") == 2, what="both workers")
    for pid in stack.daemon.workers():
        assert status_of(pid, "Uid", "Gid", "Groups") == [["54321"] * 4, ["54321"] * 4, []]
    assert {(stack.socket_dir / name).stat().st_gid for name in sockets(stack)} == {54322}
    for group, number in ((54323, 54323), (WEB_GROUP, grp.getgrnam(WEB_GROUP).gr_gid)):  # each reload applies it
        stack.configure(socket_group=group)
        stack.daemon.reload()
        assert {(stack.socket_dir / name).stat().st_gid for name in sockets(stack)} == {number}
    assert stack.ask_worker("/sora/v1/videos/task_1").status == 200
    assert '"user": 54321,' in stack.daemon.run("--print-config").stdout


@needs.root
def test_number_of_an_account_is_equivalent_to_its_name(make_stack):
    account, group = pwd.getpwnam(WEB_GROUP), grp.getgrnam(WEB_GROUP)
    stack = make_stack(redis=False, config={"user": account.pw_uid, "socket_group": group.gr_gid})
    stack.wait_metric("workers_ready", 2)
    groups = {str(gid) for gid in os.getgrouplist(WEB_GROUP, account.pw_gid)}
    for pid in stack.daemon.workers():
        uids, gids, more = status_of(pid, "Uid", "Gid", "Groups")
        assert set(uids) == {str(account.pw_uid)} and set(gids) == {str(account.pw_gid)} and set(more) == groups
    assert stack.task("task_1").status == 200


@needs.root
def test_unprivileged_master_reads_root_files_and_its_workers_cannot(make_stack):
    capabilities = [f"--{which}=-all,+dac_read_search" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    stack = make_stack(redis=False, daemon=False)
    stack.socket_dir.mkdir()
    shutil.chown(stack.socket_dir, WEB_GROUP)
    assert (stack.key_file.stat().st_uid, stack.key_file.stat().st_mode & 0o777) == (0, 0o600)
    stack.daemon.wrapper = ["setpriv", f"--reuid={WEB_GROUP}", f"--regid={WEB_GROUP}", "--init-groups", *capabilities, "--"]
    stack.daemon.start()
    stack.wait_metric("workers_ready", 2)
    assert stack.task("task_1").status == 200
    sets = ("CapPrm", "CapEff", "CapInh", "CapAmb")
    assert status_of(stack.daemon.pid, *sets) == [["0000000000000004"]] * 4
    for pid in stack.daemon.workers():
        assert status_of(pid, *sets) == [["0000000000000000"]] * 4


def test_default_number_of_workers_follows_cpu_affinity(make_stack):
    stack = make_stack(redis=False, daemon=False)
    stack.configure(workers=0)
    stack.daemon.wrapper = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    stack.daemon.start()
    stack.wait_log("started: 1 workers")

    def told(option):
        command = [*stack.daemon.wrapper, stack.daemon.binary, "-c", str(stack.daemon.config_file), option]
        return run(*command, env=stack.daemon.environment())

    assert '"workers": 1,' in told("--print-config")
    assert re.findall(r"worker-\d+", told("--print-nginx")) == ["worker-0"]
    assert stack.task("task_1").status == 200


# Exit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_held_request_is_answered_when_the_daemon_stops(make_stack, number):
    stack = make_stack()
    with stack.standin.hold("held") as barrier:
        held = [stack.background(stack.task, "held") for _ in range(3)]
        barrier.wait_arrived(1)
        stack.wait_metric("waiters", 3)
        stack.daemon.signal(number)
        stack.wait_log("stopping")
        assert stack.daemon.running
    assert [answer.result().status for answer in held] == [200] * 3
    assert stack.daemon.process.wait(20) == 0
    assert sockets(stack) == []


def test_request_longer_than_drain_is_abandoned(make_stack):
    stack = make_stack(config={"drain": "200ms"})
    stack.standin.switch("held", hang=True)
    held = stack.background(stack.task, "held")
    stack.standin.wait_count(1, "held")
    assert stack.daemon.term() == 0
    assert "exiting with unanswered requests" in stack.daemon.log()
    assert held.result().status == 503


def test_workers_of_a_killed_master_finish_their_requests_and_exit(make_stack):
    stack = make_stack()
    workers = stack.daemon.workers()
    with stack.standin.hold("held") as barrier:
        held = stack.background(stack.task, "held")
        barrier.wait_arrived(1)
        os.kill(stack.daemon.pid, signal.SIGKILL)
        stack.wait_log("the master has exited")
    assert held.result().status == 200
    wait_gone(stack, *workers)
    stack.daemon.kill()
    stack.daemon.start()
    assert stack.task("task_1").status == 200


# Deaths


@pytest.mark.problem("A worker dies or hangs")
def test_worker_killed_under_load_is_replaced_without_failed_requests(make_stack):
    stack = finished_tasks(make_stack)
    counts = []
    with clients(stack) as failures:
        for death in (1, 2):
            counts.append(stack.metric("requests_total"))
            victim = worker_pid(stack, 0)
            os.kill(victim, signal.SIGKILL)
            counts.append(stack.metric("requests_total"))
            wait_gone(stack, victim)
            counts.append(stack.metric("requests_total"))
            stack.wait_metric("worker_deaths_total", death)
            stack.wait_metric("workers_ready", 2)
            counts.append(stack.metric("requests_total"))
    counts.append(stack.metric("requests_total"))
    assert failures == []
    assert counts == sorted(counts)
    assert stack.metric("worker_starts_total") == 4
    assert "worker 0 exited on signal 9" in stack.daemon.log()
    assert stack.metric("waiters") == 0


def test_worker_that_cannot_start_is_retried_with_backoff_while_the_other_serves(make_stack, tmp_path):
    binary = tmp_path / "taskproxy"
    shutil.copy(os.environ.get("TASKPROXY_BINARY") or Path(__file__).parents[2] / "build/asan/taskproxy", binary)
    tmp_path.chmod(0o755)
    stack = finished_tasks(make_stack, binary=binary)
    good, bad = tmp_path / "good", tmp_path / "bad"
    shutil.copy(binary, good)
    bad.write_text("#!/bin/sh\nexit 7\n")
    bad.chmod(0o755)

    bad.rename(binary)  # the program that the master starts from now on
    with clients(stack) as failures:
        os.kill(worker_pid(stack, 0), signal.SIGKILL)
        for pause in (100, 200, 400, 800):
            stack.wait_log(f"restarting worker 0 in {pause} ms")
        assert "worker 0 exited with status 7" in stack.daemon.log()
        good.rename(binary)
        stack.wait_metric("workers_ready", 2)
    assert failures == []
    assert stack.ask_worker("/sora/v1/videos/task_1", index=0).status == 200


def test_worker_that_dies_after_start_is_restarted_with_backoff(make_stack):
    stack = make_stack(redis=False, nginx=False)
    for _ in range(4):
        pid = stack.wait_until(lambda: worker_pid(stack, 0), what="worker 0")
        stack.wait_until(lambda: fastcgi.ask(stack.worker_socket(0), "/")[0] == 404, what="an answer of worker 0")
        os.kill(pid, signal.SIGKILL)
        wait_gone(stack, pid)
    for pause in (100, 200):
        stack.wait_log(f"restarting worker 0 in {pause} ms")


# Routing and status


def test_master_serves_status_when_every_worker_is_stuck(stack):
    workers = stack.daemon.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        answers = [stack.get(path).status for path in ("/healthz", "/readyz", "/metrics")]
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert answers == [200] * 3


def test_nginx_sends_one_task_to_one_worker_and_uses_all_workers(make_stack):
    stack = finished_tasks(make_stack, redis=False, config={"log_level": "debug"})
    for _ in range(3):
        for number in range(20):
            assert stack.task(f"task_{number}").status == 200
    assert {stack.standin.count(f"task_{number}") for number in range(20)} == {1}
    assert all(f"worker {index}: fetch main:sora:task_" in stack.daemon.log() for index in (0, 1))


# Sends SIGTERM to a worker as soon as a handler for it is installed, or (ASKED) when libfcgi asks for the current one, which
# it replaces unless it is the worker's.
TERM_WHILE_STARTING = r"""
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int is_worker(void)
{
    char arguments[4096] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t len = read(fd, arguments, sizeof(arguments));
    close(fd);
    return len > 0 && memmem(arguments, (size_t)len, "--worker", 8) != NULL;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
    static int sent;
    int (*real)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    int result = real(number, new, old);
    if (number == SIGTERM && (new == NULL) == ASKED && !sent && is_worker()) {
        sent = 1;
        raise(SIGTERM);
    }
    return result;
}
"""


@pytest.mark.parametrize("asked", [0, 1])
def test_worker_told_to_stop_during_start_stops(make_stack, monkeypatch, tmp_path, asked):
    preload(monkeypatch, tmp_path, f"#define ASKED {asked}\n{TERM_WHILE_STARTING}")
    stack = make_stack(binary=PLAIN_BINARY, config={"workers": 1}, redis=False, nginx=False, daemon=False)
    stack.daemon.spawn([PLAIN_BINARY, "-c", str(stack.daemon.config_file)], stack.daemon.environment())
    stack.wait_log("worker 0 exited with status 0")
