"""Autoencoders as discriminators: energies compared with numpy, their gradients, and the features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poise.core.types import Shape
from poise.networks.autoencoder import Autoencoder, AutoencoderConfig, FlatAutoencoderConfig, Measure, energy
from poise.networks.base import mixes_samples
from poise.networks.blocks import ProjectAndReshape

MEASURES: tuple[Measure, ...] = get_args(Measure)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def numpy_energy(x: Tensor, reconstruction: Tensor, measure: Measure) -> np.ndarray:
    residual = (x - reconstruction).detach().double().numpy().reshape(len(x), -1)
    if measure == "norm":
        return np.sqrt((residual**2).sum(1))
    return (residual**2).mean(1) if measure == "squared" else np.abs(residual).mean(1)


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 4, 4)])
@pytest.mark.parametrize("measure", MEASURES)
def test_energy_matches_the_paper(measure: Measure, shape: tuple[int, ...]) -> None:
    x, reconstruction = torch.randn(shape), torch.randn(shape)
    actual = energy(x, reconstruction, measure)
    assert actual.shape == (5,)
    assert (actual >= 0).all()
    np.testing.assert_allclose(actual.numpy(), numpy_energy(x, reconstruction, measure), rtol=1e-5)
    assert torch.equal(energy(x, x, measure), torch.zeros(5))


@pytest.mark.parametrize("measure", MEASURES)
def test_energy_is_computed_in_full_precision(measure: Measure) -> None:
    x, reconstruction = torch.randn(2, 500).bfloat16(), torch.randn(2, 500).bfloat16()
    assert energy(x, reconstruction, measure).dtype == torch.float32
    assert torch.equal(energy(x, reconstruction, measure), energy(x.float(), reconstruction.float(), measure))
    assert energy(x.double(), reconstruction.double(), measure).dtype == torch.float64


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_zero_for_a_perfect_reconstruction(measure: Measure) -> None:
    """The norm has no gradient at 0; the subgradient used is 0, not nan."""
    x = torch.randn(3, 4, requires_grad=True)
    reconstruction = x.detach().clone().requires_grad_()
    gradients = torch.autograd.grad(energy(x, reconstruction, measure).sum(), (x, reconstruction))
    assert all(torch.equal(gradient, torch.zeros(3, 4)) for gradient in gradients)


def build_autoencoder(kind: str, shape: Shape, **options: Any) -> Any:
    if kind == "flat":
        return FlatAutoencoderConfig(width=6, code=5, **options).build(shape)
    return AutoencoderConfig(width=2, code=5, **options).build(shape)


CASES = [("flat", (2,)), ("flat", (1, 8, 8)), ("maps", (1, 8, 8)), ("maps", (3, 32, 32))]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_score_is_minus_the_energy_and_features_are_the_code(kind: str, shape: Shape, measure: Measure) -> None:
    d = build_autoencoder(kind, shape, measure=measure)
    x = torch.rand(4, *shape) * 2 - 1
    output = d(x)
    code = d.encoder(x)
    reconstruction = d.decoder(code)
    assert output.classes is None
    assert reconstruction.shape == x.shape
    assert code.shape == (4, 5) == (4, d.width)
    assert torch.equal(output.features, code)
    assert (output.score <= 0).all()
    np.testing.assert_allclose(output.score.detach().numpy(), -numpy_energy(x, reconstruction, measure), rtol=1e-5)
    for actual, expected in zip(d.reconstruct(x), (reconstruction, code), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_the_output_of_the_decoder_is_linear(kind: str, shape: Shape) -> None:
    """A saturated tanh would have no gradient to unlearn an image with."""
    d = build_autoencoder(kind, shape)
    with torch.no_grad():
        for weight in d.parameters():
            weight.mul_(2)
        reconstruction, _ = d.reconstruct(torch.randn(20, *shape) * 100)
    assert reconstruction.abs().max() > 10


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_gradient_reaches_every_weight(kind: str, shape: Shape) -> None:
    d = build_autoencoder(kind, shape)
    d(torch.randn(8, *shape)).score.sum().backward()
    for name, weight in d.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


def test_an_autoencoder_learns_to_reconstruct() -> None:
    """For four images and a code of five dimensions, the energy falls to a tenth."""
    d, x = build_autoencoder("flat", (1, 8, 8), measure="squared"), torch.rand(4, 1, 8, 8)
    before = float(d(x).score.detach().mean())
    optimizer = torch.optim.Adam(d.parameters(), lr=3e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-d(x).score.mean()).backward()
        optimizer.step()
    assert float(d(x).score.detach().mean()) > before / 10


@pytest.mark.parametrize("norm", ["none", "batch", "spectral", "virtual"])
@pytest.mark.parametrize("entry", [AutoencoderConfig, FlatAutoencoderConfig])
def test_norms(entry: Any, norm: str) -> None:
    """All norms work, and the declarations of the configuration are true."""
    config = entry(width=4, code=3, norm=norm)
    d = config.build((1, 8, 8), reference=torch.randn(6, 1, 8, 8))
    assert config.output_kind == "energy"
    assert config.uses_batch_statistics == mixes_samples(d) == (norm == "batch")
    output = d(torch.randn(5, 1, 8, 8))
    assert (output.score.shape, output.features.shape) == ((5,), (5, 3))


def test_the_decoder_mirrors_the_encoder() -> None:
    d = build_autoencoder("maps", (3, 32, 32), down="average", up="nearest")
    assert isinstance(d, Autoencoder)
    pools = [m for m in d.encoder.modules() if isinstance(m, nn.AvgPool2d)]
    upsamplings = [m for m in d.decoder.modules() if isinstance(m, nn.Upsample)]
    assert len(pools) == len(upsamplings) == 3
    last = [m for m in d.encoder.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in last] == [(8 * 4 * 4, 5)]


def test_initial_weights_preserve_the_scale_of_the_signal() -> None:
    """He 2015: std = sqrt(2 / 1.04) / sqrt(n) for n inputs per output, for transposed convolutions too.

    Each position of the first map has the code as input; a 4 x 4 kernel with stride 2 has 2 x 2 taps per position.
    """
    d = AutoencoderConfig(width=16, code=24).build((1, 32, 32))
    seen = []
    for module in d.modules():
        if isinstance(module, ProjectAndReshape):
            fan_in = 24
        elif isinstance(module, nn.ConvTranspose2d):
            fan_in = 4 * module.in_channels
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
        else:
            continue
        kernel = module.weight.detach()
        close = abs(float(kernel.std()) * (1.04 / 2 * fan_in) ** 0.5 - 1) < 5 / (2 * kernel.numel()) ** 0.5
        seen.append((type(module).__name__, close))
    assert seen == [
        *[("Conv2d", True)] * 3,
        ("Linear", True),
        ("ProjectAndReshape", True),
        *[("ConvTranspose2d", True)] * 3,
    ]
