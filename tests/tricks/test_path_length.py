"""Path-length regularisation against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.move import MoveData
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, MoveContext, Side
from poise.networks.styles import StyleBroadcast
from poise.tricks.base import TrickContext
from poise.tricks.path_length import DECAY, PathLength, PathLengthConfig, path_lengths

SHAPE = (3, 4, 6)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_the_length_of_a_linear_map() -> None:
    """For images A w the length is |A^T y| / sqrt(H W), whatever w is."""
    a = torch.randn(math.prod(SHAPE), 5, dtype=torch.float64)
    w, y = torch.randn(7, 5, dtype=torch.float64).requires_grad_(), torch.randn(7, *SHAPE, dtype=torch.float64)
    lengths = path_lengths((w @ a.T).view(7, *SHAPE), w, y)
    assert torch.allclose(lengths, (y.flatten(1) @ a).norm(dim=1) / math.sqrt(24))


def test_the_squares_of_the_layers_are_averaged() -> None:
    """For images sum_l A_l w_l the squared length is the mean over l of |A_l^T y|^2 / (H W)."""
    a = torch.randn(4, math.prod(SHAPE), 5, dtype=torch.float64)
    w, y = torch.randn(7, 4, 5, dtype=torch.float64).requires_grad_(), torch.randn(7, *SHAPE, dtype=torch.float64)
    images = torch.einsum("bld,lpd->bp", w, a).view(7, *SHAPE)
    squares = torch.einsum("bp,lpd->bld", y.flatten(1), a).square().sum(2).mean(1) / 24
    assert torch.allclose(path_lengths(images, w, y), squares.sqrt())


def test_its_mean_square_is_the_norm_of_the_jacobian() -> None:
    """E |J^T y|^2 = ||J||_F^2 / (H W)."""
    torch.manual_seed(0)
    a = torch.randn(math.prod(SHAPE), 5)
    w, y = torch.zeros(20_000, 5).requires_grad_(), torch.randn(20_000, *SHAPE)
    squares = path_lengths((w @ a.T).view(-1, *SHAPE), w, y).square()
    assert float(squares.detach().mean()) == pytest.approx(float(a.square().sum()) / 24, rel=0.02)


def test_points_have_no_height_and_width() -> None:
    z, y = torch.randn(6, 3).requires_grad_(), torch.randn(6, 2)
    a = torch.randn(2, 3)
    assert torch.allclose(path_lengths(z @ a.T, z, y), (y @ a).norm(dim=1), atol=1e-6)


def test_a_generator_that_ignores_z_has_finite_gradients() -> None:
    z, scale = torch.randn(2, 3).requires_grad_(), torch.zeros(()).requires_grad_()
    lengths = path_lengths(scale * z, z, torch.randn(2, 3))
    (gradient,) = torch.autograd.grad(lengths.sum(), scale)
    assert lengths.detach().tolist() == pytest.approx([0, 0], abs=1e-6)
    assert gradient.isfinite()


class Styled(nn.Module):
    """Images A (w_1 + w_2), w = 3 z, with the layers' w from a `StyleBroadcast`."""

    def __init__(self) -> None:
        super().__init__()
        self.broadcast, self.linear = StyleBroadcast(2, 5, 0.0), nn.Linear(5, math.prod(SHAPE), bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(self.broadcast(3 * z).sum(1)).view(-1, *SHAPE)


def trick_and_move(net: nn.Module, **options: Any) -> tuple[PathLength, MoveData]:
    trick = PathLengthConfig(**options).build("path_length", TrickContext({Side.G: net}, DataSpec(SHAPE)))
    context = MoveContext(0, 10, 8, RandomStreams(1), Side.G)
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    return trick, MoveData(context, z, net(z), generate_fn=net)


def expected_lengths(trick: PathLength, move: MoveData, net: Styled, factor: float, count: int) -> Tensor:
    y = torch.empty(count, *SHAPE).normal_(generator=move.context.generator(trick.name))
    return factor * (y.flatten(1) @ net.linear.weight).norm(dim=1) / math.sqrt(24)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_generator_with_styles_is_differentiated_with_respect_to_w(wrapped: bool) -> None:
    net = Styled()
    trick, move = trick_and_move(nn.Sequential(net) if wrapped else net)
    lengths = expected_lengths(trick, move, net, 1.0, 4)
    mean = DECAY * lengths.mean()
    assert float(trick.loss(move).detach()) == pytest.approx(float((lengths - mean).square().mean().detach()), rel=1e-4)
    assert float(trick.mean_length) == pytest.approx(float(mean.detach()), rel=1e-4)
    assert not net.broadcast._forward_hooks


def test_one_without_styles_with_respect_to_z() -> None:
    net = nn.Sequential(nn.Linear(5, math.prod(SHAPE), bias=False), nn.Unflatten(1, SHAPE))
    trick, move = trick_and_move(net, shrink=1)
    y = torch.empty(8, *SHAPE).normal_(generator=move.context.generator(trick.name))
    lengths = (y.flatten(1) @ net[0].weight).norm(dim=1) / math.sqrt(24)  # type: ignore[operator]
    assert float(trick.loss(move).detach()) == pytest.approx(
        float((lengths - DECAY * lengths.mean()).square().mean().detach()), rel=1e-4
    )


def test_the_running_mean_is_state_and_the_generator_is_not() -> None:
    net = Styled()
    trick, move = trick_and_move(net)
    first, second = trick.loss(move), trick.loss(move)
    lengths = expected_lengths(trick, move, net, 1.0, 4)
    mean = float(lengths.detach().mean()) * (1 - (1 - DECAY) ** 2)
    assert second < first
    assert float(trick.mean_length) == pytest.approx(mean, rel=1e-4)
    assert list(trick.state_dict()) == ["mean_length"]


def test_a_mean_that_is_not_finite_is_not_kept() -> None:
    net = Styled()
    trick, move = trick_and_move(net)
    net.linear.weight.data.fill_(math.inf)
    trick.loss(move)
    assert trick.mean_length == 0


def test_defaults_are_those_of_the_authors() -> None:
    config = PathLengthConfig()
    assert (config.weight, config.every, config.shrink) == (2.0, 4, 2)
