"""A TCP port that stays reserved while servers that listen on it are started and stopped."""

import contextlib
import socket

BACKLOG = 4096  # connections


class Port:
    """Bound until close(), and inherited by each server that listens on it.

    A port that is found free and then released can be taken by another process before the server binds it. While no
    server runs, the port refuses connections.
    """

    def __init__(self, host: str = "127.0.0.1", number: int = 0, make_socket=socket.socket):
        """make_socket() makes sockets, which may be of another network."""
        with _reusable(make_socket) as probe:
            # A socket keeps its port when it stops listening only if it was bound to that number and not to 0.
            probe.bind((host, number))
            self.number = probe.getsockname()[1]
            self._socket = _reusable(make_socket)
            self._socket.bind((host, self.number))

    def open(self) -> int:
        """Listens, and returns the descriptor for the server to inherit; connections wait until it accepts them."""
        self._socket.listen(BACKLOG)
        return self._socket.fileno()

    def refuse(self) -> None:
        """Stops listening, and drops connections that were not accepted. Does nothing if the port is not open."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _reusable(make_socket) -> socket.socket:
    """A socket with SO_REUSEADDR: two can be bound to one address while neither listens."""
    made = make_socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
