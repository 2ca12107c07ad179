"""The routes: read-only functions of the index. Nothing of a request becomes part of a path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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
from poise.web.events import Events, EventStream
from poise.web.follow import SeriesStore
from poise.web.run_index import RunIndex, id_of, public
from poise.web.run_page import read_grid, read_run_frames, run_json
from poise.web.series import MAX_BUCKETS, MAX_NAMES
from poise.web.static import PAGE, Asset, asset_answer
from poise.web.studies import IMAGES, ladder_image, ladder_json, study_json

FORMAT = 1
"""The version of the JSON of all routes."""

LARGEST_STEP = 10**15

MIN_POINTS = 16
MAX_POINTS = 40_000
"""The largest number of buckets in an answer, all its series together; some 4 MB."""


class Pages:
    """The routes of one directory.

    Args:
        index: the index.
        assets: the built front end.
        playground: whether there is a playground.
        fetch: fetches a file of the directory, if that mirrors one in an object store.
    """

    def __init__(
        self,
        index: RunIndex,
        assets: dict[str, Asset],
        *,
        playground: bool,
        fetch: Callable[[str], None] | None = None,
    ) -> None:
        self.index, self.assets, self.playground, self.fetch = index, assets, playground, fetch
        self.series = SeriesStore(index.root)
        self.events = Events(index, self.series)

    def routes(self) -> list[Route]:
        """All routes."""
        table: dict[str, Callable[[Request], Response]] = {
            "/": lambda request: asset_answer(self.assets, PAGE, request),
            "/assets/{name}": lambda request: asset_answer(self.assets, request.path_params["name"], request),
            "/api/overview": self._overview,
            "/api/runs/{id}": self._run,
            "/api/runs/{id}/series": self._series,
            "/api/runs/{id}/grids/{step}": self._grid,
            "/api/runs/{id}/frames": self._frames,
            "/api/studies/{id}": self._study,
            "/api/ladders/{id}": self._ladder,
            "/api/ladders/{id}/images/{rung}/{name}": self._ladder_image,
            "/api/tips": lambda _: json_answer([tip.as_json() for tip in tips()]),
        }
        events = Route("/api/events", self._events, methods=["GET"])
        return [events, *(Route(path, in_thread(answer), methods=["GET"]) for path, answer in table.items())]

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
        entry = self._entry(request)
        self._fetch(entry, "frames.bin")
        return json_answer(run_json(self.index.root, entry, self.series.of(entry).names()))

    def _series(self, request: Request) -> Response:
        query = request.query_params
        names = list(dict.fromkeys(query.get("names", "").split(",")))[:MAX_NAMES]
        start, end = step_of(query.get("from", "0")), step_of(query.get("to", str(LARGEST_STEP)))
        points = min(max(step_of(query.get("points", "1024")), MIN_POINTS), MAX_BUCKETS)
        points = min(points, max(MIN_POINTS, MAX_POINTS // len(names)))
        return json_answer(self.series.of(self._entry(request)).view(names, start, end, points))

    async def _events(self, request: Request) -> EventStream:
        runs = request.query_params.get("runs", "").split(",")
        return EventStream(self.events, list(dict.fromkeys(filter(None, runs))))

    def _study(self, request: Request) -> Response:
        found = self.index.found()
        entry = found.studies.get(request.path_params["id"])
        if entry is None:
            raise Refused(404, "there is no such study")
        try:
            return json_answer(study_json(self.index.root, entry, found.runs, id_of))
        except PoiseError as error:
            raise Refused(404, f"the study can't be read: {error.what}") from None

    def _ladder(self, request: Request) -> Response:
        return json_answer(ladder_json(self.index.root, *self._rungs(request)))

    def _ladder_image(self, request: Request) -> Response:
        rung, name = request.path_params["rung"], request.path_params["name"]
        ladder, runs = self._rungs(request)
        if rung in runs and name in IMAGES:
            self._fetch(runs[rung], "ladder", f"{name}.png")
        content = ladder_image(self.index.root, ladder, runs, rung, name)
        return Response(content, media_type="image/png", headers={"cache-control": "private, no-cache"})

    def _rungs(self, request: Request) -> tuple[dict[str, Any], dict[str, RunEntry]]:
        found = self.index.found()
        if request.path_params["id"] not in found.ladders:
            raise Refused(404, "there is no such ladder")
        return found.ladders[request.path_params["id"]], found.runs

    def _grid(self, request: Request) -> Response:
        entry, step = self._entry(request), step_of(request.path_params["step"], 404)
        if step in entry.grids:
            self._fetch(entry, "samples", entry.grids[step].name)
        content = read_grid(self.index.root, entry, step)
        return Response(content, media_type="image/png", headers={"cache-control": "private, no-cache"})

    def _frames(self, request: Request) -> Response:
        after = request.query_params.get("after")
        try:
            frames = read_run_frames(self.index.root, self._entry(request))
        except (OSError, PoiseError):
            raise Refused(404, "the run has no frames") from None
        shown = frames if after is None else frames.after(step_of(after))
        return Response(shown.to_bytes(), media_type="application/octet-stream")

    def _fetch(self, entry: RunEntry, *names: str) -> None:
        """Fetch a file of a run, if it is in an object store; if that fails, what there is is shown."""
        if self.fetch is not None:
            with suppress(PoiseError):
                self.fetch("/".join((*entry.parts, *names)))

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
