"""taskproxy and other programs that could do its job: the same upstream, token, view, ETag and headers.

Every answer is compared byte for byte before anything is timed. Hits are measured in alternating order, for one second each; a
herd is 1,000 simultaneous requests for a running task that was never requested before. Each program has one process behind
one nginx process (PHP-FPM: 16), or one process of its own. CPU times are those of all its processes and of Redis."""

import contextlib
import http.client
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from measure import (
    ROOT, Floor, Table, ask, bench_stack, cgi_answer, follow, free_port, nginx_folder, server, settle, wrk,
)
from fanout import INTERVAL, POLL
from figures import quick, save
from herd import HERD, UPSTREAM_MS, judge
from peer_programs import PEERS, Upstream, answer_of_kept_task, install_node_modules, tree
from polled import CLIENTS, SHORTEST_LIFE, TAIL, TASKS

sys.path.insert(0, str(ROOT / "tests" / "scenario"))
from teaming import TOKENS, teams_stack

TASK = "/sora/v1/videos/{}"
HIT = TASK.format("kept_hit")
RUNNING = TASK.format("running")
TOKEN = TOKENS["web"]
HEADER = f"Authorization: Bearer {TOKEN}"
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
FILLERS = 32  # connections that request the results of the memory figure
CACHE_FILE = "taskproxy-cache.conf"  # level 0

LEAST_RATIO = 1.05  # of level 0 to OpenResty
TIE = 1.02  # programs with the same poll interval differ by chance


@dataclass
class Sizes:
    """How much is measured."""

    rounds: int = 15
    close_rounds: int = 60  # of the two programs that differ by less than two rounds of one program
    herds: int = 5
    seconds: float = 20  # of polling
    results: int = 100_000


QUICK = Sizes(rounds=2, close_rounds=2, herds=1, seconds=4, results=2_000)


@dataclass
class Place:
    """What all programs share."""

    folder: Path
    memory: Path  # a folder for the caches of nginx
    redis: str  # socket
    key: str
    token: str = TOKEN
    upstream_port: int = 0


