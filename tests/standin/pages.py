"""All API pages that the stand-in simulates."""

from urllib.parse import unquote, urlsplit

import recorded
from players import Sora, Video

PLAYERS = (
    Sora(),
    Video(r"/v1/videos/([^/]+)/content", keyed=True),
    Video(r"/vg-assets/assets/([^/]+)/.*", keyed=False),
    *recorded.players(),
)


def find(target: str):
    """The player for this path and the task id, or None."""
    parts = urlsplit(target)
    for player in PLAYERS:
        if task_id := player.find(unquote(parts.path), parts.query):
            return player, task_id
    return None
