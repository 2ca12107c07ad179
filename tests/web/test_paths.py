"""No request opens a file outside of the runs directory (rules H06 to H08), as an audit hook sees it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from urllib.parse import quote

from web.audit import audited
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


def test_there_are_enough() -> None:
    assert len(STRINGS) >= 200
    assert len(set(STRINGS)) == len(STRINGS)


def test_no_string_leads_outside(visitor: Visitor, runs: Path) -> None:
    (runs.parent / "secret").write_text("secret")
    run = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    with audited() as audit:
        for text in STRINGS:
            address = text.replace("{id}", run["id"])
            for raw in {address.encode("utf-8"), quote(address, safe="/%").encode()}:
                answer = visitor.get(raw)
                assert answer.status in (404, 503), (raw, answer.status)
                assert b"secret" not in answer.body
                assert b"root:" not in answer.body
        assert visitor.get(f"/api/runs/{run['id']}/grids/100").status == 200
    assert audit.outside(runs) == []
    assert audit.changes == []
    assert "step-00000100.png" in audit.opened
