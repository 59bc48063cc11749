"""Five hundred clients follow fifty tasks: the number of upstream queries, and the delay until clients see the end.

All subjects do the same work at the same time, each with its own tasks of the same durations. nginx is always between clients
and upstream: in front of taskproxy, with its own cache and lock, or without a cache."""

import random
from dataclasses import dataclass

from measure import Table, bench_stack, follow, free_port, percentile, server
from fanout import INTERVAL, POLL

CLIENTS = 500
TASKS = 50
UPSTREAM_MS = 50
SHORTEST_LIFE = 0.1  # fraction of the total time
TAIL = 10  # seconds after the last task's end within which the last client must know

TASK = "/sora/v1/videos/{}_{:02d}"

CACHE = f"proxy_cache polled; proxy_cache_key $uri; proxy_cache_valid 200 {INTERVAL:.0f}s; proxy_cache_lock on;"


def beside(stack, cached: int, passing: int) -> str:
    """Servers that pass requests to the stand-in, with and without a cache."""
    passes = f"""
        proxy_pass https://standin;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Authorization "Bearer {stack.key}";
    """
    return f"""
        proxy_cache_path polled keys_zone=polled:1m;
        upstream standin {{ server 127.0.0.1:{stack.standin.port}; keepalive 256; }}
        server {{ listen 127.0.0.1:{cached} backlog=4096; location / {{ {passes} {CACHE} }} }}
        server {{ listen 127.0.0.1:{passing} backlog=4096; location / {{ {passes} }} }}
    """


@dataclass
class Subject:
    """One way to follow tasks, and its results."""

    name: str
    tasks: str  # prefix of its task ids
    port: int
    manner: str
    sees: list | None = None  # of follow.c
    queries: int = 0
    delays_ms: list | None = None  # by task: until the last client knew of the end

    def follow(self, seconds: float) -> None:
        paths = [TASK.format(self.tasks, client % TASKS) for client in range(CLIENTS)]
        self.sees = follow(self.port, self.manner, seconds + TAIL, paths)

    def judge(self, standin) -> None:
        ids = [f"{self.tasks}_{number:02d}" for number in range(TASKS)]
        # Lines are in the order of time, so the last client's remains.
        knew = {ids[one.client % TASKS]: one.at for one in self.sees if one.says == "ended"}
        self.queries = sum(standin.count(task) for task in ids)
        self.delays_ms = [1000 * (at - standin.ends_at(task)) for task, at in knew.items()]

    def knowing(self) -> int:
        """The number of clients that have seen the end."""
        return sum(one.says == "ended" for one in self.sees)

    def requests(self) -> int:
        return CLIENTS if self.manner == "stream" else len(self.sees)


def measure(seconds: float) -> Table:
    ours, cached, passing = [free_port() for _ in range(3)]
    subjects = [
        Subject("taskproxy, polled every second", "poll", ours, "poll"),
        Subject("taskproxy, wait=60", "wait", ours, "wait"),
        Subject("taskproxy, event streams", "stream", ours, "stream"),
        Subject("nginx's proxy_cache and lock, polled", "cached", cached, "poll"),
        Subject("nginx without a cache, polled", "passed", passing, "poll"),
    ]
    chance = random.Random(4)
    lives = [seconds * chance.uniform(SHORTEST_LIFE, 1) for _ in range(TASKS)]
    with bench_stack("include beside.conf;" + server(ours), providers=POLL, nginx=False) as stack:
        stack.nginx.prefix.mkdir()
        (stack.nginx.prefix / "beside.conf").write_text(beside(stack, cached, passing))
        stack.nginx.start()
        stack.standin.switch(delay=UPSTREAM_MS / 1000)
        for subject in subjects:
            for number, life in enumerate(lives):
                stack.standin.switch(f"{subject.tasks}_{number:02d}", seconds=life)
        for going in [stack.background(subject.follow, seconds) for subject in subjects]:
            going.result()
        for subject in subjects:
            subject.judge(stack.standin)
    return tell(seconds, lives, subjects)


def tell(seconds: float, lives: list, subjects: list) -> Table:
    table = Table(f"{CLIENTS} clients follow {TASKS} tasks, which end within {seconds:.0f} s; the upstream takes "
                  f"{UPSTREAM_MS} ms", "requests", "upstream queries", "requests per query", "delay of the end, p50 ms", "p99 ms")
    most = sum(2 + int(life / INTERVAL) for life in lives)  # at the first request, each interval, and after the end
    for subject in subjects:
        table.row(subject.name, f"{subject.requests():,}", f"{subject.queries:,}", f"{subject.requests() / subject.queries:.1f}",
                  f"{percentile(subject.delays_ms, 50):,.0f}", f"{percentile(subject.delays_ms, 99):,.0f}")
    for subject in subjects[:3]:
        table.hold(f"{subject.name}: {subject.queries:,} upstream queries, at most {most:,}, one per task and interval of "
                   f"{INTERVAL:.0f} s", subject.queries <= most)
        table.hold(f"{subject.name}: {subject.knowing()} of {CLIENTS} clients know of the end", subject.knowing() == CLIENTS)
    return table
