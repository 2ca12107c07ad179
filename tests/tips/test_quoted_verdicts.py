"""The tables of the documentation that quote published verdicts agree with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from poise.tips.verdicts import Verdict, format_effect, published

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "notes" / "tips-study.md"
FIRST = "comparison"


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quotations(text: str) -> Iterator[tuple[str, str, str, str]]:
    """The name, data, measure and cell of each quoted verdict, in tables such as `| comparison | grid, modes |`."""
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells_of(line)
        elif header[0] == FIRST and not line.startswith("|-"):
            name, *cells = cells_of(line)
            for column, cell in zip(header[1:], cells, strict=True):
                data, measure = column.split(", ")
                if cell:
                    yield name, data, measure, cell


def published_quotes() -> dict[tuple[str, str, str], str]:
    verdicts: list[Verdict] = [one for group in published().values() for one in group]
    return {(v.name, v.data, v.measure): f"{v.verdict} {format_effect(v)}" for v in verdicts}


def test_every_quoted_verdict_is_published() -> None:
    quotes, found = published_quotes(), list(quotations(PAGE.read_text("utf-8")))
    assert len(found) >= 40
    for name, data, measure, cell in found:
        assert cell == quotes[name, data, measure], (name, data, measure)


def test_tables_are_read() -> None:
    text = "| comparison | grid, modes |\n|---|---|\n| packing | helps +1 % [0, 2] |\n"
    assert list(quotations(text)) == [("packing", "grid", "modes", "helps +1 % [0, 2]")]
