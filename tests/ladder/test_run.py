"""A complete ladder on a few small images: its files, resuming it, and what is not repeated."""

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
    """The modification time of each file."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty 8 x 8 images in four classes; higher classes are brighter."""
    path, random = tmp_path_factory.mktemp("data") / "pictures.npz", np.random.Generator(np.random.Philox(3))
    labels = np.arange(60) % 4
    images = labels[:, None, None, None] * 48 + random.integers(0, 100, (60, 8, 8, 1))
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def recipes(pictures: Path, seed: int = 0) -> dict[str, Recipe]:
    """Four rungs with narrow networks and few steps."""
    result = {}
    for rung, table in ladder_tables({"kind": "npz", "path": str(pictures), "size": 8}, LONG, seed, 4).items():
        networks = {name: {**network, "width": 4} for name, network in table["network"].items()}
        rates = {side: {**rule, "lr": 0.05} for side, rule in table["optimizer"].items()}
        smaller = {"network": networks, "optimizer": rates, "latent": {"kind": "gaussian", "dim": 3}}
        result[rung] = decode(table | smaller)
    return result


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder that was trained without interruption."""
    out = tmp_path_factory.mktemp("whole") / "ladder"
    assert run_ladder(recipes(pictures), out) == out / "report.html"
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the ladder, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "ladder"))


def figures(out: Path, rung: str) -> dict[str, Any]:
    return json.loads((out / rung / "ladder" / "figures.json").read_text("utf-8"), parse_constant=pytest.fail)


def tile(path: Path, row: int, column: int, columns: int) -> np.ndarray:
    """One image of a grid of 8 x 8 images, at its original size."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    side = (pixels.shape[1] - 2) // columns
    found = pixels[2 + row * side : (row + 1) * side, 2 + column * side : (column + 1) * side]
    scale = (side - 2) // 8
    return found[::scale, ::scale]


def as_tile(image: torch.Tensor) -> np.ndarray:
    """An image, C x 8 x 8, as it is in a grid."""
    return ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


# ---------------------------------------------------------------- what is left behind