@dataclass
class Contender:
    """One program, and its results."""

    name: str
    title: str
    port: int
    pids: object  # a function
    lacks: str = ""
    keep_kib: object = lambda: 0  # a function
    rates: list = field(default_factory=list)  # hits per second, by round
    cpu_us: list = field(default_factory=list)  # per hit, by round
    herds: list = field(default_factory=list)
    queries: int | None = None  # of polling clients
    memory_mib: dict | None = None

    def get(self, path: str, **headers: str) -> tuple:
        """Status, headers (names in lower case) and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def herd(self, standin, task: str) -> None:
        settle()
        waits = ask(self.port, HERD, [TASK.format(task)] * HERD, HEADER, warm=HIT)
        self.herds.append(judge(waits, standin.count(task)))

    def middle_herd(self):
        return sorted(self.herds, key=lambda one: one.p99)[len(self.herds) // 2]


# The programs


@contextlib.contextmanager
def contenders():
    """Starts everything; gives the stack with Redis and the stand-in, and the contenders, the floor first."""
    with contextlib.ExitStack() as parts:
        base = parts.enter_context(bench_stack(daemon=False, nginx=False))
        place = Place(base.folder, parts.enter_context(nginx_folder("/dev/shm")), base.redis.socket, base.key)
        upstream = Upstream(place, base.standin.port, answer_of_kept_task())
        place.upstream_port = upstream.port
        started(parts, upstream)
        make = lambda **settings: parts.enter_context(bench_stack(**settings))
        floor_port, folder = free_port(), parts.enter_context(nginx_folder())
        floor_server = f"upstream floor {{ server unix:{folder}/floor; keepalive 64; }}\n" + server(floor_port, "fastcgi_pass floor;")
        plain = taskproxy(make, base, place, "taskproxy:", http=floor_server)
        found = [contender_of("taskproxy", "taskproxy", plain)]
        found.append(contender_of("level0", "taskproxy, with nginx's cache in front", level0(make, base, place)))
        for kind in PEERS:
            peer = started(parts, kind(place))
            found.append(Contender(peer.name, peer.title, peer.port, peer.pids, peer.lacks, peer.keep_kib))
        _, headers, body = found[0].get(HIT, Authorization=f"Bearer {TOKEN}")
        floor = parts.enter_context(Floor(folder / "floor", cgi_answer(headers, body)))
        pids = lambda: tree(plain.nginx.pid) + [floor.pid]
        yield base, [Contender("floor", "a FastCGI program that only sends the answer", floor_port, pids, "everything"), *found]


def started(parts: contextlib.ExitStack, peer):
    parts.callback(peer.stop)
    peer.start()
    return peer


def taskproxy(make, base, place: Place, prefix: str, **settings):
    upstream = {"base_url": f"http://127.0.0.1:{place.upstream_port}", "key_file": str(base.key_file)}
    config = {"redis": {"address": f"unix:{place.redis}", "prefix": prefix}, **settings.pop("config", {})}
    return teams_stack(make, upstream=upstream, config=config, redis=False, providers=POLL, port=0, **settings)


def level0(make, base, place: Place):
    def make_with_cache(**settings):
        stack = make(**settings)
        stack.nginx.changes["/run/taskproxy-cache"] = f"{place.memory}/taskproxy-cache"
        stack.nginx.changes[f"#include taskproxy/{CACHE_FILE};"] = f"include taskproxy/{CACHE_FILE};"
        return stack
    return taskproxy(make_with_cache, base, place, "level0:", config={"nginx_cache": f"{INTERVAL:.0f}s"})


def contender_of(name: str, title: str, stack) -> Contender:
    return Contender(name, title, stack.nginx.port, lambda: tree(stack.nginx.pid) + tree(stack.daemon.pid))


# The answers


def check(all_of_them: list, kept_answer: bytes) -> None:
    """Raises AssertionError unless all give taskproxy's answers or, if they cannot trim, the upstream's."""
    model = all_of_them[1]
    for path in (HIT, RUNNING):
        expected = model.get(path, Authorization=f"Bearer {TOKEN}")
        for one in all_of_them[1:]:
            if one.lacks:
                check_lacking(one, path, kept_answer)
            else:
                check_full(one, path, expected)


def check_full(one: Contender, path: str, expected: tuple) -> None:
    for _ in ("a miss", "a hit"):
        status, headers, body = one.get(path, Authorization=f"Bearer {TOKEN}")
        assert (status, body) == (200, expected[2]), (one.name, status, body)
        for name in ("etag", "content-type", "content-length", "vary", "x-content-type-options"):
            assert headers[name] == expected[1][name], (one.name, name, headers.get(name), expected[1][name])
        missing = expected[1].keys() - headers.keys() - {"server", "date", "connection"}
        assert not missing, (one.name, missing)
    status, headers, body = one.get(path, Authorization=f"Bearer {TOKEN}", If_None_Match=headers["etag"])
    assert (status, headers.get("etag"), body) == (304, expected[1]["etag"], b""), (one.name, status, headers)
    check_refusal(one, path)


def check_lacking(one: Contender, path: str, kept_answer: bytes) -> None:
    for _ in ("a miss", "a hit"):
        status, headers, body = one.get(path, Authorization=f"Bearer {TOKEN}")
        assert (status, headers["content-type"]) == (200, "application/json"), (one.name, status, headers)
        assert path != HIT or body == kept_answer, (one.name, body)
    check_refusal(one, path)


def check_refusal(one: Contender, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}):
        assert one.get(path, **headers)[0] == 401, one.name


# The measurements


def cpu_us(pids: list) -> float:
    """The CPU time of the processes so far, all threads, without those that have ended, such as nginx's cache loader."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
            ticks += int(user) + int(system)
    return TICK_US * ticks


def measure_hits(all_of_them: list, rounds: int, redis: int) -> None:
    for number in range(rounds):
        for one in all_of_them if number % 2 else reversed(all_of_them):
            settle()
            pids = [*one.pids(), redis]
            before = cpu_us(pids)
            requests, seconds = wrk(f"http://127.0.0.1:{one.port}{HIT}", "-H", HEADER)
            one.rates.append(requests / seconds)
            one.cpu_us.append((cpu_us(pids) - before) / requests)


def measure_herds(all_of_them: list, herds: int, standin) -> None:
    standin.switch(delay=UPSTREAM_MS / 1000)
    for number in range(herds):
        for one in all_of_them[1:]:
            one.herd(standin, f"herd_{one.name}_{number}")


def measure_polling(all_of_them: list, seconds: float, base) -> None:
    """All at the same time, each with its own tasks of the same durations."""
    chance = random.Random(4)
    lives = [seconds * chance.uniform(SHORTEST_LIFE, 1) for _ in range(TASKS)]
    going = []
    for one in all_of_them[1:]:
        tasks = [f"polled_{one.name}_{number:02d}" for number in range(TASKS)]
        for task, life in zip(tasks, lives):
            base.standin.switch(task, seconds=life, state=None, progress=None)
        paths = [TASK.format(tasks[client % TASKS]) for client in range(CLIENTS)]
        going.append((one, tasks, base.background(follow, one.port, "poll", seconds + TAIL, paths, header=(HEADER,))))
    for one, tasks, client in going:
        ended = sum(seen.says == "ended" for seen in client.result())
        assert ended == CLIENTS, (one.name, f"{ended} of {CLIENTS} clients know of the end")
        one.queries = sum(base.standin.count(task) for task in tasks)


