"""Server-sent events: what is new. Everything else is a GET that may be repeated.

Each stream looks by itself, and sends an event only if something differs from what it has sent before. So there is no
queue: to a client that does not read, nothing is added, and the server drops it.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from poise.core.metrics_log import check_count
from poise.errors import CheckpointError
from poise.runs.overview import last_rows
from poise.web.answers import encode
from poise.web.cards import RunEntry
from poise.web.files import open_below
from poise.web.follow import MAX_LINE, SeriesStore
from poise.web.run_index import Found, RunIndex
from poise.web.run_page import read_run_frames, run_tag

RUN_SECONDS = 0.7
"""The seconds between two looks at the runs that a page shows."""

OVERVIEW_SECONDS = 1.6
HEARTBEAT_SECONDS = 15.0
MAX_RUNS = 16
"""The largest number of runs of one stream."""


class Events:
    """What all streams share.

    Args:
        index: the index.
        series: the series of its runs.
    """

    def __init__(self, index: RunIndex, series: SeriesStore) -> None:
        self.index, self.series = index, series
        self.closed = False
        self.game: dict[str, Any] | None = None
        self.changed = asyncio.Event()
        """Set at the next change, and then replaced by another one."""

    def set_game(self, game: dict[str, Any]) -> None:
        """Tell all streams of a change in the playground. To be called in the thread of the server."""
        self.game = game
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class EventStream:
    """The answer to `/api/events`, as an ASGI application.

    Args:
        events: what all streams share.
        runs: the ids of the runs of which every change is told.
    """

    def __init__(self, events: Events, runs: list[str]) -> None:
        self.events, self.runs = events, runs[:MAX_RUNS]
        self.states: dict[str, tuple[RunEntry, list[str], dict[str, Any]]] = {}
        self.found: Found | None = None
        self.game: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client or the server ends the stream."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            writer, gone = asyncio.create_task(self._write(send)), asyncio.create_task(disconnected(receive))
            try:
                await asyncio.wait([writer, gone], return_when=asyncio.FIRST_COMPLETED)
                if writer.done():
                    writer.result()  # raises its error
            finally:
                for task in (writer, gone):
                    task.cancel()
                await asyncio.gather(writer, gone, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send) -> None:
        looked = sent = float("-inf")
        while not self.events.closed:
            now, changed = time.monotonic(), self.events.changed
            whole = now - looked >= OVERVIEW_SECONDS
            looked = now if whole else looked
            told = await run_in_threadpool(self.news, whole)
            if told or now - sent >= HEARTBEAT_SECONDS:
                body = b"".join(b"event: %s\ndata: %s\n\n" % (kind.encode(), encode(data)) for kind, data in told)
                await send({"type": "http.response.body", "body": body or b": still here\n\n", "more_body": True})
                sent = now
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), RUN_SECONDS)

    def news(self, whole: bool) -> list[tuple[str, dict[str, Any]]]:
        """The events that are due: the kind and the data of each.

        Args:
            whole: whether to look at the overview too.
        """
        told: list[tuple[str, dict[str, Any]]] = []
        if self.events.game is not self.game and self.events.game is not None:
            self.game = self.events.game
            told.append(("playground", self.game))
        if whole:
            found = self.events.index.found()
            changes = {} if self.found is None else found.changes_since(self.found)
            told += [("overview", changes)] if any(changes.values()) else []
            self.found = found
        for run_id in self.runs:
            state = self._state(run_id)
            if state is not None:
                told.append(("run", state))
        return told

    def _state(self, run_id: str) -> dict[str, Any] | None:
        """The state of a run if it is new or has changed."""
        try:
            entry = self.events.index.run(run_id)
        except KeyError:
            return None
        names = self.events.series.of(entry).names()  # of a large file some are found later, when it has been read
        before, told = self.states.get(run_id), None
        if before is not None:
            known, known_names, told = before
            if (known.signature, known.card, known_names) == (entry.signature, entry.card, names):
                return None
        state = run_state(self.events.index.root, entry, names)
        self.states[run_id] = entry, names, state
        return state if told != state else None


async def disconnected(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def run_state(root: Path, entry: RunEntry, names: list[str]) -> dict[str, Any]:
    """What the event `run` says: how far its rows and frames go, and whether anything else is new (`run_tag`).

    Args:
        root: the runs directory.
        entry: the run.
        names: the names of its series.
    """
    rows = None
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        with open_below(root, *entry.parts, "rows.jsonl") as stream:
            first, last = stream.readline(MAX_LINE), last_rows(stream)
        rows = [check_count(json.loads(first)["step"]), last[-1]["step"]] if last else None
    try:
        frames = read_run_frames(root, entry).records["step"].tolist()
    except (OSError, CheckpointError):
        frames = []
    known = {"id": entry.id, "state": entry.card["state"], "step": entry.card["step"], "rows": rows}
    return known | {"frames": max(frames, default=None), "tag": run_tag(entry, names, has_frames=bool(frames))}
