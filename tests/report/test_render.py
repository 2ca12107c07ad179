"""Rendering of reports: escaping, self-contained pages, and Markdown with the same content."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from contracts.html_page import Page
from poise.report.document import Cell, ReportImage, ReportSection
from poise.report.render import html, markdown, write_document

EVIL = "<script>alert(1)</script>|&lt;b&gt; \"'` [x](javascript:y) \x1b[31m\u202e{{ 7 * 7 }}"
SHOWN = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="2"><rect width="4" height="2"/></svg>'


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of the tables of a Markdown document, as they are shown; without the line under the header."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        assert set(map(str.strip, rows[1])) == {"---"}
        tables.append(
            [[unescape(cell.strip().replace("\\|", "|").replace("]\\(", "](")) for cell in row] for row in rows]
        )
        del tables[-1][1]
    return tables


@pytest.fixture
def images(tmp_path: Path) -> list[ReportImage]:
    Image.new("L", (4, 2), 7).save(tmp_path / "grid.png")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "plot (1).svg").write_text(SVG)
    return [
        ReportImage(tmp_path / "grid.png", EVIL),
        ReportImage(tmp_path / "more" / "plot (1).svg", "a plot", "smooth"),
    ]


@pytest.fixture
def sections(images: list[ReportImage]) -> list[ReportSection]:
    table = [["", f"head {EVIL}"], [f"row {EVIL}", Cell(f"helps {EVIL}", "good")], ["two\nlines", "-1.5"]]
    return [
        ReportSection(f"Title {EVIL}", [f"Text {EVIL}"], table),
        ReportSection("Command", code=f"poise study 'x' {EVIL}\nand more"),
        ReportSection(f"Details {EVIL}", images=images, level=3, folded=True),
    ]


def test_nothing_acts_as_html(sections: list[ReportSection]) -> None:
    page = Page(html(sections))
    assert {"script", "b", "a"}.isdisjoint(page.tags)
    assert page.of("title", "h1", "h3") == [f"Title {SHOWN}", f"Title {SHOWN}", f"Details {SHOWN}"]
    assert page.of("p") == [f"Text {SHOWN}"]
    assert page.of("code") == [f"poise study 'x' {SHOWN}\nand more"]
    assert page.rows == [["", f"head {SHOWN}"], [f"row {SHOWN}", f"helps {SHOWN}"], ["two\nlines", "-1.5"]]
    assert page.values("img", "alt") == page.of("figcaption") == [SHOWN, "a plot"]


def test_markdown_has_the_same_cells(sections: list[ReportSection], tmp_path: Path) -> None:
    (table,) = markdown_tables(markdown(sections, tmp_path))
    page = Page(html(sections))
    assert table == [[" ".join(cell.split()) for cell in row] for row in page.rows]


def test_nothing_acts_in_markdown(sections: list[ReportSection], tmp_path: Path) -> None:
    text = markdown(sections, tmp_path)
    outside, code = re.subn(r"^```\n.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)
    assert code == 1
    assert "<" not in outside
    assert "](javascript" not in outside
    assert "\x1b" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_code_with_fences_stays_in_its_block(tmp_path: Path) -> None:
    text = markdown([ReportSection("T", code="```\n````\nx")], tmp_path)
    assert text == "# T\n\n`````\n```\n````\nx\n`````\n"


def test_page_is_self_contained(sections: list[ReportSection], images: list[ReportImage]) -> None:
    text = html(sections)
    page = Page(text)
    sources = page.values("img", "src")
    assert [source.partition(",")[0] for source in sources] == ["data:image/png;base64", "data:image/svg+xml;base64"]
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [
        one.path.read_bytes() for one in images
    ]
    assert {name for _, name, _ in page.attributes} <= {
        *("lang", "charset", "name", "content", "class", "scope", "alt", "src", "style")
    }
    bare = re.sub(r'src="data:[^"]*"', "", text)
    for word in ("http", "://", "src=", "url(", "@import", "href", "file:"):
        assert word not in bare


def test_markdown_links_exist(sections: list[ReportSection], tmp_path: Path) -> None:
    text = markdown(sections, tmp_path)
    assert re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE) == ["grid.png", "more/plot%20%281%29.svg"]
    assert "\\[x\\]\\(javascript" in text  # a bracket does not end the caption


def test_colours_repeat_what_the_text_says(sections: list[ReportSection]) -> None:
    page = Page(html(sections))
    assert [value for value in page.values("td", "class") if "good" in value] == ["words good"]


def test_numbers_are_aligned_at_the_right() -> None:
    rows = [["a", "b", "c", "d"], ["x", "+12 %", "", "2 of 3 seeds"], ["y", "-0.5", "1e-3", "none"]]
    page = Page(html([ReportSection("T", table=rows)]))
    assert page.values("td", "class") == ["words", "number", "number", "words"] * 2


def test_header_of_a_long_table_stays_in_sight() -> None:
    def frame(rows: int) -> list[str]:
        return Page(html([ReportSection("T", table=[["a"], *([["1"]] * rows)])])).values("div", "class")

    assert frame(20) == ["table"]
    assert frame(21) == ["table tall"]


def test_folded_sections_can_be_opened(sections: list[ReportSection]) -> None:
    page = Page(html(sections))
    assert page.tags.count("details") == page.tags.count("summary") == 1
    assert page.tags.index("details") > page.tags.index("pre")
    assert page.tags.index("img") > page.tags.index("summary")


def test_levels_of_headings(sections: list[ReportSection], tmp_path: Path) -> None:
    tags = Page(html(sections)).tags
    assert [tag for tag in tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h3"]
    heads = re.findall(r"^(#+) (?:Title|Command|Details)", markdown(sections, tmp_path), re.MULTILINE)
    assert heads == ["#", "##", "###"]


def test_both_files_are_written(sections: list[ReportSection], tmp_path: Path) -> None:
    assert write_document(sections, tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text("utf-8") == html(sections)
    assert (tmp_path / "report.md").read_text("utf-8") == markdown(sections, tmp_path)


def test_nothing_is_written_if_an_image_is_missing(tmp_path: Path) -> None:
    section = ReportSection("T", images=[ReportImage(tmp_path / "gone.png", "c")])
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        write_document([section], tmp_path)
    assert not list(tmp_path.iterdir())


def test_rendering_imports_no_torch() -> None:
    code = "import sys, poise.report.render as r; r.environment(); print({'torch', 'numpy'} & set(sys.modules) or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
