"""Training without a discriminator as a whole run: its folder, rows, resuming, the check and its measures."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import poise
from contracts.tiny import CPU, recipe, source, without_discriminator
from poise.core.latent_codes import gaussian_kl
from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.data.source import DataSplits
from poise.engine.compute import ComputeSettings
from poise.errors import RecipeError, Stopped
from poise.measure.catalogue import select_measures
from poise.objectives.reconstruction import gaussian_nll
from poise.recipe.model import Recipe
from poise.runs.encode import codes_to_latents, encode_samples, make_reconstructor
from poise.runs.evaluate import measure_run
from poise.runs.run import Run
from poise.training.listener import NullListener
from poise.training.precheck import BLOCK, WARM_UP_MOVES, check, warm_up_reconstruction
from poise.training.run_info import parameter_counts
from poise.training.state import TrainState
from poise.training.train import train
from runs.small_runs import traces

STEPS, STOP = 20, 12  # rows every 7 steps: the stop falls into the middle of an interval
KINDS: dict[str, dict[str, Any]] = {
    "vae": {"objective": {"kind": "elbo"}},
    "coins": {"objective": {"kind": "elbo", "likelihood": "bernoulli"}},
    "autoencoder": {"objective": {"kind": "reconstruction"}},
    "free codes": {"objective": {"kind": "reconstruction"}, "latent": {"kind": "sphere", "dim": 3}},
}
NETWORK = without_discriminator("pictures")["network"]
NATS = "reconstruction,pca_reconstruction,elbo,elbo_reconstruction,elbo_kl"


def recipe_of(kind: str = "vae", steps: int = STEPS, **changes: Any) -> Recipe:
    """A recipe without a discriminator on digits of 8 x 8 pixels."""
    encoder = {"kind": "free_codes"} if kind == "free codes" else NETWORK["e"]
    tables = without_discriminator("pictures") | {
        "steps": steps,
        "batch": 16,
        "network": {"g": NETWORK["g"], "e": encoder},
        "log": {"rows": 7, "samples": 10, "saves": 6, "sheet": 9},
    }
    return recipe("pictures", {"kind": "averaged_weights", "half_life": 100.0}, **(tables | KINDS[kind] | changes))


@dataclass
class FinishedRun:
    """A finished run."""

    run: Run
    path: Path


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    path = tmp_path_factory.mktemp("runs") / "vae"
    return FinishedRun(poise.train(recipe_of(), path), path)


class StopAt(NullListener):
    """Sends SIGTERM to this process when a step is done."""

    def on_step(self, step: int) -> None:
        if step == STOP - 1:
            os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------- the folder


def test_the_folder(vae: FinishedRun) -> None:
    assert {"recipe.toml", "run.json", "rows.jsonl", "samples", "saves"} <= {one.name for one in vae.path.iterdir()}
    info = json.loads((vae.path / "run.json").read_text())
    assert info["state"] == "done"
    assert set(info["parameters"]) == {"g", "e"}
    game = vae.run.game
    assert info["parameters"] == parameter_counts(game)
    assert info["parameters"]["e"] == sum(weight.numel() for weight in game.g.encoder.parameters())
    sheets = sorted(path.name for path in (vae.path / "samples").iterdir())
    assert sheets[-1] == f"step-{STEPS:08d}.png"
    with Image.open(vae.path / "samples" / sheets[-1]) as sheet:
        assert len(set(sheet.convert("L").tobytes())) > 2


def test_rows_have_statistics_of_g_only(vae: FinishedRun) -> None:
    assert [row["step"] for row in vae.run.rows] == [7, 14, 20]
    for row in vae.run.rows:
        stats = row["stats"]
        assert {"g/reconstruction", "g/kl", "g/elbo", "g/grad_norm", "g/diversity", "g/update", "g/newness"} <= set(
            stats
        )
        assert not [name for name in stats if name.startswith("d/") or name == "g/adversarial"]
        means = {name: stats[f"g/{name}"]["mean"] for name in ("reconstruction", "kl", "elbo")}
        assert means["elbo"] == pytest.approx(-means["reconstruction"] - means["kl"], rel=1e-5)
    first, last = (vae.run.rows[at]["stats"]["g/elbo"]["mean"] for at in (0, -1))
    assert last > first


def test_start_message(tmp_path: Path) -> None:
    messages: list[str] = []

    class Listener(NullListener):
        def on_start(self, start: Any) -> None:
            messages.extend(start.lines)

    train(recipe_of(steps=1), tmp_path / "run", listener=Listener())
    (line,) = [line for line in messages if line.startswith("parameters")]
    assert re.fullmatch(r"parameters: G [\d,]+, encoder [\d,]+", line)


def test_samples_come_from_the_prior(vae: FinishedRun) -> None:
    samples = Run(vae.path).sample(6, seed=3)
    assert samples.shape == (6, 1, 8, 8)
    assert float(samples.abs().max()) <= 1
    assert torch.equal(samples, vae.run.sample(6, seed=3))
    assert not torch.equal(samples, vae.run.sample(6, seed=3, raw=True))
    assert not torch.equal(samples, vae.run.sample(6, seed=4))


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("kind", list(KINDS))
def test_stopped_and_resumed_equals_undisturbed(kind: str, vae: FinishedRun, tmp_path: Path) -> None:
    whole = vae.path
    if kind != "vae":
        whole = tmp_path / "whole"
        train(recipe_of(kind), whole)
    with pytest.raises(Stopped, match=f"after step {STOP}"):
        train(recipe_of(kind), tmp_path / "run", listener=StopAt())
    train(recipe_of(kind), tmp_path / "run", resume=True)
    assert traces(tmp_path / "run") == traces(whole)


def test_a_checkpoint_holds_the_encoder_and_its_optimizer_state(vae: FinishedRun) -> None:
    names = set(vae.run.checkpoint.tensors)
    weights = [f"encoder.{name}" for name, _ in vae.run.game.g.encoder.named_parameters()]
    assert weights
    for name in weights:
        assert f"game/g.{name}" in names
        assert {f"optimizer/g/{name}/{context}" for context in ("exp_avg", "exp_avg_sq", "step")} <= names
    assert not [name for name in names if name.startswith(("game/d", "optimizer/d"))]


def test_resuming_with_another_encoder_is_refused(vae: FinishedRun) -> None:
    other = recipe_of(network={"g": NETWORK["g"], "e": NETWORK["e"] | {"width": 4}})
    with pytest.raises(RecipeError, match=r"network\.e\.width"):
        train(other, vae.path, resume=True)


# ---------------------------------------------------------------- measures


def test_held_out_images_are_reconstructed_and_bounded(vae: FinishedRun) -> None:
    result, bench = measure_run(
        vae.run, select_measures(f"{NATS},high_frequencies,diversity"), n=200, features="pixels"
    )
    figures = {name: one.value.value for name, one in result.results.items()}
    assert result.skipped == {}
    by_grey = float(bench.real.normalized().square().mean())
    assert 0 < figures["pca_reconstruction"] < figures["reconstruction"] < 0.6 * by_grey
    assert figures["elbo"] == pytest.approx(-figures["elbo_reconstruction"] - figures["elbo_kl"], rel=1e-6)
    assert figures["elbo_kl"] > 0
    at_its_end = vae.run.rows[-1]["stats"]["g/elbo"]["mean"]
    assert figures["elbo"] == pytest.approx(at_its_end, rel=0.5)
    again, _ = measure_run(Run(vae.path), select_measures(NATS), n=200, features="pixels")
    assert {name: one.value.value for name, one in again.results.items()} == {
        name: figures[name] for name in again.results
    }


def test_training_improves_the_reconstruction(vae: FinishedRun, tmp_path: Path) -> None:
    longer = train(recipe_of("autoencoder", 60), tmp_path / "run")
    shorter = train(recipe_of("autoencoder", 2), tmp_path / "short")
    missed = []
    for run in (shorter, longer):
        result, _ = measure_run(run, select_measures("reconstruction,elbo"), n=200, features="pixels")
        missed.append(result.results["reconstruction"].value.value)
        assert "likelihood" in result.skipped["elbo"]
    assert missed[1] < 0.8 * missed[0]


@pytest.mark.parametrize("kind", ["free codes", "labels"])
def test_reconstruction_without_an_encoder_is_skipped_with_a_reason(kind: str, tmp_path: Path) -> None:
    changes = {"conditioning": {"g": {"kind": "concat", "dim": 4}}} if kind == "labels" else {}
    run = train(recipe_of("free codes" if kind == "free codes" else "vae", 2, **changes), tmp_path / "run")
    result, _ = measure_run(run, select_measures(NATS), n=50, features="pixels")
    assert result.results == {}
    assert "no encoder that can reconstruct" in result.skipped["reconstruction"]


def test_a_run_is_evaluated_and_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    measure = {"every": 5, "measures": ["reconstruction", "elbo"], "n": 50, "features": "pixels"}
    run = train(recipe_of(steps=10, measure=measure), tmp_path / "run")
    lines = run.measures
    assert [line["step"] for line in lines] == [5, 10]
    assert all({"reconstruction", "elbo"} == set(line["measures"]) for line in lines)
    best = min(lines, key=lambda line: line["measures"]["reconstruction"])
    assert Run(run.path, best=True).checkpoint.step == best["step"]
    assert run.info["state"] == "done" or Run(run.path).info["state"] == "done"
    plain = train(recipe_of(steps=10), tmp_path / "plain")
    assert traces(run.path)["tensors"] == traces(plain.path)["tensors"]


# ---------------------------------------------------------------- codes of a finished run


def test_codes_are_computed_in_evaluation_mode(vae: FinishedRun) -> None:
    game, images = vae.run.game, source("pictures").preview(9)
    game.g.encoder.train()
    before = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    codes = encode_samples(game, images, torch.zeros(0), RandomStreams(0))
    one_by_one = [encode_samples(game, images[i : i + 1], torch.zeros(0), RandomStreams(0)).mean for i in range(9)]
    torch.testing.assert_close(torch.cat(one_by_one), codes.mean)
    assert game.g.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in game.state_dict().items())
    assert torch.equal(codes_to_latents(vae.run.recipe.latent, codes), codes.mean)


def test_codes_are_projected_onto_a_sphere() -> None:
    train_state = initial_state(recipe_of("free codes"))
    places = torch.tensor([3, 5])
    codes = encode_samples(train_state.game, torch.zeros(0), places, RandomStreams(0))
    assert torch.equal(codes.mean, train_state.game.g.encoder.net.weight[places])
    latents = codes_to_latents(train_state.recipe.latent, codes)
    torch.testing.assert_close(latents, torch.nn.functional.normalize(codes.mean, dim=1))


def test_the_reconstructor(vae: FinishedRun) -> None:
    """It reconstructs from the mean code with the live weights, and computes the bound from a sampled code."""
    recipe, game, images = vae.run.recipe, vae.run.game, source("pictures").preview(9)
    ours = make_reconstructor(recipe, game, RandomStreams(0))
    assert ours is not None
    assert ours.dim == recipe.latent.dim
    codes = encode_samples(game, images, torch.zeros(0), RandomStreams(0))
    game.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.reconstruct(images), game.g.net(codes.mean))
    assert ours.elbo_terms is not None
    first, second = ours.elbo_terms(images), ours.elbo_terms(images)
    assert list(first) == ["reconstruction", "kl", "elbo"]
    torch.testing.assert_close(first["kl"], gaussian_kl(codes.mean, codes.log_var))
    torch.testing.assert_close(second["kl"], first["kl"])
    assert not torch.isclose(first["reconstruction"], second["reconstruction"]).any()
    least = gaussian_nll(images, ours.reconstruct(images), 0.5)
    assert float((first["reconstruction"] - least).abs().max()) < 0.5 * float(least.abs().mean())


def test_which_games_have_a_reconstructor() -> None:
    for kind, there in (("vae", (True, True)), ("autoencoder", (True, False)), ("free codes", (False, False))):
        train_state = initial_state(recipe_of(kind))
        found = make_reconstructor(train_state.recipe, train_state.game, RandomStreams(0))
        assert (found is not None, found is not None and found.elbo_terms is not None) == there
    two = TrainState(recipe("pictures"), ComputeSettings(CPU, "fp32"), DataSplits(source("pictures")))
    assert make_reconstructor(two.recipe, two.game, RandomStreams(0)) is None


# ---------------------------------------------------------------- the check


def initial_state(config: Recipe) -> TrainState:
    return TrainState(config, ComputeSettings(CPU, "fp32"), DataSplits(source("pictures")))


def at_rate(rate: float) -> Recipe:
    return recipe_of("autoencoder", optimizer={"g": {"kind": "adam", "lr": rate}})


def test_an_autoencoder_passes_the_warm_up() -> None:
    report = check(at_rate(1e-2), warm_up=True, device="cpu", precision="fp32")
    warm = report.warm_up
    assert warm is not None
    assert (warm.passed, warm.moves, len(warm.losses)) == (True, WARM_UP_MOVES, WARM_UP_MOVES // BLOCK)
    assert warm.losses[-1] < 0.8 * warm.losses[0]
    assert f"from {warm.losses[0]:.3g} to {warm.losses[-1]:.3g}" in warm.words
    assert report.findings.refusals == report.findings.warnings == []
    assert report.estimate is not None
    assert set(report.estimate.parameters) == {"g", "e"}
    json.dumps(report.as_json(), allow_nan=False)


def test_a_g_that_does_not_learn_fails_the_warm_up() -> None:
    report = check(at_rate(0.0), warm_up=True, device="cpu", precision="fp32")
    assert report.warm_up is not None
    assert not report.warm_up.passed
    (warning,) = [finding for finding in report.findings.warnings if finding.tip == "T24"]
    assert (warning.field, warning.message) == ("network.g", report.warm_up.words)
    assert "G learned nothing" in warning.message
    assert "G's learning rate" in warning.cure


@pytest.mark.parametrize("kind", ["vae", "free codes"])
def test_the_warm_up_of_other_models(kind: str) -> None:
    train_state = initial_state(recipe_of(kind))
    before = [weight.detach().clone() for weight in train_state.game.g.weights]
    warm = warm_up_reconstruction(train_state, 2 * BLOCK)
    assert warm.moves == 2 * BLOCK
    assert len(warm.losses) == 2
    assert not any(torch.equal(a, b) for a, b in zip(before, train_state.game.players[Side.G].weights, strict=True))


def test_without_the_warm_up_there_is_no_result() -> None:
    report = check(at_rate(0.0), device="cpu", precision="fp32")
    assert report.warm_up is None
    assert report.findings.warnings == []
