"""How taskproxy behaves as connections, held requests, tasks, clients and hosts grow: a picture of each.

Two workers behind two nginx processes (four, for held requests), and the clients, on the cores of this machine. The pictures are
written beside the figures (figures.py). Numbers that the machine does not allow, because of its limit of descriptors or its
memory, are left out."""

import contextlib
import os
import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from figures import MEASURED, quick, save
from hosts import CLIENTS, WORKERS, anywhere, ask as ask_hosts, second_host
from fanout import INTERVAL, POLL
from measure import (
    PROGRAMS, ROOT, Table, ask, bench_stack, children_of, cpu_us, follow, free_port, percentile, private_kib, resident_mib, server,
    settle,
)
from memory import KEY, MODEL, MULTIPLY, PORTION
from plot import Chart

PAGE = "/sora/v1/videos/page"
WORKERS_HERE = 2
SPARE = 1000  # descriptors of a process that are not those of clients
HIT_CLIENTS, HIT_PERIOD = 100, 0.1  # 1,000 hits/s beside the held requests
HELD_TASKS = 100
HOLDERS = 4  # nginx processes
BATCH = 2_500  # clients that connect at once
REQUESTED_TASKS = 100_000  # those that a worker is asked for
ADD = MULTIPLY.replace("redis.call('FLUSHDB')", "")
NEEDED_KIB = 16  # of this machine's memory for each task in Redis: twice what it takes


@dataclass
class Range:
    """What is measured."""

    connections: tuple = (1, 10, 100, 1_000, 3_000, 10_000)
    rounds: int = 3
    held: tuple = (0, 1_000, 5_000, 10_000, 15_000, 20_000)
    seconds: float = 8  # of each step of held requests and clients
    tasks: tuple = (100, 1_000, 10_000, 100_000, 1_000_000)
    clients: tuple = (1, 10, 100, 1_000, 10_000)
    hosts: tuple = (1, 2, 3)


QUICK = Range(connections=(1, 10, 100), rounds=1, held=(0, 500), seconds=4, tasks=(100, 1_000), clients=(1, 10, 100), hosts=(1, 2))


