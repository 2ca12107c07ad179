"""The server process: a socket on the loopback interface, uvicorn, and limits for slow and greedy clients."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from poise.errors import RecipeError
from poise.web.app import create_app
from poise.web.mirror import MirrorRefresher
from poise.web.playground import Playground
from poise.web.routes import Pages
from poise.web.run_index import RunIndex
from poise.web.static import load_assets

HOST = "127.0.0.1"
DEFAULT_PORT = 8765

MAX_CONNECTIONS = 64
HEADER_SECONDS = 10.0
"""The seconds within which the head of a request must have arrived, counted from its connection or its first byte."""

WRITE_SECONDS = 20.0
"""The seconds that a client may leave what was sent to it unread."""

MAX_HEAD = 16 * 1024
"""The largest head of a request, in bytes."""


def open_socket(port: int | None) -> socket.socket:
    """A socket that listens on the loopback interface.

    Args:
        port: the port; 0 for any free one, None for the default one, or any if that is in use.

    Raises:
        RecipeError: the port can't be used.
    """
    try:
        return _bind(DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _bind(0)
        what = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror or error}"
        cure = "choose another one, or 0 for any that is free"
        raise RecipeError(what, where=f"--port {port}", cure=cure) from None


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(MAX_CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with a limit of connections, and time limits for the head of a request and for reading an answer."""

    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection above the limit; otherwise wait for a head."""
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
            self.flow = None  # type: ignore[assignment]
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        for clock in (self._head, self._stuck):
            if clock is not None:
                clock.cancel()
        if self.flow is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop waiting for the head when it is complete; a byte now and then does not prolong the time for it."""
        before = self.cycle
        if before is not None and before.response_complete and self._head is None:
            self._expect_head()
        super().data_received(data)
        if self.cycle is not before and self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        """The client does not read: wait for it, but not for long."""
        super().pause_writing()
        self._stuck = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(HEADER_SECONDS, self.transport.abort)


class Server(uvicorn.Server):
    """A server of one directory.

    Args:
        root: the directory.
        listener: the socket.
        playground: the playground, whose commands are then accepted; None without it.
        mirror: what keeps the directory up to date, if it mirrors one in an object store.
    """

    def __init__(
        self,
        root: Path,
        listener: socket.socket,
        playground: Playground | None = None,
        mirror: MirrorRefresher | None = None,
    ) -> None:
        self.listener, self.playground, self.mirror = listener, playground, mirror
        port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{port}/?token={token}"
        self.pages = Pages(
            RunIndex(root),
            load_assets(),
            playground=playground is not None,
            fetch=None if mirror is None else mirror.remote.fetch,
        )
        if playground is not None:
            playground.notify = self.pages.events.set_game
        app = create_app(self.pages, port, token, () if playground is None else playground.routes())
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=1,
            )
        )

    def serve_until_stopped(self) -> None:
        """Answer requests until a signal arrives, whose previous handler then is called."""
        if self.mirror is not None:
            self.mirror.start()
        self.run(sockets=[self.listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of events, which would never end by themselves, all connections, and the worker."""
        self.pages.events.close()
        if self.mirror is not None:
            self.mirror.close()
        await super().shutdown(sockets)
        if self.playground is not None:
            await self.playground.close()
