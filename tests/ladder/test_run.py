"""A whole ladder on a few small pictures: what it leaves behind, going on with it, and what is not done twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.tiny import unequal
from poise.errors import DataError, RecipeError, Stopped
from poise.ladder import evaluate as looking
from poise.ladder import run as climbing
from poise.ladder.evaluate import COLUMNS, NUM_INTERPOLATIONS, STEPS
from poise.ladder.plan import RUNGS, ladder_tables
from poise.ladder.run import run_ladder
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.run import Run
from poise.training.listener import NullListener, StartInfo
from poise.utils.image_grid import image_grid

CODED = ["autoencoder", "vae", "vae-gan"]
EVERY = {"figures.json", "samples.png", "lerp.png", "slerp.png"}
LONG, STOP = 12, 5


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stamps(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of 8 x 8 in four classes, the brighter the higher."""
    path, random = tmp_path_factory.mktemp("data") / "pictures.npz", np.random.Generator(np.random.Philox(3))
    labels = np.arange(60) % 4
    images = labels[:, None, None, None] * 48 + random.integers(0, 100, (60, 8, 8, 1))
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def recipes(pictures: Path, seed: int = 0) -> dict[str, Recipe]:
    """Four rungs, thin and quick."""
    told = {}
    for rung, table in ladder_tables({"kind": "npz", "path": str(pictures), "size": 8}, LONG, seed, 4).items():
        networks = {name: {**network, "width": 4} for name, network in table["network"].items()}
        rates = {side: {**rule, "lr": 0.05} for side, rule in table["optimizer"].items()}
        smaller = {"network": networks, "optimizer": rates, "latent": {"kind": "gaussian", "dim": 3}}
        told[rung] = decode(table | smaller)
    return told


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder that was climbed without a pause."""
    out = tmp_path_factory.mktemp("whole") / "ladder"
    assert run_ladder(recipes(pictures), out) == out / "report.html"
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A ladder to change."""
    return Path(shutil.copytree(whole, tmp_path / "ladder"))


def figures(out: Path, rung: str) -> dict[str, Any]:
    return json.loads((out / rung / "ladder" / "figures.json").read_text("utf-8"), parse_constant=pytest.fail)


