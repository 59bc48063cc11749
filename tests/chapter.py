"""Reads the chapter conf/production.md: its sections and the commands in them."""

import re
from dataclasses import dataclass

from parts import ROOT

CHAPTER = ROOT / "conf" / "production.md"
SECOND_HOST = "# on the second host\n"
HERE_DOCUMENT = re.compile(r"^.*?(\S+) <<('?)END\2\n(.*?\n)END$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """Commands that are executed together, as root, in its home directory."""

    section: str
    host: int  # 0: the first one
    commands: str

    def files(self) -> dict:
        """The files that the block writes from here-documents, as they stand in the chapter."""
        return {name: text for name, _, text in HERE_DOCUMENT.findall(self.commands)}


def blocks() -> list[Block]:
    found = []
    for part in re.split(r"^## ", CHAPTER.read_text(), flags=re.MULTILINE)[1:]:
        section, text = part.split("\n", 1)
        for commands in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(Block(section, int(commands.startswith(SECOND_HOST)), commands))
    return found
