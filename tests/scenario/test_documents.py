"""The manual pages are well-formed, complete and up to date."""

import json
import os
import re
import subprocess

import pytest

from parts import ROOT
from stack import read_json

BINARY = os.environ.get("TASKPROXY_BINARY") or ROOT / "build/asan/taskproxy"
MAN = ROOT / "conf" / "man"


def program(*arguments) -> str:
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def keys() -> str:
    """The part of taskproxy.json(5) that is generated from the program's tables."""
    return subprocess.run(["awk", "-f", MAN / "keys.awk"], input=program("--print-tables"), capture_output=True, text=True,
                          check=True).stdout


@pytest.fixture
def pages(tmp_path, keys) -> dict:
    """The files of both pages; taskproxy.json(5) is assembled as in the Makefile."""
    head, tail = re.split(r'(?<=^\.\\" BEGIN\n)', (MAN / "taskproxy.json.5.in").read_text(), flags=re.MULTILINE)
    (tmp_path / "taskproxy.json.5").write_text(head + keys + tail)
    return {"taskproxy.8": MAN / "taskproxy.8", "taskproxy.json.5": tmp_path / "taskproxy.json.5"}


def text_of(page) -> str:
    """The page as a terminal without colors shows it."""
    done = subprocess.run(["mandoc", "-Tascii", "-Owidth=200", page], capture_output=True, text=True, check=True)
    return re.sub(".\b", "", done.stdout)


def documented(roff: str) -> dict:
    """{pointer: the text after the name of the key}"""
    found = {}
    for section in re.split(r"^\.SH ", roff, flags=re.MULTILINE)[1:]:
        title, *tables = re.split(r"^\.SS ", section, flags=re.MULTILINE)
        for table in tables:
            pointer, rows = table.split("\n", 1)
            keys = re.findall(r"^\.TP\n\\fB(.*)\\fR: (.*)$", rows, re.MULTILINE)
            found.update({(title.strip(), f"{pointer.rstrip('/')}/{name}"): about for name, about in keys})
    return found


def members(document, pointer=""):
    """(pointer, value) of everything in the configuration; freely named members are NAME, list elements N."""
    for name, value in document.items():
        here = f"{pointer}/{name}"
        yield here, value
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from members(value[0], f"{here}/N")
        elif isinstance(value, dict):
            named = here == "/upstreams"
            yield from members(next(iter(value.values())) if named else value, f"{here}/NAME" if named else here)


def test_manual_pages_are_well_formed(pages):
    for page in pages.values():
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
        assert [line for line in lint.stdout.splitlines() if "missing date" not in line] == []
        groff = subprocess.run(["groff", "-ww", "-z", "-man", "-Tutf8", page], capture_output=True, text=True)
        assert (groff.returncode, groff.stderr) == (0, "")


def test_manual_and_help_list_the_same_options(pages):
    text = text_of(pages["taskproxy.8"]).partition("\nOPTIONS\n")[2].partition("\nSIGNALS\n")[0]
    tags = " ".join(re.findall(r"^ +(-.*)$", text, re.MULTILINE))
    option = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
    assert {*option.findall(tags)} == {*option.findall(program("--help"))} - {"-i"}  # an option of curl


def test_every_environment_variable_is_in_the_manual(pages):
    sources = "".join(file.read_text() for file in (ROOT / "fcgi").rglob("*.c"))
    text = text_of(pages["taskproxy.8"]).partition("\nENVIRONMENT\n")[2]
    read = set(re.findall(r'getenv\("(\w+)"\)', sources))
    assert len(read) > 5 and not [name for name in read if not re.search(rf"\b{name}\b", text)]


def test_every_key_is_documented(make_stack, keys):
    stack = make_stack(daemon=False, nginx=False)
    in_force = {pointer for pointer, _ in members(json.loads(stack.daemon.run("--print-config").stdout))}
    known = {pointer for title, pointer in documented(keys) if title == "KEYS OF THE CONFIGURATION"}
    assert in_force == {pointer for pointer in known if not pointer.startswith("/redis/tls/")}  # "tls" is null


def test_shipped_files_have_no_undocumented_keys(keys):
    known = documented(keys)
    for pointer, _ in members(read_json(ROOT / "conf" / "taskproxy.json")):
        assert ("KEYS OF THE CONFIGURATION", pointer) in known
    for file in (ROOT / "conf" / "providers").glob("*.json"):
        for key in read_json(file):
            assert ("KEYS OF A PROVIDER FILE", f"/{key}") in known, file


def test_example_shows_the_actual_defaults(keys):
    known = documented(keys)
    for pointer, value in members(read_json(ROOT / "conf" / "taskproxy.json")):
        fallback = re.search(r"; default (.*)$", known["KEYS OF THE CONFIGURATION", pointer])
        if fallback and not isinstance(value, dict) and pointer != "/redis/address":  # or "sentinels"
            assert json.loads(fallback[1].replace("\\-", "-")) == value, pointer


def test_documented_bounds_are_enforced(make_stack, keys):
    stack = make_stack(daemon=False, nginx=False)
    about = documented(keys)["KEYS OF THE CONFIGURATION", "/upstreams/NAME/timeout"]
    least, most = re.search(r"from (\S+) to (\S+);", about).groups()
    for timeout, good in ((least, True), (most, True), ("9ms", False), ("301s", False)):
        stack.configure(upstreams={"main": {"timeout": timeout}})
        done = stack.daemon.run("--check-config")
        assert (done.returncode == 0) == good, timeout
        assert good or f'must be from "{least}" to "{most}"' in done.stderr


def test_every_key_has_a_help_text(keys):
    assert {title for title, _ in documented(keys)} == {
        "KEYS OF THE CONFIGURATION", "KEYS OF THE TEAMS FILE", "KEYS OF A PROVIDER FILE",
    }
    helps = re.findall(r"^\.TP\n.*\n\\&(.*)$", keys, re.MULTILINE)
    assert len(helps) == keys.count(".TP\n") > 80 and all(helps)
    for pointer in set(re.findall(r", see (/\S*[\w])", keys)):
        assert f".SS {pointer}\n" in keys
