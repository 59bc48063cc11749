"""Two hosts that share a Redis, with clients at any of their workers: the number of upstream queries per task.

A host is a daemon with two workers. nginx sends each request to a random one of the four, the worst case of a load balancer
in front of several hosts. For comparison, the same without Redis, when the workers do not know of each other."""

from dataclasses import dataclass

from measure import Table, bench_stack, follow, free_port, server
from stack import Stack
from fanout import INTERVAL, POLL, SHORTEST

WORKERS = 2  # per host
CLIENTS = 200
TASKS = 20
MOST = 1.05  # queries per task and interval


def anywhere(sockets: list, port: int) -> str:
    members = "".join(f"server unix:{socket}; " for socket in sockets)
    return f"upstream anywhere {{ random; {members} keepalive 512; }}" + server(port, "fastcgi_pass anywhere;")


def intervals(times: list) -> int:
    """The number of intervals that the queries span; each starts with the first query after the previous interval."""
    count, end = 0, 0
    for time in times:
        if time >= end:
            count, end = count + 1, time + SHORTEST
    return count


@dataclass
class Asked:
    """The times of the upstream queries for each of the tasks."""

    name: str
    times: list  # a list per task

    def queries(self) -> int:
        return sum(map(len, self.times))

    def per_interval(self) -> float:
        return self.queries() / sum(map(intervals, self.times))


def ask(stack, port: int, redis: str, seconds: float) -> list:
    """Runs clients that poll and clients that read streams, at the same time."""
    manners = {"poll": f"polled every second, Redis {redis}", "stream": f"event streams, Redis {redis}"}
    tasks = {manner: [f"{manner}_{redis}_{number:02d}" for number in range(TASKS)] for manner in manners}
    paths = {manner: [f"/sora/v1/videos/{task}" for task in tasks[manner]] * (CLIENTS // TASKS) for manner in manners}
    going = [stack.background(follow, port, manner, seconds, paths[manner]) for manner in manners]
    for each in going:
        each.result()
    return [Asked(name, [[query.at for query in stack.standin.seen(task)] for task in tasks[manner]])
            for manner, name in manners.items()]


def second_host(first) -> Stack:
    """Another daemon with the first one's Redis and upstream."""
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
            shared = ask(first, port, "available", seconds)
            first.redis.stop()
            alone = ask(first, port, "unavailable", seconds)
            first.nginx.stop()
    return tell(shared, alone)


def tell(shared: list, alone: list) -> Table:
    table = Table(f"Two hosts of {WORKERS} workers; {CLIENTS} clients at random workers, {TASKS} tasks, poll interval "
                  f"{INTERVAL:.0f} s", "upstream queries", "per task and interval")
    for row in shared + alone:
        table.row(row.name, f"{row.queries():,}", f"{row.per_interval():.2f}")
    for row in shared:
        table.hold(f"{row.name}: {row.per_interval():.2f} upstream queries per task and interval, at most {MOST}",
                   row.per_interval() <= MOST)
    return table
