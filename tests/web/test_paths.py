"""No request opens a file outside of the runs directory (rules H06 to H08), as an audit hook sees it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest

from web.sites import Visitor

UPS = [
    "../",
    "..\\",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%2f",
    "%252e%252e%252f",
    "..%5c",
    "....//",
    "%c0%ae%c0%ae/",
    "..;/",
    "./",
]
TARGETS = ["etc/passwd", "secret", "etc/passwd%00.png", "proc/self/environ"]
PLACES = ["/", "/assets/", "/api/runs/", "/api/runs/{id}/grids/", "/api/ladders/{id}/images/"]
OTHERS = [
    "//etc/passwd", "/C:/Windows/win.ini", "/file=/etc/passwd", "/#", "/;", "/\0", "/%00", "/\\\\host\\share", "/~root",
    "/proc/self/environ", "/api/runs/{id}/grids/1e1", "/api/runs/{id}/grids/-1", "/api/runs/{id}/grids/" + "9" * 30,
    "/api/runs/{id}/grids/0x64", "/api/runs/{id}/grids/%31", "/api/runs/{id}/grids/100/",
    "/api/runs/{id}/grids/100.png",
    "/api/runs/" + "0" * 16, "/api/runs/" + "9" * 31, "/api/runs/ring", "/api/runs/../x", "/api/runs/{id}/samples",
    "/api/runs/{id}/rows.jsonl", "/assets/../index.html", "/assets/%2e%2e", "/static/index.html", "/index.html.gz",
    "/api/runs/{id}/grids/\u0661", "/api//overview", "/api/overview/", "/API/OVERVIEW",
    "http://evil.com/api/overview", "*",
]  # fmt: skip
STRINGS = [f"{place}{up * 4}{target}" for place, up, target in product(PLACES, UPS, TARGETS)] + OTHERS


class Opened:
    """Collects what is opened while it is active; an audit hook can't be removed."""

    active = False
    paths: list[object] = []  # noqa: RUF012

    @classmethod
    def hook(cls, event: str, arguments: tuple) -> None:
        if cls.active and event in ("open", "os.listdir", "os.scandir"):
            cls.paths.append(arguments[0])


@pytest.fixture
def opened() -> Iterator[list[object]]:
    if Opened.hook not in getattr(sys, "_poise_hooks", []):
        sys.addaudithook(Opened.hook)
        sys._poise_hooks = [Opened.hook]  # type: ignore[attr-defined]
    Opened.paths = []
    Opened.active = True
    yield Opened.paths
    Opened.active = False


def test_there_are_enough() -> None:
    assert len(STRINGS) >= 200
    assert len(set(STRINGS)) == len(STRINGS)


def test_no_string_leads_outside(visitor: Visitor, runs: Path, opened: list[object]) -> None:
    (runs.parent / "secret").write_text("secret")
    opened.clear()
    run = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    for text in STRINGS:
        address = text.replace("{id}", run["id"])
        for raw in {address.encode("utf-8"), quote(address, safe="/%").encode()}:
            answer = visitor.get(raw)
            assert answer.status in (404, 503), (raw, answer.status)
            assert b"secret" not in answer.body
            assert b"root:" not in answer.body
    assert visitor.get(f"/api/runs/{run['id']}/grids/100").status == 200
    for path in opened:
        if isinstance(path, int):
            continue
        name = os.fsdecode(path)  # type: ignore[arg-type]
        relative = "/" not in name and name != ".."  # opened relative to a folder
        inside = Path(name).is_relative_to(runs)
        library = "site-packages" in name or name.startswith((sys.base_prefix, "/dev/")) or "/src/poise/" in name
        assert relative or inside or library, name
    assert any(os.fsdecode(path) == "step-00000100.png" for path in opened if not isinstance(path, int))
