"""Server-sent events: what is told, and that nothing is told twice."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from poise.web.events import EventStream
from web.page_runs import add_frames, append_line
from web.sites import ALARM, INFO, PORT, TOKEN, Visitor, lines, make_run, row


def stream(visitor: Visitor, *runs: str) -> EventStream:
    return EventStream(visitor.pages.events, list(runs))


def test_only_what_has_changed_is_told(visitor: Visitor, runs: Path) -> None:
    visitor.pages.index.found(0)
    ring = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    told = stream(visitor, ring["id"], "0000000000000000")
    ((kind, state),) = told.news(whole=True)
    assert kind == "run"
    tag = visitor.get(f"/api/runs/{ring['id']}").json["tag"]
    about = {"id": ring["id"], "state": "done", "step": 100}
    assert state == about | {"rows": [10, 100], "frames": None, "tag": tag}
    assert told.news(whole=True) == []
    with (runs / "ring/rows.jsonl").open("a") as file:
        file.write(lines([row(110)]))
    ((kind, state),) = told.news(whole=False)
    assert (kind, state["rows"]) == ("run", [10, 110])
    assert state["tag"] == tag, "there is nothing new but a row"
    assert told.news(whole=False) == []


def write_info(run: Path, **info: Any) -> None:
    (run / "run.json").write_text(json.dumps(INFO | info))


def draw_grid_anew(run: Path) -> None:
    """As after a roll-back: another image of the same step."""
    Image.new("L", (8, 8), 77).save(run / "new.png")
    (run / "new.png").replace(run / "samples/step-00000100.png")


def add_term(run: Path) -> None:
    """Rows with a term of an interval: not every row has it."""
    stat = {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0}
    append_line(run / "rows.jsonl", row(110, stats={"d/lecam": stat}))
    append_line(run / "rows.jsonl", row(120))


CHANGES: dict[str, Callable[[Path], None]] = {
    "best": lambda run: write_info(run, best={"measure": "modes", "value": 7.0, "step": 50}),
    "changes": lambda run: write_info(run, changes=[{"step": 5, "detector": "collapse", "set": ["batch=8"]}]),
    "state": lambda run: write_info(run, state="failed"),
    "recipe": lambda run: (run / "recipe.toml").write_text("seed = 5\n") and None,
    "measures": lambda run: append_line(
        run / "measures.jsonl", {"step": 60, "measures": {"modes": 4.0}, "floor": {}, "n": 9, "features": "points"}
    ),
    "alarms": lambda run: append_line(run / "alarms.jsonl", ALARM),
    "grids": lambda run: Image.new("L", (8, 8)).save(run / "samples/step-00000200.png"),
    "grid_tags": draw_grid_anew,
    "series": add_term,
    "frames": add_frames,
}
"""What changes a part of what is told of a run."""


@pytest.mark.parametrize("part", CHANGES)
def test_a_page_is_told_to_ask_again_whatever_has_changed_of_a_run(visitor: Visitor, runs: Path, part: str) -> None:
    """All but its rows, of which the event says how far they go."""
    visitor.pages.index.found(0)
    run_id = next(run["id"] for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    told = stream(visitor, run_id)
    ((_, before),) = told.news(whole=False)
    asked = visitor.get(f"/api/runs/{run_id}").json
    assert asked["tag"] == before["tag"]
    CHANGES[part](runs / "ring")
    ((_, after),) = told.news(whole=False)
    again = visitor.get(f"/api/runs/{run_id}").json
    assert again[part] != asked[part]
    assert after["tag"] == again["tag"] != asked["tag"]


def test_changes_of_the_overview(visitor: Visitor, runs: Path) -> None:
    told = stream(visitor)
    told.news(whole=True)
    index = visitor.pages.index
    make_run(runs / "later")
    index._made = float("-inf")
    ((kind, changes),) = told.news(whole=True)
    assert (kind, [run["name"] for run in changes["runs"]], changes["removed"]) == ("overview", ["later"], [])
    (runs / "later").rename(runs.parent / "gone")
    index._made = float("-inf")
    ((_, gone),) = told.news(whole=True)
    assert (gone["runs"], gone["removed"]) == ([], [changes["runs"][0]["id"]])
    (runs / "study").mkdir()
    (runs / "study/study.json").write_text("{")
    index._made = float("-inf")
    ((_, changes),) = told.news(whole=True)
    shutil.rmtree(runs / "study")
    index._made = float("-inf")
    ((_, gone),) = told.news(whole=True)
    assert gone["removed"] == [changes["studies"][0]["id"]]


def test_the_overview_is_told_of_a_change_that_a_request_has_seen_first(visitor: Visitor, runs: Path) -> None:
    told = stream(visitor)
    told.news(whole=True)
    index = visitor.pages.index
    run_id = next(run_id for run_id, entry in index.found().runs.items() if entry.card["name"] == "ring")
    (runs / "ring/run.json").write_text(json.dumps(INFO | {"state": "failed"}))
    assert visitor.get(f"/api/runs/{run_id}").json["state"] == "failed"
    index._made = float("-inf")
    ((_, changes),) = told.news(whole=True)
    assert [run["state"] for run in changes["runs"]] == ["failed"]


def test_a_damaged_run_is_told_too(visitor: Visitor, runs: Path) -> None:
    visitor.pages.index.found(0)
    ring = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    for name in ("run.json", "rows.jsonl", "alarms.jsonl", "measures.jsonl"):
        (runs / "ring" / name).write_bytes(b'{"step": [1, 2')
    ((_, state),) = stream(visitor, ring["id"]).news(whole=False)
    assert (state["state"], state["rows"]) == ("damaged", None)


def test_the_answer_and_its_end(visitor: Visitor) -> None:
    """Through the application: the head, the playground's state at once, and the end when the server ends."""
    sent: list[dict] = []

    async def run() -> None:
        async def send(message: dict) -> None:
            sent.append(message)

        async def receive() -> dict:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        headers = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"cookie", f"poise-{PORT}={TOKEN}".encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/events",
            "raw_path": b"/api/events",
            "query_string": b"",
        }
        task = asyncio.create_task(visitor.app(scope | {"headers": headers, "root_path": ""}, receive, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.3)
        visitor.pages.events.set_game({"state": "running"})
        while not any(b"playground" in message.get("body", b"") for message in sent):
            await asyncio.sleep(0.05)
        visitor.pages.events.close()
        await asyncio.wait_for(task, 20)

    asyncio.run(run())
    assert dict(sent[0]["headers"])[b"content-type"] == b"text/event-stream"
    body = b"".join(message["body"] for message in sent[1:]).decode()
    assert 'event: playground\ndata: {"state":"running"}\n\n' in body
    assert sent[-1] == {"type": "http.response.body", "body": b""}
    assert all(json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: "))
