"""Feature matching: the squared distance of two means, by numpy, and whose gradient it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import moment, recipe
from poise.core import Exchange, Side, Subject, Verdict
from poise.dials import Linear
from poise.errors import RecipeError
from poise.seams import Stage
from poise.training.game import together
from poise.training.ledger import Ledger
from poise.training.step import move
from poise.tricks.feature_matching import FeatureMatching, FeatureMatchingEntry, mean_gap
from tricks.small import Bent, Given, N, as_float64, cloud, game_of, gradients, shown


def piles(real: int = 7, fake: int = 7, width: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    return (
        scale * cloud(real, width, seed=1, dtype=torch.float64),
        scale * (cloud(fake, width, seed=2, dtype=torch.float64) + 0.5),
    )


@pytest.mark.parametrize(("real", "fake", "width"), [(7, 7, 5), (1, 1, 1), (3, 8, 4), (64, 64, 100)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_gap_is_numpys(real: int, fake: int, width: int, scale: float) -> None:
    x, y = piles(real, fake, width, scale)
    right = float(((x.numpy().mean(0) - y.numpy().mean(0)) ** 2).sum())
    gap = mean_gap(x, y)
    assert gap.shape == ()
    assert float(gap) == pytest.approx(right, rel=1e-12)
    assert float(mean_gap(x.float(), y.float())) == pytest.approx(right, rel=1e-4)
    assert float(mean_gap(y, x)) == pytest.approx(right, rel=1e-12)


def test_only_the_means_count() -> None:
    x, y = piles()
    gap = float(mean_gap(x, y))
    assert float(mean_gap(x.flip(0), y.roll(2, 0))) == pytest.approx(gap, rel=1e-12)
    assert float(mean_gap(x, x.mean(0) + 3 * (y - y.mean(0)))) == pytest.approx(0, abs=1e-24)
    assert float(mean_gap(x, x)) == 0.0


def test_its_gradient() -> None:
    """By finite differences, and 2 (mean fake - mean real) / B in closed form."""
    x, y = (pile.requires_grad_() for pile in piles(4, 6, 3))
    assert torch.autograd.gradcheck(mean_gap, (x, y))
    (grad,) = torch.autograd.grad(mean_gap(x, y), y)
    right = 2 * (as_float64(y).mean(0) - as_float64(x).mean(0)) / 6
    np.testing.assert_allclose(as_float64(grad), np.broadcast_to(right, (6, 3)), atol=1e-14)


def heard(real: Tensor, fake: Tensor) -> Exchange:
    """G's move, in which D said these features."""
    exchange = Exchange(moment(side=Side.G), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    exchange.verdicts = {"real": Verdict(torch.zeros(len(real)), real), "fake": Verdict(torch.zeros(len(fake)), fake)}
    return exchange


def test_the_fakes_take_the_gradient_and_the_reals_none() -> None:
    x, y = (pile.requires_grad_() for pile in piles())
    cost = FeatureMatching("match", 1.0).cost(heard(x, y))
    assert torch.equal(cost, mean_gap(x, y))
    cost.backward()
    assert x.grad is None
    np.testing.assert_allclose(
        as_float64(y.grad), np.broadcast_to(2 * (as_float64(y).mean(0) - as_float64(x).mean(0)) / 7, (7, 5))
    )


def test_features_in_half_precision_are_summed_in_full() -> None:
    x, y = ((pile * 3).bfloat16() for pile in piles(64, 64))
    cost = FeatureMatching("match", 1.0).cost(heard(x, y))
    assert cost.dtype == torch.float32
    right = ((x.double().mean(0) - y.double().mean(0)) ** 2).sum()
    assert float(cost) == pytest.approx(float(right), rel=1e-5)


# ---------------------------------------------------------------- in a game


@pytest.mark.parametrize("judge", [None, together])
def test_g_pays_it_beside_the_adversarial_cost(judge: object) -> None:
    """The row shows it before its weight; G's gradient grows by weight x its own, and D gets none."""

    def pulled(weight: float) -> tuple[Tensor, dict[str, float], Exchange]:
        game = game_of(FeatureMatching("match", weight), d=Bent(), **({} if judge is None else {"judge": judge}))
        ledger = Ledger()
        exchange = move(game, Given(real), moment(side=Side.G), ledger)
        assert all(w.grad is None for w in game.d.weights)
        return gradients(game.g.net)[0], shown(ledger), exchange

    real = cloud(N, 2, seed=4) + 2
    (none, silent, _), (one, row, exchange), (three, _, _) = (pulled(weight) for weight in (0.0, 1.0, 3.0))
    assert "g/match" not in silent
    d = Bent()
    shift = torch.tensor([0.3, 0.1], requires_grad=True)
    x, y = d(real).features.detach(), d(exchange.latents + shift).features
    cost = (x.mean(0) - y.mean(0)).square().sum()
    (own,) = torch.autograd.grad(cost, shift)
    assert row["g/match"] == pytest.approx(float(cost.detach()), rel=1e-5)
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)
    assert torch.allclose(one - none, own, atol=1e-6)
    assert torch.allclose(three - none, 3 * own, atol=1e-5)
    assert float(own.norm()) > 0.01


def test_ds_move_is_what_it_was() -> None:
    rows = []
    for tricks in ((), (FeatureMatching("match", 5.0),)):
        ledger = Ledger()
        move(game_of(*tricks, d=Bent()), Given(cloud(N, 2)), moment(), ledger)
        rows.append(shown(ledger))
    assert rows[0] == rows[1]
    assert FeatureMatching.sides == {Side.G}


def test_g_is_shown_reals_only_while_it_weighs() -> None:
    at = moment(side=Side.G)
    assert game_of(FeatureMatching("match", 1.0)).needs(at).piles == {"real", "fake"}
    assert game_of(FeatureMatching("match", 0.0)).needs(at).piles == {"fake"}
    dying = game_of(FeatureMatching("match", Linear(start=1.0, end=0.0)))
    assert dying.needs(at).piles == {"real", "fake"}
    assert dying.needs(moment(10, side=Side.G)).piles == {"fake"}


def test_by_itself_it_brings_the_means_together() -> None:
    """With a weight that drowns the adversarial cost, the fakes' features come to the reals' in the mean."""
    real = cloud(64, 2, seed=4) * 0.5 + 1
    game = game_of(FeatureMatching("match", 30.0), d=Bent(), lr=0.01)
    gaps = []
    for at in range(60):
        ledger = Ledger()
        move(game, Given(real), moment(at % 10, side=Side.G), ledger)
        gaps.append(shown(ledger)["g/match"])
    assert np.mean(gaps[-10:]) < 0.2 * gaps[0]


def test_the_entry_says_what_d_must_say() -> None:
    stage = Stage({}, Subject((2,)))
    trick = FeatureMatchingEntry(weight=2.0).build("x", stage)
    assert (trick.name, trick.weight, trick.every) == ("x", 2.0, 1)
    assert FeatureMatchingEntry().weight == 1.0
    assert FeatureMatchingEntry().reads == {"features"}
    assert FeatureMatchingEntry(weight=Linear(start=0.0, end=1.0)).reads == {"features"}
    assert FeatureMatchingEntry(weight=Linear(start=1.0, end=0.0)).reads == {"features"}
    assert FeatureMatchingEntry(weight=0.0).reads == set()
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "feature_matching", "weight": -1.0})
