"""A relay in front of Redis, which can hold back the replies to commands while messages of the subscription pass."""

import contextlib
import os
import socket
import threading


class Relay:
    """Listens on a UNIX socket and forwards each connection to another one."""

    def __init__(self, path: str, target: str):
        self._target, self._open = target, []
        self._passing = threading.Event()
        self._passing.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        os.chmod(path, 0o666)  # workers are not root
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._open += [client, server]
                subscribed = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, subscribed), daemon=True).start()
                threading.Thread(target=self._reply, args=(server, client, subscribed), daemon=True).start()

    def _forward(self, client, server, subscribed) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if b"SUBSCRIBE" in data:
                    subscribed.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _reply(self, server, client, subscribed) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not subscribed.is_set():
                    self._passing.wait()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def holding(self):
        """While the context is active, replies to commands are held back."""
        self._passing.clear()
        try:
            yield
        finally:
            self._passing.set()

    def close(self) -> None:
        self._passing.set()
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
