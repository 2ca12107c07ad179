"""The playground's part of the server: the worker process, and the only routes with which a page can start anything.

The worker (`python -m poise.playground`) is a child that trains in run folders of its own. The server hands it commands
that follow the schema, and keeps its last reply. Beside all that the guard asks of every request, a command needs the
header `X-Poise-Token` with a token that only a page of this server can read, so no form and no other site can send one.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from poise.errors import RecipeError
from poise.playground.commands import COMMANDS, Command, Paced, Start, parse_arguments
from poise.playground.options import MAX_SECONDS, MAX_STEPS, options_json
from poise.runs.folder import is_run_folder
from poise.web.answers import Refused, json_answer
from poise.web.run_index import id_of

FOLDER = "playground"
"""The folder of the playground's runs, below the runs directory."""

Game = dict[str, Any]
"""The state of a game, as the worker replies it; the page gets ids in place of the names of run folders."""

MAX_BODY = 64 * 1024
"""The size in bytes beyond which a request is refused."""

MAX_COMMANDS, PER_SECONDS = 40, 4.0
"""So many commands are allowed in so many seconds."""

CLOSE_SECONDS = 5.0
"""The seconds that the worker has to save its game when the server ends, before it is killed."""

PLAYING = ("starting", "running", "paused")


class Playground:
    """The worker process and the routes.

    Args:
        root: the runs directory.
        notify: is given the game whenever it changes.

    Raises:
        RecipeError: the runs of games would not be shown, or something else has the name of their folder.
    """

    def __init__(self, root: Path, notify: Callable[[Game], None] = lambda game: None) -> None:
        self.folder, self.notify = root / FOLDER, notify
        check_folder(root)
        self.token = secrets.token_urlsafe(32)
        self.game: Game | None = None
        self._start: Start | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._recent: list[float] = []

    def routes(self) -> list[Route]:
        """The routes, which are mounted only if the server was started with `--playground`."""
        return [
            Route("/api/playground", self._show, methods=["GET"]),
            Route("/api/playground/{command}", self._receive, methods=["POST"]),
        ]

    async def close(self) -> None:
        """End the worker: it saves its game, or is killed if that takes too long."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader

    async def _show(self, request: Request) -> Response:
        """What may be chosen, the token of the commands, and the game and its drawing, if there was one."""
        density = None if self._start is None else self._start.density
        return json_answer({"csrf": self.token, "options": options_json(), "game": self.game, "density": density})

    async def _receive(self, request: Request) -> Response:
        """Check a command and hand it to the worker; the answer is the game, which may change only later."""
        name = request.path_params["command"]
        if name not in COMMANDS:
            raise Refused(404, "there is no such command")
        check_token(request, self.token)
        self._check_rate()
        body = await read_body(request)
        try:
            arguments = parse_arguments(name, body)
        except RecipeError as error:
            raise Refused(400, str(error)) from None
        await self.command(name, arguments)
        return json_answer({"game": self.game}, 202)

    async def command(self, name: str, arguments: Command) -> None:
        """Hand a command to the worker, which is started if need be.

        Raises:
            Refused: 409, the command does not fit the state of the game.
        """
        playing = self.game is not None and self.game["state"] in PLAYING
        if isinstance(arguments, Start):
            if playing:
                raise Refused(409, "a game is being played; stop it first")
            self._start = arguments
        elif self._start is None or not (playing or name == "reset"):
            raise Refused(409, "no game is being played; start one first")
        elif isinstance(arguments, Paced) and arguments.speed is not None:
            self._start = self._start.model_copy(update={"speed": arguments.speed})
        if self._start is not None and not playing:
            name, arguments = "start", self._start
        if isinstance(arguments, Start):
            self._set_game(starting(arguments))
        async with self._sending:
            try:
                await self._send(name, arguments)
            except OSError as error:
                self._end(f"the worker could not be started: {error.strerror or error}")

    async def _send(self, name: str, arguments: Command) -> None:
        if self._process is None and not isinstance(arguments, Start):
            self._end("the worker has ended")
            return
        if self._process is None:
            command = [sys.executable, "-P", "-m", "poise.playground", str(self.folder)]
            pipe, one_thread = asyncio.subprocess.PIPE, os.environ | {"OMP_NUM_THREADS": "1"}
            # in a session of its own: Ctrl-C is for the server, which then closes the worker's stdin
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, env=one_thread, start_new_session=True
            )
            self._reader = asyncio.create_task(self._read(self._process))
        assert self._process.stdin is not None
        line = {"command": name, "arguments": arguments.model_dump()}
        with suppress(ConnectionError):  # the worker has just ended, which `_read` notices
            self._process.stdin.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            await self._process.stdin.drain()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Keep the worker's replies until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            with suppress(ValueError):
                reply: Game = json.loads(line)
                self._set_game(reply | {"runs": [id_of(PurePosixPath(FOLDER, name)) for name in reply["runs"]]})
        code = await process.wait()
        if self._process is process:
            self._process = None
        if self.game is not None and self.game["state"] in PLAYING:
            self._end(f"the worker ended unexpectedly, with code {code}")

    def _end(self, message: str) -> None:
        """Say that the game has ended, which no worker will say."""
        if self.game is not None:
            self._set_game(self.game | {"state": "ended", "message": message})

    def _set_game(self, game: Game) -> None:
        self.game = game
        self.notify(game)

    def _check_rate(self) -> None:
        now = time.monotonic()
        self._recent = [at for at in self._recent if now - at < PER_SECONDS]
        if len(self._recent) >= MAX_COMMANDS:
            raise Refused(429, "too many commands; wait a moment")
        self._recent.append(now)


def check_folder(root: Path) -> None:
    """Check that games can be played and shown in `root`: nothing is looked for inside a run or behind a link.

    Raises:
        RecipeError: they can't.
    """
    folder = root / FOLDER
    if is_run_folder(root):
        what = "the playground needs a folder of runs, as nothing is looked for inside a run"
        raise RecipeError(what, where=str(root), found="a run", cure="show the folder above it")
    is_folder = folder.is_dir() and not is_run_folder(folder)
    if folder.is_symlink() or (folder.exists() and not is_folder):
        found = "a link" if folder.is_symlink() else "a run" if folder.is_dir() else "a file"
        what, cure = "the runs of the playground go to a folder of this name", "rename it, or show another folder"
        raise RecipeError(what, where=str(folder), found=found, cure=cure)


def starting(start: Start) -> Game:
    """The game that the page sees until the worker's first reply."""
    limits: Game = {"max_steps": MAX_STEPS, "max_seconds": MAX_SECONDS, "seconds": 0.0}
    chosen = {"seed": start.seed, "speed": start.speed, "games": [game.model_dump() for game in start.games]}
    return {"state": "starting", "runs": [], "step": [], "message": ""} | limits | chosen


def check_token(request: Request, token: str) -> None:
    """Refuse a command that does not come from the page.

    Raises:
        Refused: 403.
    """
    if not secrets.compare_digest(request.headers.get("x-poise-token", "").encode(), token.encode()):
        raise Refused(403, "the header X-Poise-Token is missing or wrong")


async def read_body(request: Request) -> bytes:
    """The body of a command.

    Raises:
        Refused: 413, it is too large; 415, it does not say that it is JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "a command is JSON: content type application/json")
    body = b""
    with suppress(ClientDisconnect):
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise Refused(413, f"a command has at most {MAX_BODY // 1024} kB")
    return body
