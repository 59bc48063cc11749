"""From the bytes of the page's answer to both views, beside json-c's parsing of them alone."""

import subprocess

from measure import PROGRAMS, Table
from parts import ROOT

ROUNDS = 60
MOST = 2.5  # times what json-c needs alone


def measure() -> Table:
    provider, answer = ROOT / "conf/providers/sora.json", ROOT / "tests/answers/sora/succeeded-page.answer"
    printed = subprocess.run([PROGRAMS / "views", provider, answer, str(ROUNDS)], check=True, capture_output=True, text=True).stdout
    alone, views, size = map(float, printed.split())
    table = Table(f"An answer of {size:,.0f} bytes")
    table.row("json-c parses it", f"{alone:.1f} µs")
    table.row("from bytes to both views", f"{views:.1f} µs")
    table.hold(f"{views / alone:.2f} times json-c alone, to hold: at most {MOST}", views <= MOST * alone)
    return table
