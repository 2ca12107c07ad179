"""Consistency: the cost by hand on a linear D, whom it pulls, and what T does to a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Linear, Session, context, misfits, recipe, session, source
from poise.core.move import MoveData
from poise.core.types import DataSpec, DiscriminatorOutput, MoveContext, Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.latents import Gaussian
from poise.networks.base import call_network
from poise.tricks.augment_ops import random_integers, uniform
from poise.tricks.base import TrickContext
from poise.tricks.consistency import Consistency, ConsistencyConfig, consistency_loss, shift_and_flip
from tricks.small import Doubled, Given, cloud, faced, game_of, gradients, shown

B, SIDE = 6, 8
SMOOTH: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
}


def term(**told: Any) -> Consistency:
    return ConsistencyConfig(**told).build("c", TrickContext({}, DataSpec((1, SIDE, SIDE))))


def linear() -> Linear:
    return Linear(cloud(SIDE * SIDE, seed=5).tolist(), 0.7)


def pictures(seed: int) -> Tensor:
    return cloud(B, 1, SIDE, SIDE, seed=seed)


def again(images: Tensor, origin: str, most: int, mirror: float, at: MoveContext) -> Tensor:
    """T(x) pixel by pixel; what lies beyond the edge is what lies as far before it."""
    generator = at.generator(f"c/{origin}")
    down, right = (random_integers(images, -most, most, generator).tolist() for _ in range(2))
    coins = uniform(images, 0, 1, generator).tolist()
    out = torch.zeros_like(images)
    for i, (d, r, coin) in enumerate(zip(down, right, coins, strict=True)):
        for row in range(SIDE):
            for column in range(SIDE):
                y, x = (min(abs(at), 2 * (SIDE - 1) - at) for at in (row - d, column - r))
                out[i, :, row, column] = images[i, :, y, x]
        if coin < mirror:
            out[i] = out[i].flip(2)
    return out


def uneven(d: Linear, images: Tensor, other: Tensor, scale: float = 1.0) -> float:
    """E <w, x - T(x)>^2."""
    return float((scale * (images - other).flatten(1) @ d.weight).square().mean().detach())


@pytest.mark.parametrize(("shift", "most"), [(0.0, 0), (0.125, 1), (0.5, 4), (0.3, 2)])
@pytest.mark.parametrize("mirror", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fakes", [0.0, 1.0, 0.25])
def test_the_cost_on_a_linear_d(shift: float, most: int, mirror: float, fakes: float) -> None:
    d, real, fake = linear(), pictures(0), pictures(1)
    move = faced(d, real, fake)
    cost = float(term(shift=shift, mirror=mirror, fakes=fakes).loss(move).detach())
    at = move.context
    expected = uneven(d, real, again(real, "real", most, mirror, at))
    expected += fakes * uneven(d, fake, again(fake, "fake", most, mirror, at))
    assert cost == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert (cost == 0) is (not shift and not mirror)


def test_unevenness_is_its_formula() -> None:
    assert float(consistency_loss(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 4.0, 4.0]))) == pytest.approx(5 / 3)


def test_t_moves_both_ways_by_up_to_most_and_mirrors_by_its_coin() -> None:
    n = 4000
    spot = torch.zeros(n, 1, 9, 9)
    spot[:, :, 4, 3] = 1
    for mirror in (0.0, 0.3, 1.0):
        made = shift_and_flip(spot, 1, mirror, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
        rows, columns = made // 9 - 4, made % 9
        for steps in (rows, (torch.where(columns > 4, 8 - columns, columns) - 3)[columns != 4]):
            assert steps.unique().tolist() in ([-1, 0, 1], [-1, 0])
        counts = torch.bincount(rows + 1)
        assert (counts - n / 3).abs().max() < 5 * math.sqrt(n * 2 / 9)
        flipped = float((columns > 4).float().mean()) / (2 / 3)  # in the middle one can't tell
        assert abs(flipped - mirror) < 5 * 1.5 * math.sqrt(2 / 9 / n) * max(mirror, 1e-3) ** 0.5 + 1e-3
    images = cloud(5, 3, 4, 4)
    assert torch.equal(shift_and_flip(images, 0, 0.0, torch.Generator()), images)
    assert torch.equal(shift_and_flip(images, 0, 1.0, torch.Generator()), images.flip(3))


def test_real_and_fake_are_varied_by_their_own_draws() -> None:
    d, same = linear(), pictures(0)
    one, both = (float(term(fakes=f).loss(faced(d, same.clone(), same.clone())).detach()) for f in (0.0, 1.0))
    assert both > one > 0
    assert both != pytest.approx(2 * one, rel=1e-3)


def drawn(game_tricks: tuple[Any, ...], d: nn.Module, side: Side = Side.D) -> tuple[Any, StepMetrics, MoveData]:
    """One move in a game whose G makes pictures."""
    game, metrics = game_of(*game_tricks, d=d), StepMetrics()
    game.latent, game.g.net = Gaussian(dim=SIDE * SIDE), Drawing()
    game.g.weights = list(game.g.net.parameters())
    move = make_move(game, Given(pictures(0)), context(side=side), metrics)
    return game, metrics, move


class Drawing(nn.Module):
    """G(z) = z as a picture, and a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.1))

    def forward(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, SIDE, SIDE) + self.by


