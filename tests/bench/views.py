"""The time from the bytes of a large answer to both views, compared with json-c's parsing alone."""

import subprocess

from measure import PROGRAMS, Table
from parts import ROOT

ROUNDS = 60
MOST = 2.5  # times the time of json-c alone


def measure() -> Table:
    provider, answer = ROOT / "conf/providers/sora.json", ROOT / "tests/answers/sora/succeeded-page.answer"
    printed = subprocess.run([PROGRAMS / "views", provider, answer, str(ROUNDS)], check=True, capture_output=True, text=True).stdout
    alone, views, size = map(float, printed.split())
    table = Table(f"An answer of {size:,.0f} bytes")
    table.row("json-c parses it", f"{alone:.1f} µs")
    table.row("both views from these bytes", f"{views:.1f} µs")
    table.hold(f"{views / alone:.2f} times json-c alone, at most {MOST}", views <= MOST * alone)
    return table
