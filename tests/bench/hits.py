"""Cache hits, compared with a minimal FastCGI program on the same server code."""

import json
from dataclasses import dataclass, field
from statistics import median

from measure import (
    KIB, Floor, Table, bench_stack, cgi_answer, cpu_us, free_port, nginx_folder, nginx_worker, server, settle, worker, wrk,
)

BODY = 1024  # bytes of the floor's answer
LEAST_RATIO = 0.90       # of a program that only sends 1 KiB
LEAST_SAME_RATIO = 0.95  # of a program that only sends the same answer as the large task
LEAST_REPEATED_RATIO = 1.05  # of hits, for answers that nginx repeats itself
OTHERS_EVERY = 4  # rounds

CACHE = """
    fastcgi_pass floor;
    fastcgi_cache bench;
    fastcgi_cache_key $request_uri;
    fastcgi_cache_valid 200 1h;
    sendfile off; # as in taskproxy-cache.conf
"""
PAGE = "/sora/v1/videos/page"   # a finished task with the documentation's example (large)
SMALL = "/sora/v1/videos/small"  # one whose view is as long as the floor's answer


def site(folder, floor: int, hit: int, same: int, cached: int, repeated: int) -> str:
    """A server on each of the ports; they differ only in the destination of requests."""
    return f"""
        fastcgi_cache_path cache keys_zone=bench:1m;
        upstream floor {{ hash $taskproxy_task consistent; server unix:{folder}/floor; keepalive 1024; }}
        upstream same {{ hash $taskproxy_task consistent; server unix:{folder}/same; keepalive 1024; }}
        {server(floor, "fastcgi_pass floor;")}
        {server(hit)}
        {server(same, "fastcgi_pass same;")}
        {server(cached, CACHE)}
        {server(repeated, cached=True)}
    """


@dataclass
class Subject:
    """One program that answers, and its results in each round."""

    name: str
    port: int
    path: str
    size: int
    pid: int | None = None  # of the program behind nginx
    rates: dict = field(default_factory=dict)  # by round
    program_us: list = field(default_factory=list)  # CPU per request
    nginx_us: list = field(default_factory=list)

    def measure(self, number: int, nginx: int) -> None:
        settle()
        pids = (nginx, self.pid or nginx)
        before = [cpu_us(pid) for pid in pids]
        requests, seconds = wrk(f"http://127.0.0.1:{self.port}{self.path}")
        nginx_us, program_us = ((cpu_us(pid) - start) / requests for pid, start in zip(pids, before))
        self.rates[number] = requests / seconds
        self.nginx_us.append(nginx_us)
        self.program_us.append(program_us if self.pid else 0)

    def ratio(self, other) -> float:
        """The ratio of the numbers of answers in the common rounds, each of one second."""
        return sum(self.rates.values()) / sum(other.rates[number] for number in self.rates)


def small_body() -> str:
    """An upstream answer whose native view has BODY bytes."""
    def body(prompt: str) -> str:
        data = {"task_id": "small", "status": "SUCCESS", "data": {"prompt": prompt}}
        return json.dumps({"code": "success", "data": data}, separators=(",", ":"))
    return body("x" * (BODY - len(body(""))))


def measure(rounds: int) -> Table:
    """Measures each for one second per round, in alternating order, so that other load affects all alike; nginx's cache, which
    is only shown for comparison, in fewer rounds."""
    ports = [free_port() for _ in range(5)]
    with nginx_folder() as folder, bench_stack(site(folder, *ports), config={"nginx_cache": "10s"}) as stack:
        stack.standin.switch(state="SUCCESS")
        stack.standin.switch("small", raw=small_body())
        for path in (PAGE, SMALL):
            stack.get(path)
        page, small = stack.ask_worker(PAGE), stack.ask_worker(SMALL)
        assert len(small.body) == BODY
        same_answer = cgi_answer(page.headers, page.body)
        with Floor(folder / "floor", KIB) as floor, Floor(folder / "same", same_answer) as same:
            floors = Subject("the floor", ports[0], SMALL, BODY, floor.pid)
            hit = Subject("a hit", ports[1], SMALL, BODY, worker(stack))
            same_floor = Subject("the floor, with the large task's answer", ports[2], PAGE, len(page.body), same.pid)
            page_hit = Subject("a hit, the large task", ports[1], PAGE, len(page.body), worker(stack))
            cache = Subject("nginx's fastcgi_cache in front of the floor", ports[3], SMALL, BODY)
            repeated = Subject("a hit that nginx repeats (nginx_cache)", ports[4], SMALL, BODY, worker(stack))
            nginx = nginx_worker(stack)
            for number in range(rounds):
                subjects = [floors, hit, same_floor, page_hit, repeated] + [cache] * (number % OTHERS_EVERY == 0)
                for subject in subjects if number % 2 else reversed(subjects):
                    subject.measure(number, nginx)
    return tell(rounds, floors, hit, same_floor, page_hit, cache, repeated)


def tell(rounds: int, floor: Subject, hit: Subject, same_floor: Subject, page_hit: Subject, cache: Subject,
         repeated: Subject) -> Table:
    table = Table(f"Answers from memory, through nginx; medians of {rounds} alternating seconds each",
                  "bytes", "requests/s", "ratio", "CPU µs/request", "nginx CPU µs")
    for subject in (floor, hit, same_floor, page_hit, cache, repeated):
        table.row(subject.name, str(subject.size), f"{median(subject.rates.values()):,.0f}", f"{subject.ratio(floor):.2f}",
                  f"{median(subject.program_us):.1f}", f"{median(subject.nginx_us):.1f}")
    same_ratio = page_hit.ratio(same_floor)
    for name, ratio in (("a hit", hit.ratio(floor)), ("a hit of the large task", page_hit.ratio(floor))):
        table.hold(f"{name} at {ratio:.2f} of the floor's requests/s, at least {LEAST_RATIO:.2f}", ratio >= LEAST_RATIO)
    table.hold(f"a hit of the large task at {same_ratio:.2f} of a floor with the same answer, at least {LEAST_SAME_RATIO:.2f}",
               same_ratio >= LEAST_SAME_RATIO)
    repeated_ratio = repeated.ratio(hit)
    table.hold(f"a hit that nginx repeats at {repeated_ratio:.2f} of a hit's requests/s, at least {LEAST_REPEATED_RATIO:.2f}",
               repeated_ratio >= LEAST_REPEATED_RATIO)
    return table