def tile(path: Path, row: int, column: int, columns: int) -> np.ndarray:
    """One picture of a sheet of 8 x 8 ones, brought back to its size."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    side = (pixels.shape[1] - 2) // columns
    found = pixels[2 + row * side : (row + 1) * side, 2 + column * side : (column + 1) * side]
    scale = (side - 2) // 8
    return found[::scale, ::scale]


def as_tile(image: torch.Tensor) -> np.ndarray:
    """A picture, C x 8 x 8, as a sheet has it."""
    return ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


# ---------------------------------------------------------------- what is left behind


def test_the_folder(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {*RUNGS, "report.html", "report.md", "spectrum.png"}
    for rung in RUNGS:
        found = {path.name for path in (whole / rung / "ladder").iterdir()}
        assert found == (EVERY | {"fitted.png", "rebuilt.png"} if rung in CODED else EVERY), rung
        info = json.loads((whole / rung / "run.json").read_text())
        assert (info["state"], info["step"], info["name"]) == ("done", LONG, rung)


@pytest.mark.parametrize("rung", list(RUNGS))
def test_figures(whole: Path, rung: str) -> None:
    told = figures(whole, rung)
    keys = {"step", "measures", "n", "features", "spectrum"}
    assert set(told) == (keys | {"codes", "fitted"} if rung in CODED else keys)
    assert (told["step"], told["n"], told["features"]) == (LONG, 6, "pixels")
    measures = {"fid", "kid", "precision", "recall", "density", "coverage", "high_frequencies"}
    rebuilt = {"reconstruction", "pca_reconstruction"} if rung in CODED else set()
    nats = {"elbo", "elbo_reconstruction", "elbo_kl"} if rung == "vae" else set()
    assert set(told["measures"]) == measures | rebuilt | nats
    assert all(math.isfinite(one["value"]) for one in told["measures"].values())
    assert set(told["spectrum"]) == {"real", "samples", *(["fitted"] if rung in CODED else [])}
    assert {len(curve) for curve in told["spectrum"].values()} == {5}
    assert told["spectrum"]["real"] == figures(whole, "vae")["spectrum"]["real"]
    if rung in CODED:
        assert set(told["fitted"]) == measures
        assert set(told["codes"]) == {"mean_length", "std", "length", "prior_length"}
        least, middle, most = told["codes"]["std"]
        assert 0 < least <= middle <= most


@pytest.mark.parametrize("rung", CODED)
def test_how_codes_lie(whole: Path, rung: str) -> None:
    run = Run(whole / rung)
    images = run.load().train.preview(54)
    with torch.no_grad():
        codes = run.game.g.encoder.eval()(images).mean.double()
    told = figures(whole, rung)["codes"]
    assert told["mean_length"] == pytest.approx(float(codes.mean(0).norm()), rel=1e-3)
    assert told["length"] == pytest.approx(float(codes.norm(dim=1).median()), rel=1e-3)
    assert told["std"] == pytest.approx(codes.std(0).sort().values.tolist(), rel=1e-3)
    assert told["prior_length"] == pytest.approx(float(run.latents(54).norm(dim=1).median()))


def test_sheets_of_samples_are_the_runs_samples(whole: Path) -> None:
    for rung in RUNGS:
        with Image.open(whole / rung / "ladder" / "samples.png") as sheet:
            assert np.array_equal(np.asarray(sheet), image_grid(Run(whole / rung).sample(72), COLUMNS)[..., 0])


def test_rebuilt_has_held_out_pictures_above_what_is_made_of_them(whole: Path) -> None:
    """Six are held out: one row of them, and one of what the live weights make of their codes."""
    run = Run(whole / "vae")
    held = run.load().held_out
    assert held is not None
    real = held.preview(6)
    with torch.no_grad():
        game = run.game.eval()
        made = game.g.net(game.g.encoder(real).mean)
    for at in range(6):
        path = whole / "vae" / "ladder" / "rebuilt.png"
        assert np.array_equal(tile(path, at // COLUMNS, at, COLUMNS), as_tile(real[at]))
        row, column = divmod(6 + at, COLUMNS)
        off = tile(path, row, column, COLUMNS).astype(int) - as_tile(made[at])
        assert np.abs(off).max() <= 1


@pytest.mark.parametrize("rung", ["vae", "gan"])
def test_both_walks_have_the_same_ends(whole: Path, rung: str) -> None:
    lerp, slerp = (whole / rung / "ladder" / f"{name}.png" for name in ("lerp", "slerp"))
    between = []
    for row in range(NUM_INTERPOLATIONS):
        for column in (0, STEPS - 1):
            assert np.array_equal(tile(lerp, row, column, STEPS), tile(slerp, row, column, STEPS))
        between.append((tile(lerp, row, 5, STEPS) != tile(slerp, row, 5, STEPS)).any())
    assert any(between)
    with Image.open(lerp) as sheet:
        side = (sheet.width - 2) // STEPS
        assert sheet.height == NUM_INTERPOLATIONS * side + 2


# ---------------------------------------------------------------- a second time


def test_a_second_climb_trains_nothing(pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written = contents(copy), stamps(copy)
    monkeypatch.setattr(climbing, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run_ladder(recipes(pictures), copy) == copy / "report.html"
    assert contents(copy) == before
    mine = {"report.html", "report.md", "spectrum.png"}
    assert {name for name, when in stamps(copy).items() if when != written[name]} == mine


def test_what_was_not_looked_at_is_looked_at(pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(copy)
    shutil.rmtree(copy / "vae" / "ladder")
    (copy / "report.html").unlink()
    monkeypatch.setattr(climbing, "train", lambda *_, **__: pytest.fail("trained again"))
    run_ladder(recipes(pictures), copy)
    assert contents(copy) == before


def test_figures_of_another_save_are_old(pictures: Path, copy: Path) -> None:
    before = contents(copy)
    path = copy / "gan" / "ladder" / "figures.json"
    path.write_text(json.dumps(figures(copy, "gan") | {"step": 2, "n": 77}))
    run_ladder(recipes(pictures), copy)
    assert contents(copy) == before


# ---------------------------------------------------------------- stopped


class StopAt(NullListener):
    """Sends this process SIGTERM while a rung is trained, one step before `STOP`."""

    def __init__(self, rung: str) -> None:
        self.rung, self.name = rung, ""
        self.begun: list[str] = []

    def on_start(self, start: StartInfo) -> None:
        self.name = start.name
        self.begun.append(f"{start.name} from {start.first}")

    def on_step(self, step: int) -> None:
        if (self.name, step) == (self.rung, STOP - 1):
            os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_and_gone_on_with_it_ends_as_if_nothing_had_been(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out, first, second = tmp_path / "ladder", StopAt("vae"), StopAt("")
    with pytest.raises(Stopped) as raised:
        run_ladder(recipes(pictures), out, listener=first)
    told = str(raised.value)
    assert told.startswith(f"stopped by SIGTERM after step {STOP}, state saved; ")
    assert told.endswith(f"poise ladder --out {out}")
    assert "poise train" not in told
    assert first.begun == ["autoencoder from 0", "vae from 0"]
    assert sorted(path.name for path in out.iterdir()) == ["autoencoder", "vae"]
    assert json.loads((out / "vae" / "run.json").read_text())["state"] == "stopped"

    run_ladder(recipes(pictures), out, listener=second)
    assert second.begun == [f"vae from {STOP}", "gan from 0", "vae-gan from 0"]
    for rung in RUNGS:
        assert unequal(Run(out / rung).checkpoint.tensors, Run(whole / rung).checkpoint.tensors) == [], rung
        assert figures(out, rung) == figures(whole, rung)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_stopped_while_a_rung_is_looked_at(
    pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Between trainings there is no run to save; the same command goes on all the same."""
    before = contents(copy)
    (copy / "vae" / "ladder" / "figures.json").unlink()
    with monkeypatch.context() as struck:
        struck.setattr(looking, "spectrum", lambda pile: os.kill(os.getpid(), number))
        with pytest.raises(Stopped, match=f"stopped by {number.name}; .*the same command: poise ladder --out"):
            run_ladder(recipes(pictures), copy)
    run_ladder(recipes(pictures), copy)
    assert contents(copy) == before


