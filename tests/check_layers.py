#!/usr/bin/python3
"""Checks the architecture of fcgi/: silent when all is as it should be, else one line for each thing that is not.

- Each third-party library is included in exactly one .c file, and in no header of ours.
- Includes go down by layers; inside a layer they may go anywhere but round in a circle.
- No file has over 500 lines, every header has an include guard, and none does nothing but include others.
"""

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "fcgi"
MAX_LINES = 500

# What each layer may know: itself and those below.
LAYERS = [
    "util buf log said sheet stats scan json files vault address plain logline flood version target sse"
    " screen trace watched listing",
    "schema schema_print manual pattern provider conf route problem redact headers expiry view unified"
    " snapshot cache records redis_notes memory metrics tally prefer answer standing events conf_check"
    " hook secret keypool upstream_stats teams link access progress",
    "fcgi acceptor redis http upstream sockets refusal filewatch sandbox notify",
    "shared accounts owners verdict fetch fetches watch hints lookup wish stream request health overview"
    " status panel try sign reply follow",
    "worker elders upgrade crew report master main",
]
LAYER_OF = {module: layer for layer, modules in enumerate(LAYERS) for module in modules.split()}

ONE_FILE_LIBRARIES = ("fcgiapp.h", "curl/", "hiredis/", "seccomp.h")

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def main() -> int:
    texts = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.[ch]"))}
    problems = [*libraries(texts), *layers(texts), *circles(texts), *lengths(texts), *headers(texts)]
    print("".join(f"fcgi/{problem}\n" for problem in problems), end="")
    return 1 if problems else 0


def includes(text: str, kind: str) -> list[str]:
    return [name for quote, name in INCLUDE.findall(text) if quote == kind]


def module(name: str) -> str:
    return name.rsplit(".", 1)[0]


def libraries(texts):
    for library in ONE_FILE_LIBRARIES:
        users = [name for name, text in texts.items() if any(i.startswith(library) for i in includes(text, "<"))]
        if [name for name in users if name.endswith(".h")] or len(users) != 1:
            yield f": {library} is included by {', '.join(users) or 'no file'}; it should be one .c file"


def layers(texts):
    for unknown in sorted({module(name) for name in texts} - LAYER_OF.keys()):
        yield f"{unknown}: stands in no layer of {Path(__file__).name}"
    for name, text in texts.items():
        for included in includes(text, '"') if module(name) in LAYER_OF else ():
            if LAYER_OF.get(module(included), 0) > LAYER_OF[module(name)]:
                yield f"{name}: includes {included}, which stands in a higher layer"


def circles(texts):
    """Modules (a .c and its .h are one) that include each other, directly or over others."""
    knows = {}
    for name, text in texts.items():
        knows.setdefault(module(name), set()).update(module(i) for i in includes(text, '"'))
    for start in knows:
        knows[start].discard(start)
    for start in sorted(knows):
        for first in sorted(knows[start]):
            way = path_to(start, first, knows)
            if way and start == min(way):
                yield f"{start}.c: a circle of includes: {' -> '.join([start, *way])}"


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


def lengths(texts):
    for name, text in texts.items():
        lines = text.count("\n")
        if lines > MAX_LINES:
            yield f"{name}: has {lines} lines, over {MAX_LINES}: it holds two subjects"


def headers(texts):
    for name, text in texts.items():
        if not name.endswith(".h"):
            continue
        guard = name.upper().replace(".", "_")
        code = [line for line in COMMENT.sub("", text).splitlines() if line.strip()]
        if code[:2] != [f"#ifndef {guard}", f"#define {guard}"] or code[-1] != "#endif":
            yield f"{name}: has no include guard {guard}"
        elif not [line for line in code[2:-1] if not line.startswith("#include")]:
            yield f"{name}: only includes others"


if __name__ == "__main__":
    sys.exit(main())
