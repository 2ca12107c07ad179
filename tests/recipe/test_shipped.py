"""Every shipped recipe decodes, is at most a page long, takes a step at its full size, resumes to the bit and samples.

Slow tests use thin networks, which are built by the same code; `make slow` runs them at the full size.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.tiny import unequal
from poise.engine.compute import ComputeSettings
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint_folder
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.training.state import TrainState
from poise.training.train import train
from poise.utils.threads import num_threads

EXPECTED = {
    *("gan", "dcgan", "minimax-dcgan", "lsgan", "wgan", "wgan-gp", "dragan", "hinge-sngan", "sagan"),
    *("ebgan", "began", "cgan", "acgan", "projection-gan", "biggan", "r3gan", "stylegan2", "images", "ring", "grid"),
    *("autoencoder", "latent-optimisation", "vae", "vae-gan", "kl-gan", "pix2pix", "cyclegan", "simgan", "align"),
}
MAX_LINES = 80

every = pytest.mark.parametrize("name", recipe_names())


def short(name: str, steps: int, *, thin: bool = False) -> Recipe:
    """The recipe with a small batch, few steps and few samples to measure.

    If `thin`, networks are narrow and features are pixels, so that no classifier is trained for measuring.
    """
    table = load_table(name)
    if "measure" in table:  # vectors have none
        table["measure"] |= {"n": 20} | ({"features": "pixels"} if thin else {})
    log = {"rows": 2, "samples": 9, "saves": 2, "keep": 2, "sheet": 4}
    networks = {key: narrow(part) if thin else part for key, part in table["network"].items()}
    return decode(table | {"steps": steps, "batch": 4, "log": log, "network": networks})


def narrow(part: Any) -> Any:
    """A network with a small width with which it still has all its layers; what is not a network stays as it is."""
    return part | {"width": min(part["width"], 8)} if "width" in part else part


def test_all_expected_recipes_exist() -> None:
    assert set(recipe_names()) >= EXPECTED


@every
def test_is_at_most_a_page_with_name_and_description(name: str) -> None:
    text = (files("poise.recipes") / f"{name}.toml").read_text("utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    recipe = decode(load_table(name), name)
    assert recipe.name == name
    assert recipe.about
    assert decode(parse_toml(recipe.to_toml(), name)) == recipe


@every
def test_is_compatible_and_every_warning_is_intended(name: str) -> None:
    recipe = decode(load_table(name))
    loaded = recipe.data.load()
    findings = check_compatibility(recipe, loaded.train.shape, len(loaded.train.classes))
    assert findings.refusals == []
    text = (files("poise.recipes") / f"{name}.toml").read_text("utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert not findings.warnings or any("the check" in comment for comment in comments)


@every
def test_takes_a_finite_step_and_samples_at_its_full_size(name: str) -> None:
    """Forward, backward and the optimisers' updates change each network, and all tensors are finite."""
    recipe = short(name, 2)
    state = TrainState(recipe, ComputeSettings(torch.device("cpu"), "fp32"), recipe.data.load())
    before = {n: tensor.clone() for n, tensor in state.game.state_dict().items()}
    state.step()
    after = state.game.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values() if tensor.is_floating_point())
    for side in state.game.players:
        assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(f"{side}.net."))
    g = state.game.sampling_network()
    with torch.no_grad():
        labels = None if recipe.labels.g is None else torch.tensor([0, 1])
        samples = generate(g, state.sampling_latent.sample(2, state.streams("sample")), labels, streams=state.streams)
    assert samples.shape == (2, *state.source.shape)
    assert samples.isfinite().all()


@every
@pytest.mark.parametrize("thin", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["thin", "full size"])
def test_trains_resumes_to_the_bit_and_samples(name: str, thin: bool, tmp_path: Path) -> None:
    """It is resumed after two of its three steps, from the last checkpoint but one of a run that went on."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    with num_threads(1):
        run = train(short(name, 3, thin=thin), whole, device="cpu", precision="fp32")
        shutil.copytree(whole, half)
        first, _ = checkpoint_folder.newest_valid(half / "saves")
        assert first is not None
        shutil.rmtree(first.path)
        train(short(name, 3, thin=thin), half, resume=True, device="cpu", precision="fp32")
    second, _ = checkpoint_folder.newest_valid(half / "saves")
    assert second is not None
    assert unequal(first.tensors, second.tensors) == []
    samples = Run(tmp_path / "half").sample(5, seed=1)
    assert samples.shape == (5, *run.generated_shape)
    assert torch.isfinite(samples).all()
    assert not torch.equal(samples[0], samples[1])
