"""What one team, or one kind of request, takes from the others: answers while another team makes an upstream fail, hits beside
many held lists, and memory for answers that nobody reads."""

import contextlib
import itertools
import json
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from hits import PAGE
from measure import ROOT, Table, bench_stack, cpu_us, percentile, private_kib, settle, worker
import fastcgi

sys.path.insert(0, str(ROOT / "tests" / "scenario"))
from helpers import wait_metric
from teaming import bearer, teams_stack

# Beside a team that makes the upstream fail
BAD = 12  # ids whose queries fail, before the others ask
HAMMERS = 4  # clients that ask for more of them without a pause
ASKED = 200  # requests of the other team, each for a new task
PAUSE = 0.05  # seconds between two of them
LEAST_SHARE = 0.95

# Beside held lists
LISTS = 2000
TASKS = 100  # in each
CLIENTS = 20  # that ask for hits
PERIOD = 0.2  # seconds between two hits of one of them
MOST_MS = 20
WINDOW = 15  # seconds in which the CPU is measured

# Slow readers
READERS = 500
TEXT = 5400  # bytes of text in each of the TASKS views
CAP_MIB = 64  # the default of limits.unsent
CONNECTION_KIB = 16


def many_files() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# A team that makes the upstream fail


def shares() -> Table:
    with contextlib.ExitStack() as stacks:
        stack = teams_stack(lambda **settings: stacks.enter_context(bench_stack(port=0, redis=False, **settings)))
        stack.standin.switch(status=500)
        for number in range(ASKED):
            stack.standin.switch(f"good_{number}", status=None, state="IN_PROGRESS")
        for number in range(BAD):
            stack.task(f"bad_{number}", bearer("film"))
        stop, numbers = threading.Event(), itertools.count(BAD)

        def hammer():
            asked = 0
            while not stop.is_set():
                stack.task(f"bad_{next(numbers)}", bearer("film"))
                asked += 1
            return asked

        with ThreadPoolExecutor(HAMMERS) as pool:
            hammers = [pool.submit(hammer) for _ in range(HAMMERS)]
            statuses = []
            for number in range(ASKED):
                statuses.append(stack.task(f"good_{number}", bearer("web")).status)
                time.sleep(PAUSE)
            stop.set()
            hammered = sum(one.result() for one in hammers)
    share = statuses.count(200) / ASKED
    table = Table(f"A team asks for {ASKED} tasks beside another one whose tasks the upstream answers with 500")
    table.row("requests of the other team", f"{hammered:,}")
    table.row("good answers", f"{statuses.count(200)}")
    table.hold(f"{100 * share:.0f} % of the answers are good, at least {100 * LEAST_SHARE:.0f} %", share >= LEAST_SHARE)
    return table


# Held lists


def target_of(prefix: str) -> str:
    return "/v1/tasks?ids=" + ",".join(f"sora/{prefix}_{number:03d}" for number in range(TASKS))


def list_of(prefix: str, wait: str = "") -> bytes:
    return fastcgi.request(fastcgi.task_params(target_of(prefix) + wait))


