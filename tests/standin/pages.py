"""All API pages that the stand-in simulates."""

from urllib.parse import unquote, urlsplit

import credentials
import recorded
from players import Sora, Video

PLAYERS = (
    Sora(),
    Video(r"/v1/videos/([^/]+)/content", credentials.scheme("Bearer")),  # OpenAI
    Video(r"/v1beta/files/([^/]+):download", credentials.header("x-goog-api-key")),  # Google
    Video(r"/vg-assets/assets/([^/]+)/.*"),  # sora
    Video(r"/files/zebra/([^/]+)"),  # fal
    Video(r"/attachments/([^/]+)/.*"),  # midjourney
    *recorded.players(),
)


def find(target: str):
    """The player for this path and the task id, or None."""
    parts = urlsplit(target)
    for player in PLAYERS:
        if task_id := player.find(unquote(parts.path), parts.query):
            return player, task_id
    return None
