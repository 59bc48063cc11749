"""The figures in the documents are those of the files in conf/figures/, which `make bench` has measured."""

import json
import re
import sys

from parts import ROOT
from stack import read_json

sys.path.append(str(ROOT / "tests" / "bench"))
import capacity
import publish

SVG_MAX = 40 * 1024


def test_documents_have_what_is_computed_from_the_figures():
    for document in publish.DOCUMENTS:
        text = document.read_text()
        assert "<!-- FIGURES" in text
        assert publish.filled(text) == text


def test_capacity_follows_the_figures(monkeypatch, tmp_path):
    figures = json.loads((capacity.FIGURES / "growth.json").read_text())
    before = capacity.table()
    figures["tasks"]["redis_kib"] *= 3
    (tmp_path / "growth.json").write_text(json.dumps(figures))
    monkeypatch.setattr(capacity, "FIGURES", tmp_path)
    changed = [line.split(" |")[0] for line, old in zip(capacity.table().splitlines(), before.splitlines()) if line != old]
    assert changed == ["| Redis, for 24 h (`terminal_ttl`)"]


def test_capacity_uses_the_intervals_of_the_provider_and_the_program():
    poll = read_json(ROOT / "conf" / "providers" / "sora.json")["poll"]
    growth = re.search(r"POLL_GROWTH = (\d+)", (ROOT / "fcgi" / "task" / "snapshot.c").read_text())[1]
    assert (poll["min"], poll["max"], growth) == (f"{capacity.POLL_MIN}s", f"{capacity.POLL_MAX}s", str(capacity.POLL_GROWTH))


def test_pictures_are_small_and_name_the_machine():
    for name in publish.PICTURES:
        picture = (capacity.FIGURES / f"{name}.svg").read_text()
        assert len(picture) < SVG_MAX
        assert "cores" in picture
