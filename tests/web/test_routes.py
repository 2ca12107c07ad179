"""What the routes say of intact, growing and damaged run folders."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.core.config import find_components
from poise.core.types import Targets
from poise.objectives.base import Objective
from poise.objectives.least_squares import LeastSquares
from poise.objectives.pointwise import Minimax, NonSaturating
from poise.runs.frames import parse_frames
from poise.tips.catalogue import tips
from poise.tricks.soft_labels import SoftLabelsConfig
from poise.web import static
from poise.web.references import EQUILIBRIUM, references
from poise.web.static import Asset
from web.page_runs import add_frames
from web.sites import ALARM, Visitor, lines, make_run, row

CARD = {
    "id",
    "name",
    "state",
    "changed",
    "recipe",
    "step",
    "steps",
    "data",
    "shape",
    "parts",
    "best",
    "alarms",
    "reason",
}
CARD |= {"seconds", "images_per_second", "last_grid", "last_grid_tag", "frames", "study"}


def overview(visitor: Visitor) -> dict[str, dict]:
    return {run["name"]: run for run in visitor.get("/api/overview").json["runs"]}


def test_overview(visitor: Visitor, runs: Path) -> None:
    answer = visitor.get("/api/overview")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    whole = answer.json
    assert (whole["format"], whole["directory"], whole["playground"], whole["complete"]) == (1, "runs", False, True)
    found = overview(visitor)
    assert set(found) == {"ring", "deep/digits"}
    ring = found["ring"]
    assert set(ring) == CARD
    assert (ring["state"], ring["step"], ring["alarms"], ring["last_grid"], ring["frames"]) == (
        "done",
        100,
        1,
        100,
        False,
    )
    assert ring["seconds"] == 12.5
    assert ring["images_per_second"] == pytest.approx(640)  # 10 steps of 64 images in a second
    assert len(ring["id"]) == 16


def test_ids_are_kept_and_depend_on_the_path_alone(visitor: Visitor, runs: Path, tmp_path: Path) -> None:
    before = overview(visitor)["ring"]["id"]
    shutil.copytree(runs, tmp_path / "elsewhere")
    assert overview(Visitor(tmp_path / "elsewhere"))["ring"]["id"] == before


def test_a_run(visitor: Visitor) -> None:
    card = overview(visitor)["ring"]
    run = visitor.get(f"/api/runs/{card['id']}").json
    same = CARD - {"alarms", "recipe", "frames"}  # a list, a table and a span in place of what the card says of them
    assert {key: run[key] for key in same} == {key: card[key] for key in same}
    assert run["info"]["device"] == "cpu"
    assert run["recipe"]["network.g.kind"] == "mlp"
    assert 'kind = "ring"' in run["toml"]
    assert run["measures"] == [
        {"step": 50, "measures": {"modes": 3.0, "fid": None}, "floor": {"modes": 8.0}, "n": 9, "features": "points"}
    ]
    assert [(alarm["detector"], alarm["since"]) for alarm in run["alarms"]] == [("collapse", None)]
    assert run["changes"] == []
    assert run["grids"] == [0, 100]
    assert card["last_grid_tag"] == run["grid_tags"][-1] != run["grid_tags"][0]
    assert run["frames"] is None
    shown = {(tip["id"], tip["path"]) for tip in run["tips"]}
    known = {tip.id for tip in tips()}
    assert shown
    assert {id for id, _ in shown} <= known
    assert all(f"{path}.kind" in run["recipe"] for _, path in shown)


def test_a_grid(visitor: Visitor, runs: Path) -> None:
    id = overview(visitor)["ring"]["id"]
    answer = visitor.get(f"/api/runs/{id}/grids/100")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert answer.body == (runs / "ring/samples/step-00000100.png").read_bytes()
    assert visitor.get(f"/api/runs/{id}/grids/100?tag=any").body == answer.body
    assert visitor.get(f"/api/runs/{id}/grids/50").status == 404


def test_frames(visitor: Visitor, runs: Path) -> None:
    id = overview(visitor)["ring"]["id"]
    assert visitor.get(f"/api/runs/{id}/frames").status == 404
    (runs / "ring/frames.bin").write_bytes(b"POISEFRM but not really")
    assert visitor.get(f"/api/runs/{id}/frames").status == 404
    assert visitor.get(f"/api/runs/{id}").json["frames"] is None


def test_frames_of_a_real_run(poise, tmp_path: Path) -> None:
    small = [
        "--set",
        "network.g.width=4",
        "--set",
        "network.d.width=4",
        "--set",
        "measure=none",
        "--set",
        "log.sheet=9",
    ]
    assert poise("train", "ring", "--steps", 4, "--out", tmp_path / "runs/ring", *small).code == 0
    visitor = Visitor(tmp_path / "runs")
    card = overview(visitor)["ring"]
    assert card["frames"]
    answer = visitor.get(f"/api/runs/{card['id']}/frames")
    frames = parse_frames(answer.body, "answer")
    span = visitor.get(f"/api/runs/{card['id']}").json["frames"]
    assert (span["first"], span["last"], span["count"]) == (0, 4, len(frames.records))
    after = parse_frames(visitor.get(f"/api/runs/{card['id']}/frames?after=3").body, "answer")
    assert after.records["step"].tolist() == [step for step in frames.records["step"] if step > 3]


def test_tips(visitor: Visitor) -> None:
    assert visitor.get("/api/tips").json == json.loads(json.dumps([tip.as_json() for tip in tips()]))


def test_references_are_those_of_the_objectives() -> None:
    """The table repeats what classes state that import torch."""
    stated = {}
    for kind, objective in find_components(Objective, "poise.objectives").items():
        values = objective().equilibrium
        if values:
            stated[kind] = {side.value: value for side, value in values.items()}
    for kind, values in stated.items():
        found = references({"objective": {"kind": kind}})
        assert {side: found[f"{side}/adversarial"]["value"] for side in values} == pytest.approx(values), kind
    assert set(EQUILIBRIUM) | {"least_squares", "non_saturating", "minimax"} == set(stated)
    assert references({"objective": {"kind": "elbo"}}) == {}
    assert "d/adversarial" not in references({"objective": {"kind": "wasserstein"}})
    huge = {"kind": "least_squares", "b": 1e200}
    assert set(references({"objective": huge, "tricks": 7})) == {"d/accuracy", "d/real_accuracy", "d/fake_accuracy"}
    assert set(references({"objective": 7})) == {"d/accuracy", "d/real_accuracy", "d/fake_accuracy"}


TARGETS: dict[str, dict[str, Any]] = {
    "hard": {"real": [1.0, 1.0], "fake": [0.0, 0.0]},
    "of the paper": {"real": [0.9, 0.9], "fake": [0, 0]},
    "default": {},
    "on both sides": {"real": [0.9, 0.9], "fake": [0.1, 0.1]},
}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("objective", [NonSaturating(), Minimax(), LeastSquares(), LeastSquares(a=-1.0, b=1.0, c=0.0)])
def test_references_with_soft_labels_are_those_of_the_constant_that_is_best_for_d(
    objective: Objective, targets: str
) -> None:
    soft = SoftLabelsConfig(**TARGETS[targets])
    scores, spread = torch.linspace(-2, 2, 2001).unsqueeze(1), (torch.arange(100) + 0.5) / 100
    real, fake = (low + (high - low) * spread for low, high in (soft.real, soft.fake))
    parts = objective.d_losses(scores, scores, Targets(real, fake))
    loss = sum(part.mean(1) for part in parts) / 2
    best = loss.argmin()
    (g_loss,) = objective.g_losses(scores[best], None)
    recipe = {"objective": objective.model_dump(), "tricks": [{"kind": "soft_labels"} | TARGETS[targets]]}
    found = references(recipe)
    assert found["d/adversarial"]["value"] == pytest.approx(loss[best].item(), abs=1e-4)
    assert found["g/adversarial"]["value"] == pytest.approx(g_loss.item(), abs=2e-3)
    is_even = targets in ("hard", "on both sides")
    assert ("d/real_accuracy" in found) == is_even, "otherwise D takes all samples for real, or all for fake"


@pytest.mark.parametrize(
    "soft",
    [
        {"real": [0.9, {"kind": "linear", "start": 1.0, "end": 0.9}]},
        {"real": [2.0, 2.0], "fake": [0.5, 0.5]},
        {"real": 7},
        {"real": ["a", "b"]},
    ],
    ids=str,
)
def test_targets_that_change_or_have_no_best_constant_have_no_reference_of_a_loss(soft: dict[str, Any]) -> None:
    found = references({"objective": {"kind": "minimax"}, "tricks": [{"kind": "soft_labels"} | soft]})
    assert set(found) == {"d/accuracy"}


def test_an_empty_and_a_missing_directory(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "later")
    assert visitor.get("/api/overview").json["runs"] == []
    make_run(tmp_path / "later" / "ring")
    visitor.pages.index._made = float("-inf")
    assert list(overview(visitor)) == ["ring"]


def test_the_directory_may_be_a_run(runs: Path) -> None:
    visitor = Visitor(runs / "ring")
    run = overview(visitor)["ring"]
    assert visitor.get(f"/api/runs/{run['id']}/grids/0").status == 200


@pytest.mark.parametrize("name", ["run.json", "recipe.toml", "measures.jsonl", "alarms.jsonl", "rows.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\x00\n\n", b'{"step": 1' + b"0" * 5000 + b"}\n", b"[" * 9000 + b"\n"]
)
def test_damaged_files(visitor: Visitor, runs: Path, name: str, content: bytes) -> None:
    id = overview(visitor)["ring"]["id"]
    (runs / "ring" / name).write_bytes(content)
    answer = visitor.get(f"/api/runs/{id}")
    assert answer.status == 200
    run = answer.json
    if run["state"] == "damaged":
        assert run["reason"]
        assert str(runs) not in run["reason"]
    if name == "run.json":
        assert run["state"] == "damaged"
    assert visitor.get(f"/api/runs/{id}/grids/100").status == 200


@pytest.mark.parametrize("seconds", ["nan", "inf", 1e308, 2**53 + 1, -0.0, None, "text", 10**400])
def test_numbers_that_are_not_finite(visitor: Visitor, runs: Path, seconds: object) -> None:
    (runs / "ring/rows.jsonl").write_text(lines([row(1), row(2, "nan", seconds=seconds)]))
    info = json.loads((runs / "ring/run.json").read_text())
    (runs / "ring/run.json").write_text(json.dumps(info | {"best": {"measure": "fid", "value": "nan", "step": 1}}))
    ring = overview(visitor)["ring"]
    assert visitor.get(f"/api/runs/{ring['id']}").status == 200


@pytest.mark.parametrize("step", ["Infinity", "1e400", "NaN", "null", '"x"', "[]"])
def test_a_best_step_that_is_no_number_hides_no_run(visitor: Visitor, runs: Path, step: str) -> None:
    path = runs / "ring/run.json"
    best = '{"measure": "fid", "value": 1.0, "step": STEP}'.replace("STEP", step)
    path.write_text(path.read_text()[:-1] + f', "best": {best}}}')
    assert [run["best"] for run in overview(visitor).values()] == [None, None]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("measures.jsonl", '{"step": 5, "measures": [], "floor": {}, "n": 9, "features": "x"}\n'),
        ("measures.jsonl", '{"step": 5, "measures": {}, "floor": [], "n": 9, "features": "x"}\n'),
        ("recipe.toml", '[objective]\nkind = "least_squares"\nb = 1e200\n'),
    ],
)
def test_a_part_that_is_not_as_training_writes_it_hides_no_run(
    visitor: Visitor, runs: Path, name: str, text: str
) -> None:
    (runs / "ring" / name).write_text(text)
    assert visitor.get(f"/api/runs/{overview(visitor)['ring']['id']}").status == 200


def test_a_run_that_vanishes_and_one_that_appears(visitor: Visitor, runs: Path) -> None:
    id = overview(visitor)["ring"]["id"]
    shutil.rmtree(runs / "ring")
    assert visitor.get(f"/api/runs/{id}").status == 404
    make_run(runs / "ring")
    visitor.pages.index._made = float("-inf")
    assert visitor.get(f"/api/runs/{id}").status == 200


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_pipes_are_not_read(visitor: Visitor, runs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    id = overview(visitor)["ring"]["id"]
    (runs / "ring/samples/step-00000050.png").symlink_to(secret)
    (runs / "ring/samples/step-00000100.png").unlink()
    (runs / "ring/samples/step-00000100.png").symlink_to(secret)
    os.mkfifo(runs / "ring/samples/step-00000060.png")
    for step in (50, 60, 100):
        assert visitor.get(f"/api/runs/{id}/grids/{step}").status == 404
    (runs / "ring/run.json").unlink()
    (runs / "ring/run.json").symlink_to(runs / "deep/digits/run.json")
    run = visitor.get(f"/api/runs/{id}").json
    assert (run["state"], run["reason"]) == ("damaged", "run.json is not a regular file")
    (runs / "linked").symlink_to(runs / "deep/digits")
    assert set(overview(visitor)) == {"ring", "deep/digits"}


def test_only_png_is_served(visitor: Visitor, runs: Path) -> None:
    id = overview(visitor)["ring"]["id"]
    (runs / "ring/samples/step-00000100.png").write_text("<svg onload='alert(1)'/>")
    assert visitor.get(f"/api/runs/{id}/grids/100").status == 404


def test_the_built_page(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = visitor.pages
    monkeypatch.setattr(
        pages, "assets", {"index.html": Asset(b"<p>", "text/html", '"1"'), "page.js": Asset(b"1", "js", '"2"')}
    )
    answer = visitor.get("/")
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, b"<p>", '"1"')
    assert visitor.get("/", headers=(("if-none-match", '"1"'),)).status == 304
    assert visitor.get("/assets/page.js").body == b"1"
    assert visitor.get("/assets/other.js").status == 404
    assert visitor.get("/", method="HEAD").status == 200
    monkeypatch.setattr(pages, "assets", {})
    assert visitor.get("/").status == 503
    assert "npm" in visitor.get("/").json["error"]


def test_assets_are_a_table_of_known_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "static" / "assets").mkdir(parents=True)
    (tmp_path / "static" / "index.html").write_text("<p>")
    (tmp_path / "static" / "assets" / "page.js").write_text("1")
    (tmp_path / "static" / "assets" / "notes.txt").write_text("1")
    monkeypatch.setattr(static, "files", lambda package: tmp_path)
    assert set(static.load_assets()) == {"index.html", "page.js"}


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(1)",
        "javascript:alert(1)",
        "${7*7}",
        "\u202egnp",
        "\udcff",
    ],
)
def test_names_are_data(visitor: Visitor, runs: Path, name: str) -> None:
    make_run(runs / name.replace("/", "|"), name=name.replace("\udcff", "?"))
    answer = visitor.get("/api/overview")
    assert answer.headers["content-type"] == "application/json"
    assert answer.body.isascii()
    assert name.replace("/", "|") in {run["name"] for run in answer.json["runs"]}


@pytest.mark.skipif(os.name == "nt", reason="a backslash separates names on Windows")
@pytest.mark.parametrize("name", ["a\\b", "\\", "c\\..", "with space #1 %23", "ünï"])
def test_a_run_of_any_name_is_read_in_full(visitor: Visitor, runs: Path, name: str) -> None:
    add_frames(make_run(runs / name))
    (card,) = [run for run in visitor.get("/api/overview").json["runs"] if run["name"] == name]
    run = visitor.get(f"/api/runs/{card['id']}").json
    assert run["state"] == "done"
    assert all(run[part] for part in ("toml", "series", "measures", "alarms", "grids", "frames"))
    assert visitor.get(f"/api/runs/{card['id']}/grids/100").status == 200


def test_of_many_measurements_and_alarms_some_are_told_evenly(visitor: Visitor, runs: Path) -> None:
    measured = {"measures": {"fid": 1.0}, "floor": {}, "n": 9, "features": "x"}
    (runs / "ring/measures.jsonl").write_text(lines([{"step": 5 * n} | measured for n in range(1, 12_001)]))
    (runs / "ring/alarms.jsonl").write_text(lines([ALARM | {"step": n} for n in range(1, 4_001)]))
    ring = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    run = visitor.get(f"/api/runs/{ring['id']}").json
    assert run["lines"] == {"measures": 12_000, "alarms": 4_000}
    for name, most, first, last in (("measures", 5_000, 5, 60_000), ("alarms", 2_000, 1, 4_000)):
        steps = [one["step"] for one in run[name]]
        assert (len(steps), steps[0], steps[-1]) == (most, first, last)
        distances = {after - before for before, after in pairwise(steps)}
        assert max(distances) <= 2 * min(distances)
