"""The routes: read-only functions of the index. Nothing of a request becomes part of a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poise.errors import PoiseError
from poise.tips.catalogue import tips
from poise.version import __version__
from poise.web.answers import Refused, json_answer
from poise.web.cards import RunEntry
from poise.web.index import RunIndex, public
from poise.web.run_page import read_grid, read_run_frames, run_json
from poise.web.static import PAGE, Asset, asset_answer

FORMAT = 1
"""The version of the JSON of all routes."""

LARGEST_STEP = 10**15


class Pages:
    """The routes of one directory.

    Args:
        index: the index.
        assets: the built front end.
        playground: whether there is a playground.
    """

    def __init__(self, index: RunIndex, assets: dict[str, Asset], *, playground: bool) -> None:
        self.index, self.assets, self.playground = index, assets, playground

    def routes(self) -> list[Route]:
        """All routes."""
        table: dict[str, Callable[[Request], Response]] = {
            "/": lambda request: asset_answer(self.assets, PAGE, request),
            "/assets/{name}": lambda request: asset_answer(self.assets, request.path_params["name"], request),
            "/api/overview": self._overview,
            "/api/runs/{id}": self._run,
            "/api/runs/{id}/grids/{step}": self._grid,
            "/api/runs/{id}/frames": self._frames,
            "/api/tips": lambda _: json_answer([tip.as_json() for tip in tips()]),
        }
        return [Route(path, in_thread(answer), methods=["GET"]) for path, answer in table.items()]

    def _overview(self, request: Request) -> Response:
        found = self.index.found()
        about: dict[str, Any] = {"format": FORMAT, "directory": self.index.root.name, "version": __version__}
        lists = {
            "runs": [run.card for run in found.runs.values()],
            "studies": [study.card for study in found.studies.values()],
            "ladders": [public(ladder) for ladder in found.ladders.values()],
        }
        return json_answer(about | {"playground": self.playground, "complete": found.complete} | lists)

    def _run(self, request: Request) -> Response:
        return json_answer(run_json(self.index.root, self._entry(request)))

    def _grid(self, request: Request) -> Response:
        content = read_grid(self.index.root, self._entry(request), step_of(request.path_params["step"], 404))
        return Response(content, media_type="image/png", headers={"cache-control": "private, no-cache"})

    def _frames(self, request: Request) -> Response:
        after = request.query_params.get("after")
        try:
            frames = read_run_frames(self.index.root, self._entry(request))
        except (OSError, PoiseError):
            raise Refused(404, "the run has no frames") from None
        shown = frames if after is None else frames.after(step_of(after))
        return Response(shown.to_bytes(), media_type="application/octet-stream")

    def _entry(self, request: Request) -> RunEntry:
        try:
            return self.index.run(request.path_params["id"])
        except KeyError:
            raise Refused(404, "there is no such run") from None


def in_thread(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """A route that runs in a thread, so that a slow disk holds up no other request."""

    async def route(request: Request) -> Response:
        return await run_in_threadpool(answer, request)

    return route


def step_of(text: str, status: int = 400) -> int:
    """A step in a request.

    Raises:
        Refused: it is not a plain number.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(LARGEST_STEP)):
        raise Refused(status, "a step is a number")
    return int(text)
