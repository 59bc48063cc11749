"""Redis is stopped (SIGSTOP) and continued under load: latencies of hits and misses before, during and after.

Hits are for ended tasks in memory; misses are for new tasks. Both are sent at a constant rate, and the latency of a request
counts from its scheduled time, even if the previous one has delayed it.""" 

from dataclasses import dataclass

from measure import Table, bench_stack, follow, free_port, percentile, server, settle

HIT_CLIENTS, MISS_CLIENTS = 50, 10
PERIOD = 0.1  # seconds: 500 hits and 100 misses a second
AROUND = 5  # seconds before and after
TIMEOUT_MS = 50  # the default of "redis.timeout"
MOST_OVER_MS = {"hits": 10, "misses": TIMEOUT_MS}  # above the latency before: hits in memory do not need Redis
PARTS = ("before", "frozen", "after")


@dataclass
class Load:
    """Latencies and failures of hits or misses."""

    name: str
    times_ms: dict  # of each part
    failed: int

    def p99(self, part: str) -> float:
        return percentile(self.times_ms[part], 99)

    def longest(self, part: str) -> float:
        return max(self.times_ms[part])


def ask(stack, port: int, part: str, seconds: float) -> list:
    """Sends hits and misses at the same time; the answers of each."""
    hits = [f"/sora/v1/videos/hit_{number}" for number in range(HIT_CLIENTS)]
    misses = [f"/sora/v1/videos/miss_{part}_{number}_*" for number in range(MISS_CLIENTS)]
    going = [stack.background(follow, port, "ask", seconds, paths, PERIOD) for paths in (hits, misses)]
    return [each.result() for each in going]


def measure(seconds: float) -> Table:
    port = free_port()
    with bench_stack(server(port), config={"redis": {"timeout": f"{TIMEOUT_MS}ms"}}) as stack:
        stack.standin.switch(state="IN_PROGRESS")
        for number in range(HIT_CLIENTS):
            stack.standin.switch(f"hit_{number}", state="SUCCESS")
        ask(stack, port, "first", 1)  # fills the cache and opens all connections
        settle()
        seen = {"before": ask(stack, port, "before", AROUND)}
        stack.redis.freeze()
        seen["frozen"] = ask(stack, port, "frozen", seconds)
        stack.redis.thaw()
        seen["after"] = ask(stack, port, "after", AROUND)
    return tell(seconds, judge("hits", seen, 0), judge("misses", seen, 1))


def judge(name: str, seen: dict, which: int) -> Load:
    times = {part: [1000 * (one.at - one.due) for one in seen[part][which]] for part in PARTS}
    return Load(name, times, sum(one.status != 200 for part in PARTS for one in seen[part][which]))


def tell(seconds: float, *loads: Load) -> Table:
    columns = [f"{part}, {what}" for part in PARTS for what in ("p99 ms", "longest")]
    pace = f"{HIT_CLIENTS / PERIOD:,.0f} hits and {MISS_CLIENTS / PERIOD:,.0f} misses a second"
    table = Table(f"Redis frozen for {seconds:.0f} s, under {pace}", *columns)
    for load in loads:
        table.row(load.name, *(f"{number:.1f}" for part in PARTS for number in (load.p99(part), load.longest(part))))
    for load in loads:
        before, over = load.p99("before"), MOST_OVER_MS[load.name]
        for part in PARTS[1:]:
            p99 = load.p99(part)
            table.hold(f"{load.name}: p99 {p99:.1f} ms {part}, at most {over} ms over {before:.1f}", p99 <= before + over)
        table.hold(f"{load.name}: {load.failed} failed", load.failed == 0)
    return table
