"""`poise sample --truncation`: of latents, or of StyleGAN2's intermediate latents."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.latents import Gaussian
from poise.recipe.decode import decode
from poise.recipe.shipped import load_recipe
from poise.runs.run import Run
from poise.training.train import train
from poise.truncation import truncate_gaussian

SMALL = """
steps = 1
batch = 4
[data]
kind = "digits"
size = 8
[latent]
kind = "KIND"
dim = 6
[network.d]
kind = "mlp"
width = 4
depth = 1
[log]
sheet = 4
"""


def trained(out: Path, kind: str, network: str) -> Run:
    table = load_recipe("dcgan") | tomllib.loads(SMALL.replace("KIND", kind))
    table["network"]["g"] = tomllib.loads(network)
    del table["measure"]
    return train(decode(table), out)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("gaussian") / "run", "gaussian", 'kind = "mlp"\nwidth = 8\ndepth = 1')


def test_latents_are_truncated(gaussian: Run) -> None:
    whole, half = gaussian.sample(9), gaussian.sample(9, truncation=0.5)
    assert torch.equal(gaussian.sample(9, truncation=1.0), whole)
    assert not torch.allclose(half, whole)
    latents = truncate_gaussian(gaussian.latents(9, 0), 0.5)
    torch.testing.assert_close(half, gaussian.generator().eval()(latents))
    assert torch.equal(gaussian.sample_block(0, truncation=0.5)[:9], half)


class Halved(Gaussian):
    """A user's own kind of latents with truncation."""

    kind: Literal["halved"] = "halved"  # type: ignore[assignment]

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        return latents / 2


def test_the_kind_of_the_latents_says_how_they_are_truncated(gaussian: Run) -> None:
    run = Run(gaussian.path)
    run.__dict__["recipe"] = run.recipe.model_copy(update={"latent": Halved(dim=6)})
    half = run.sample(9, truncation=0.9)
    torch.testing.assert_close(half, run.generator().eval()(run.latents(9, 0) / 2))
    assert torch.equal(run.sample(9), gaussian.sample(9))


def test_styles_are_truncated_and_latents_are_not(tmp_path: Path) -> None:
    """At a truncation near 0 all samples are that of the mean style."""
    stylegan2 = 'kind = "stylegan2"\nwidth = 4\nwidest = 4\nstyle_dim = 4\nnoise = "none"\nstyle_mixing = 0.0'
    run = trained(tmp_path / "run", "gaussian", stylegan2)
    whole, mean = run.sample(4), run.sample(4, truncation=1e-6)
    assert torch.equal(run.sample(4), whole), "the layers are as before"
    assert (whole - whole[:1]).abs().max() > 100 * (mean - mean[:1]).abs().max()


def test_the_command_writes_truncated_samples(gaussian: Run, poise: Callable, tmp_path: Path) -> None:
    npz, folder = tmp_path / "a.npz", tmp_path / "folder"
    assert poise("sample", gaussian.path, "--n", 5, "--truncation", 0.5, "--npz", npz).code == 0
    expected = gaussian.sample(5, truncation=0.5)
    assert np.abs(np.load(npz)["images"] / 127.5 - 1 - expected.permute(0, 2, 3, 1).numpy()).max() < 0.01
    assert poise("sample", gaussian.path, "--n", 2, "--truncation", 0.5, "--dir", folder).code == 0
    assert json.loads((folder / "samples.json").read_text())["truncation"] == 0.5
    other = poise("sample", gaussian.path, "--n", 2, "--dir", folder)
    assert other.code == 2
    assert "another truncation" in other.err


@pytest.mark.parametrize("value", ["0", "1.5", "-1", "nan"])
def test_other_truncations_are_refused(gaussian: Run, poise: Callable, tmp_path: Path, value: str) -> None:
    result = poise("sample", gaussian.path, f"--truncation={value}", "--out", tmp_path / "a.png")
    assert result.code == 2
    assert "--truncation" in result.err


def test_latents_on_a_sphere_can_not_be_truncated(poise: Callable, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "sphere", 'kind = "mlp"\nwidth = 8\ndepth = 1')
    result = poise("sample", run.path, "--truncation", 0.5, "--out", tmp_path / "a.png")
    assert result.code == 2
    assert "sphere" in result.err
    assert not (tmp_path / "a.png").exists()
