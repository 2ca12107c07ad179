"""Which requests are answered at all (rules H01 to H07, H10, H15, H17 and H18 of the requests)."""

from __future__ import annotations

import asyncio

import pytest

from poise.web.guard import HEADERS
from web.sites import PORT, TOKEN, Visitor

ADDRESSES = ("/", "/assets/page.js", "/api/overview", "/api/runs/0123456789abcdef", "/api/tips", "/nothing")


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.com",
        f"evil.com:{PORT}",
        f"127.0.0.1.evil.com:{PORT}",
        "localhost:9999",
        "127.0.0.1",
        "localhost",
        f"[::1]:{PORT}",
        f"LOCALHOST:{PORT}",
        f"localhost.:{PORT}",
        f"127.0.0.1:{PORT}.",
        f"127.1:{PORT}",
        f"2130706433:{PORT}",
        f"0.0.0.0:{PORT}",
        f"user@127.0.0.1:{PORT}",
        f"127.0.0.1:{PORT},evil.com",
    ],
)
def test_foreign_hosts(visitor: Visitor, host: str | None) -> None:
    assert {visitor.get(address, host=host).status for address in ADDRESSES} == {421}


def test_two_hosts(visitor: Visitor) -> None:
    assert visitor.get("/api/overview", headers=(("host", "evil.com"),)).status == 421
    assert visitor.get("/api/overview", headers=(("host", f"localhost:{PORT}"),)).status == 421
    assert visitor.get("/api/overview", host=f"localhost:{PORT}").status == 200


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        "poise=1",
        f"poise-{PORT}=",
        f"poise-{PORT}=wrong",
        f"poise-{PORT}={TOKEN}x",
        f"poise-{PORT + 1}={TOKEN}",
        f"a=poise-{PORT}={TOKEN}",
        f"my-poise-{PORT}={TOKEN}",
        f"a=1, poise-{PORT}={TOKEN}",
        TOKEN,
        "\xff",
    ],
)
def test_no_or_a_wrong_cookie(visitor: Visitor, cookie: str | None) -> None:
    answers = [visitor.get(address, cookie=cookie) for address in ADDRESSES]
    assert {(answer.status, answer.body) for answer in answers} == {(401, b"")}


@pytest.mark.parametrize(
    "other",
    [
        "a=1",
        'a={"x":1}',
        "theme=hello world",
        'user=J"o',
        'quoted="a, b"',
        "a=\xe9",
        "flag",
        "",
        "=",
        "path=/",
        f"poise-{PORT + 1}=x",
        f"poise-{PORT}=old",
    ],
)
def test_cookies_of_other_servers_on_this_host(visitor: Visitor, other: str) -> None:
    """Browsers send them along, as cookies do not tell ports apart."""
    own = f"poise-{PORT}={TOKEN}"
    for cookie in (f"{own}; {other}", f"{other}; {own}", f"{other};{own};{other}"):
        assert visitor.get("/api/overview", cookie=cookie).status == 200, cookie
    assert visitor.get("/api/overview", cookie=other).status == 401


def test_the_token_becomes_a_cookie(visitor: Visitor) -> None:
    answer = visitor.get(f"/?token={TOKEN}", cookie=None)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "samesite=strict", "path=/"}
    assert visitor.get("/api/overview", cookie=cookie.split(";")[0]).status == 200
    for wrong in ("", "x", TOKEN[:-1], "%ff", "\xff"):
        answer = visitor.get(f"/?token={wrong}".encode("latin-1"), cookie=None)
        assert (answer.status, answer.body) == (401, b"")
        assert "set-cookie" not in answer.headers
    assert visitor.get(f"/api/overview?token={TOKEN}", cookie=None).status == 401


@pytest.mark.parametrize(
    "header",
    [
        ("origin", "https://evil.com"),
        ("origin", "null"),
        ("origin", f"https://127.0.0.1:{PORT}"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", f"http://localhost:{PORT}"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", ""),
    ],
)
def test_other_sites(visitor: Visitor, header: tuple[str, str]) -> None:
    for address in ADDRESSES:
        answer = visitor.get(address, headers=(header,))
        assert answer.status == 403
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_page_itself(visitor: Visitor) -> None:
    own = (("origin", f"http://127.0.0.1:{PORT}"), ("sec-fetch-site", "same-origin"))
    assert visitor.get("/api/overview", headers=own).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "BREW", "get"])
def test_only_reading(visitor: Visitor, method: str) -> None:
    """Without the playground, a form of another site reaches nothing, whatever its content type is."""
    for address in (*ADDRESSES, "/api/playground/start"):
        answer = visitor.get(address, method=method, headers=(("content-type", "text/plain"),), body=b"a=1")
        assert answer.status == 405


@pytest.mark.parametrize("header", [("content-length", "10000000000"), ("transfer-encoding", "chunked")])
def test_no_body(visitor: Visitor, header: tuple[str, str]) -> None:
    answer = visitor.get("/api/overview", headers=(header,))
    assert (answer.status, answer.headers["connection"]) == (400, "close")


@pytest.mark.parametrize(
    "address",
    ["/", "/api/overview", "/nothing", "/api/runs/x", f"/?token={TOKEN}", "/?token=wrong", "/api/tips?" + "x" * 5000],
)
def test_headers_of_every_answer(visitor: Visitor, address: str) -> None:
    for more in ({}, {"host": "evil.com"}, {"cookie": None}):
        answer = visitor.get(address, **more)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value or name == "cache-control", (name, answer.status)
        assert "server" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_ranges_are_ignored(visitor: Visitor) -> None:
    ranges = "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(10_000))
    assert visitor.get("/api/tips", headers=(("range", ranges[:15_000]),)).status == 200


def test_an_error_inside_a_route(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(fresh: float = 1.0) -> None:
        raise RuntimeError("secret of /home/me")

    monkeypatch.setattr(visitor.pages.index, "found", fail)
    answer = visitor.get("/api/overview")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"home" not in answer.body
    told = capsys.readouterr().err
    number = answer.json["error"].split()[2].rstrip(",")
    assert number in told
    assert len(told.splitlines()) == 1


def test_a_web_socket_is_never_accepted(visitor: Visitor) -> None:
    told = []

    async def send(message: object) -> None:
        told.append(message)

    asyncio.run(visitor.app({"type": "websocket", "headers": [], "path": "/"}, None, send))  # type: ignore[arg-type]
    assert told == [{"type": "websocket.close", "code": 1008}]
