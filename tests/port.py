"""A TCP port that stays ours while servers that listen on it come and go."""

import contextlib
import socket

BACKLOG = 4096  # connections


class Port:
    """Bound from here to close(), and handed to each server that is to listen on it.

    A port that is found free and released again can be taken by another process before the server binds it. While no
    server runs, the port refuses connections.
    """

    def __init__(self, host: str = "127.0.0.1", number: int = 0):
        with _reusable() as probe:
            # A socket keeps its port when it stops listening only if it was bound to that number and not to 0.
            probe.bind((host, number))
            self.number = probe.getsockname()[1]
            self._socket = _reusable()
            self._socket.bind((host, self.number))

    def open(self) -> int:
        """Listens, and returns the descriptor for the server to inherit; connections wait until it accepts them."""
        self._socket.listen(BACKLOG)
        return self._socket.fileno()

    def refuse(self) -> None:
        """No longer listens, and drops connections that were not accepted. Does nothing when the port is not open."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _reusable() -> socket.socket:
    """Two of these can be bound to one address while neither listens."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
