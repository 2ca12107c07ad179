"""Orthogonal regularisation: its gradient compared with autograd, which weights it takes, and what it does to them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import Side
from poise.networks.biggan import BigGANGeneratorConfig
from poise.networks.blocks import ProjectAndReshape
from poise.networks.conditioning import ClassNormConfig
from poise.networks.dcgan import DCGANGeneratorConfig
from poise.networks.r3gan import R3GANGeneratorConfig
from poise.networks.shared_embedding import SharedEmbeddingConfig
from poise.networks.stylegan2 import StyleGAN2GeneratorConfig
from poise.tricks.orthogonal import Orthogonal, OrthogonalConfig, orthogonality, weights_with_channel_dim
from tricks.small import randn


def equation_3(matrix: Tensor) -> Tensor:
    """||W W^T * (1 - I)||_F^2, pair by pair."""
    rows = list(matrix)
    return sum(((a @ b) ** 2 for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j), 0 * matrix.sum())


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1)])
def test_penalty_and_gradient_are_those_of_the_papers_equation(shape: tuple[int, int]) -> None:
    matrix = randn(*shape, dtype=torch.float64).requires_grad_()
    expected = equation_3(matrix)
    (gradient,) = torch.autograd.grad(expected, matrix)
    result = orthogonality(matrix)
    assert float(result.penalty) == pytest.approx(float(expected.detach()), rel=1e-12, abs=1e-12)
    assert torch.allclose(result.gradient, gradient, rtol=0, atol=1e-12)
    assert not result.penalty.requires_grad


@pytest.mark.parametrize("shape", [(3, 5), (5, 5)])
def test_orthogonal_rows_of_any_length_have_no_penalty(shape: tuple[int, int]) -> None:
    """Unlike with ||W W^T - I||^2, lengths are free."""
    lengths = torch.tensor([0.1, 1.0, 7.0, 2.0, 3.0])[: shape[0], None]
    matrix = nn.init.orthogonal_(torch.empty(*shape, dtype=torch.float64)) * lengths
    result = orthogonality(matrix)
    assert float(result.penalty) < 1e-20
    assert result.gradient.abs().max() < 1e-10


class Mixed(nn.Module):
    """A layer of every sort that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(3, 4), spectral_norm(nn.Conv2d(3, 5, 3))
        self.up, self.first = nn.ConvTranspose2d(3, 6, 4), ProjectAndReshape(3, 7, (4, 4), bias=True)
        self.norm, self.table, self.free = (
            nn.BatchNorm2d(3),
            spectral_norm(nn.Embedding(9, 3)),
            nn.Parameter(randn(2, 8)),
        )


def test_rows_are_output_channels_and_embeddings_are_left_out() -> None:
    net = Mixed()
    found = weights_with_channel_dim(net)
    assert sorted(weight.shape[dim] for weight, dim in found) == [4, 5, 6, 7], "a free parameter is no filter"
    originals = {id(weight) for weight in net.parameters()}
    assert {id(weight) for weight, _ in found} <= originals, "weights before spectral norm"
    (one,) = weights_with_channel_dim(spectral_norm(nn.ConvTranspose2d(3, 6, 4)))
    assert one[1] == 1


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("layer", [nn.Linear(4, 6), nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 3, 4)], ids=str)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_the_gains_of_weight_norm_are_no_filters(norm: Any, layer: nn.Module) -> None:
    """Rows of a single gain each are never orthogonal: the penalty would drive all gains but one to 0."""
    shape = layer.weight.shape
    net = nn.Sequential(norm(copy.deepcopy(layer)))
    ((direction, _),) = weights_with_channel_dim(net)
    assert direction.shape == shape
    assert torch.equal(direction, layer.weight)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_filters_are_those_before_spectral_norm(norm: Any) -> None:
    ((weight, _),) = weights_with_channel_dim(nn.Sequential(norm(nn.Conv2d(3, 6, 3))))
    assert weight.shape == (6, 3, 3, 3)


