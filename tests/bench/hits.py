"""Answers from memory, beside a FastCGI program on the same edge that does nothing but answer."""

from dataclasses import dataclass, field
from statistics import median

from measure import (
    KIB, Floor, Table, bench_stack, cgi_answer, cpu_us, nginx_worker, server, settle, socket_folder, worker, wrk,
)
from parts import free_port

LEAST_RATIO = 0.90
OTHERS_EVERY = 4  # rounds

CACHE = """
    fastcgi_pass floor;
    fastcgi_cache bench;
    fastcgi_cache_key $request_uri;
    fastcgi_cache_valid 200 1h;
"""
TASK = "/sora/v1/videos/bench"


def site(folder, floor: int, hit: int, same: int, cached: int) -> str:
    """A server on each of the ports; what they pass requests on to is the only difference."""
    return f"""
        fastcgi_cache_path cache keys_zone=bench:1m;
        upstream floor {{ hash $taskproxy_task consistent; server unix:{folder}/floor; keepalive 1024; }}
        upstream same {{ hash $taskproxy_task consistent; server unix:{folder}/same; keepalive 1024; }}
        {server(floor, "fastcgi_pass floor;")}
        {server(hit)}
        {server(same, "fastcgi_pass same;")}
        {server(cached, CACHE)}
    """


@dataclass
class Subject:
    """One who answers, and what was seen of him in each round."""

    name: str
    port: int
    size: int
    pid: int | None = None  # of the program behind nginx
    rates: dict = field(default_factory=dict)  # by round
    program_us: list = field(default_factory=list)  # CPU per request
    nginx_us: list = field(default_factory=list)

    def measure(self, number: int, nginx: int) -> None:
        settle()
        pids = (nginx, self.pid or nginx)
        before = [cpu_us(pid) for pid in pids]
        requests, seconds = wrk(f"http://127.0.0.1:{self.port}{TASK}")
        nginx_us, program_us = ((cpu_us(pid) - start) / requests for pid, start in zip(pids, before))
        self.rates[number] = requests / seconds
        self.nginx_us.append(nginx_us)
        self.program_us.append(program_us if self.pid else 0)

    def ratio(self, other) -> float:
        """Of the rates, round by round."""
        return median(rate / other.rates[number] for number, rate in self.rates.items())


def measure(rounds: int) -> Table:
    """A second of each, there and back again, so what else the machine does meanwhile falls on all alike; those that
    stand in the table for scale only come less often."""
    ports = [free_port() for _ in range(4)]
    with socket_folder() as folder, bench_stack(site(folder, *ports)) as stack:
        stack.standin.switch(state="SUCCESS")
        stack.get(TASK)
        answer = stack.ask_worker(TASK)
        size, same_answer = len(answer.body), cgi_answer(answer.headers, answer.body)
        with Floor(folder / "floor", KIB) as floor, Floor(folder / "same", same_answer) as same:
            pair = [Subject("the floor", ports[0], 1024, floor.pid), Subject("a hit", ports[1], size, worker(stack))]
            others = [
                Subject("the floor, with the very answer of the hit", ports[2], size, same.pid),
                Subject("nginx's fastcgi_cache before the floor", ports[3], 1024),
            ]
            nginx = nginx_worker(stack)
            for number in range(rounds):
                subjects = pair + others if number % OTHERS_EVERY == 0 else pair
                for subject in subjects if number % 2 else reversed(subjects):
                    subject.measure(number, nginx)
    return tell(rounds, *pair, *others)


def tell(rounds: int, floor: Subject, hit: Subject, *others: Subject) -> Table:
    table = Table(f"Answers from memory, through nginx; medians of {rounds} seconds each, in turns",
                  "bytes", "requests/s", "ratio", "CPU µs/request", "nginx's")
    for subject in (floor, hit, *others):
        table.row(subject.name, str(subject.size), f"{median(subject.rates.values()):,.0f}", f"{subject.ratio(floor):.2f}",
                  f"{median(subject.program_us):.1f}", f"{median(subject.nginx_us):.1f}")
    table.hold(f"a hit at {hit.ratio(floor):.2f} of the floor's requests/s, at least {LEAST_RATIO:.2f}",
               hit.ratio(floor) >= LEAST_RATIO)
    return table