@contextlib.contextmanager
def connected(stack):
    """LISTS connections, which nginx would keep."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(fastcgi.Connection(stack.worker_socket(), seconds=None)) for _ in range(LISTS)]


def hold_lists(connections, prefix: str) -> None:
    """On each connection, a request for the same TASKS tasks."""
    for connection in connections:
        connection.send(list_of(prefix, "&wait=60"))


def probe(socket: str, seconds: float) -> None:
    """CLIENTS ask for a hit each PERIOD; prints the milliseconds from when each was due until its answer had come."""
    ready = threading.Barrier(CLIENTS)

    def ask(client):
        milliseconds = []
        with fastcgi.Connection(socket) as connection:
            connection.ask(fastcgi.task_params(PAGE))
            ready.wait()
            start = time.monotonic() + client / CLIENTS * PERIOD
            for number in range(int(seconds / PERIOD)):
                due = start + number * PERIOD
                time.sleep(max(0, due - time.monotonic()))
                connection.ask(fastcgi.task_params(PAGE))
                milliseconds.append(1000 * (time.monotonic() - due))
        return milliseconds

    with ThreadPoolExecutor(CLIENTS) as pool:
        print(*itertools.chain(*pool.map(ask, range(CLIENTS))))


@contextlib.contextmanager
def hits(stack, seconds: float):
    """Runs probe() in another process; the list given is filled at the end."""
    command = [sys.executable, __file__, stack.worker_socket(), str(seconds)]
    milliseconds = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield milliseconds
        milliseconds += map(float, process.communicate()[0].split())


def lists() -> Table:
    """Hits are asked for while the lists arrive, are held, and are answered as their tasks end."""
    many_files()
    config = {"limits": {"waiters": 2 * LISTS * TASKS}}
    with bench_stack(config=config, redis=False) as stack:
        stack.standin.switch(state="IN_PROGRESS", progress="50%")
        stack.standin.switch("page", state="SUCCESS")
        stack.get(PAGE)
        for prefix in ("listed", "again"):  # the connections to the upstream are open afterwards
            stack.get(target_of(prefix))
        settle()
        with hits(stack, 8) as without:
            pass
        with connected(stack) as connections:
            with hits(stack, 8) as beside:
                time.sleep(2)  # until its clients are connected
                hold_lists(connections, "listed")
                stack.wait_metric("waiters", LISTS)
                time.sleep(2)  # a poll of each task
                for number in range(TASKS):
                    stack.standin.switch(f"listed_{number:03d}", state="SUCCESS")
            stack.wait_metric("waiters", lambda waiters: waiters == 0)
        with connected(stack) as connections:
            before = cpu_us(worker(stack))
            hold_lists(connections, "again")
            time.sleep(WINDOW)
            cpu = (cpu_us(worker(stack)) - before) / 1e6
    return tell_lists(percentile(without, 99), percentile(beside, 99), max(beside), cpu)


def tell_lists(without: float, beside: float, longest: float, cpu: float) -> Table:
    table = Table(f"Hits beside {LISTS:,} held lists of {TASKS} tasks each, which arrive and are answered meanwhile")
    table.row("p99 of hits without them", f"{without:.1f} ms")
    table.row("p99 of hits beside them", f"{beside:.1f} ms")
    table.row("longest hit beside them", f"{longest:.1f} ms")
    table.row(f"CPU of the lists alone in {WINDOW} s", f"{cpu:.2f} s")
    table.hold(f"{beside - without:.1f} ms more, at most {MOST_MS}", beside - without <= MOST_MS)
    return table


# Slow readers


def readers() -> Table:
    many_files()
    with bench_stack(redis=False, nginx=False) as stack:
        data = {"status": "FAILURE", "fail_reason": TEXT * "x"}
        stack.standin.switch(raw=json.dumps({"code": "success", "message": "", "data": data}))
        asked = list_of("long")
        with fastcgi.Connection(stack.worker_socket()) as connection:
            connection.send(asked)
            size = len(connection.read_answer()[2])
        before = private_kib(worker(stack))
        with contextlib.ExitStack() as opened:
            for _ in range(READERS):
                opened.enter_context(fastcgi.Connection(stack.worker_socket())).send(asked)
            wait_metric(stack, "requests_total", lambda answered: answered > READERS)
            mib = (private_kib(worker(stack)) - before) / 1024
    table = Table(f"{READERS} clients that do not read a list of {size // 1000} KB")
    table.row("memory of the worker", f"{mib:.0f} MiB")
    own = READERS * CONNECTION_KIB / 1024
    table.hold(f"{mib:.0f} MiB, at most {CAP_MIB} and {own:.0f} for the connections", mib <= CAP_MIB + own)
    return table


if __name__ == "__main__":
    probe(sys.argv[1], float(sys.argv[2]))
