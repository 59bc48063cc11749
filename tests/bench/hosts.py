"""Two hosts that share a Redis, and clients that come to any of their workers: how often is a task asked for?

A host is a daemon with two workers. nginx sends each request to one of the four at random, which is the worst that a
balancer in front of several hosts can do. Beside it: the same with Redis away, when no worker knows of the others."""

from dataclasses import dataclass

from measure import Table, bench_stack, follow, free_port, server
from stack import Stack
from told import INTERVAL, POLL, SHORTEST

WORKERS = 2  # of a host
CLIENTS = 200
TASKS = 20
MOST = 1.05  # queries per task and interval


def anywhere(sockets: list, port: int) -> str:
    members = "".join(f"server unix:{socket}; " for socket in sockets)
    return f"upstream anywhere {{ random; {members} keepalive 512; }}" + server(port, "fastcgi_pass anywhere;")


def intervals(times: list) -> int:
    """How many it takes for all of these queries: one begins with the first query after the end of the one before."""
    count, end = 0, 0
    for time in times:
        if time >= end:
            count, end = count + 1, time + SHORTEST
    return count


@dataclass
class Asked:
    """When the upstream was asked for each of the tasks."""

    name: str
    times: list  # of lists

    def queries(self) -> int:
        return sum(map(len, self.times))

    def per_interval(self) -> float:
        return self.queries() / sum(map(intervals, self.times))


def ask(stack, port: int, redis: str, seconds: float) -> list:
    """Clients that poll and clients that read streams, at the same time."""
    manners = {"poll": f"polled each second, Redis {redis}", "stream": f"event streams, Redis {redis}"}
    tasks = {manner: [f"{manner}_{redis}_{number:02d}" for number in range(TASKS)] for manner in manners}
    paths = {manner: [f"/sora/v1/videos/{task}" for task in tasks[manner]] * (CLIENTS // TASKS) for manner in manners}
    going = [stack.background(follow, port, manner, seconds, paths[manner]) for manner in manners]
    for each in going:
        each.result()
    return [Asked(name, [[query.at for query in stack.standin.seen(task)] for task in tasks[manner]])
            for manner, name in manners.items()]


def second_host(first) -> Stack:
    """Another daemon that knows the first one's Redis and upstream."""
    upstream = {"base_url": first.standin.url, "key_file": str(first.key_file), "ca_file": first.standin.ca_file}
    config = {"workers": WORKERS, "redis": first.config["redis"]}
    return bench_stack(upstream=upstream, providers=POLL, config=config, redis=False, nginx=False)


def measure(seconds: float) -> Table:
    port = free_port()
    settings = {"providers": POLL, "config": {"workers": WORKERS}, "task_seconds": 1000, "nginx": False}
    with bench_stack("include beside.conf;", **settings) as first:
        with second_host(first) as second:
            sockets = [stack.worker_socket(index) for stack in (first, second) for index in range(WORKERS)]
            first.nginx.prefix.mkdir()
            (first.nginx.prefix / "beside.conf").write_text(anywhere(sockets, port))
            first.nginx.start()
            first.standin.switch(state="IN_PROGRESS")
            shared = ask(first, port, "there", seconds)
            first.redis.stop()
            alone = ask(first, port, "away", seconds)
            first.nginx.stop()
    return tell(shared, alone)


def tell(shared: list, alone: list) -> Table:
    table = Table(f"Two hosts of {WORKERS} workers; {CLIENTS} clients come to any of them, for {TASKS} tasks, asked for every "
                  f"{INTERVAL:.0f} s", "upstream queries", "per task and interval")
    for row in shared + alone:
        table.row(row.name, f"{row.queries():,}", f"{row.per_interval():.2f}")
    for row in shared:
        table.hold(f"{row.name}: {row.per_interval():.2f} upstream queries per task and interval, at most {MOST}",
                   row.per_interval() <= MOST)
    return table
