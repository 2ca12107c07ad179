"""Consistency: the loss of a linear D by hand, which players it trains, and what T does to an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Linear, Session, context, findings_of, recipe, session, source
from poise.core.move import MoveData
from poise.core.types import DataSpec, DiscriminatorOutput, MoveContext, Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.latents import Gaussian
from poise.networks.base import call_network
from poise.tricks.augment_ops import random_integers, uniform
from poise.tricks.base import TrickContext
from poise.tricks.consistency import Consistency, ConsistencyConfig, consistency_loss, shift_and_flip
from tricks.small import DoublingTransform, FixedBatches, discriminated, game_of, gradients, logged_means, randn

B, SIDE = 6, 8
SMOOTH: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
}


def term(**settings: Any) -> Consistency:
    return ConsistencyConfig(**settings).build("c", TrickContext({}, DataSpec((1, SIDE, SIDE))))


def linear() -> Linear:
    return Linear(randn(SIDE * SIDE, seed=5).tolist(), 0.7)


def pictures(seed: int) -> Tensor:
    return randn(B, 1, SIDE, SIDE, seed=seed)


def transformed_by_loop(
    images: Tensor, origin: str, max_shift: int, flip_probability: float, context: MoveContext
) -> Tensor:
    """T(x) pixel by pixel, padded by reflection."""
    generator = context.generator(f"c/{origin}")
    down, right = (random_integers(images, -max_shift, max_shift, generator).tolist() for _ in range(2))
    draws = uniform(images, 0, 1, generator).tolist()
    out = torch.zeros_like(images)
    for i, (d, r, draw) in enumerate(zip(down, right, draws, strict=True)):
        for row in range(SIDE):
            for column in range(SIDE):
                y, x = (min(abs(k), 2 * (SIDE - 1) - k) for k in (row - d, column - r))
                out[i, :, row, column] = images[i, :, y, x]
        if draw < flip_probability:
            out[i] = out[i].flip(2)
    return out


def expected_loss(d: Linear, images: Tensor, other: Tensor, scale: float = 1.0) -> float:
    """E <w, x - T(x)>^2."""
    return float((scale * (images - other).flatten(1) @ d.weight).square().mean().detach())


@pytest.mark.parametrize(("shift", "max_shift"), [(0.0, 0), (0.125, 1), (0.5, 4), (0.3, 2)])
@pytest.mark.parametrize("mirror", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fakes", [0.0, 1.0, 0.25])
def test_the_loss_of_a_linear_d(shift: float, max_shift: int, mirror: float, fakes: float) -> None:
    d, real, fake = linear(), pictures(0), pictures(1)
    move = discriminated(d, real, fake)
    loss = float(term(shift=shift, mirror=mirror, fakes=fakes).loss(move).detach())
    at = move.context
    expected = expected_loss(d, real, transformed_by_loop(real, "real", max_shift, mirror, at))
    expected += fakes * expected_loss(d, fake, transformed_by_loop(fake, "fake", max_shift, mirror, at))
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert (loss == 0) is (not shift and not mirror)


def test_consistency_loss_equals_its_formula() -> None:
    assert float(consistency_loss(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 4.0, 4.0]))) == pytest.approx(5 / 3)


def test_t_shifts_in_both_directions_and_flips_at_random() -> None:
    n = 4000
    images_with_spot = torch.zeros(n, 1, 9, 9)
    images_with_spot[:, :, 4, 3] = 1
    for mirror in (0.0, 0.3, 1.0):
        positions = (
            shift_and_flip(images_with_spot, (1, 1), mirror, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
        )
        rows, columns = positions // 9 - 4, positions % 9
        for steps in (rows, (torch.where(columns > 4, 8 - columns, columns) - 3)[columns != 4]):
            assert steps.unique().tolist() in ([-1, 0, 1], [-1, 0])
        counts = torch.bincount(rows + 1)
        assert (counts - n / 3).abs().max() < 5 * math.sqrt(n * 2 / 9)
        flipped = float((columns > 4).float().mean()) / (2 / 3)  # in the centre a flip has no effect
        assert abs(flipped - mirror) < 5 * 1.5 * math.sqrt(2 / 9 / n) * max(mirror, 1e-3) ** 0.5 + 1e-3
    images = randn(5, 3, 4, 4)
    assert torch.equal(shift_and_flip(images, (0, 0), 0.0, torch.Generator()), images)
    assert torch.equal(shift_and_flip(images, (0, 0), 1.0, torch.Generator()), images.flip(3))


def test_real_and_fake_have_independent_draws() -> None:
    d, same = linear(), pictures(0)
    one, both = (float(term(fakes=f).loss(discriminated(d, same.clone(), same.clone())).detach()) for f in (0.0, 1.0))
    assert both > one > 0
    assert both != pytest.approx(2 * one, rel=1e-3)


def play_move(game_tricks: tuple[Any, ...], d: nn.Module, side: Side = Side.D) -> tuple[Any, StepMetrics, MoveData]:
    """One move in a game whose G generates images."""
    game, metrics = game_of(*game_tricks, d=d), StepMetrics()
    game.latent, game.g.net = Gaussian(dim=SIDE * SIDE), ImageGenerator()
    game.g.weights = list(game.g.net.parameters())
    move = make_move(game, FixedBatches(pictures(0)), context(side=side), metrics)
    return game, metrics, move


class ImageGenerator(nn.Module):
    """G(z) = z as an image, plus a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.1))

    def forward(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, SIDE, SIDE) + self.by