def test_ds_gradient_is_that_of_the_formula_times_the_weight() -> None:
    """d/dw of E <w, v>^2 is 2 E <w, v> v, of the bias nothing."""
    found = []
    for weight in (0.0, 3.0):
        game, metrics, move = drawn((term(weight=weight, fakes=0.5),), linear())
        found.append(gradients(game.d.net))
        assert ("d/c" in shown(metrics)) is (weight > 0)
    w, expected = game.d.net.weight.detach(), torch.zeros(SIDE * SIDE)
    for origin, share in (("real", 1.0), ("fake", 0.5)):
        images = move.samples(origin).detach()
        v = (images - again(images, origin, 1, 0.5, move.context)).flatten(1)
        expected += share * 2 * ((v @ w)[:, None] * v).mean(0)
    assert torch.allclose(found[1][0] - found[0][0], 3 * expected, rtol=1e-3, atol=1e-4)
    assert torch.allclose(found[1][1], found[0][1], atol=1e-4)


def test_gs_moves_are_not_charged() -> None:
    pulled = []
    for tricks in ((), (term(fakes=1.0),)):
        game, metrics, move = drawn(tricks, linear(), Side.G)
        assert "g/c" not in shown(metrics)
        assert move.real is None
        pulled.append(gradients(game.g.net))
        assert all(w.grad is None for w in game.d.net.parameters())
    assert torch.equal(pulled[0][0], pulled[1][0])
    game, _, _ = drawn((term(fakes=1.0),), linear())
    assert all(w.grad is None for w in game.g.net.parameters())


def test_t_goes_through_the_views() -> None:
    view, d, real = Doubled(), linear(), pictures(0)
    move = faced(d, real, pictures(1), views=(view,))
    cost = float(term().loss(move).detach())
    assert cost == pytest.approx(uneven(d, real, again(real, "real", 1, 0.5, move.context), 2.0), rel=1e-4)
    assert view.origins == ["fake", "real", "between"]


class Told(nn.Module):
    """A D whose score is the label's."""

    takes_labels = True

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Tensor] = []

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        self.heard.append(labels)
        return DiscriminatorOutput(images.flatten(1).sum(1) * 0 + labels)


def test_each_pile_keeps_its_labels() -> None:
    d, real = Told(), pictures(0)
    labels, asked = torch.arange(B), torch.arange(B).flip(0)
    move = MoveData(context(), torch.zeros(B, 2), pictures(1), real, labels, asked)
    move.outputs = {"real": d(real, labels), "fake": d(move.fake, asked)}
    move.discriminate_fn = lambda images, kinds: call_network(d, images, kinds)
    assert float(term(fakes=1.0).loss(move)) == 0
    assert [kinds.tolist() for kinds in d.heard[2:]] == [labels.tolist(), asked.tolist()]


def test_it_acts_every_so_often_with_its_mean_force() -> None:
    lazy = term(weight=2.0, every=4)
    assert [lazy.is_due(context(k)) for k in range(5)] == [True, False, False, False, True]
    assert lazy.scale(context()) == 8.0
    assert not term(weight=0.0).is_due(context())
    assert (lazy.sides, lazy.needs_output) == ({Side.D}, {"real"})
    entry = ConsistencyConfig()
    assert (entry.weight, entry.fakes, entry.shift, entry.mirror) == (10.0, 0.0, 0.125, 0.5)


@pytest.mark.parametrize("others", [[], [{"kind": "r1"}], [{"kind": "packing"}], [{"kind": "diff_augment"}]])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_a_game(others: list[dict[str, Any]], precision: Any) -> None:
    told = recipe("pictures", {"kind": "consistency", "fakes": 1.0}, *others, **SMOOTH)
    run = Session(told, source("pictures"), precision=precision).play(3)
    assert run.metrics.reduce()["d/consistency"].mean > 0
    assert all(torch.isfinite(t).all() for t in run.saved().values())


def test_d_becomes_even() -> None:
    def left(run: Session) -> float:
        return sum(run.play(1).metrics.reduce()["d/consistency"].mean for _ in range(10))

    told: Callable[[float], dict[str, Any]] = lambda weight: {"kind": "consistency", "weight": weight}  # noqa: E731
    free, held = (session("pictures", told(weight), **SMOOTH).play(40) for weight in (1e-9, 100.0))
    for run in (free, held):
        run.metrics.reduce()
    assert left(held) < 0.5 * left(free)


def test_points_are_refused_with_a_cure() -> None:
    (one,) = misfits(recipe("points", {"kind": "consistency"}), "points").refusals
    assert "points" in one.message
    assert one.cure
