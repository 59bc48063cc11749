"""A thousand clients watch one task: the number of upstream queries, and the time until all clients have each answer.

The task progresses all the time, so each answer of the upstream is different. The delay of an answer counts from when the
stand-in received the query, slightly before it answered. As with herds, the target applies to the median answer, because
other load on the machine delays some of them."""

from dataclasses import dataclass
from statistics import median

from measure import Table, bench_stack, follow, free_port, percentile, server, settle

WATCHERS = 1000
INTERVAL = 2.0  # seconds between two queries for one task
SHORTEST = INTERVAL - 0.002  # workers count in milliseconds
LIFE = 100  # seconds that the task takes, so one percent per second
MOST_MS = 50  # from an answer until the last watcher has read it
LEAST_SECONDS = 4 * INTERVAL
WARM_UP = 3  # seconds for the clients to connect and get their first answer

TASK = "/sora/v1/videos/{}"
POLL = {"sora": {"poll": {"min": f"{INTERVAL:.0f}s", "max": f"{INTERVAL:.0f}s"}}}


@dataclass
class Fanout:
    """The delivery of the answers that arrived while all were watching."""

    manner: str
    asked: list  # time of each query
    knew: list  # by query: the times when clients had read its answer

    def gaps(self) -> list:
        return [later - earlier for earlier, later in zip(self.asked, self.asked[1:])]

    def delays_ms(self, part: float) -> list:
        """By query: the delay until this percentage of the watchers had its answer."""
        return [1000 * (percentile(knew, part) - asked) for asked, knew in zip(self.asked, self.knew)]

    def all_delivered(self) -> bool:
        return all(len(knew) == WATCHERS for knew in self.knew)


def watch(stack, port: int, manner: str, seconds: float) -> Fanout:
    task = f"fanout_{manner}"
    stack.standin.switch(task, seconds=LIFE)
    stack.task(task)
    stack.standin.advance(LIFE / 5)  # past the queued state, in which nothing changes
    settle()
    seen = follow(port, manner, WARM_UP + seconds, [TASK.format(task)] * WATCHERS)
    start = min(one.due for one in seen) + WARM_UP
    asked = [query.at for query in stack.standin.seen(task) if query.at > start]
    asked.pop()  # clients may have disconnected before its answer
    knew = [[one.at for one in seen if begin <= one.at < end] for begin, end in zip(asked, asked[1:] + [asked[-1] + INTERVAL])]
    return Fanout(manner, asked, knew)


def measure(seconds: float) -> Table:
    port = free_port()
    with bench_stack(server(port), providers=POLL) as stack:
        rows = [watch(stack, port, manner, max(seconds, LEAST_SECONDS)) for manner in ("stream", "wait")]
    return tell(rows)


def tell(rows: list) -> Table:
    table = Table(f"{WATCHERS:,} clients watch one task, poll interval {INTERVAL:.0f} s",
                  "upstream queries", "shortest gap s", "half after, ms", "all after, ms", "maximum, ms")
    for row in rows:
        name = {"stream": "event streams", "wait": "wait=60, repeated after each answer"}[row.manner]
        last = row.delays_ms(100)
        table.row(name, str(len(row.asked)), f"{min(row.gaps()):.2f}", f"{median(row.delays_ms(50)):.0f}",
                  f"{median(last):.0f}", f"{max(last):.0f}")
    for row in rows:
        shortest, middle = min(row.gaps()), median(row.delays_ms(100))
        table.hold(f"{row.manner}: one upstream query per interval, gaps at least {INTERVAL:.0f} s", shortest >= SHORTEST)
        table.hold(f"{row.manner}: each of the {WATCHERS:,} clients gets each answer", row.all_delivered())
        table.hold(f"{row.manner}: all have it within {middle:.0f} ms, at most {MOST_MS}", middle <= MOST_MS)
    return table
