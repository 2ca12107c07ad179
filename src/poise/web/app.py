"""The ASGI application: the routes behind the guard."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Router
from starlette.types import Receive, Scope, Send

from poise.web.answers import Refused
from poise.web.guard import Guard
from poise.web.routes import Pages


def create_app(pages: Pages, port: int, token: str, commands: Sequence[BaseRoute] = ()) -> Guard:
    """The application. Whatever a route raises is answered by the guard.

    Args:
        pages: the routes of the runs directory.
        port: the port of the server.
        token: the secret in the address that is printed.
        commands: the routes of the playground; none without it.
    """
    router = Router([*pages.routes(), *commands], redirect_slashes=False, default=_not_found)
    return Guard(router, port, token, commands=bool(commands))


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refused(404, "there is nothing at this address")