def test_ds_gradient_equals_that_of_the_formula_times_the_weight() -> None:
    """d/dw of E <w, v>^2 is 2 E <w, v> v; the bias has none."""
    found = []
    for weight in (0.0, 3.0):
        game, metrics, move = play_move((term(weight=weight, fakes=0.5),), linear())
        found.append(gradients(game.d.net))
        assert ("d/c" in logged_means(metrics)) is (weight > 0)
    w, expected = game.d.net.weight.detach(), torch.zeros(SIDE * SIDE)
    for origin, share in (("real", 1.0), ("fake", 0.5)):
        images = move.samples(origin).detach()
        v = (images - transformed_by_loop(images, origin, 1, 0.5, move.context)).flatten(1)
        expected += share * 2 * ((v @ w)[:, None] * v).mean(0)
    assert torch.allclose(found[1][0] - found[0][0], 3 * expected, rtol=1e-3, atol=1e-4)
    assert torch.allclose(found[1][1], found[0][1], atol=1e-4)


def test_gs_moves_have_no_consistency_loss() -> None:
    g_gradients = []
    for tricks in ((), (term(fakes=1.0),)):
        game, metrics, move = play_move(tricks, linear(), Side.G)
        assert "g/c" not in logged_means(metrics)
        assert move.real is None
        g_gradients.append(gradients(game.g.net))
        assert all(w.grad is None for w in game.d.net.parameters())
    assert torch.equal(g_gradients[0][0], g_gradients[1][0])
    game, _, _ = play_move((term(fakes=1.0),), linear())
    assert all(w.grad is None for w in game.g.net.parameters())


def test_t_goes_through_input_transforms() -> None:
    transform, d, real = DoublingTransform(), linear(), pictures(0)
    move = discriminated(d, real, pictures(1), transforms=(transform,))
    loss = float(term().loss(move).detach())
    assert loss == pytest.approx(
        expected_loss(d, real, transformed_by_loop(real, "real", 1, 0.5, move.context), 2.0), rel=1e-4
    )
    assert transform.origins == ["fake", "real", "between"]


class LabelDiscriminator(nn.Module):
    """A D whose score is the label."""

    takes_labels = True

    def __init__(self) -> None:
        super().__init__()
        self.labels_seen: list[Tensor] = []

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        self.labels_seen.append(labels)
        return DiscriminatorOutput(images.flatten(1).sum(1) * 0 + labels)


def test_each_batch_keeps_its_labels() -> None:
    d, real = LabelDiscriminator(), pictures(0)
    labels, fake_labels = torch.arange(B), torch.arange(B).flip(0)
    move = MoveData(context(), torch.zeros(B, 2), pictures(1), real, labels, fake_labels)
    move.outputs = {"real": d(real, labels), "fake": d(move.fake, fake_labels)}
    move.discriminate_fn = lambda images, classes: call_network(d, images, classes)
    assert float(term(fakes=1.0).loss(move)) == 0
    assert [classes.tolist() for classes in d.labels_seen[2:]] == [labels.tolist(), fake_labels.tolist()]


def test_lazy_regularisation_keeps_the_mean_weight() -> None:
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
    checked = recipe("pictures", {"kind": "consistency", "fakes": 1.0}, *others, **SMOOTH)
    run = Session(checked, source("pictures"), precision=precision).play(3)
    assert run.metrics.reduce()["d/consistency"].mean > 0
    assert all(torch.isfinite(t).all() for t in run.saved().values())


def test_d_becomes_more_consistent() -> None:
    def remaining_loss(run: Session) -> float:
        return sum(run.play(1).metrics.reduce()["d/consistency"].mean for _ in range(10))

    trick: Callable[[float], dict[str, Any]] = lambda weight: {"kind": "consistency", "weight": weight}  # noqa: E731
    plain, regularised = (session("pictures", trick(weight), **SMOOTH).play(40) for weight in (1e-9, 100.0))
    for run in (plain, regularised):
        run.metrics.reduce()
    assert remaining_loss(regularised) < 0.5 * remaining_loss(plain)


def test_points_are_rejected_with_a_cure() -> None:
    (one,) = findings_of(recipe("points", {"kind": "consistency"}), "points").refusals
    assert "points" in one.message
    assert one.cure
