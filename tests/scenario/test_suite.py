"""The programs that run the tests."""

import run_tests


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
