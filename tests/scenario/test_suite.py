"""The programs that run the tests."""

import os
import subprocess

import run_tests
import soak


def test_unit_programs_without_a_source_do_not_run(tmp_path, monkeypatch):
    """tests/in-debian keeps build/, in which a program of an earlier version may be left over."""
    for folder, file in (("tests/unit", "test_new.c"), ("build/asan/unit", "test_new"), ("build/asan/unit", "test_old")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).touch()
    commands = []
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.setattr(run_tests, "counted", commands.append)
    run_tests.unit()
    assert [command[1:] for command in commands] == [["build/asan/unit/test_new"]]


def test_programs_are_executable():
    """make test-hard runs tests/chaos.py, for example."""
    programs = [path for path in (run_tests.ROOT / "tests").iterdir() if path.is_file() and path.read_bytes().startswith(b"#!")]
    assert run_tests.ROOT / "tests" / "chaos.py" in programs
    assert [path.name for path in programs if not os.access(path, os.X_OK)] == []


def test_each_fuzzer_has_a_corpus(tmp_path):
    fuzz = run_tests.ROOT / "tests" / "fuzz"
    subprocess.run([fuzz / "make_corpus.py", tmp_path], check=True)
    filled = {folder.name for folder in tmp_path.iterdir() if any(folder.iterdir())}
    assert filled == {source.stem for source in fuzz.glob("fuzz_*.c")}


def rests(mib=lambda section: 5.0, descriptors=lambda section: 90, pid=lambda section: 1, peak=lambda section: 50):
    return [{"worker 0": soak.Usage(pid(section), mib(section), 20, peak(section)),
             soak.TOGETHER: soak.Usage(0, 9.0, descriptors(section))} for section in range(soak.SECTIONS)]


def test_soak_finds_growth():
    assert len(soak.growth(rests(mib=lambda section: 5 + section / 2))) == 1
    assert len(soak.growth(rests(descriptors=lambda section: 90 + 2 * section))) == 1
    assert len(soak.growth(rests(pid=lambda section: section // 15))) == 1


def test_soak_tolerates_what_does_not_last():
    """Caches that fill, reloads, and what a busy machine needs at times."""
    assert soak.growth(rests(
        mib=lambda section: min(2 + section, 6) + 3 * (section == 14), descriptors=lambda section: 90 + 40 * (section == 13),
        pid=lambda section: min(section, 3))) == []


def test_soak_tolerates_memory_for_more_requests_at_a_time():
    busy = rests(mib=lambda section: 5 + 5 * (section > 8), peak=lambda section: 50 + 80 * (section > 8))
    assert soak.growth(busy) == []
