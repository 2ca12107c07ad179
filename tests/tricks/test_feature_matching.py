"""Feature matching: the squared distance of two means in NumPy, and which player gets its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import context, recipe
from poise.core.move import MoveData
from poise.core.schedules import Linear
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.engine.game import discriminate_jointly
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.tricks.base import TrickContext
from poise.tricks.feature_matching import FeatureMatching, FeatureMatchingConfig, feature_matching_loss
from tricks.small import FixedBatches, N, TanhDiscriminator, as_float64, game_of, gradients, logged_means, randn


def origins(real: int = 7, fake: int = 7, width: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    return (
        scale * randn(real, width, seed=1, dtype=torch.float64),
        scale * (randn(fake, width, seed=2, dtype=torch.float64) + 0.5),
    )


@pytest.mark.parametrize(("real", "fake", "width"), [(7, 7, 5), (1, 1, 1), (3, 8, 4), (64, 64, 100)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_loss_equals_numpys(real: int, fake: int, width: int, scale: float) -> None:
    x, y = origins(real, fake, width, scale)
    right = float(((x.numpy().mean(0) - y.numpy().mean(0)) ** 2).sum())
    distance = feature_matching_loss(x, y)
    assert distance.shape == ()
    assert float(distance) == pytest.approx(right, rel=1e-12)
    assert float(feature_matching_loss(x.float(), y.float())) == pytest.approx(right, rel=1e-4)
    assert float(feature_matching_loss(y, x)) == pytest.approx(right, rel=1e-12)


def test_the_loss_depends_on_the_means_only() -> None:
    x, y = origins()
    distance = float(feature_matching_loss(x, y))
    assert float(feature_matching_loss(x.flip(0), y.roll(2, 0))) == pytest.approx(distance, rel=1e-12)
    assert float(feature_matching_loss(x, x.mean(0) + 3 * (y - y.mean(0)))) == pytest.approx(0, abs=1e-24)
    assert float(feature_matching_loss(x, x)) == 0.0


def test_gradient() -> None:
    """By finite differences, and 2 (mean fake - mean real) / B in closed form."""
    x, y = (origin.requires_grad_() for origin in origins(4, 6, 3))
    assert torch.autograd.gradcheck(feature_matching_loss, (x, y))
    (grad,) = torch.autograd.grad(feature_matching_loss(x, y), y)
    right = 2 * (as_float64(y).mean(0) - as_float64(x).mean(0)) / 6
    np.testing.assert_allclose(as_float64(grad), np.broadcast_to(right, (6, 3)), atol=1e-14)


def g_move(real: Tensor, fake: Tensor) -> MoveData:
    """G's move, in which D returned these features."""
    move = MoveData(context(side=Side.G), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    move.outputs = {
        "real": DiscriminatorOutput(torch.zeros(len(real)), real),
        "fake": DiscriminatorOutput(torch.zeros(len(fake)), fake),
    }
    return move


def test_only_fake_features_get_a_gradient() -> None:
    x, y = (origin.requires_grad_() for origin in origins())
    loss = FeatureMatching("match", 1.0).loss(g_move(x, y))
    assert torch.equal(loss, feature_matching_loss(x, y))
    loss.backward()
    assert x.grad is None
    np.testing.assert_allclose(
        as_float64(y.grad), np.broadcast_to(2 * (as_float64(y).mean(0) - as_float64(x).mean(0)) / 7, (7, 5))
    )


def test_half_precision_features_are_summed_in_float32() -> None:
    x, y = ((origin * 3).bfloat16() for origin in origins(64, 64))
    loss = FeatureMatching("match", 1.0).loss(g_move(x, y))
    assert loss.dtype == torch.float32
    right = ((x.double().mean(0) - y.double().mean(0)) ** 2).sum()
    assert float(loss) == pytest.approx(float(right), rel=1e-5)


# ---------------------------------------------------------------- in a game


@pytest.mark.parametrize("judge", [None, discriminate_jointly])
def test_the_term_is_added_to_gs_adversarial_loss(judge: object) -> None:
    """The unweighted term is logged; G's gradient gets weight times that of the term, and D gets none."""

    def gradient_with_weight(weight: float) -> tuple[Tensor, dict[str, float], MoveData]:
        game = game_of(
            FeatureMatching("match", weight), d=TanhDiscriminator(), **({} if judge is None else {"judge": judge})
        )
        metrics = StepMetrics()
        move = make_move(game, FixedBatches(real), context(side=Side.G), metrics)
        assert all(w.grad is None for w in game.d.weights)
        return gradients(game.g.net)[0], logged_means(metrics), move

    real = randn(N, 2, seed=4) + 2
    (none, silent, _), (one, row, move), (three, _, _) = (gradient_with_weight(weight) for weight in (0.0, 1.0, 3.0))
    assert "g/match" not in silent
    d = TanhDiscriminator()
    shift = torch.tensor([0.3, 0.1], requires_grad=True)
    x, y = d(real).features.detach(), d(move.latents + shift).features
    loss = (x.mean(0) - y.mean(0)).square().sum()
    (own,) = torch.autograd.grad(loss, shift)
    assert row["g/match"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)
    assert torch.allclose(one - none, own, atol=1e-6)
    assert torch.allclose(three - none, 3 * own, atol=1e-5)
    assert float(own.norm()) > 0.01


def test_ds_move_is_unchanged() -> None:
    rows = []
    for tricks in ((), (FeatureMatching("match", 5.0),)):
        metrics = StepMetrics()
        make_move(game_of(*tricks, d=TanhDiscriminator()), FixedBatches(randn(N, 2)), context(), metrics)
        rows.append(logged_means(metrics))
    assert rows[0] == rows[1]
    assert FeatureMatching.sides == {Side.G}


def test_real_samples_are_loaded_in_gs_move_only_if_needed() -> None:
    at = context(side=Side.G)
    assert game_of(FeatureMatching("match", 1.0)).requirements(at).outputs == {"real", "fake"}
    assert game_of(FeatureMatching("match", 0.0)).requirements(at).outputs == {"fake"}
    dying = game_of(FeatureMatching("match", Linear(start=1.0, end=0.0)))
    assert dying.requirements(at).outputs == {"real", "fake"}
    assert dying.requirements(context(10, side=Side.G)).outputs == {"fake"}


def test_with_a_large_weight_the_means_approach_each_other() -> None:
    """The weight is so large that the adversarial loss is negligible."""
    real = randn(64, 2, seed=4) * 0.5 + 1
    game = game_of(FeatureMatching("match", 30.0), d=TanhDiscriminator(), lr=0.01)
    gaps = []
    for at in range(60):
        metrics = StepMetrics()
        make_move(game, FixedBatches(real), context(at % 10, side=Side.G), metrics)
        gaps.append(logged_means(metrics)["g/match"])
    assert np.mean(gaps[-10:]) < 0.2 * gaps[0]


def test_the_config_declares_the_required_outputs() -> None:
    context = TrickContext({}, DataSpec((2,)))
    trick = FeatureMatchingConfig(weight=2.0).build("x", context)
    assert (trick.name, trick.weight, trick.every) == ("x", 2.0, 1)
    assert FeatureMatchingConfig().weight == 1.0
    assert FeatureMatchingConfig().required_outputs == {"features"}
    assert FeatureMatchingConfig(weight=Linear(start=0.0, end=1.0)).required_outputs == {"features"}
    assert FeatureMatchingConfig(weight=Linear(start=1.0, end=0.0)).required_outputs == {"features"}
    assert FeatureMatchingConfig(weight=0.0).required_outputs == set()
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "feature_matching", "weight": -1.0})
