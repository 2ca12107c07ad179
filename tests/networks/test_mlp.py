"""Fully connected networks for points and images, and what all networks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import pytest
import torch
from torch import Tensor, nn

from poise.core.types import Shape
from poise.data.toys import mixture, ring_modes
from poise.networks.base import mixes_samples
from poise.networks.blocks import ACTIVATIONS, activation, init_dcgan_, output_activation
from poise.networks.mlp import FourierFeatures, FourierFeaturesConfig, MLPDiscriminatorConfig, MLPGeneratorConfig

SHAPES: list[Shape] = [(2,), (1, 5, 5), (3, 8, 4)]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def latents(n: int, dim: int = 3) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def layers(net: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (7, 3)])
def test_shapes_width_and_depth(shape: Shape, width: int, depth: int) -> None:
    g = MLPGeneratorConfig(width=width, depth=depth).build(3, shape)
    d = MLPDiscriminatorConfig(width=width, depth=depth).build(shape)
    hidden = [(width, width)] * (depth - 1)
    assert layers(g) == [(3, width), *hidden, (width, prod(shape))]
    assert layers(d) == [(prod(shape), width), *hidden, (width, 1)]
    samples = g(latents(5))
    assert samples.shape == (5, *shape)
    assert d(samples).score.shape == (5,)
    assert d(samples[:1]).score.shape == (1,)
    assert MLPGeneratorConfig().incompatibility(shape) is None


def test_there_is_only_an_activation_between_two_layers() -> None:
    g = MLPGeneratorConfig(width=4, depth=2, activation="relu").build(3, (2,))
    z = latents(6)
    first, second, last = (m for m in g.modules() if isinstance(m, nn.Linear))
    assert torch.allclose(g(z), last(second(first(z).clamp_min(0)).clamp_min(0)))


def test_batch_norm_is_skipped_at_ds_input_and_gs_output() -> None:
    g = MLPGeneratorConfig(width=4, depth=3, norm="batch").build(3, (2,))
    d = MLPDiscriminatorConfig(width=4, depth=3, norm="batch").build((2,))
    assert [type(m).__name__[:5] for m in g.layers][:3] == ["Linea", "Batch", "Leaky"]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in g.modules()) == 3
    assert isinstance(g.layers[-1], nn.Linear)
    assert [type(m).__name__[:5] for m in d.trunk][:3] == ["Linea", "Leaky", "Linea"]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in d.modules()) == 2
    for net in (g, d):
        for before, after in zip([*net.modules()], [*net.modules()][1:], strict=False):
            if isinstance(before, nn.Linear):
                assert (before.bias is None) == isinstance(after, nn.BatchNorm1d)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_auto_output_is_tanh_for_images_and_linear_for_points(shape: Shape) -> None:
    g = MLPGeneratorConfig(width=4).build(3, shape)
    with torch.no_grad():
        for weight in g.parameters():
            weight.mul_(30)
    largest = float(g(latents(50)).abs().max().detach())
    assert largest > 10 if len(shape) == 1 else 0.9 < largest <= 1


def test_output_and_activation_by_name() -> None:
    x = torch.linspace(-3, 3, 13)
    assert torch.equal(output_activation("sigmoid", (2,))(x), x.sigmoid())
    assert torch.equal(output_activation("tanh", (2,))(x), x.tanh())
    assert torch.equal(output_activation("linear", (3, 8, 8))(x), x)
    assert torch.equal(activation("leaky_relu")(x.clone()), torch.where(x > 0, x, 0.2 * x))
    assert torch.equal(activation("relu")(x.clone()), x.clamp_min(0))
    assert {type(activation(name)) for name in ACTIVATIONS} == set(ACTIVATIONS.values())  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ds_gradient_reaches_every_weight_of_both_players(norm: str, shape: Shape) -> None:
    g = MLPGeneratorConfig(width=6, norm=norm).build(3, shape)
    d = MLPDiscriminatorConfig(width=6, norm=norm).build(shape)
    weights = torch.randn(8, generator=torch.Generator().manual_seed(1))
    (d(g(latents(8))).score * weights).sum().backward()
    for net in (g, d):
        for name, weight in net.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def test_fourier_features_are_the_sample_and_the_sine_and_cosine_of_its_frequencies() -> None:
    module = FourierFeatures(2, 3, 5.0)
    x = torch.randn(4, 2)
    cycles = torch.stack([(x * row).sum(1) for row in module.weight], 1)
    expected = [x, torch.sin(2 * torch.pi * cycles), torch.cos(2 * torch.pi * cycles)]
    assert torch.allclose(module(x), torch.cat(expected, 1), atol=1e-5)
    assert float(FourierFeatures(2, 4000, 5.0).weight.std()) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fourier_features_widen_ds_first_layer_only(shape: Shape) -> None:
    d = MLPDiscriminatorConfig(width=4, depth=2, fourier_features=FourierFeaturesConfig(frequencies=6)).build(shape)
    assert layers(d) == [(prod(shape) + 12, 4), (4, 4), (4, 1)]
    assert d(torch.randn(5, *shape)).score.shape == (5,)
    assert not any("weight" in name and weight.shape == (6, prod(shape)) for name, weight in d.named_parameters())
    assert [tuple(buffer.shape) for buffer in d.buffers()] == [(6, prod(shape))]


def test_fourier_features_show_the_width_of_narrow_modes() -> None:
    """The claim of the paper: D soon learns details that are much finer than the distance of the modes."""

    def loss_after_training(fourier: FourierFeaturesConfig | None) -> float:
        torch.manual_seed(0)
        d = MLPDiscriminatorConfig(width=32, depth=2, fourier_features=fourier).build((2,))
        optimizer = torch.optim.Adam(d.parameters(), lr=1e-2)
        generator, losses = torch.Generator().manual_seed(0), []
        for _ in range(80):
            real, fake = (mixture(256, ring_modes(), sigma, generator) for sigma in (0.06, 0.01))
            losses.append(nn.functional.softplus(torch.cat((-d(real).score, d(fake).score))).mean())
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        return float(torch.stack(losses[-20:]).mean().detach())

    without, with_features = loss_after_training(None), loss_after_training(FourierFeaturesConfig(frequencies=16))
    assert with_features < 0.6 * without


class MixingModule(nn.Module):
    """Declares by an attribute that it mixes samples."""

    mixes_samples = True


def test_mixes_samples_detects_batch_norm_and_the_attribute() -> None:
    assert not mixes_samples(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.GroupNorm(1, 2)))
    for norm in (nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.SyncBatchNorm(2), MixingModule()):
        assert mixes_samples(nn.Sequential(nn.Linear(2, 2), nn.Sequential(norm)))


def test_init_dcgan_sets_weights_scales_and_biases_in_place() -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 300), nn.BatchNorm1d(9, affine=False)
    )
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(7.0)
    init_dcgan_(net, 0.1)
    for weight, mean in ((net[0].weight, 0.0), (net[1].weight, 1.0), (net[3].weight, 0.0)):
        assert float((weight - mean).std().detach()) == pytest.approx(0.1, rel=0.5 if weight.dim() == 1 else 0.05)
        assert float(weight.mean().detach()) == pytest.approx(mean, abs=0.06)
    for bias in (net[0].bias, net[1].bias, net[3].bias):
        assert not bias.any()
