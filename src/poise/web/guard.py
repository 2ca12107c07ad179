"""The one layer before all routes: which requests are answered at all, and what every answer carries.

In this order: the host and port that the request names (a page of another site whose name was made to point to this
machine names that site), the site that it comes from, the method, the token or the cookie, and the form of the address.
A route can't be outside of this layer, and what is refused here reaches none.
"""

from __future__ import annotations

import secrets
from re import compile as pattern
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poise.utils.printing import print_error
from poise.web.answers import Refused, error_answer

PATH = pattern(rb"/[A-Za-z0-9/_.-]{0,200}")
"""All addresses of the page consist of these characters; so nothing is ever decoded."""

MAX_QUERY = 4_096

COMMANDS = b"/api/playground/"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware; see the module.

    Args:
        app: the routes.
        port: the port of the server, which is reached as 127.0.0.1 and as localhost only.
        token: the secret in the address that was printed.
        commands: whether POST is allowed, to the routes of the playground only.
    """

    def __init__(self, app: ASGIApp, port: int, token: str, *, commands: bool = False) -> None:
        self.app, self.token, self.commands = app, token, commands
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        self.cookie = f"poise-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it pass."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # a WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._refuse(scope)
            if answer is None:
                scope["app"] = self.app  # so that Starlette raises its errors
                await self.app(scope, receive, send_with_headers)
                return
        except Refused as refused:
            answer = error_answer(refused.status, refused.text)
        except HTTPException as refused:
            answer = error_answer(refused.status_code, refused.detail)
        except Exception as error:
            number = secrets.token_hex(4)
            print_error(f"the page's request {number} failed: {type(error).__name__}: {error}; please report it")
            if started:
                raise
            answer = error_answer(500, f"internal error {number}, which the terminal of poise web describes")
        if answer.status_code >= 400:
            answer.headers["connection"] = "close"
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        """The answer to a request that no route may see; None if it may pass.

        Raises:
            Refused: it is refused with a reason.
        """
        headers, method, path = Headers(scope=scope), scope["method"], scope["raw_path"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            raise Refused(421, "this server is reached as 127.0.0.1 or localhost, with its own port, only")
        if headers.get("origin", f"http://{hosts[0]}") != f"http://{hosts[0]}":
            raise Refused(403, "requests of other sites are not answered")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "requests of other sites are not answered; type or paste the address")
        command = self.commands and method == "POST" and path.startswith(COMMANDS)
        if method not in ("GET", "HEAD") and not command:
            raise Refused(405, "the page can only be read")
        if not command and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers):
            raise Refused(400, "a request has no body")
        return self._authenticate(scope, headers)

    def _authenticate(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qs(scope["query_string"].decode("latin-1")) if len(scope["query_string"]) <= MAX_QUERY else {}
        if scope["raw_path"] == b"/" and "token" in query:
            if not self._is_token(query["token"][-1]):
                return Response(status_code=401)
            answer = Response(status_code=303, headers={"location": "/"})
            answer.set_cookie(self.cookie, self.token, path="/", httponly=True, samesite="strict")
            return answer
        if not any(map(self._is_token, cookie_values(headers.get("cookie", ""), self.cookie))):
            return Response(status_code=401)
        if not PATH.fullmatch(scope["raw_path"]):
            raise Refused(404, "there is nothing at this address")
        if len(scope["query_string"]) > MAX_QUERY:
            raise Refused(400, f"the query is longer than {MAX_QUERY:,} characters")
        return None

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode("utf-8", "replace"), self.token.encode())


def cookie_values(header: str, name: str) -> list[str]:
    """The values of a cookie, of which the browser sends several if they were set for several paths.

    Cookies of other servers on this host, whatever their port, are in the header too, and `http.cookies` drops all of
    them if it cannot parse one. So the header is split here. Nothing is unquoted, as the token needs no quotes.
    """
    pairs = (pair.partition("=") for pair in header.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]
