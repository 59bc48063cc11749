#!/usr/bin/python3
"""Checks the architecture of fcgi/: prints one line for each violation.

- The directories are rooms, listed here from top to bottom. A file includes from its own room and from rooms below it.
- Each third-party library is included by exactly one .c file and by no header of ours.
- There are no circular includes.
- Every header has an include guard and declares something.
"""

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "fcgi"

ROOMS = ["", "cli", "server", "request", "fetch", "upstream", "access", "task", "net", "config", "lib"]  # "": main.c

ONE_FILE_LIBRARIES = ("fcgiapp.h", "curl/", "hiredis/", "seccomp.h")

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def main() -> int:
    texts = {str(path.relative_to(FOLDER)): path.read_text() for path in sorted(FOLDER.rglob("*.[ch]"))}
    problems = [*rooms(texts), *libraries(texts), *circles(texts), *headers(texts)]
    print("".join(f"fcgi/{problem}\n" for problem in problems), end="")
    return 1 if problems else 0


def includes(text: str, kind: str) -> list[str]:
    return [name for quote, name in INCLUDE.findall(text) if quote == kind]


def room(name: str) -> str:
    return name.rpartition("/")[0]


def module(name: str) -> str:
    return name.rsplit(".", 1)[0]


def rooms(texts):
    for name, text in texts.items():
        if room(name) not in ROOMS or (room(name) == "" and name != "main.c"):
            yield f"{name}: is not in one of the rooms {' '.join(ROOMS[1:])}"
            continue
        for included in includes(text, '"'):
            if included not in texts:
                yield f"{name}: includes {included}, which is not a path below fcgi/"
            elif room(included) in ROOMS[: ROOMS.index(room(name))]:
                yield f"{name}: includes {included}, which is in a higher room"


def libraries(texts):
    for library in ONE_FILE_LIBRARIES:
        users = [name for name, text in texts.items() if any(i.startswith(library) for i in includes(text, "<"))]
        if [name for name in users if name.endswith(".h")] or len(users) != 1:
            yield f": {library} is included by {', '.join(users) or 'no file'}; it must be exactly one .c file"


def circles(texts):
    """Modules (a .c file and its header are one) that include each other, directly or through others."""
    knows = {}
    for name, text in texts.items():
        knows.setdefault(module(name), set()).update(module(i) for i in includes(text, '"'))
    for start in knows:
        knows[start].discard(start)
    for start in sorted(knows):
        for first in sorted(knows[start]):
            way = path_to(start, first, knows)
            if way and start == min(way):
                yield f"{start}.c: circular includes: {' -> '.join([start, *way])}"


def path_to(goal, start, knows):
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == goal:
            return way
        for following in sorted(knows.get(way[-1], ())):
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None


def headers(texts):
    for name, text in texts.items():
        if not name.endswith(".h"):
            continue
        guard = name.rpartition("/")[2].upper().replace(".", "_")
        code = [line for line in COMMENT.sub("", text).splitlines() if line.strip()]
        if code[:2] != [f"#ifndef {guard}", f"#define {guard}"] or code[-1] != "#endif":
            yield f"{name}: has no include guard {guard}"
        elif not [line for line in code[2:-1] if not line.startswith("#include")]:
            yield f"{name}: only includes others"


if __name__ == "__main__":
    sys.exit(main())
