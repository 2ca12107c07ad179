"""Random requests to the real server: it answers or refuses each, opens nothing outside the runs, and changes nothing.

Most requests are distorted copies of those that the page sends, so that they get past the first check; the audit hook
sees all threads of the server. `make slow` sends them for a minute.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from poise.playground.commands import COMMANDS
from web.audit import audited
from web.page_runs import add_frames, make_curves, make_ladder, make_study
from web.running import Running
from web.test_paths import STRINGS
from web.test_playground import START, Recorded

METHODS = ["GET"] * 12 + ["HEAD"] * 3 + ["POST"] * 6 + ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"]
PIECES = [
    b"/", b"..", b"%2e%2e", b"%00", b"\0", b"?", b"#", b"&", b"=", b",", b"\\", b"//", b";", b"%", b"%2f", b".png",
    b"9" * 40, b"1e9", b"nan", b"\xc3\xa9", b"\xff\xfe", b"a" * 300, b"token=", b"names=", b"from=", b"after=", b" ",
    b"-1", b"\t", b"http://a.com/", b"secret", b"etc/passwd", b"$(id)", b"'\"<script>", b"{}", b"*", b"~", b"CON",
]  # fmt: skip
VALUES = [None, True, -1, 1.5, 10**30, "", "x" * 300, "../secret", [], {}, [[[[]]]], {"path": "/etc/passwd"}, "density"]


class Requests:
    """Random requests to a server.

    Args:
        draw: the source of randomness.
        running: the server.
        addresses: addresses that the page asks for.
        csrf: the token of the playground's commands.
    """

    def __init__(self, draw: random.Random, running: Running, addresses: list[bytes], csrf: str) -> None:
        self.draw, self.running, self.addresses, self.csrf = draw, running, addresses, csrf

    def make(self) -> tuple[bytes, bool]:
        """A request, and whether it has the cookie of the page."""
        draw, port = self.draw, self.running.port
        method = draw.choice(METHODS)
        body = b""
        if draw.random() < 0.2 or method == "POST":
            body = json.dumps(self.arguments()).encode() if draw.random() < 0.8 else draw.randbytes(draw.randrange(300))
        has_cookie = draw.random() < 0.8
        token = self.running.token if has_cookie else draw.choice(["", "x", self.running.token[:-1], '"', "a" * 5000])
        headers = {
            "Host": f"127.0.0.1:{port}"
            if draw.random() < 0.95
            else draw.choice(["a.com", "", f"localhost:{port}", "["]),
            "Cookie": f"poise-{port}={token}",
        }
        if body or draw.random() < 0.1:
            headers["Content-Length"] = str(len(body))
        for name, values in {
            "X-Poise-Token": [self.csrf, "x"],
            "Content-Type": ["application/json", "text/plain"],
            "Origin": [f"http://127.0.0.1:{port}", "null", "http://a.com"],
            "Sec-Fetch-Site": ["same-origin", "cross-site"],
            "Range": ["bytes=0-5"],
            "If-None-Match": ["*"],
        }.items():
            if draw.random() < (0.95 if method == "POST" else 0.1):
                headers[name] = draw.choice(values[:1] * 9 + values)
        lines = [f"{name}: {value}".encode() for name, value in headers.items()]
        head = b"\r\n".join([method.encode() + b" " + self.address(method) + b" HTTP/1.1", *lines])
        return head + b"\r\n\r\n" + body, has_cookie

    def address(self, method: str) -> bytes:
        draw = self.draw
        if method == "POST" and draw.random() < 0.8:
            return b"/api/playground/" + draw.choice([*COMMANDS, "start", "start", "start"]).encode()
        if draw.random() < 0.2:
            return draw.choice(STRINGS).replace("{id}", "ring").replace(" ", "+").encode()
        address = draw.choice(self.addresses)
        for _ in range(draw.choice([0, 0, 0, 1, 1, 2, 4])):
            start = draw.randrange(len(address) + 1)
            end = min(len(address), start + draw.choice([0, 0, 1, 4, 20]))
            address = address[:start] + draw.choice(PIECES) + address[end:]
        return address

    def arguments(self) -> object:
        """The arguments of a command, distorted now and then."""
        draw = self.draw
        game = dict(START["games"][0])
        if draw.random() < 0.3:
            game[draw.choice([*game, "path"])] = draw.choice(VALUES)
        made: dict[str, object] = {"games": [game], "seed": 1}
        if draw.random() < 0.3:
            made[draw.choice([*made, "speed", "density", "player"])] = draw.choice(VALUES)
        return draw.choice([made, made, made, made, {}, {"player": "d"}, draw.choice(VALUES)])


def addresses(running: Running, ids: dict[str, str]) -> list[bytes]:
    """What the page asks for."""
    found = ["/", "/assets/page.js", "/api/overview", "/api/tips", "/api/playground", f"/?token={running.token}"]
    run = f"/api/runs/{ids['plane']}"
    found += [run, f"{run}/series?names=d/adversarial,g/adversarial&from=10&to=500&points=64", f"{run}/grids/100"]
    found += [f"{run}/frames", f"{run}/frames?after=300", f"/api/events?runs={ids['plane']}"]
    found += [f"/api/studies/{ids['packing']}", f"/api/ladders/{ids['steps']}"]
    return [one.encode() for one in [*found, f"/api/ladders/{ids['steps']}/images/{ids['steps/gan']}/samples"]]


class Client:
    """Sends requests over one connection for as long as the server keeps it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer; 0 if the server closes the connection instead."""
        self.socket = self.socket or self.running.connect()
        self.socket.settimeout(10)
        with suppress(ConnectionError):  # the server may refuse it before all of it was sent
            self.socket.sendall(request)
        head = body = b""
        while not head or head.startswith(b"HTTP/1.1 100"):
            head, body = self._head(body)
        status = int(head.split()[1]) if head else 0
        length = re.search(rb"content-length: (\d+)", head)
        wanted = int(length[1]) if length and not request.startswith(b"HEAD ") and status != 304 else 0
        while len(body) < wanted and (piece := self._read()):
            body += piece
        if not head or b"connection: close" in head or b"text/event-stream" in head or len(body) > wanted:
            self.close()
        return status, head, body

    def _head(self, received: bytes) -> tuple[bytes, bytes]:
        while b"\r\n\r\n" not in received and (piece := self._read()):
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        return head.lower().replace(b"http/1.1", b"HTTP/1.1", 1), body

    def _read(self) -> bytes:
        assert self.socket is not None
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_no_random_request_fails_leads_outside_or_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], seconds: float
) -> None:
    runs = tmp_path / "runs"
    add_frames(make_curves(runs / "plane"))
    make_study(runs / "packing")
    make_ladder(runs / "steps")
    (tmp_path / "secret").write_text("a secret of this machine")
    monkeypatch.setattr("poise.web.playground.MAX_COMMANDS", 10**9)
    playground, seed, statuses = Recorded(runs), int(seconds), Counter[int]()
    with Running(runs, playground) as running:
        client = Client(running)
        _, _, overview = client.ask(running.request())
        found = [one for kind in ("runs", "studies", "ladders") for one in json.loads(overview)[kind]]
        asked = addresses(running, {one["name"]: one["id"] for one in found})
        for address in asked:  # imports what is imported at the first request
            assert client.ask(running.request(address.decode()))[0] in (200, 303), address
        requests = Requests(random.Random(seed), running, asked, playground.token)
        with audited() as audit:
            begun = time.monotonic()
            while time.monotonic() < begun + (seconds if playground.sent else 60):
                request, has_cookie = requests.make()
                status, head, body = client.ask(request)
                statuses[status] += 1
                assert 200 <= status < 500, request
                assert has_cookie or status == 303 or status >= 400, request
                if b"text/plain" in head:  # the answer of uvicorn, which can't parse the request
                    assert status == 400, request
                else:
                    assert b"content-security-policy: default-src 'none'" in head, request
                    assert b"x-content-type-options: nosniff" in head, request
                for hidden in (b"a secret of this machine", b"root:x:", str(tmp_path).encode()):
                    assert hidden not in head + body, request
                playground.game = None if requests.draw.random() < 0.2 else playground.game
        assert client.ask(running.request())[0] == 200
        client.close()
    if seconds > 2:
        with capfd.disabled():
            print(f"{statuses.total():,} requests: {dict(sorted(statuses.items()))}; {len(playground.sent)} commands")
    assert audit.outside(runs) == []
    assert audit.changes == []
    assert statuses[200] > statuses.total() / 20, "enough of them get past the guard"
    assert "start" in playground.sent
    assert set(playground.sent) <= set(COMMANDS)
    assert capfd.readouterr().err == ""