def test_files_of_a_ladder(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {*RUNGS, "report.html", "report.md", "spectrum.png"}
    for rung in RUNGS:
        found = {path.name for path in (whole / rung / "ladder").iterdir()}
        assert found == (EVERY | {"fitted.png", "rebuilt.png"} if rung in CODED else EVERY), rung
        info = json.loads((whole / rung / "run.json").read_text())
        assert (info["state"], info["step"], info["name"]) == ("done", LONG, rung)


@pytest.mark.parametrize("rung", list(RUNGS))
def test_results(whole: Path, rung: str) -> None:
    result = figures(whole, rung)
    keys = {"step", "measures", "n", "features", "spectrum"}
    assert set(result) == (keys | {"codes", "fitted"} if rung in CODED else keys)
    assert (result["step"], result["n"], result["features"]) == (LONG, 6, "pixels")
    measures = {"fid", "kid", "precision", "recall", "density", "coverage", "high_frequencies"}
    rebuilt = {"reconstruction", "pca_reconstruction"} if rung in CODED else set()
    nats = {"elbo", "elbo_reconstruction", "elbo_kl"} if rung == "vae" else set()
    assert set(result["measures"]) == measures | rebuilt | nats
    assert all(math.isfinite(one["value"]) for one in result["measures"].values())
    assert set(result["spectrum"]) == {"real", "samples", *(["fitted"] if rung in CODED else [])}
    assert {len(curve) for curve in result["spectrum"].values()} == {5}
    assert result["spectrum"]["real"] == figures(whole, "vae")["spectrum"]["real"]
    if rung in CODED:
        assert set(result["fitted"]) == measures
        assert set(result["codes"]) == {"mean_length", "std", "length", "prior_length"}
        least, middle, most = result["codes"]["std"]
        assert 0 < least <= middle <= most


@pytest.mark.parametrize("rung", CODED)
def test_code_statistics(whole: Path, rung: str) -> None:
    run = Run(whole / rung)
    images = run.load().train.preview(54)
    with torch.no_grad():
        codes = run.game.g.encoder.eval()(images).mean.double()
    result = figures(whole, rung)["codes"]
    assert result["mean_length"] == pytest.approx(float(codes.mean(0).norm()), rel=1e-3)
    assert result["length"] == pytest.approx(float(codes.norm(dim=1).median()), rel=1e-3)
    assert result["std"] == pytest.approx(codes.std(0).sort().values.tolist(), rel=1e-3)
    assert result["prior_length"] == pytest.approx(float(run.latents(54).norm(dim=1).median()))


def test_sample_grids_show_the_samples_of_the_run(whole: Path) -> None:
    for rung in RUNGS:
        with Image.open(whole / rung / "ladder" / "samples.png") as sheet:
            assert np.array_equal(np.asarray(sheet), image_grid(Run(whole / rung).sample(72), COLUMNS)[..., 0])


def test_held_out_images_are_above_their_reconstructions(whole: Path) -> None:
    """Six images are held out: one row of them, and one of their reconstructions by the trained weights."""
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
def test_both_interpolations_have_the_same_ends(whole: Path, rung: str) -> None:
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


def test_complete_ladder_is_not_trained_again(pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written = contents(copy), stamps(copy)
    monkeypatch.setattr(climbing, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run_ladder(recipes(pictures), copy) == copy / "report.html"
    assert contents(copy) == before
    mine = {"report.html", "report.md", "spectrum.png"}
    assert {name for name, when in stamps(copy).items() if when != written[name]} == mine


def test_missing_evaluation_is_repeated(pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(copy)
    shutil.rmtree(copy / "vae" / "ladder")
    (copy / "report.html").unlink()
    monkeypatch.setattr(climbing, "train", lambda *_, **__: pytest.fail("trained again"))
    run_ladder(recipes(pictures), copy)
    assert contents(copy) == before


def test_results_of_another_checkpoint_are_replaced(pictures: Path, copy: Path) -> None:
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


def test_resumed_ladder_equals_uninterrupted_one(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out, first, second = tmp_path / "ladder", StopAt("vae"), StopAt("")
    with pytest.raises(Stopped) as raised:
        run_ladder(recipes(pictures), out, listener=first)
    message = str(raised.value)
    assert message.startswith(f"stopped by SIGTERM after step {STOP}, state saved; ")
    assert message.endswith(f"poise ladder --out {out}")
    assert "poise train" not in message
    assert first.begun == ["autoencoder from 0", "vae from 0"]
    assert sorted(path.name for path in out.iterdir()) == ["autoencoder", "vae"]
    assert json.loads((out / "vae" / "run.json").read_text())["state"] == "stopped"

    run_ladder(recipes(pictures), out, listener=second)
    assert second.begun == [f"vae from {STOP}", "gan from 0", "vae-gan from 0"]
    for rung in RUNGS:
        assert unequal(Run(out / rung).checkpoint.tensors, Run(whole / rung).checkpoint.tensors) == [], rung
        assert figures(out, rung) == figures(whole, rung)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_stopped_during_an_evaluation(
    pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Between the runs there is nothing to save, and the same command continues."""
    before = contents(copy)
    (copy / "vae" / "ladder" / "figures.json").unlink()
    with monkeypatch.context() as struck:
        struck.setattr(looking, "spectrum", lambda pile: os.kill(os.getpid(), number))
        with pytest.raises(Stopped, match=f"stopped by {number.name}; .*the same command: poise ladder --out"):
            run_ladder(recipes(pictures), copy)
    run_ladder(recipes(pictures), copy)
    assert contents(copy) == before


def test_moved_data(pictures: Path, copy: Path, tmp_path: Path) -> None:
    """A ladder continues with data that was moved, but not with other data."""
    before = contents(copy)
    (copy / "vae" / "ladder" / "figures.json").unlink()
    moved = Path(shutil.copy(pictures, tmp_path / "moved.npz"))
    run_ladder(recipes(moved), copy)
    assert contents(copy) == before
    (copy / "vae" / "ladder" / "figures.json").unlink()
    np.savez(moved, images=np.zeros((60, 8, 8, 1), np.uint8), labels=np.arange(60) % 4)
    with pytest.raises(DataError, match="not what this run was trained on"):
        run_ladder(recipes(moved), copy)


# ---------------------------------------------------------------- a ladder with other options


@pytest.mark.parametrize("rung", list(RUNGS))
def test_ladder_with_other_options_is_refused(pictures: Path, copy: Path, rung: str) -> None:
    """Whichever rung differs, and before anything is written."""
    before, written = contents(copy), stamps(copy)
    result = recipes(pictures) | {rung: recipes(pictures, seed=1)[rung]}
    with pytest.raises(RecipeError, match="contains a ladder with other options") as raised:
        run_ladder(result, copy)
    assert f"--out {copy}" in str(raised.value)
    assert (contents(copy), stamps(copy)) == (before, written)


def test_other_last_rung_is_refused_before_the_first_is_trained(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "ladder"
    shutil.copytree(whole / "vae-gan", out / "vae-gan")
    before = contents(out)
    with pytest.raises(RecipeError, match="contains a ladder with other options"):
        run_ladder(recipes(pictures, seed=1), out)
    assert contents(out) == before


def test_folder_that_is_not_a_run_is_refused_before_the_first_is_trained(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "ladder" / "gan").mkdir(parents=True)
    (tmp_path / "ladder" / "gan" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RecipeError, match="the folder is not empty"):
        run_ladder(recipes(pictures), tmp_path / "ladder")
    assert contents(tmp_path) == before


def test_rung_without_checkpoint_is_started_again(pictures: Path, copy: Path) -> None:
    for gone in ("saves", "ladder"):
        shutil.rmtree(copy / "vae" / gone)
    info = copy / "vae" / "run.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"state": "running"}))
    run_ladder(recipes(pictures), copy)
    assert json.loads(info.read_text())["state"] == "done"


# ---------------------------------------------------------------- poor data


@pytest.mark.parametrize(("count", "grey"), [(6, None), (12, None), (24, 0), (24, 200)])
def test_report_with_few_or_uniform_images(tmp_path: Path, count: int, grey: int | None) -> None:
    """Fewer images than interpolations, one held out, all of one colour: a report without some values."""
    random = np.random.Generator(np.random.Philox(4))
    images = random.integers(0, 256, (count, 8, 8, 1)) if grey is None else np.full((count, 8, 8, 1), grey)
    np.savez(tmp_path / "few.npz", images=images.astype(np.uint8))
    result = {rung: decode(one.canonical() | {"steps": 2}) for rung, one in recipes(tmp_path / "few.npz").items()}
    assert run_ladder(result, tmp_path / "ladder").is_file()
    assert {rung.name for rung in (tmp_path / "ladder").iterdir() if rung.is_dir()} == set(RUNGS)
