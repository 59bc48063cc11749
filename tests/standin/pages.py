"""All pages that the stand-in plays."""

from urllib.parse import unquote, urlsplit

import recorded
from players import Sora

PLAYERS = (Sora(), *recorded.players())


def find(target: str):
    """The player of what is asked for and the id of the task, or None."""
    parts = urlsplit(target)
    for player in PLAYERS:
        if task_id := player.find(unquote(parts.path), parts.query):
            return player, task_id
    return None
