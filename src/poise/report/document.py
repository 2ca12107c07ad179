"""What a report consists of: sections with text, tables and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Tone = Literal["", "good", "bad", "warning", "neutral"]
"""How a cell is coloured in HTML. The text of a cell must say the same without its colour."""


class Cell(NamedTuple):
    """A cell of a table that has a colour or is a header of its row.

    Attributes:
        text: its text.
        tone: its colour.
    """

    text: str
    tone: Tone = ""


class ReportImage(NamedTuple):
    """An image with its caption.

    Attributes:
        path: the file, PNG or SVG, below the folder of the report.
        caption: its caption.
        rendering: how it is enlarged: "pixelated" for grids of small samples, "smooth" for plots.
        width: its smallest width in the page, in rem; a page narrower than this shows one image in each row.
    """

    path: Path
    caption: str
    rendering: Literal["pixelated", "smooth"] = "pixelated"
    width: int = 30


class ReportSection(NamedTuple):
    """A section of the report.

    Attributes:
        heading: its heading.
        paragraphs: its text.
        table: rows of cells, of which the first is the header. The first column names the rows.
        images: images in a row.
        code: lines to be typed into a terminal, shown after the text.
        level: the level of the heading from 2 to 4; that of the first section is always 1.
        folded: whether the HTML shows only the heading until the reader opens it. For what is long and rarely read.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    table: Sequence[Sequence[str | Cell]] = ()
    images: Sequence[ReportImage] = ()
    code: str = ""
    level: int = 2
    folded: bool = False
