"""A discriminator that is an autoencoder: its energies by hand, their gradients, and what its features are."""

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


def by_hand(x: Tensor, rebuilt: Tensor, measure: Measure) -> np.ndarray:
    residual = (x - rebuilt).detach().double().numpy().reshape(len(x), -1)
    if measure == "norm":
        return np.sqrt((residual**2).sum(1))
    return (residual**2).mean(1) if measure == "squared" else np.abs(residual).mean(1)


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 4, 4)])
@pytest.mark.parametrize("measure", MEASURES)
def test_energy_is_the_papers(measure: Measure, shape: tuple[int, ...]) -> None:
    x, rebuilt = torch.randn(shape), torch.randn(shape)
    found = energy(x, rebuilt, measure)
    assert found.shape == (5,)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.numpy(), by_hand(x, rebuilt, measure), rtol=1e-5)
    assert torch.equal(energy(x, x, measure), torch.zeros(5))


@pytest.mark.parametrize("measure", MEASURES)
def test_energy_is_summed_in_full_precision(measure: Measure) -> None:
    x, rebuilt = torch.randn(2, 500).bfloat16(), torch.randn(2, 500).bfloat16()
    assert energy(x, rebuilt, measure).dtype == torch.float32
    assert torch.equal(energy(x, rebuilt, measure), energy(x.float(), rebuilt.float(), measure))
    assert energy(x.double(), rebuilt.double(), measure).dtype == torch.float64


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_finite_where_nothing_is_left_over(measure: Measure) -> None:
    """A length has none at 0; the one taken is 0, not nan."""
    x = torch.randn(3, 4, requires_grad=True)
    rebuilt = x.detach().clone().requires_grad_()
    slopes = torch.autograd.grad(energy(x, rebuilt, measure).sum(), (x, rebuilt))
    assert all(torch.equal(slope, torch.zeros(3, 4)) for slope in slopes)


def built(kind: str, shape: Shape, **told: Any) -> Any:
    if kind == "flat":
        return FlatAutoencoderConfig(width=6, code=5, **told).build(shape)
    return AutoencoderConfig(width=2, code=5, **told).build(shape)


CASES = [("flat", (2,)), ("flat", (1, 8, 8)), ("maps", (1, 8, 8)), ("maps", (3, 32, 32))]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_score_is_minus_the_energy_and_features_are_the_code(kind: str, shape: Shape, measure: Measure) -> None:
    d = built(kind, shape, measure=measure)
    x = torch.rand(4, *shape) * 2 - 1
    said = d(x)
    code = d.encoder(x)
    rebuilt = d.decoder(code)
    assert said.classes is None
    assert rebuilt.shape == x.shape
    assert code.shape == (4, 5) == (4, d.width)
    assert torch.equal(said.features, code)
    assert (said.score <= 0).all()
    np.testing.assert_allclose(said.score.detach().numpy(), -by_hand(x, rebuilt, measure), rtol=1e-5)
    for ours, theirs in zip(d.reconstruct(x), (rebuilt, code), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_the_decoder_is_linear_at_its_end(kind: str, shape: Shape) -> None:
    """A tanh at its end has no gradient left to unlearn a picture with."""
    d = built(kind, shape)
    with torch.no_grad():
        for weight in d.parameters():
            weight.mul_(2)
        rebuilt, _ = d.reconstruct(torch.randn(20, *shape) * 100)
    assert rebuilt.abs().max() > 10


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_gradient_reaches_every_weight(kind: str, shape: Shape) -> None:
    d = built(kind, shape)
    d(torch.randn(8, *shape)).score.sum().backward()
    for name, weight in d.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


def test_it_can_learn_to_rebuild() -> None:
    """Four pictures through a code of five numbers: the energy falls to a tenth."""
    d, x = built("flat", (1, 8, 8), measure="squared"), torch.rand(4, 1, 8, 8)
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
    """All of them fit; what it says of itself is so."""
    told = entry(width=4, code=3, norm=norm)
    d = told.apply_norm(told.build((1, 8, 8)), torch.randn(6, 1, 8, 8))
    assert told.output_kind == "energy"
    assert told.uses_batch_statistics == mixes_samples(d) == (norm == "batch")
    said = d(torch.randn(5, 1, 8, 8))
    assert (said.score.shape, said.features.shape) == ((5,), (5, 3))


def test_the_decoder_is_a_generator_of_the_encoders_size() -> None:
    d = built("maps", (3, 32, 32), down="average", up="nearest")
    assert isinstance(d, Autoencoder)
    pools = [m for m in d.encoder.modules() if isinstance(m, nn.AvgPool2d)]
    enlarged = [m for m in d.decoder.modules() if isinstance(m, nn.Upsample)]
    assert len(pools) == len(enlarged) == 3
    last = [m for m in d.encoder.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in last] == [(8 * 4 * 4, 5)]


def test_first_weights_keep_the_size_of_what_passes() -> None:
    """He 2015: std = sqrt(2 / 1.04) / sqrt(n) for n numbers that reach each output, through transposed ones too.

    A first map's places see the code once each; 4 x 4 with stride 2 shows each place 2 x 2 of the taps.
    """
    d = AutoencoderConfig(width=16, code=24).build((1, 32, 32))
    seen = []
    for module in d.modules():
        if isinstance(module, ProjectAndReshape):
            reach = 24
        elif isinstance(module, nn.ConvTranspose2d):
            reach = 4 * module.in_channels
        elif isinstance(module, nn.Conv2d | nn.Linear):
            reach = module.weight[0].numel()
        else:
            continue
        kernel = module.weight.detach()
        close = abs(float(kernel.std()) * (1.04 / 2 * reach) ** 0.5 - 1) < 5 / (2 * kernel.numel()) ** 0.5
        seen.append((type(module).__name__, close))
    assert seen == [
        *[("Conv2d", True)] * 3,
        ("Linear", True),
        ("ProjectAndReshape", True),
        *[("ConvTranspose2d", True)] * 3,
    ]
