"""Run folders as training writes them, without training, and requests to the page without a network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from poise.recipe.shipped import load_table
from poise.recipe.toml import to_toml
from poise.web.app import create_app
from poise.web.routes import Pages
from poise.web.run_index import RunIndex
from poise.web.static import load_assets

PORT = 8765
TOKEN = "secret-of-this-test"
INFO: dict[str, Any] = {
    "name": "ring",
    "state": "done",
    "step": 100,
    "steps": 100,
    "seconds": 12.5,
    "recipe": "0123456789abcdef",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "cpu_capability": "AVX2",
    "versions": {"poise": "0.1.0"},
    "data": {"kind": "ring", "fingerprint": "ab", "shape": [2], "classes": [], "class_counts": [], "count": None},
    "parameters": {"d": 609, "g": 850},
}
ALARM = {"step": 40, "detector": "collapse", "level": "warning", "message": "few modes", "advice": "wait", "tip": "T16"}


def row(step: int, value: float | str = 0.5, **more: Any) -> dict[str, Any]:
    """A line of rows.jsonl."""
    stat = {"mean": value, "std": 0.0, "min": value, "max": value}
    stats = {"d/adversarial": stat, "g/adversarial": stat, "d/accuracy": stat}
    return {"step": step, "images": step * 64, "seconds": step / 10, "stats": stats} | more


def lines(found: list[dict[str, Any]]) -> str:
    """The text of a JSON Lines file."""
    return "".join(json.dumps(one) + "\n" for one in found)


def make_run(path: Path, *, recipe: str = "ring", grids: tuple[int, ...] = (0, 100), **info: Any) -> Path:
    """A run folder that has ended, with rows, measures, an alarm and sample grids."""
    (path / "samples").mkdir(parents=True)
    (path / "saves").mkdir()
    (path / "run.json").write_text(json.dumps(INFO | info))
    (path / "recipe.toml").write_text(to_toml(load_table(recipe)))
    (path / "rows.jsonl").write_text(lines([row(step) for step in range(10, 101, 10)]))
    measures = {
        "step": 50,
        "measures": {"modes": 3.0, "fid": "nan"},
        "floor": {"modes": 8.0},
        "n": 9,
        "features": "points",
    }
    (path / "measures.jsonl").write_text(lines([measures | {"n": 9, "features": "points"}]))
    (path / "alarms.jsonl").write_text(lines([ALARM]))
    for step in grids:
        Image.new("L", (8, 8), step % 256).save(path / "samples" / f"step-{step:08d}.png")
    return path


class Answer(NamedTuple):
    """An answer of the page."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as strict JSON."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        return json.loads(self.body, parse_constant=refuse)


class Visitor:
    """Sends requests to the page of a directory as a browser with the cookie does, unless told otherwise."""

    def __init__(self, root: Path) -> None:
        self.pages = Pages(RunIndex(root), load_assets(), playground=False)
        self.app = create_app(self.pages, PORT, TOKEN)

    def get(
        self,
        address: str | bytes,
        *,
        method: str = "GET",
        host: str | None = f"127.0.0.1:{PORT}",
        cookie: str | None = f"poise-{PORT}={TOKEN}",
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """The answer to one request."""
        sent = [*headers]
        sent += [] if host is None else [("host", host)]
        sent += [] if cookie is None else [("cookie", cookie)]
        raw = address if isinstance(address, bytes) else address.encode()
        path, _, query = raw.partition(b"?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent],
            "server": ("127.0.0.1", PORT),
            "client": ("127.0.0.1", 50_000),
        }
        return asyncio.run(self._send(scope, body))

    async def _send(self, scope: dict[str, Any], body: bytes) -> Answer:
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in told[0]["headers"]}
        return Answer(told[0]["status"], headers, b"".join(message.get("body", b"") for message in told[1:]))
