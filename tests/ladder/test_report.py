"""The report of a ladder, from handmade run folders: a self-contained HTML page and its Markdown version."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from PIL import Image

from contracts.html_page import Page
from poise.errors import CheckpointError
from poise.ladder.read import read_rungs
from poise.ladder.report import write_report
from poise.report.document import ReportImage, ReportSection
from poise.report.render import html, markdown

NAMES = ["autoencoder", "vae", "gan", "vae-gan"]
CODED = ["autoencoder", "vae", "vae-gan"]
ODD = """<b>&amp; "it's" & co</b>"""
OUTSIDE = {"src", "href", "srcset", "action", "data", "poster", "background"}


def figure(value: float, floor: float | None = None) -> dict[str, Any]:
    return {"value": value, "floor": floor}


def figures(name: str, at: int) -> dict[str, Any]:
    """The results of one rung; every rung has different numbers."""
    result: dict[str, Any] = {
        "step": 1200,
        "measures": {"fid": figure(40.25 + at, 1.5), "coverage": figure(0.5 + at / 16, 0.97)},
        "n": 1234,
        "features": f"features {ODD}",
        "spectrum": {"real": [4.0, 2.0, 1.0], "samples": [4.0, 2.0 - at / 8, 0.5]},
    }
    if name in CODED:
        result["measures"] |= {"reconstruction": figure(0.0625 + at), "pca_reconstruction": figure(0.125)}
        result["codes"] = {"mean_length": 1.0, "std": [0.25, 0.75, 3.5], "length": 8.5, "prior_length": 5.75}
        result["fitted"] = {"fid": figure(33.75 + at, 1.5)}
        result["spectrum"]["fitted"] = [4.0, 1.0, 0.0]
    if name == "vae":
        result["measures"]["elbo"] = figure(-321.5)
    return result


def ladder(out: Path) -> Path:
    """Four run folders with everything that a report reads."""
    for at, name in enumerate(NAMES):
        run = out / name
        (run / "ladder").mkdir(parents=True)
        recipe = {
            "name": name,
            "steps": 1200,
            "batch": 16,
            "seed": 9,
            "latent": {"kind": "gaussian", "dim": 7},
            "network": {"g": {"kind": f"dcgan {ODD}"}},
        }
        (run / "recipe.toml").write_text(tomli_w.dumps(recipe))
        info = {
            "name": name,
            "state": "done",
            "step": 1200,
            "steps": 1200,
            "data": {
                "kind": f"npz {ODD}",
                "fingerprint": "f",
                "count": 5400,
                "shape": [1, 8, 8],
                "classes": [],
            },
            "parameters": {"g": 4321 + at, "d": 99},
            "recipe": f"hash{at}{ODD}",
            "seconds": 61.5 + 10 * at,
        }
        (run / "run.json").write_text(json.dumps(info))
        (run / "ladder" / "figures.json").write_text(json.dumps(figures(name, at)))
        sheets = ["samples", "lerp", "slerp", *(["fitted", "rebuilt"] if name in CODED else [])]
        for number, sheet in enumerate(sheets):
            Image.new("L", (4, 4), 16 * at + number).save(run / "ladder" / f"{sheet}.png")
    alarms = [{"step": 5, "detector": "d_at_zero"}, {"step": 6, "detector": f"loud{ODD}"}, {"step": 7}]
    alarms[2]["detector"] = "d_at_zero"
    alarms = [alarm | {"level": "note", "message": "", "advice": "", "tip": ""} for alarm in alarms]
    (out / "gan" / "alarms.jsonl").write_text("".join(json.dumps(alarm) + "\n" for alarm in alarms))
    return out


def references(page: Page) -> list[str]:
    """What the page refers to."""
    return [value for _, name, value in page.attributes if name in OUTSIDE]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder with its report."""
    out = ladder(tmp_path_factory.mktemp("made") / "ladder")
    assert write_report(out, NAMES) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page((made / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def twin(made: Path) -> str:
    return (made / "report.md").read_text("utf-8")


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def tables(twin: str) -> list[list[list[str]]]:
    """The tables of a Markdown page."""
    found = re.findall(r"(?:^\|.*\n)+", twin + "\n", re.MULTILINE)
    return [[cells(line) for line in table.splitlines()] for table in found]


def links(twin: str) -> list[tuple[str, str]]:
    """Caption and path of each image in a Markdown page."""
    return re.findall(r"^!\[(.*)\]\((.*)\)$", twin, re.MULTILINE)


# ---------------------------------------------------------------- the page


def test_page_is_self_contained(made: Path, page: Page) -> None:
    text = (made / "report.html").read_text("utf-8")
    assert all(link.startswith("data:image/png;base64,") for link in references(page))
    assert len(references(page)) == text.count("<img ")
    bare = re.sub(r'"data:[^"]*"', '""', text).lower()
    for word in ("http", "://", "src=", "url(", "@import", "<script", "<link", "<iframe", "href"):
        assert bare.replace('src=""', "").count(word) == 0, word
    assert {"script", "link", "iframe", "object", "a"}.isdisjoint(page.tags)


def test_page_is_a_complete_document(made: Path, page: Page) -> None:
    text = (made / "report.html").read_text("utf-8")
    assert text.startswith("<!doctype html>\n")
    assert text.endswith("</html>\n")
    assert 'charset="utf-8"' in text
    assert [page.tags.count(tag) for tag in ("html", "head", "title", "body", "h1")] == [1] * 5
    assert page.of("title") == page.of("h1") == ["Ladder of generative models"]


def test_every_image_is_embedded(made: Path, page: Page) -> None:
    sheets = sorted(made.glob("*/ladder/*.png"))
    assert len(sheets) == 3 * 5 + 3
    inside = [base64.b64decode(link.partition(",")[2]) for link in references(page)]
    assert sorted(inside) == sorted(path.read_bytes() for path in [*sheets, made / "spectrum.png"])
    assert len(page.of("figcaption")) == len(inside)
    with Image.open(made / "spectrum.png") as curves:
        assert len(set(curves.convert("L").tobytes())) > 2


def test_foreign_text_is_escaped(page: Page) -> None:
    assert "b" not in page.tags
    whole = " ".join(page.of("p")) + " ".join(cell for row in page.rows for cell in row)
    for words in (f"npz {ODD}", f"dcgan {ODD}", f"features {ODD}", f"hash3{ODD}", f"loud{ODD}"):
        assert words in whole


def test_headings_captions_and_cells_are_escaped(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "one.png")
    parts = [
        ReportSection(f"Head {ODD}", [f"Words {ODD}"], [["", f"th {ODD}"], [f"td {ODD}", "1"]]),
        ReportSection(f"Second {ODD}", images=[ReportImage(tmp_path / "one.png", f"under {ODD}")]),
    ]
    found = Page(html(parts))
    assert "b" not in found.tags
    assert found.of("title", "h1", "h2") == [f"Head {ODD}", f"Head {ODD}", f"Second {ODD}"]
    assert found.of("p", "figcaption") == [f"Words {ODD}", f"under {ODD}"]
    assert found.values("img", "alt") == [f"under {ODD}"]
    assert found.rows == [["", f"th {ODD}"], [f"td {ODD}", "1"]]


# ---------------------------------------------------------------- the twin


def test_links_in_markdown_exist(made: Path, twin: str, page: Page) -> None:
    found = links(twin)
    paths = [path for _, path in found]
    assert len(paths) == len(set(paths)) == len(references(page))
    for path in paths:
        assert not Path(path).is_absolute()
        assert (made / path).is_file(), path
    inside = [base64.b64decode(link.partition(",")[2]) for link in references(page)]
    assert [(made / path).read_bytes() for path in paths] == inside
    assert [caption for caption, _ in found] == page.of("figcaption") == page.values("img", "alt")


def test_markdown_links_are_relative(made: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(made, tmp_path / "moved"))
    (moved / "report.md").unlink()
    write_report(moved, NAMES)
    assert (moved / "report.md").read_bytes() == (made / "report.md").read_bytes()
    assert (moved / "report.html").read_bytes() == (made / "report.html").read_bytes()


def test_table_rows_have_equal_lengths(twin: str) -> None:
    found = tables(twin)
    assert len(found) == 2
    for table in found:
        assert len({len(row) for row in table}) == 1
        assert set(table[1]) == {"---"}
    assert found[0][0] == ["", "autoencoder", "autoencoder, fitted codes", "vae", "gan", "vae-gan", "real data"]
    assert [row[0] for row in found[1][2:]] == NAMES


def test_html_and_markdown_have_the_same_content(twin: str, page: Page) -> None:
    twin = unescape(twin)
    heads = re.findall(r"^#+ (.*)$", twin, re.MULTILINE)
    assert heads == page.of("h1", "h2")
    plain = [
        line for line in twin.splitlines() if line and not line.startswith(("|", "![")) and not re.match(r"#+ ", line)
    ]
    assert plain == page.of("p")
    assert [row for table in tables(twin) for row in (table[0], *table[2:])] == page.rows


def test_markdown_alone(tmp_path: Path) -> None:
    parts = [
        ReportSection("One", ["Words."], [["", "a"], ["b", "1"]]),
        ReportSection("Two", images=[ReportImage(tmp_path / "x.png", "c")]),
    ]
    lines = [line for line in markdown(parts, tmp_path).splitlines() if line]
    assert lines == ["# One", "Words.", "|  | a |", "| --- | --- |", "| b | 1 |", "## Two", "![c](x.png)"]


# ---------------------------------------------------------------- what is in it


def test_values_are_in_their_cells(page: Page) -> None:
    by_name = {row[0]: row[1:] for row in page.rows}
    assert by_name["FID"] == ["40.25", "33.75", "41.25", "42.25", "43.25", "1.5"]
    assert by_name["coverage"] == ["0.5", "", "0.5625", "0.625", "0.6875", "0.97"]
    assert by_name["reconstruction error"] == ["0.0625", "", "1.062", "", "3.062", ""]
    assert by_name["reconstruction error of PCA"] == ["0.125", "", "0.125", "", "0.125", ""]
    assert by_name["ELBO, nats"] == ["", "", "-321.5", "", "", ""]
    assert "precision" not in by_name
    assert by_name["gan"] == ["82", "g 4,323, d 99", f"d_at_zero, loud{ODD}", f"hash2{ODD}", "step 1,200"]
    assert by_name["vae"] == ["72", "g 4,322, d 99", "none", f"hash1{ODD}", "step 1,200"]


def test_sentences_contain_the_values(page: Page) -> None:
    first = page.of("p")[0]
    for part in (
        "5,400 images of 1x8x8",
        "4,321 parameters",
        "7 latent dimensions",
        "1,200 steps with batch size 16",
        "19,200",
        "Seed 9",
    ):
        assert part in first
    whole = " ".join(page.of("p"))
    assert "NOT confirmed: the VAE's samples are better than the autoencoder's" in whole
    assert "Confirmed: the autoencoder has a lower reconstruction error" in whole
    assert "FID 41.25 for the VAE, 40.25 for the autoencoder" in whole
    assert "1,234 samples" in whole
    assert "8.5 for codes of training images and 5.75 for latents, so the decoder" in whole
    assert "0.25 to 3.5 (median 0.75)" in whole


@pytest.mark.parametrize(
    ("length", "away"), [(8.5, True), (6.0, False), (5.75, False), (5.0, False), (3.5, True)], ids=str
)
def test_remark_on_codes_only_if_norms_differ(tmp_path: Path, length: float, away: bool) -> None:
    out = ladder(tmp_path / "ladder")
    result = figures("autoencoder", 0)
    result["codes"]["length"] = length
    (out / "autoencoder" / "ladder" / "figures.json").write_text(json.dumps(result))
    write_report(out, NAMES)
    assert ("far from its training points" in (out / "report.md").read_text("utf-8")) == away


def test_part_of_a_ladder_can_be_reported(tmp_path: Path) -> None:
    """One rung without codes: the report does not mention codes."""
    out = ladder(tmp_path / "ladder")
    write_report(out, ["gan"])
    twin = (out / "report.md").read_text("utf-8")
    assert "standard deviations" not in twin
    assert "fitted" not in twin
    assert tables(twin)[0][0] == ["", "gan", "real data"]


# ---------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gone", [".", "ladder", "ladder/figures.json", "run.json"])
def test_missing_rung(tmp_path: Path, name: str, gone: str) -> None:
    out = ladder(tmp_path / "ladder")
    place = out / name / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(CheckpointError, match="not an evaluated model") as raised:
        write_report(out, NAMES)
    assert str(raised.value).startswith(f"{out / name}: ")
    assert not list(out.glob("report.*"))
    assert [rung.name for rung in read_rungs(out, [other for other in NAMES if other != name])] == [
        other for other in NAMES if other != name
    ]


def test_truncated_results(tmp_path: Path) -> None:
    out = ladder(tmp_path / "ladder")
    path = out / "vae" / "ladder" / "figures.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(CheckpointError, match=re.escape(str(out / "vae"))):
        write_report(out, NAMES)


# ---------------------------------------------------------------- without torch


@pytest.mark.parametrize("module", ["poise.ladder.read", "poise.ladder.findings", "poise.ladder.report"])
def test_reading_a_ladder_imports_no_torch(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print({{'torch'}} & set(sys.modules) or '')"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
