"""Studies and ladders: what the page gets of them, intact and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from poise.study.folder import StudyFolder
from poise.study.records import Arm, Comparison, RunResult, Study, StudyBase, StudyMeasure
from web.sites import Visitor, make_run


@pytest.fixture
def study(runs: Path) -> Path:
    """A study of one tip over three seeds, of which one run is missing and one has its folder."""
    path = runs / "tips"
    (path / "runs").mkdir(parents=True)
    base = StudyBase(name="ring", measures=(StudyMeasure(name="modes", better="more"),), summary="eight modes")
    arms = tuple(
        Arm(base="ring", name=name, steps=10, images=640, runs={str(seed): f"{name}{seed}" for seed in range(3)})
        for name in ("base", "soft")
    )
    comparison = Comparison(base="ring", tip="T07a", name="soft labels", treatment=("soft",), control=("base",))
    folder = StudyFolder(path)
    folder.write_study(Study(name="tips", bases=(base,), arms=arms, comparisons=(comparison,)))
    for name, value in (("base0", 4.0), ("base1", 5.0), ("base2", 4.5), ("soft0", 8.0), ("soft1", 7.0)):
        folder.append_result(RunResult(run=name, state="done", step=10, images=640, values={"modes": value}))
    make_run(path / "runs" / "soft0")
    return path


def only(visitor: Visitor, kind: str) -> dict[str, Any]:
    visitor.pages.index._made = float("-inf")
    (found,) = visitor.get("/api/overview").json[kind]
    return found


def test_a_study(visitor: Visitor, study: Path) -> None:
    card = only(visitor, "studies")
    assert set(card) == {"id", "name", "state", "done", "planned", "changed", "reason"}
    assert (card["name"], card["state"], card["done"], card["planned"]) == ("tips", "interrupted", 5, 6)
    answer = visitor.get(f"/api/studies/{card['id']}").json
    assert answer["bases"] == [
        {"name": "ring", "summary": "eight modes", "measures": [{"name": "modes", "better": "more", "failure": None}]}
    ]
    assert answer["arms"] == ["soft"]
    (tip,) = answer["report"]["tips"]
    assert (tip["tip"], tip["data"], tip["measure"], tip["seeds"]) == ("T07a", "ring", "modes", 2)
    cells = {(cell["arm"], cell["seed"]): cell for cell in answer["runs"]}
    assert len(cells) == 6
    assert cells[None, 1] == {
        "run": None,
        "base": "ring",
        "arm": None,
        "seed": 1,
        "state": "done",
        "values": {"modes": 5.0},
    }
    assert cells["soft", 2]["state"] == "missing"
    run = visitor.get(f"/api/runs/{cells['soft', 0]['run']}").json
    assert (run["name"], run["study"]) == ("tips/runs/soft0", card["id"])


@pytest.mark.parametrize("name", ["study.json", "results.jsonl"])
@pytest.mark.parametrize("content", [b"{\n\n", b"\xff\n\n", b'{"format": 9}\n\n', b"[" * 9000 + b"\n\n"])
def test_a_damaged_study(visitor: Visitor, study: Path, name: str, content: bytes) -> None:
    (study / name).write_bytes(content)
    card = only(visitor, "studies")
    assert card["state"] == "damaged"
    assert str(study) not in card["reason"]
    answer = visitor.get(f"/api/studies/{card['id']}")
    assert answer.status == 404
    assert str(study).encode() not in answer.body


def test_a_study_of_links(visitor: Visitor, study: Path, tmp_path: Path) -> None:
    (study / "results.jsonl").rename(tmp_path / "results.jsonl")
    (study / "results.jsonl").symlink_to(tmp_path / "results.jsonl")
    card = only(visitor, "studies")
    assert card["state"] == "damaged"
    assert visitor.get(f"/api/studies/{card['id']}").status == 404


def test_a_ladder(visitor: Visitor, runs: Path) -> None:
    for name in ("vae", "gan"):
        rung = make_run(runs / "ladder" / name) / "ladder"
        rung.mkdir()
        Image.new("L", (8, 8), 7).save(rung / "samples.png")
        (rung / "figures.json").write_text(json.dumps({"measures": {"fid": {"value": 1.5}, "elbo": {"value": "nan"}}}))
    (runs / "ladder/gan/ladder/figures.json").write_text("{")
    card = only(visitor, "ladders")
    assert set(card) == {"id", "name", "changed", "reason", "tag"}
    answer = visitor.get(f"/api/ladders/{card['id']}").json
    assert answer["tag"] == card["tag"]
    rungs = {rung["name"]: rung for rung in answer["rungs"]}
    assert rungs["vae"]["values"] == {"fid": 1.5, "elbo": None}
    assert (rungs["vae"]["images"], rungs["gan"]["values"]) == (["samples"], {})
    address = f"/api/ladders/{card['id']}/images"
    vae = rungs["vae"]["run"]
    assert visitor.get(f"{address}/{vae}/samples").headers["content-type"] == "image/png"
    for wrong in (f"{vae}/lerp", f"{vae}/figures", "vae/samples", "0/samples", "../samples", f"{vae}/samples.png"):
        assert visitor.get(f"{address}/{wrong}").status == 404
    assert visitor.get(f"/api/runs/{rungs['vae']['run']}").status == 200


def draw_again(ladder: Path) -> None:
    Image.new("L", (8, 8), 9).save(ladder / "vae/ladder/new.png")
    (ladder / "vae/ladder/new.png").replace(ladder / "vae/ladder/samples.png")


LADDER_CHANGES: dict[str, Callable[[Path], object]] = {
    "another rung": lambda ladder: shutil.copytree(ladder / "vae", ladder / "gan"),
    "other measures": lambda ladder: (ladder / "vae/ladder/figures.json").write_text('{"measures": {}}'),
    "another image": lambda ladder: shutil.copy(ladder / "vae/ladder/samples.png", ladder / "vae/ladder/lerp.png"),
    "an image anew": draw_again,
}


@pytest.mark.parametrize("change", LADDER_CHANGES)
def test_the_card_of_a_ladder_tells_whatever_has_changed_of_it(visitor: Visitor, runs: Path, change: str) -> None:
    rung = make_run(runs / "ladder/vae") / "ladder"
    rung.mkdir()
    Image.new("L", (8, 8), 7).save(rung / "samples.png")
    (rung / "figures.json").write_text(json.dumps({"measures": {"fid": {"value": 1.5}}}))
    before = only(visitor, "ladders")
    asked = visitor.get(f"/api/ladders/{before['id']}").json
    assert only(visitor, "ladders") == before
    LADDER_CHANGES[change](runs / "ladder")
    after = only(visitor, "ladders")
    again = visitor.get(f"/api/ladders/{after['id']}").json
    assert again["rungs"] != asked["rungs"]
    assert after["tag"] == again["tag"] != asked["tag"]