@pytest.mark.parametrize("config", [StyleGAN2GeneratorConfig(width=4, style_dim=8), R3GANGeneratorConfig(width=16)])
def test_a_learned_constant_is_no_filter(config: Any) -> None:
    net = config.build(8, (1, 8, 8))
    found = {id(weight) for weight, _ in weights_with_channel_dim(net)}
    left = [name for name, weight in net.named_parameters() if weight.dim() > 1 and id(weight) not in found]
    assert [name.rpartition(".")[2] for name in left] == ["constant" if "style" in config.kind else "basis"]


def test_the_shared_embedding_and_class_norms_are_left_out() -> None:
    entry, config = SharedEmbeddingConfig(dim=4), BigGANGeneratorConfig(width=2)
    net = entry.wrap(config.build_for(entry, 4, (1, 8, 8), reference=randn(1, 4)), 3)
    all_matrices = [weight for weight in net.parameters() if weight.dim() > 1]
    assert len(weights_with_channel_dim(net)) == len(all_matrices) - 1
    plain = DCGANGeneratorConfig(width=2).build(4, (1, 8, 8))
    count = len(weights_with_channel_dim(plain))
    assert len(weights_with_channel_dim(ClassNormConfig().wrap(plain, 3))) == count


def move() -> MoveData:
    nothing = torch.zeros(1, 2)
    return MoveData(context(side=Side.G), nothing, nothing)


def test_the_gradient_of_every_weight_gets_the_weighted_gradient() -> None:
    net = Mixed().double()
    player = Player(Side.G, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": 0.0})
    rows = {"linear": net.linear.weight, "up": net.up.weight.transpose(0, 1), "first": net.first.weight.transpose(0, 1)}
    original = net.conv.parametrizations.weight.original  # type: ignore[union-attr]
    assert isinstance(original, Tensor)
    expected = torch.stack([equation_3(w.flatten(1)) for w in [*rows.values(), original]]).sum()
    names, weights = zip(*net.named_parameters(), strict=True)
    grads = torch.autograd.grad(expected, weights, allow_unused=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    done = move()
    Orthogonal("o", 0.5).transform_gradients(player, done)
    for name, weight, grad in zip(names, weights, grads, strict=True):
        change = weight.grad - 1
        assert torch.allclose(change, torch.zeros_like(change) if grad is None else 0.5 * grad, rtol=0, atol=1e-9), name
    assert float(done.logged["o"]) == pytest.approx(float(expected.detach()), rel=1e-9)


def test_frozen_weights_are_skipped() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    net[1].weight.grad = torch.zeros(2, 3)
    player = Player(Side.G, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": 0.0})
    done = move()
    Orthogonal("o", 1.0).transform_gradients(player, done)
    assert net[0].weight.grad is None
    assert net[1].weight.grad.abs().sum() > 0
    assert done.logged["o"] == orthogonality(net[1].weight).penalty


def test_gradient_descent_makes_filters_orthogonal() -> None:
    """The mean cosine between different filters falls from 0.9 to below 0.01, while their lengths do not vanish."""
    shared = randn(1, 32, seed=1)
    net = nn.Linear(32, 6, bias=False)
    net.weight.data = shared + 0.3 * randn(6, 32)
    player = Player(Side.G, net, torch.optim.SGD(net.parameters(), lr=1e-3), lambda _: {"lr": 1e-3})

    def cosine() -> float:
        unit = nn.functional.normalize(net.weight.detach(), dim=1)
        return float((unit @ unit.T - torch.eye(6)).abs().sum() / 30)

    trick = OrthogonalConfig(weight=1.0).build("o", None)  # type: ignore[arg-type]
    assert cosine() > 0.85
    for _ in range(500):
        net.weight.grad = torch.zeros_like(net.weight)
        trick.transform_gradients(player, move())
        player.apply_gradients(context(side=Side.G))
    assert cosine() < 0.01
    assert net.weight.detach().norm(dim=1).min() > 0.5