def pss_mib(pids: list) -> float:
    """The memory of the processes; what several share counts once."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in texts) / 1024


def redis_mib(base) -> float:
    return int(base.redis.cli("INFO", "memory").partition("used_memory:")[2].split()[0]) / 2**20


def measure_memory(all_of_them: list, results: int, base) -> None:
    paths = [TASK.format(f"kept_{number:06d}") for number in range(results)]
    for one in all_of_them[1:]:
        before = pss_mib(one.pids()), redis_mib(base)
        ask(one.port, FILLERS, paths, HEADER, warm=HIT)
        one.memory_mib = {"redis": redis_mib(base) - before[1], "process": pss_mib(one.pids()) - before[0],
                          "file": one.keep_kib() / 1024}
        base.redis.cli("FLUSHALL")


def measure() -> Table:
    sizes = QUICK if quick() else Sizes()
    install_node_modules()
    with contenders() as (base, all_of_them):
        base.standin.switch(state="IN_PROGRESS", progress="50%")
        check(all_of_them, answer_of_kept_task().replace("$task", "kept_hit").encode())
        measure_hits(all_of_them, sizes.rounds, base.redis.pid)
        measure_hits([one for one in all_of_them if one.name in ("level0", "openresty")], sizes.close_rounds, base.redis.pid)
        measure_herds(all_of_them, sizes.herds, base.standin)
        measure_polling(all_of_them, sizes.seconds, base)
        measure_memory(all_of_them, sizes.results, base)
    return tell(sizes, all_of_them)


# The table


def ratios(one: Contender, other: Contender) -> list:
    return [ours / theirs for ours, theirs in zip(one.rates, other.rates)]


def figures_of(one: Contender, openresty: Contender) -> dict:
    each = ratios(one, openresty)
    figures = {"title": one.title, "lacks": one.lacks, "hits": round(median(one.rates)), "cpu_us": round(median(one.cpu_us), 1),
               "ratio": round(median(each), 3), "least_ratio": round(min(each), 2), "most_ratio": round(max(each), 2)}
    if one.herds:
        herd = one.middle_herd()
        figures |= {"herd_p50_ms": round(herd.p50, 1), "herd_p99_ms": round(herd.p99, 1),
                    "herd_queries": max(each.queries for each in one.herds), "polling_queries": one.queries,
                    **{f"{store}_mib": round(mib, 1) for store, mib in one.memory_mib.items()}}
    return figures


COLUMNS = {"hits": "hits/s", "ratio": "of OpenResty's", "least_ratio": "least", "most_ratio": "most", "cpu_us": "CPU µs/hit",
           "herd_p50_ms": "herd p50 ms", "herd_p99_ms": "p99 ms", "herd_queries": "queries", "polling_queries": "polling: queries",
           "redis_mib": "Redis MiB", "process_mib": "processes", "file_mib": "files", "lacks": "lacks"}


def cell(value) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"


def tell(sizes: Sizes, all_of_them: list) -> Table:
    named = {one.name: one for one in all_of_them}
    figures = {name: figures_of(one, named["openresty"]) for name, one in named.items()}
    save("peers", {**vars(sizes), "programs": figures})
    table = Table(f"Programs for the same job, on {os.cpu_count()} cores", *COLUMNS.values())
    for one in figures.values():
        table.row(one["title"], *(cell(one.get(column)) for column in COLUMNS))
    table.note(f"Hits of 1 KiB: medians of {sizes.rounds} alternating seconds each, and {sizes.close_rounds} more of level 0 and "
               "OpenResty; CPU time of all processes and Redis.")
    table.note(f"Herds: {HERD:,} simultaneous requests for an unknown task; the upstream takes {UPSTREAM_MS} ms.")
    table.note(f"Polling: {CLIENTS} clients, {TASKS} tasks, {sizes.seconds:.0f} s, poll interval {INTERVAL:.0f} s. "
               f"Memory: of {sizes.results:,} results.")
    hold(table, figures)
    return table


def hold(table: Table, figures: dict) -> None:
    ours, openresty = figures["taskproxy"], figures["openresty"]
    ratio = figures["level0"]["ratio"]
    table.hold(f"level 0 at {ratio:.3f} of OpenResty's hits/s, at least {LEAST_RATIO}", ratio >= LEAST_RATIO)
    p99, theirs = ours["herd_p99_ms"], openresty["herd_p99_ms"]
    table.hold(f"a herd's p99 {p99:.0f} ms, at most OpenResty's {theirs:.0f}", p99 <= theirs)
    fewest = min(one["polling_queries"] for name, one in figures.items() if name not in ("floor", "taskproxy", "level0"))
    queries = ours["polling_queries"]
    table.hold(f"{queries} upstream queries for polling clients, at most {TIE} of the fewest of another program, {fewest}",
               queries <= TIE * fewest)
