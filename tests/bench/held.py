"""Ten thousand held requests: the memory that each takes in the worker, and their effect on the rate of hits.

They are sent on direct connections to the worker's socket, as nginx would do. The memory of libfcgi itself is measured
with the same requests, held by a program (libfcgi.c) that does nothing else."""

import contextlib
import resource
import subprocess

from hits import PAGE
from measure import PROGRAMS, Table, bench_stack, free_port, nginx_folder, private_kib, server, settle, worker, wrk
import fastcgi

HELD = 10_000
TASKS = 100  # tasks that the requests wait for
ROUNDS = 10
MOST_KIB = 16  # in addition to libfcgi
LEAST_RATIO = 0.90


@contextlib.contextmanager
def requests_held(socket):
    """Sends HELD requests with wait=60, each on its own connection."""
    with contextlib.ExitStack() as connections:
        for number in range(HELD):
            connection = connections.enter_context(fastcgi.Connection(str(socket), seconds=None))
            connection.send(fastcgi.request(fastcgi.task_params(f"/sora/v1/videos/held_{number % TASKS:03d}?wait=60")))
        yield


def libfcgi_kib() -> float:
    """The memory of libfcgi alone per request."""
    with nginx_folder() as folder:
        command = [PROGRAMS / "libfcgi", folder / "socket", str(HELD)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            program.stdout.readline()
            before = private_kib(program.pid)
            with requests_held(folder / "socket"):
                program.stdout.readline()
                kib = (private_kib(program.pid) - before) / HELD
            program.stdin.close()
    return kib


def rate(port: int) -> float:
    settle()
    requests, seconds = wrk(f"http://127.0.0.1:{port}{PAGE}")
    return requests / seconds


def measure(rounds: int = ROUNDS) -> Table:
    """Measures hits alternately for one second without and with held requests; memory in the first round."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port, kib, without, beside = free_port(), None, [], []
    with bench_stack(server(port)) as stack:
        stack.standin.switch(state="IN_PROGRESS", progress="50%")
        stack.standin.switch("page", state="SUCCESS")
        for path in (PAGE, *(f"/sora/v1/videos/held_{number:03d}" for number in range(TASKS))):
            stack.get(path)
        for _ in range(rounds):
            without.append(rate(port))
            before = private_kib(worker(stack))
            with requests_held(stack.worker_socket()):
                stack.wait_metric("waiters", HELD)
                kib = kib or (private_kib(worker(stack)) - before) / HELD
                beside.append(rate(port))
                assert stack.metric("waiters") == HELD
            stack.wait_metric("waiters", lambda waiters: waiters == 0)
    return tell(kib, libfcgi_kib(), sum(without) / rounds, sum(beside) / rounds)


def tell(kib: float, libfcgi: float, without: float, beside: float) -> Table:
    table = Table(f"{HELD:,} requests held by a worker, for {TASKS} tasks")
    table.row("memory per held request", f"{kib:.1f} KiB")
    table.row("of which libfcgi", f"{libfcgi:.1f} KiB")
    table.row("hits without held requests", f"{without:,.0f}/s")
    table.row("hits with held requests", f"{beside:,.0f}/s")
    above, ratio = kib - libfcgi, beside / without
    table.hold(f"{above:.1f} KiB in addition to libfcgi, at most {MOST_KIB}", above <= MOST_KIB)
    table.hold(f"hits at {ratio:.2f} of their rate without held requests, at least {LEAST_RATIO:.2f}", ratio >= LEAST_RATIO)
    return table
