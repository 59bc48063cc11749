#!/usr/bin/python3
"""Puts the figures of `make bench BENCH="peers growth"` into the documents: conf/figures/, and the parts of README.md and
conf/production.md between <!-- FIGURES name --> and <!-- END -->. Without new figures, it only writes these parts again."""

import json
import re
import shutil
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import capacity
from parts import ROOT

MEASURED = ROOT / "build" / "bench" / "figures"
PICTURES = ("connections", "held", "clients")
DOCUMENTS = (ROOT / "README.md", ROOT / "conf" / "production.md")
HEADS = ("program", "hits/s", "of OpenResty's", "CPU µs per hit", "herd p99 ms", "herd queries", "polling queries",
         "MiB Redis", "MiB processes", "MiB files", "cannot do")


def peers() -> str:
    """The table of programs, as Markdown."""
    figures = json.loads((capacity.FIGURES / "peers.json").read_text())
    lines = [HEADS, ["---", *["---:"] * (len(HEADS) - 2), "---"]]
    for one in figures["programs"].values():
        ratio = f"{one['ratio']:.2f} ({one['least_ratio']:.2f} to {one['most_ratio']:.2f})"
        line = [one["title"], f"{one['hits']:,}", ratio, f"{one['cpu_us']:.0f}"]
        if "herd_p99_ms" in one:
            line += [f"{one['herd_p99_ms']:,.0f}", f"{one['herd_queries']}", f"{one['polling_queries']}"]
            line += [f"{max(0, one[name]):,.0f}" for name in ("redis_mib", "process_mib", "file_mib")]
        line += [""] * (len(HEADS) - 1 - len(line))
        lines.append([*line, one["lacks"] or "–"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\nMemory is the growth after {figures['results']:,} results.\n"


def pictures() -> str:
    titles = {"connections": "requests/s over connections", "held": "p99 of hits over held requests",
              "clients": "upstream queries over polling clients"}
    return "".join(f"![{titles[name]}](conf/figures/{name}.svg)\n" for name in PICTURES)


PARTS = {"peers": peers, "pictures": pictures, "capacity": lambda: f"{capacity.sentences()}\n{capacity.table()}"}


def filled(text: str) -> str:
    """The document with the figures at hand."""
    return re.sub(r"(<!-- FIGURES (\w+) -->\n).*?(<!-- END -->)", lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text,
                  flags=re.DOTALL)


def main() -> None:
    capacity.FIGURES.mkdir(exist_ok=True)
    for file in ("peers.json", "growth.json", *(f"{name}.svg" for name in PICTURES)):
        if (MEASURED / file).exists():
            shutil.copy(MEASURED / file, capacity.FIGURES)
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))


if __name__ == "__main__":
    main()
