"""The real server in a thread of this process, and requests as bytes."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from poise.web.mirror import MirrorRefresher
from poise.web.playground import Playground
from poise.web.server import Server, open_socket


class Running:
    """A server in a thread, which ends with the block.

    Args:
        root: the runs directory.
        playground: the playground; None without it.
        mirror: what keeps the directory up to date; None without it.
    """

    def __init__(self, root: Path, playground: Playground | None = None, mirror: MirrorRefresher | None = None) -> None:
        listener = open_socket(0)
        self.port = listener.getsockname()[1]
        self.server = Server(root, listener, playground, mirror)
        self.token = self.server.address.partition("token=")[2]
        self.thread = threading.Thread(target=self.server.serve_until_stopped, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *raised: object) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()

    def request(self, address: str = "/api/overview", more: str = "") -> bytes:
        head = f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: poise-{self.port}={self.token}\r\n"
        return f"{head}{more}\r\n".encode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def status(self) -> int:
        """The status of the overview."""
        with self.connect() as client:
            client.sendall(self.request())
            return int(client.recv(65536).split()[1])


def answer(client: socket.socket) -> bytes:
    """All that the server sends before it closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            received += piece
    return received
