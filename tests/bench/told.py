"""A thousand clients watch one task: the number of upstream queries, and how soon all clients have each answer.

The task gets on all the time, so each answer of the upstream's is news. An answer counts from when the stand-in was
asked, which is a little before it was sent. Judged is, as with the herds, the answer in the middle: what else the machine
does falls on some of them."""

from dataclasses import dataclass
from statistics import median

from measure import Table, bench_stack, follow, free_port, percentile, server, settle

WATCHERS = 1000
INTERVAL = 2.0  # seconds, between two questions about one task
SHORTEST = INTERVAL - 0.002  # for workers count in milliseconds
LIFE = 100  # seconds that the task takes, so that a second is a percent of it
MOST_MS = 50  # from an answer until the last watcher has read it
LEAST_SECONDS = 4 * INTERVAL
SETTING_OUT = 3  # seconds in which they connect and have their first look

TASK = "/sora/v1/videos/{}"
POLL = {"sora": {"poll": {"min": f"{INTERVAL:.0f}s", "max": f"{INTERVAL:.0f}s"}}}


@dataclass
class Told:
    """What became of the answers that came while all were watching."""

    manner: str
    asked: list  # when each query came
    knew: list  # by query: when each client has read what it brought

    def gaps(self) -> list:
        return [later - earlier for earlier, later in zip(self.asked, self.asked[1:])]

    def delays_ms(self, part: float) -> list:
        """By query: until so many percent of the watchers knew."""
        return [1000 * (percentile(knew, part) - asked) for asked, knew in zip(self.asked, self.knew)]

    def all_told(self) -> bool:
        return all(len(knew) == WATCHERS for knew in self.knew)


def watch(stack, port: int, manner: str, seconds: float) -> Told:
    task = f"told_{manner}"
    stack.standin.switch(task, seconds=LIFE)
    stack.task(task)
    stack.standin.advance(LIFE / 5)  # past the queue, where nothing changes
    settle()
    seen = follow(port, manner, SETTING_OUT + seconds, [TASK.format(task)] * WATCHERS)
    start = min(one.due for one in seen) + SETTING_OUT
    asked = [query.at for query in stack.standin.seen(task) if query.at > start]
    asked.pop()  # they may have left before its answer came
    knew = [[one.at for one in seen if begin <= one.at < end] for begin, end in zip(asked, asked[1:] + [asked[-1] + INTERVAL])]
    return Told(manner, asked, knew)


def measure(seconds: float) -> Table:
    port = free_port()
    with bench_stack(server(port), providers=POLL) as stack:
        rows = [watch(stack, port, manner, max(seconds, LEAST_SECONDS)) for manner in ("stream", "wait")]
    return tell(rows)


def tell(rows: list) -> Table:
    table = Table(f"{WATCHERS:,} watch one task that is asked for every {INTERVAL:.0f} s",
                  "upstream queries", "shortest gap s", "half know, ms", "all know, ms", "at worst, ms")
    for row in rows:
        name = {"stream": "event streams", "wait": "wait=60, asked again at each answer"}[row.manner]
        last = row.delays_ms(100)
        table.row(name, str(len(row.asked)), f"{min(row.gaps()):.2f}", f"{median(row.delays_ms(50)):.0f}",
                  f"{median(last):.0f}", f"{max(last):.0f}")
    for row in rows:
        shortest, middle = min(row.gaps()), median(row.delays_ms(100))
        table.hold(f"{row.manner}: one upstream query per interval, gaps at least {INTERVAL:.0f} s", shortest >= SHORTEST)
        table.hold(f"{row.manner}: each of the {WATCHERS:,} is told of each answer", row.all_told())
        table.hold(f"{row.manner}: all know within {middle:.0f} ms, at most {MOST_MS}", middle <= MOST_MS)
    return table
