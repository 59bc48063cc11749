"""The figures that documents quote: written by a measurement, a JSON file each, and read by publish.py."""

import json
import os

from measure import ROOT

MEASURED = ROOT / "build" / "bench" / "figures"


def save(name: str, figures: dict) -> None:
    """Writes the figures, with the number of cores on which they were measured."""
    MEASURED.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"cores": os.cpu_count(), **figures}, indent=2)
    (MEASURED / f"{name}.json").write_text(text + "\n")


def quick() -> bool:
    """Whether BENCH_QUICK asks for small measurements, which only show that everything works."""
    return bool(os.environ.get("BENCH_QUICK"))
