"""A thousand connections request a running task at once that was never requested before."""

from dataclasses import dataclass
from statistics import median, quantiles

from measure import KIB, Floor, Table, ask, bench_stack, free_port, nginx_folder, server, settle

HERD = 1000
UPSTREAM_MS = 50
MOST_MS = UPSTREAM_MS + 30  # p99
PATIENCE = 4  # seconds: a herd is so short that it is worth waiting for an idle moment

TASK = "/sora/v1/videos/{}"


def site(folder, ours: int, kept: int, never_kept: int) -> str:
    """Servers on three ports: taskproxy, and nginx alone with a cacheable and an uncacheable answer."""
    warm = "location = /warm { return 204; }"
    return f"""
        fastcgi_cache_path cache keys_zone=bench:1m;
        fastcgi_cache_key $request_uri;
        fastcgi_cache_lock on;
        {server(ours, more=warm)}
        {server(kept, f"fastcgi_pass unix:{folder}/kept; fastcgi_cache bench; fastcgi_cache_valid 200 1h;", warm)}
        {server(never_kept, f"fastcgi_pass unix:{folder}/never-kept; fastcgi_cache bench;", warm)}
    """


@dataclass
class Round:
    """The result of one herd."""

    queries: int
    p50: float
    p99: float
    most: float


def judge(waits: list, queries: int) -> Round:
    return Round(queries, median(waits), quantiles(waits, n=100)[98], max(waits))


def ask_taskproxy(stack, port: int, task: str) -> Round:
    settle(PATIENCE)
    waits = ask(port, HERD, [TASK.format(task)] * HERD)
    return judge(waits, stack.standin.count(task))


def ask_nginx_alone(socket, port: int) -> Round:
    with Floor(socket, KIB, UPSTREAM_MS) as floor:
        waits = ask(port, HERD, [TASK.format(socket.name)] * HERD)
    return judge(waits, floor.requests)


def measure(rounds: int) -> Table:
    ports = [free_port() for _ in range(3)]
    with nginx_folder() as folder, bench_stack(site(folder, *ports)) as stack:
        stack.standin.switch(state="IN_PROGRESS", progress="50%", delay=UPSTREAM_MS / 1000)
        stack.task("first")  # connects to the upstream
        ours = [ask_taskproxy(stack, ports[0], f"herd_{number}") for number in range(rounds)]
        kept = ask_nginx_alone(folder / "kept", ports[1])
        never_kept = ask_nginx_alone(folder / "never-kept", ports[2])
    return tell(ours, kept, never_kept)


def tell(ours: list, kept: Round, never_kept: Round) -> Table:
    middle = sorted(ours, key=lambda one: one.p99)[len(ours) // 2]
    queries = max(one.queries for one in ours)
    table = Table(f"{HERD:,} simultaneous requests; the upstream takes {UPSTREAM_MS} ms",
                  "upstream queries", "p50 ms", "p99 ms", "longest ms")
    for name, one in ((f"taskproxy (median of {len(ours)} herds)", middle),
                      ("nginx's fastcgi_cache_lock, cacheable answer", kept),
                      ("nginx's fastcgi_cache_lock, uncacheable answer", never_kept)):
        table.row(name, str(one.queries), f"{one.p50:,.0f}", f"{one.p99:,.0f}", f"{one.most:,.0f}")
    table.hold(f"{queries} upstream query per herd, at most 1", queries == 1)
    table.hold(f"p99 {middle.p99:.0f} ms, at most {MOST_MS}", middle.p99 <= MOST_MS)
    return table
