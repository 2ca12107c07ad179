"""The networks of the stacked-digits test: maps, channels and num_weights, as published and at other sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import one_thread
from poise.core.double_backward import Conv2d
from poise.core.types import Shape
from poise.networks.unrolled import UnrolledDiscriminatorConfig, UnrolledGeneratorConfig, map_sizes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shapes_of(net: nn.Module, sample: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[tuple[int, ...]]:
    """The output shapes of all layers of these kinds, in order."""
    seen: list[tuple[int, ...]] = []
    hooks = [
        m.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
        for m in net.modules()
        if isinstance(m, kinds)
    ]
    net.eval()(sample)
    for hook in hooks:
        hook.remove()
    return seen


def num_weights(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (28, [4, 7, 14, 28]),
        (32, [4, 8, 16, 32]),
        (8, [1, 2, 4, 8]),
        (9, [2, 3, 5, 9]),
        (25, [4, 7, 13, 25]),
        (64, [8, 16, 32, 64]),
    ],
)
def test_map_sizes(side: int, expected: list[int]) -> None:
    assert map_sizes(side) == expected


def test_the_published_maps() -> None:
    """Lin 2018, table 3: G 4 x 4 x 64, 7 x 7 x 32, 14 x 14 x 16, 28 x 28 x 8, image; D 2, 4, 8 channels."""
    g = UnrolledGeneratorConfig().build(256, (3, 28, 28))
    d = UnrolledDiscriminatorConfig().build((3, 28, 28))
    maps = shapes_of(g, torch.randn(1, 256), (nn.BatchNorm2d, nn.Tanh))
    assert maps == [(64, 4, 4), (32, 7, 7), (16, 14, 14), (8, 28, 28), (3, 28, 28)]
    assert shapes_of(d, torch.randn(1, 3, 28, 28), (nn.BatchNorm2d,)) == [(2, 14, 14), (4, 7, 7), (8, 4, 4)]
    assert (UnrolledGeneratorConfig().width, UnrolledDiscriminatorConfig().width) == (8, 2)


def test_the_number_of_weights() -> None:
    """Convolutions have no bias before a batch norm, which has two weights per channel."""
    g = UnrolledGeneratorConfig().build(256, (3, 28, 28))
    up = 256 * 64 * 16 + 9 * (64 * 32 + 32 * 16 + 16 * 8)
    assert num_weights(g) == up + 2 * (64 + 32 + 16 + 8) + 9 * 8 * 3 + 3
    d = UnrolledDiscriminatorConfig().build((3, 28, 28))
    assert num_weights(d) == 9 * (3 * 2 + 2 * 4 + 4 * 8) + 2 * (2 + 4 + 8) + 8 * 16 + 1
    half = UnrolledDiscriminatorConfig(width=4).build((2, 28, 28))
    assert num_weights(half) == 9 * (2 * 4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16) + 16 * 16 + 1
    assert num_weights(UnrolledGeneratorConfig(width=1).build(5, (1, 8, 8))) == 40 + 9 * (32 + 8 + 2) + 30 + 9 + 1


@pytest.mark.parametrize("side", [*range(8, 34), 47, 64])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_square_of_eight_or_more(side: int, channels: int) -> None:
    shape = (channels, side, side)
    g, d = UnrolledGeneratorConfig(width=1), UnrolledDiscriminatorConfig(width=1)
    assert g.incompatibility(shape) is None
    assert d.incompatibility(shape) is None
    images = g.build(3, shape)(torch.randn(2, 3))
    assert images.shape == (2, *shape)
    assert float(images.detach().abs().max()) <= 1
    critic = d.build(shape)
    output = critic(images)
    assert output.score.shape == (2,)
    assert output.features.shape == (2, critic.width)


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 28, 32), (3, 4, 4), (2,)])
def test_other_shapes_are_refused(shape: Shape) -> None:
    for entry in (UnrolledGeneratorConfig(), UnrolledDiscriminatorConfig()):
        misfit = entry.incompatibility(shape)
        assert misfit is not None
        assert "8 x 8" in misfit[0]
        assert "data.size = 28" in misfit[1]


def test_positions_of_batch_norms() -> None:
    g = UnrolledGeneratorConfig(width=1).build(3, (1, 16, 16))
    d = UnrolledDiscriminatorConfig(width=1).build((1, 16, 16))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in g.modules()) == 4
    assert sum(isinstance(m, nn.BatchNorm2d) for m in d.modules()) == 3
    *_, last_convolution, last = [m for m in g.modules() if not list(m.children())]
    assert isinstance(last, nn.Tanh)
    assert isinstance(last_convolution, nn.Conv2d)
    assert last_convolution.bias is not None
    assert (
        UnrolledGeneratorConfig().uses_batch_statistics is UnrolledDiscriminatorConfig().uses_batch_statistics is True
    )


def test_activations() -> None:
    g = UnrolledGeneratorConfig(width=1).build(3, (1, 16, 16))
    d = UnrolledDiscriminatorConfig(width=1).build((1, 16, 16))
    leaks = [m.negative_slope for m in d.modules() if isinstance(m, nn.LeakyReLU)]
    assert leaks == [0.3] * 3
    assert sum(isinstance(m, nn.ReLU) for m in g.modules()) == 4
    assert not any(isinstance(m, nn.LeakyReLU) for m in g.modules())


def test_d_can_be_differentiated_twice() -> None:
    d = UnrolledDiscriminatorConfig(width=1).build((1, 9, 9))
    assert all(isinstance(m, Conv2d) for m in d.modules() if isinstance(m, nn.Conv2d))
    images = torch.randn(4, 1, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(d(images).score.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    first = next(d.parameters()).grad
    assert first is not None
    assert float(first.abs().sum()) > 0


def test_every_weight_of_both_networks_has_a_gradient() -> None:
    g = UnrolledGeneratorConfig(width=2).build(5, (3, 28, 28))
    d = UnrolledDiscriminatorConfig(width=2).build((3, 28, 28))
    d(g(torch.randn(6, 5))).score.square().sum().backward()
    for net in (g, d):
        for name, weight in net.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert float(weight.grad.abs().sum()) > 0, name


def test_the_score_is_computed_from_the_features() -> None:
    d = UnrolledDiscriminatorConfig(width=2).build((1, 12, 12)).eval()
    with torch.no_grad():
        output = d(torch.randn(3, 1, 12, 12))
        assert torch.equal(d.score(output.features).squeeze(1), output.score)
    assert d.score.in_features == d.width
