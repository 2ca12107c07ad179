"""`poise web` as a process: the line that it prints, its port, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from poise.playground.options import DEFAULT_GAME
from poise.runs.folder import RunFolder

HEAVY = """
import sys
from poise.cli import main
import poise.web.server as server
server.Server.serve_until_stopped = lambda self: print(*sorted({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))
main(['web', sys.argv[1], '--port', '0', '--playground'])
"""


@contextmanager
def served(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "poise", "web", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_address_and_end(tmp_path: Path) -> None:
    with served(tmp_path / "later", "--port", 0) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        with httpx.Client() as browser:
            assert browser.get(address, follow_redirects=False).status_code == 303
            base = address.partition("?")[0]
            assert browser.get(f"{base}api/overview").json()["runs"] == []
        assert httpx.get(base).status_code == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert out == ""
        assert "does not exist yet" in err
        assert process.returncode == 75


def test_the_playground_ends_with_the_server(tmp_path: Path) -> None:
    game = DEFAULT_GAME | {"data": "spiral", "width": 4, "batch": 8}
    with served(tmp_path, "--port", 0, "--playground") as (process, address):
        with httpx.Client(base_url=address.partition("?")[0]) as browser:
            browser.get(address)
            shown = browser.get("/api/playground").json()
            token = {"x-poise-token": shown["csrf"]}
            started = browser.post("/api/playground/start", json={"games": [game], "seed": 1}, headers=token)
            assert (started.status_code, started.json()["game"]["state"]) == (202, "starting")
            while browser.get("/api/playground").json()["game"]["step"] < [1]:
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 75
    (run,) = (tmp_path / "playground").iterdir()
    assert RunFolder(run).read_info()["state"] == "stopped"


def test_a_port_in_use(poise: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = poise("web", tmp_path, "--port", port)
    assert result.code == 2
    assert f"--port {port}: is in use; choose another one, or 0 for any that is free" in result.err


def test_the_default_port_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from poise.web import server

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(server, "DEFAULT_PORT", taken.getsockname()[1])
        with server.open_socket(None) as other:
            assert other.getsockname()[0] == "127.0.0.1"
            assert other.getsockname()[1] != server.DEFAULT_PORT


def test_a_file_is_no_folder(poise: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = poise("web", tmp_path / "file")
    assert (result.code, "not a folder" in result.err) == (2, True)


def test_no_torch(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == [""]