def descriptors() -> int:
    """Raises the limit of this process and its children to its maximum."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


@contextlib.contextmanager
def large_stack(*ports: int, nginx_processes: int = 2, **settings):
    """A stack whose nginx takes as many connections as the system allows, on these ports. Linux finds the local port of a new
    connection slowly when half of all possible ones have a connection to the same address."""
    settings["config"] = {"workers": WORKERS_HERE, **settings.get("config", {})}
    listens = "".join(f"listen 127.0.0.1:{port} backlog=4096 reuseport;\n" for port in ports)
    site = re.sub(r"listen .*;\n", listens, server(ports[0]), count=1)
    stack = bench_stack(site, nginx_processes=nginx_processes, **settings)
    stack.nginx.connections = descriptors() - SPARE
    with stack:
        stack.standin.switch(state="IN_PROGRESS", progress="50%")
        stack.standin.switch("page", state="SUCCESS")
        stack.get(PAGE)
        yield stack


def processes(stack) -> dict:
    return {"worker": stack.daemon.workers(), "nginx": children_of(stack.nginx.pid)}


# Requests/s over connections


def hits(port: int, connections: int) -> tuple:
    """Runs wrk; returns the number of answered requests and the seconds. Thousands of connections take seconds to be opened."""
    url = f"http://127.0.0.1:{port}{PAGE}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{2 + connections // 2000}s", "--timeout", "20s", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk with {connections} connections:\n{done.stdout}")
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s,", done.stdout).groups()
    return int(requests), float(seconds)


def over_connections(what: Range) -> dict:
    port = free_port()
    numbers = [number for number in what.connections if number <= descriptors() - SPARE]
    with large_stack(port) as stack:
        rates = {number: [] for number in numbers}
        costs = {kind: [] for kind in processes(stack)}
        for _ in range(what.rounds):
            for number in numbers:
                settle()
                before = {kind: sum(map(cpu_us, pids)) for kind, pids in processes(stack).items()}
                requests, seconds = hits(port, number)
                rates[number].append(requests / seconds)
                for kind, pids in processes(stack).items():
                    costs[kind].append((sum(map(cpu_us, pids)) - before[kind]) / requests)
    return {"hits": [(number, round(median(each))) for number, each in rates.items()],
            **{f"{kind}_us": round(median(each), 1) for kind, each in costs.items()}}


# A hit's p99 over held requests


@contextlib.contextmanager
def held(port: int, paths: list):
    """Clients, each with a request that waits for the end of a task."""
    command = [PROGRAMS / "follow", str(port), "wait", "3600", "1000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as clients:
        try:
            clients.stdin.write("\n".join(paths))
            clients.stdin.close()
            yield
        finally:
            clients.terminate()


def over_held(what: Range) -> dict:
    """There are several client processes, and nginx has more of them, because of the limit of descriptors."""
    ports, p99 = [free_port() for _ in range(1 + what.held[-1] // BATCH)], []
    most = HOLDERS * (descriptors() - SPARE) // 2  # a held request has two connections of nginx
    with large_stack(*ports, nginx_processes=HOLDERS) as stack, contextlib.ExitStack() as clients:
        paths = [f"/sora/v1/videos/held_{number:03d}" for number in range(HELD_TASKS)]
        for path in paths:
            stack.get(path)
        steps = [number for number in what.held if number <= most]
        before = sum(map(private_kib, stack.daemon.workers()))
        for earlier, number in zip([0, *steps], steps):
            for first in range(earlier, number, BATCH):
                more = min(BATCH, number - first)
                clients.enter_context(held(ports[first // BATCH], (paths * (more // len(paths) + 1))[:more]))
                stack.wait_metric("waiters", first + more, seconds=60)
            settle()
            seen = follow(ports[-1], "ask", what.seconds, [PAGE] * HIT_CLIENTS, HIT_PERIOD)
            p99.append((number, round(percentile([1000 * (one.at - one.due) for one in seen], 99), 1)))
        kib = (sum(map(private_kib, stack.daemon.workers())) - before) / steps[-1]
    return {"p99_ms": p99, "kib": round(kib, 1)}


# Memory over tasks


def over_tasks(what: Range) -> dict:
    """The tasks are copies of one in Redis; then each is requested."""
    port = free_port()
    free_kib = int(re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1])
    redis, worker, done = [], [], 0
    with bench_stack(server(port, more="location = /warm { return 204; }")) as stack:
        stack.standin.switch(MODEL, state="SUCCESS")
        stack.task(MODEL)
        stack.wait_until(lambda: stack.redis.cli("EXISTS", KEY + MODEL) == "1", what="the task in Redis")
        empty = used_mib(stack)
        for number in [number for number in what.tasks if number * NEEDED_KIB < free_kib]:
            for first in range(done, number, PORTION):
                copies = str(min(PORTION, number - first))
                if stack.redis.cli("EVAL", ADD, 1, KEY, MODEL, first, copies) != copies:
                    raise RuntimeError("Redis did not create the tasks: has the format of keys or values changed?")
            if number <= REQUESTED_TASKS:
                ask(port, 32, [f"/sora/v1/videos/task_{i:06d}" for i in range(done, number)])
                worker.append((number, round(resident_mib(stack.daemon.workers()[0]), 1)))
            done = number
            redis.append((number, round(used_mib(stack) - empty, 2)))
    return {"redis_mib": redis, "worker_mib": worker, "redis_kib": round(1024 * redis[-1][1] / done, 2)}


def used_mib(stack) -> float:
    return int(re.search(r"used_memory:(\d+)", stack.redis.cli("INFO", "memory"))[1]) / 2**20


# Upstream queries over clients


def over_clients(what: Range) -> dict:
    port, requests, queries = free_port(), [], []
    with large_stack(port, providers=POLL) as stack:
        for number in [number for number in what.clients if number <= descriptors() - SPARE]:
            task = f"polled_{number}"
            stack.task(task)
            seen = follow(port, "ask", what.seconds, [f"/sora/v1/videos/{task}"] * number)
            requests.append((number, len(seen)))
            queries.append((number, stack.standin.count(task)))
    return {"requests": requests, "queries": queries}


# Upstream queries over hosts


def over_hosts(what: Range) -> dict:
    """Clients at random workers of all hosts: with Redis, and without it."""
    shared, alone = [], []
    for number in what.hosts:
        port = free_port()
        settings = {"providers": POLL, "config": {"workers": WORKERS}, "task_seconds": 1000, "nginx": False}
        with contextlib.ExitStack() as others, bench_stack("include beside.conf;", **settings) as first:
            hosts = [first, *(others.enter_context(second_host(first)) for _ in range(number - 1))]
            sockets = [host.worker_socket(index) for host in hosts for index in range(WORKERS)]
            first.nginx.prefix.mkdir()
            (first.nginx.prefix / "beside.conf").write_text(anywhere(sockets, port))
            first.nginx.start()
            first.standin.switch(state="IN_PROGRESS")
            shared.append((number, per_interval(ask_hosts(first, port, "available", what.seconds))))
            first.redis.stop()
            alone.append((number, per_interval(ask_hosts(first, port, "unavailable", what.seconds))))
            first.nginx.stop()
            others.close()
    return {"shared": shared, "alone": alone}


def per_interval(rows: list) -> float:
    return round(max(row.per_interval() for row in rows), 2)


# The pictures


def charts(growth: dict) -> dict:
    cores = f"on {os.cpu_count()} cores"
    connections, held, tasks, clients, hosts = (growth[name] for name in ("connections", "held", "tasks", "clients", "hosts"))
    return {
        "connections": Chart(f"Answers from memory, {cores}", "connections", "requests/s",
                             {"taskproxy behind nginx": connections["hits"]}),
        "held": Chart(f"p99 of 1,000 hits/s beside held requests, {cores}", "held requests", "ms", {"p99": held["p99_ms"]}),
        "tasks": Chart("Memory for finished tasks of 4 KiB", "tasks", "MiB",
                       {"Redis": tasks["redis_mib"], "a worker, resident": tasks["worker_mib"]}, log_y=True),
        "clients": Chart(f"Clients that poll one task every second, for {growth['seconds']:.0f} s, {cores}", "clients", "count",
                         {"requests of the clients": clients["requests"], "upstream queries": clients["queries"]}, log_y=True),
        "hosts": Chart(f"{CLIENTS} clients at random workers of several hosts", "hosts", "upstream queries per task and interval",
                       {"with Redis": hosts["shared"], "without": hosts["alone"]}),
    }


def measure() -> Table:
    what = QUICK if quick() else Range()
    parts = {"connections": over_connections, "held": over_held, "tasks": over_tasks, "clients": over_clients, "hosts": over_hosts}
    growth = {"seconds": what.seconds, **{name: part(what) for name, part in parts.items()}}
    save("growth", growth)
    for name, chart in charts(growth).items():
        chart.write(MEASURED / f"{name}.svg")
    return tell(what, growth)


def tell(what: Range, growth: dict) -> Table:
    table = Table(f"Growth, on {os.cpu_count()} cores; pictures in {MEASURED.relative_to(ROOT)}/")
    for part, lines in (("connections", "hits"), ("held", "p99_ms"), ("tasks", "redis_mib"), ("tasks", "worker_mib"),
                        ("clients", "requests"), ("clients", "queries"), ("hosts", "shared"), ("hosts", "alone")):
        table.note(f"{f'{lines} over {part}:':<26}" + ", ".join(f"{x:,}: {y:,}" for x, y in growth[part][lines]))
    for part, wanted, measured in ((name, getattr(what, name), growth[name][line][-1][0]) for name, line in (
            ("connections", "hits"), ("held", "p99_ms"), ("tasks", "redis_mib"), ("clients", "queries"))):
        if measured < wanted[-1]:
            table.note(f"{part}: only up to {measured:,}, because of this machine's limits")
    queries = [number for _, number in growth["clients"]["queries"]]
    most = 2 + int(what.seconds / INTERVAL)
    table.hold(f"{max(queries)} upstream queries for a task in {what.seconds:.0f} s, at most {most}, whatever the number of clients",
               max(queries) <= most)
    return table