def test_the_same_pictures_elsewhere(pictures: Path, copy: Path, tmp_path: Path) -> None:
    """A ladder is gone on with where its data was moved to, and not where it is other data."""
    before = contents(copy)
    (copy / "vae" / "ladder" / "figures.json").unlink()
    moved = Path(shutil.copy(pictures, tmp_path / "moved.npz"))
    run_ladder(recipes(moved), copy)
    assert contents(copy) == before
    (copy / "vae" / "ladder" / "figures.json").unlink()
    np.savez(moved, images=np.zeros((60, 8, 8, 1), np.uint8), labels=np.arange(60) % 4)
    with pytest.raises(DataError, match="not what this run was trained on"):
        run_ladder(recipes(moved), copy)


# ---------------------------------------------------------------- another ladder


@pytest.mark.parametrize("rung", list(RUNGS))
def test_another_ladder_is_refused(pictures: Path, copy: Path, rung: str) -> None:
    """Whichever rung it is that differs, and before anything is written."""
    before, written = contents(copy), stamps(copy)
    told = recipes(pictures) | {rung: recipes(pictures, seed=1)[rung]}
    with pytest.raises(RecipeError, match="contains a ladder with other options") as raised:
        run_ladder(told, copy)
    assert f"--out {copy}" in str(raised.value)
    assert (contents(copy), stamps(copy)) == (before, written)


def test_another_last_rung_is_refused_before_the_first_is_trained(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "ladder"
    shutil.copytree(whole / "vae-gan", out / "vae-gan")
    before = contents(out)
    with pytest.raises(RecipeError, match="contains a ladder with other options"):
        run_ladder(recipes(pictures, seed=1), out)
    assert contents(out) == before


def test_a_rung_that_is_no_run_is_refused_before_the_first_is_trained(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "ladder" / "gan").mkdir(parents=True)
    (tmp_path / "ladder" / "gan" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RecipeError, match="the folder is not empty"):
        run_ladder(recipes(pictures), tmp_path / "ladder")
    assert contents(tmp_path) == before


def test_a_rung_that_was_killed_before_its_first_save_is_begun_anew(pictures: Path, copy: Path) -> None:
    for gone in ("saves", "ladder"):
        shutil.rmtree(copy / "vae" / gone)
    info = copy / "vae" / "run.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"state": "running"}))
    run_ladder(recipes(pictures), copy)
    assert json.loads(info.read_text())["state"] == "done"


# ---------------------------------------------------------------- poor data


@pytest.mark.parametrize(("count", "grey"), [(6, None), (12, None), (24, 0), (24, 200)])
def test_few_or_flat_pictures_have_a_report_too(tmp_path: Path, count: int, grey: int | None) -> None:
    """Fewer than there are walks, one held out, all of one colour: figures may be missing, the page is there."""
    random = np.random.Generator(np.random.Philox(4))
    images = random.integers(0, 256, (count, 8, 8, 1)) if grey is None else np.full((count, 8, 8, 1), grey)
    np.savez(tmp_path / "few.npz", images=images.astype(np.uint8))
    told = {rung: decode(one.canonical() | {"steps": 2}) for rung, one in recipes(tmp_path / "few.npz").items()}
    assert run_ladder(told, tmp_path / "ladder").is_file()
    assert {rung.name for rung in (tmp_path / "ladder").iterdir() if rung.is_dir()} == set(RUNGS)
