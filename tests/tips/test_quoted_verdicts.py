"""The tables of the documentation that quote published verdicts agree with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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


def quote(verdict: Verdict) -> str:
    return f"{verdict.verdict} {format_effect(verdict)}"


def test_every_quoted_verdict_is_published() -> None:
    by_key = {(v.name, v.data, v.measure): v for verdicts in published().values() for v in verdicts}
    found = list(quotations(PAGE.read_text("utf-8")))
    assert len(found) >= 40
    for name, data, measure, cell in found:
        assert cell == quote(by_key[name, data, measure]), (name, data, measure)


def test_a_changed_number_would_be_noticed() -> None:
    name, data, measure, cell = next(quotations(PAGE.read_text("utf-8")))
    digit = next(character for character in cell if character.isdigit())
    changed = cell.replace(digit, str((int(digit) + 1) % 10), 1)
    by_key = {(v.name, v.data, v.measure): v for verdicts in published().values() for v in verdicts}
    assert changed != quote(by_key[name, data, measure])


@pytest.mark.parametrize("text", ["| comparison | grid, modes |\n|---|---|\n| packing | helps +1 % [0, 2] |\n"])
def test_tables_are_read(text: str) -> None:
    assert list(quotations(text)) == [("packing", "grid", "modes", "helps +1 % [0, 2]")]
