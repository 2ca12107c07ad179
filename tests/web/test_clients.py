"""Slow, greedy and malformed clients of the real server (rules H13 and H14)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from poise.web import server
from web.running import Running, answer

LIMIT = 8


@pytest.fixture
def running(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.0)
    monkeypatch.setattr(server, "WRITE_SECONDS", 1.0)
    monkeypatch.setattr(server, "MAX_CONNECTIONS", LIMIT)
    with Running(runs) as one:
        yield one


MALFORMED = {
    "a large header": lambda one: one.request(more=f"X-Large: {'x' * 1_000_000}\r\n"),
    "many headers": lambda one: one.request(more="".join(f"X-{n}: 1\r\n" for n in range(50_000))),
    "a long address": lambda one: one.request("/" + "x" * 100_000),
    "a huge body": lambda one: one.request(more="Content-Length: 10000000000\r\n") + b"x" * 200_000,
    "a wrong length": lambda one: one.request(more="Content-Length: -1\r\n"),
    "two lengths": lambda one: one.request(more="Content-Length: 1\r\nContent-Length: 2\r\n"),
    "broken chunks": lambda one: one.request(more="Transfer-Encoding: chunked\r\n") + b"zz\r\nhello\r\n",
    "bad text": lambda one: b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    "HTTP/0.9": lambda one: b"GET /\r\n\r\n",
    "HTTP/2": lambda one: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": lambda one: bytes.fromhex("160301020001") + b"\xfc\x03\x03" + bytes(200),
    "a null byte": lambda one: b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": lambda one: b"GET / HTTP/1.1\r\n\r\n",
    "an upgrade": lambda one: one.request(more="Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://a.com\r\n"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_requests(running: Running, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    with running.connect() as client:
        with suppress(ConnectionError):
            client.sendall(MALFORMED[kind](running))
        received = answer(client)
    assert not received or received.split()[1].startswith(b"4"), received[:80]
    assert b"Traceback" not in received
    assert running.status() == 200
    assert capfd.readouterr().err == ""


def test_slow_heads_are_not_waited_for(running: Running) -> None:
    with running.connect() as client:
        begun = time.monotonic()
        with suppress(ConnectionError):
            for byte in running.request() * 2:
                client.sendall(bytes([byte]))
                time.sleep(0.2)  # a byte now and then does not prolong the time
        assert time.monotonic() - begun < 15
    assert running.status() == 200


def test_many_connections(running: Running) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(running.connect()) for _ in range(3 * LIMIT)]
        assert all(answer(client) == b"" for client in clients)  # refused at once, or when no head has arrived
    assert running.status() == 200


def test_a_client_that_never_reads(running: Running) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", running.port))
        with suppress(ConnectionError):
            client.sendall(running.request("/api/tips") * 40)
        deadline = time.monotonic() + 60
        while running.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not running.server.server_state.connections
    assert running.status() == 200


def test_events_end_with_the_server(running: Running) -> None:
    with running.connect() as client:
        client.sendall(running.request("/api/events"))
        assert b"text/event-stream" in client.recv(65536)
        running.server.should_exit = True
        answer(client)
    running.thread.join(60)
    assert not running.thread.is_alive()
