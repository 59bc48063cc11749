"""Hits in the access modes "teams" and "open"; and the time to refuse a token, compared with accepting one."""

import contextlib
import subprocess
import sys
from statistics import median

from measure import PROGRAMS, ROOT, Table, bench_stack, cpu_us, settle, worker, wrk

sys.path.insert(0, str(ROOT / "tests" / "scenario"))
from teaming import bearer, link, teams_stack

LEAST_RATIO = 0.95
TRIES = 100_000
PATH = "/v1/tasks/sora/hit"


def measure(rounds: int) -> Table:
    """Measures each for one second per round, in alternating order, as with hits."""
    with contextlib.ExitStack() as stacks:
        make = lambda **settings: stacks.enter_context(bench_stack(port=0, redis=False, **settings))
        is_open, teams = make(), teams_stack(make)
        token = bearer("web")["Authorization"]
        subjects = {
            "mode open": (is_open, PATH, ()), "with a token": (teams, PATH, ("-H", f"Authorization: {token}")),
            "with a signed link": (teams, f"{PATH}?{link('sora/hit')}", ()),
        }
        rates, cpu = {name: [] for name in subjects}, {name: [] for name in subjects}
        for stack in (is_open, teams):
            stack.standin.switch(state="SUCCESS")
            stack.get(PATH, {"Authorization": token})
        for number in range(rounds):
            for name in list(subjects)[::1 if number % 2 else -1]:
                stack, path, more = subjects[name]
                settle()
                before = cpu_us(worker(stack))
                requests, seconds = wrk(stack.nginx.url + path, *more)
                rates[name].append(requests / seconds)
                cpu[name].append((cpu_us(worker(stack)) - before) / requests)
    return tell(rounds, rates, cpu)


def tell(rounds: int, rates: dict, cpu: dict) -> Table:
    table = Table(f"Answers from memory to teams, through nginx; medians of {rounds} alternating seconds each",
                  "requests/s", "ratio", "CPU µs/request")
    alone = sum(rates["mode open"])
    for name, each in rates.items():
        table.row(name, f"{median(each):,.0f}", f"{sum(each) / alone:.2f}", f"{median(cpu[name]):.1f}")
    ratio = sum(rates["with a token"]) / alone
    table.hold(f"with a token at {ratio:.2f} of the requests/s in mode open, at least {LEAST_RATIO}", ratio >= LEAST_RATIO)
    printed = subprocess.run([PROGRAMS / "tokens", str(TRIES)], check=True, capture_output=True, text=True).stdout
    *medians, noise = map(int, printed.split())
    apart = max(medians) - min(medians)
    table.hold(f"{TRIES:,} checks of each of two valid and two invalid tokens: medians of {', '.join(map(str, medians))} ns, "
               f"{apart} ns apart, less than the noise of {noise} ns", apart < noise)
    return table
