"""The playground's routes: who may give commands, which, how fast, and the worker that obeys them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from poise.errors import RecipeError
from poise.playground.commands import Command
from poise.playground.options import DEFAULT_GAME, options_json
from poise.runs.folder import RunFolder
from poise.web.app import create_app
from poise.web.guard import Guard
from poise.web.playground import MAX_BODY, MAX_COMMANDS, Game, Playground
from poise.web.routes import Pages
from poise.web.run_index import RunIndex
from web.sites import PORT, TOKEN, make_run

HOST = f"http://127.0.0.1:{PORT}"
SMALL = DEFAULT_GAME | {"data": "spiral", "width": 4, "batch": 8}
START = {"games": [SMALL], "seed": 1}


class Recorded(Playground):
    """A playground without a worker, which keeps the commands that it would get."""

    def __init__(self, root: Path) -> None:
        self.told: list[Game] = []
        super().__init__(root, self.told.append)
        self.sent: list[str] = []
        self.speeds: list[Any] = []

    async def _send(self, name: str, arguments: Command) -> None:
        self.sent.append(name)
        self.speeds.append(getattr(arguments, "speed", None))


def application(root: Path, playground: Playground | None) -> Guard:
    pages = Pages(RunIndex(root), {}, playground=playground is not None)
    return create_app(pages, PORT, TOKEN, () if playground is None else playground.routes())


def served(playground: Playground, use: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run `use` with a client that has the cookie of the page."""

    async def run() -> None:
        app = application(playground.folder.parent, playground)
        cookie = {"cookie": f"poise-{PORT}={TOKEN}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST, headers=cookie) as client:
            try:
                await use(client)
            finally:
                await playground.close()

    asyncio.run(run())


def post(
    client: httpx.AsyncClient, playground: Playground, name: str, arguments: Any = None, **headers: str
) -> Awaitable[httpx.Response]:
    """Give a command; a header that is empty is left out."""
    allowed = {"x-poise-token": playground.token, "content-type": "application/json", "origin": HOST}
    sent = {key: value for key, value in (allowed | headers).items() if value}
    request = client.build_request("POST", f"/api/playground/{name}", content=json.dumps(arguments or {}), headers=sent)
    if headers.get("cookie") == "":
        del request.headers["cookie"]
    return client.send(request)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-poise-token": ""}, 403),
        ({"x-poise-token": "guess"}, 403),
        ({"x-poise-token": "", "content-type": "text/plain"}, 403),
        ({"x-poise-token": "", "content-type": "application/x-www-form-urlencoded"}, 403),
        ({"origin": "https://evil.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"cookie": ""}, 401),
        ({"cookie": f"poise-{PORT}=guess"}, 401),
        ({"host": "evil.com"}, 421),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "multipart/form-data"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/json; charset=utf-8", "sec-fetch-site": "same-origin"}, 202),
        ({"origin": ""}, 202),
    ],
)
def test_only_the_page_of_this_server_may_give_commands(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    playground = Recorded(tmp_path)

    async def use(client: httpx.AsyncClient) -> None:
        answer = await post(client, playground, "start", START, **headers)
        assert answer.status_code == status
        assert playground.sent == (["start"] if status == 202 else [])
        assert playground.token not in answer.text
        assert "access-control-allow-origin" not in answer.headers

    served(playground, use)


def test_a_body_that_does_not_follow_the_schema_or_is_too_large_is_refused(tmp_path: Path) -> None:
    playground = Recorded(tmp_path)

    async def use(client: httpx.AsyncClient) -> None:
        refused = await post(client, playground, "start", START | {"path": "/etc/passwd"})
        error = "start: path: is not known here, found '/etc/passwd'"
        assert (refused.status_code, refused.json()) == (400, {"error": error})
        assert (await post(client, playground, "start", "x" * MAX_BODY)).status_code == 413
        assert (await post(client, playground, "fly")).status_code == 404
        assert (await client.get("/api/playground/start")).status_code == 405
        assert playground.sent == []

    served(playground, use)


def test_commands_fit_the_state_of_the_game(tmp_path: Path) -> None:
    playground = Recorded(tmp_path)

    async def status(client: httpx.AsyncClient, name: str, arguments: Any = None) -> int:
        return (await post(client, playground, name, arguments)).status_code

    async def use(client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/playground")).json()["game"] is None
        assert [await status(client, name) for name in ("pause", "resume", "reset", "stop")] == [409] * 4
        assert await status(client, "start", START) == 202
        assert playground.told[-1]["state"] == "starting"
        assert await status(client, "start", START) == 409
        for name in ("pause", "resume", "reset"):
            assert await status(client, name) == 202
        assert await status(client, "step", {"player": "d"}) == 202
        playground._set_game(playground.told[-1] | {"state": "ended"})
        assert await status(client, "pause") == 409
        assert await status(client, "reset") == 202
        assert playground.sent == ["start", "pause", "resume", "reset", "step", "start"]

    served(playground, use)


def test_a_game_that_begins_again_has_the_speed_that_was_chosen_last(tmp_path: Path) -> None:
    """While it was played, or with the reset."""
    playground = Recorded(tmp_path)

    async def use(client: httpx.AsyncClient) -> None:
        await post(client, playground, "start", START | {"speed": 100})
        for name, speed in (("resume", {"speed": 10}), ("reset", {}), ("reset", {"speed": 1}), ("reset", {})):
            playground._set_game(playground.told[-1] | {"state": "running" if name == "resume" else "ended"})
            assert (await post(client, playground, name, speed)).status_code == 202
        assert playground.sent == ["start", "resume", "start", "start", "start"]
        assert playground.speeds == [100, 10, 10, 1, 1]
        assert playground.told[-1]["speed"] == 1

    served(playground, use)


def test_commands_have_a_rate(tmp_path: Path) -> None:
    playground = Recorded(tmp_path)

    async def use(client: httpx.AsyncClient) -> None:
        for _ in range(MAX_COMMANDS):
            assert (await post(client, playground, "pause")).status_code == 409
        assert (await post(client, playground, "pause")).status_code == 429

    served(playground, use)


@pytest.mark.parametrize(("name", "found"), [("playground", "a file"), ("playground/run.json", "a run")])
def test_the_folder_of_the_runs_may_not_be_anything_else(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(RecipeError, match=f"found {found}; rename it"):
        Recorded(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_the_folder_of_the_runs_may_not_be_a_link_which_no_page_follows(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/playground").symlink_to(tmp_path / target)
    with pytest.raises(RecipeError, match="found a link; rename it, or show another folder"):
        Recorded(tmp_path / "runs")


def test_a_run_has_no_playground_inside(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="found a run; show the folder above it"):
        Recorded(make_run(tmp_path / "ring"))


def test_without_a_playground_there_are_no_commands(tmp_path: Path) -> None:
    async def use() -> None:
        app = application(tmp_path, None)
        cookie = {"cookie": f"poise-{PORT}={TOKEN}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST, headers=cookie) as client:
            assert (await client.get("/api/playground")).status_code == 404
            assert (await client.post("/api/playground/start", json=START)).status_code == 405
            assert (await client.get("/api/overview")).json()["playground"] is False

    asyncio.run(use())


def test_a_game_whose_worker_cannot_be_started_or_is_gone_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground = Playground(tmp_path)

    async def fail(*command: str, **options: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async def use(client: httpx.AsyncClient) -> None:
        for name in ("start", "reset", "start"):
            answer = await post(client, playground, name, START if name == "start" else None)
            assert answer.status_code == 202
            game = answer.json()["game"]
            message = "the worker could not be started: Cannot allocate memory"
            assert (game["state"], game["message"]) == ("ended", message)
        for name in ("stop", "reset", "pause"):
            playground.game = game | {"state": "running"}
            assert (await post(client, playground, name)).json()["game"]["state"] == "ended"

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    served(playground, use)


@pytest.mark.slow
def test_a_game_is_played_by_a_worker_that_ends_with_the_server(tmp_path: Path) -> None:
    told: list[Game] = []
    playground = Playground(tmp_path, told.append)

    async def until(state: str) -> Game:
        while not told or told[-1]["state"] != state:
            await asyncio.sleep(0.01)
        return told[-1]

    async def use(client: httpx.AsyncClient) -> None:
        shown = (await client.get("/api/playground")).json()
        assert shown == {"csrf": playground.token, "options": json.loads(json.dumps(options_json()))} | {
            "game": None,
            "density": None,
        }
        await post(client, playground, "start", START)
        running = await until("running")
        overview = (await client.get("/api/overview")).json()
        assert [card["id"] for card in overview["runs"]] == running["runs"]
        assert overview["playground"] is True
        await post(client, playground, "pause")
        paused = await until("paused")
        await post(client, playground, "step", {"player": "d"})
        while told[-1]["step"] == paused["step"]:
            await asyncio.sleep(0.01)
        assert playground._process is not None
        os.kill(playground._process.pid, signal.SIGKILL)
        assert (await until("ended"))["message"] == "the worker ended unexpectedly, with code -9"
        await post(client, playground, "reset")
        await until("running")

    served(playground, use)
    assert (told[-1]["state"], told[-1]["message"]) == ("ended", "the playground was closed")
    states = sorted(str(RunFolder(folder).read_info()["state"]) for folder in playground.folder.iterdir())
    assert states == ["stopped"]  # the first one, which was killed, has been removed
