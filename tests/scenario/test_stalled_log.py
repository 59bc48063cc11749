"""A stalled reader of the log blocks no process: lines are dropped, counted, and reported when it reads again."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import fastcgi
from helpers import TASK, assert_served, beat_until, metric, wait_metric, wait_stored, worker_pid
from parts import open_files
from test_logs import TEXT_LINE

DROPPED = re.compile(r"warn worker 0: (\d+) log lines dropped: standard error did not accept them")


class Reader:
    """The reader of a standard error. It reads nothing until resume(), then copies everything to the daemon's log."""

    def __init__(self, stack, kind):
        self._stack = stack
        reader, self.writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
        self._file = open(reader, "rb", buffering=0)
        self._thread = threading.Thread(target=self._copy)

    def start_daemon(self):
        self._stack.daemon.stderr = self.writer
        self._stack.daemon.start()
        self.close_writer()

    def close_writer(self):
        os.close(self.writer)
        self.writer = None

    def resume(self):
        self._thread.start()

    def join(self):
        """Waits until all writers have exited and everything has been read."""
        self._thread.join()

    def _copy(self):
        with open(self._stack.daemon.log_path, "ab", buffering=0) as log:
            while data := self._file.read(65536):
                log.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.writer is not None:
            self.close_writer()
        if not self._thread.is_alive():
            self._file.close()


@pytest.fixture(params=["pipe", "socket"])
def stalled(request, make_stack):
    """A daemon with finished tasks and a clock, whose log is not read until the reader resumes; and this reader."""
    stack = make_stack(redis=False, nginx=False, daemon=False, clock=True, config={"log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    with Reader(stack, request.param) as reader:
        reader.start_daemon()
        yield stack, reader


def ask_until_lines_are_dropped(stack):
    """Requests a finished task from worker 0, with increasing request ids."""
    asked = 0
    while metric(stack, "log_lines_dropped_total") == 0:
        with fastcgi.Connection(stack.worker_socket(0)) as connection:
            for _ in range(50):
                asked += 1
                assert connection.ask(fastcgi.task_params(TASK, REQUEST_ID=f"{asked:032x}"))[0] == 200


def assert_whole(lines):
    assert lines and [line for line in lines if not TEXT_LINE.fullmatch(line)] == []


@pytest.mark.problem("Nothing reads the log")
def test_stalled_reader_of_the_log_blocks_no_process(stalled):
    stack, reader = stalled
    ask_until_lines_are_dropped(stack)
    stack.clock.freeze()
    assert fastcgi.ask(stack.status_socket, "/readyz")[0] == 200
    assert_served(stack, 0)
    os.kill(worker_pid(stack, 1), signal.SIGSTOP)
    beat_until(stack, lambda: metric(stack, "worker_hangs_total") == 1, "the hung worker to be killed")
    stack.clock.run()
    wait_metric(stack, "workers_ready", lambda ready: ready == 2)
    assert_served(stack, 1)

    reader.resume()
    (dropped,) = DROPPED.search(stack.wait_log("log lines dropped")).groups()
    assert int(dropped) == metric(stack, "log_lines_dropped_total")
    assert stack.ask_worker(TASK, 0, REQUEST_ID="f" * 32).status == 200
    assert stack.daemon.term() == 0
    reader.join()
    lines = stack.daemon.log().splitlines()
    assert_whole(lines)
    answered = [int(i, 16) for i in re.findall(r"worker 0: request (\w{32}): answered", "\n".join(lines))]
    assert answered[:-1] == list(range(1, len(answered))) and answered[-1] == 16**32 - 1
    assert [line for line in lines if "worker 1 unresponsive for 10 s; killed" in line] and " stopped" in lines[-1]


@pytest.mark.problem("The disk is full")
def test_full_disk_stops_no_request_and_no_reload(make_stack):
    """Standard error is a file on a full disk, and no process has another file open for writing."""
    stack = make_stack(nginx=False, daemon=False, config={"workers": 1, "log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    with open("/dev/full", "wb") as full:
        stack.daemon.stderr = full.fileno()
        stack.daemon.start()
        ask_until_lines_are_dropped(stack)
        stack.daemon.reload()
        assert_served(stack)
        wait_stored(stack, "task_1")
        for pid in (stack.daemon.pid, *stack.daemon.workers(), *stack.daemon.status_servers()):
            assert files_open_for_writing(pid) == []
        assert stack.daemon.term() == 0


def files_open_for_writing(pid):
    """The regular files that the process may write to, besides its standard output."""
    regular = {number: target for number, target in open_files(pid).items() if number > 1 and os.path.isfile(target)}
    return [target for number, target in regular.items() if open_flags(pid, number) & os.O_ACCMODE]


def open_flags(pid, number):
    return int(re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{number}").read_text())[1], 8)


def test_daemon_stops_while_its_log_is_not_read(stalled):
    stack, reader = stalled
    ask_until_lines_are_dropped(stack)
    assert stack.daemon.term() == 0
    reader.resume()
    reader.join()
    assert_whole(stack.daemon.log().splitlines())


def test_cgi_program_ends_while_its_log_is_not_read(make_stack):
    stack = make_stack(redis=False, nginx=False, daemon=False, config={"log_level": "debug"})
    stack.standin.switch(state="SUCCESS")
    with Reader(stack, "pipe") as reader:
        os.write(reader.writer, bytes(fcntl.fcntl(reader.writer, fcntl.F_GETPIPE_SZ)))
        params = fastcgi.task_params(TASK, TASKPROXY_CONFIG=str(stack.daemon.config_file))
        done = subprocess.run(
            [stack.daemon.binary], env=stack.daemon.environment(GATEWAY_INTERFACE="CGI/1.1", **params),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=reader.writer, timeout=60,
        )
        assert (done.returncode, fastcgi.parse_answer(done.stdout)[0]) == (0, 200)
