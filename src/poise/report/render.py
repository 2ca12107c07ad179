"""Renders a report as a self-contained HTML file and as Markdown, from the templates in this package."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from poise.report.document import Cell, ReportImage, ReportSection
from poise.utils.files import write_text
from poise.utils.printing import one_line, printable

if TYPE_CHECKING:
    from jinja2 import Environment

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
MAX_STILL_ROWS = 20
"""A table with more rows scrolls in a frame of its own, below a header that stays in sight."""

NUMBER = re.compile(r"[-+−–±<>≤≥~]?\s*[\d.,]+(?:e[-+]?\d+)?\s?[%×]?(?![\w])")


def write_document(sections: Sequence[ReportSection], out: Path, name: str = "report") -> Path:
    """Write `NAME.html` and `NAME.md` into a folder that contains the images.

    Args:
        sections: the report.
        out: the folder.
        name: the name of both files without suffix.

    Returns:
        The path of the HTML file.

    Raises:
        OSError: an image can't be read; nothing is written.
        DiskError: a file can't be written.
    """
    text, page = markdown(sections, out), html(sections)
    write_text(out / f"{name}.md", text)
    write_text(out / f"{name}.html", page)
    return out / f"{name}.html"


def html(sections: Sequence[ReportSection]) -> str:
    """The report as a single HTML file with embedded images, which loads nothing and runs no script."""
    return environment().get_template("document.html.j2").render(sections=sections, max_still_rows=MAX_STILL_ROWS)


def markdown(sections: Sequence[ReportSection], out: Path) -> str:
    """The report as Markdown (GitHub's dialect); images are linked by their paths relative to `out`."""
    return environment().get_template("document.md.j2").render(sections=sections, out=out).rstrip("\n") + "\n"


def escape_markdown(text: object) -> str:
    """Text in which nothing acts as HTML, as an entity or as a link."""
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(printable(str(text), keep_newlines=True)))
    return escaped.replace("<", "&lt;").replace("](", "]\\(")


def environment() -> Environment:
    """Jinja2 with the templates of this package and the filters that they use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("poise.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "text": _escape_controls,
        "md": escape_markdown,
        "cell": _markdown_cell,
        "caption": _markdown_caption,
        "link": lambda path, out: quote(path.relative_to(out).as_posix()),
        "data_uri": _data_uri,
        "as_cell": _as_cell,
        "alignments": _alignments,
        "fence": _fence,
    }
    return environment


def _escape_controls(text: str) -> str:
    return printable(text, keep_newlines=True)


def _as_cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(str(cell))


def _markdown_cell(cell: str | Cell) -> str:
    return escape_markdown(_as_cell(cell).text).replace("|", "\\|")


def _markdown_caption(caption: str) -> str:
    return escape_markdown(re.sub(r"([\[\]])", r"\\\1", caption))


def _data_uri(image: ReportImage) -> str:
    encoded = base64.b64encode(image.path.read_bytes()).decode()
    return f"data:{MEDIA_TYPES[image.path.suffix]};base64,{encoded}"


def _alignments(table: Sequence[Sequence[str | Cell]]) -> list[str]:
    """For each column its class in HTML: "number" if all cells with a text begin with a number, else "words"."""
    columns = zip(*([_as_cell(cell).text for cell in row] for row in table[1:]), strict=True)
    kinds = ["number" if all(NUMBER.match(text) for text in column if text) else "words" for column in columns]
    return ["words", *kinds[1:]] if kinds else ["words"] * len(table[0])


def _fence(code: str) -> str:
    """The fence of a block of code: longer than any run of backticks in it."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
