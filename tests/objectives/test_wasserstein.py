"""The Wasserstein losses compared with numpy, and the logged distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.tiny import context
from objectives.scores import implementations, random_scores, random_scores_with_grad, score_grid
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, Side
from poise.objectives.wasserstein import Wasserstein, distance


def test_losses_are_plain_scores() -> None:
    real, fake = score_grid()
    for d_losses, g_losses in implementations(Wasserstein()):
        loss_real, loss_fake = d_losses(real, fake, None)
        np.testing.assert_array_equal(loss_real.numpy(), -real.numpy())
        np.testing.assert_array_equal(loss_fake.numpy(), fake.numpy())
        (loss_g,) = g_losses(fake, None)
        np.testing.assert_array_equal(loss_g.numpy(), -fake.numpy())


def test_distance_is_the_difference_of_means() -> None:
    random = np.random.default_rng(0)
    real, fake = random.normal(3, 1, 50), random.normal(-2, 4, 50)
    actual = distance(torch.from_numpy(real), torch.from_numpy(fake))
    assert actual.shape == ()
    assert float(actual) == pytest.approx(real.mean() - fake.mean(), rel=1e-14)
    far = torch.full((4,), 1e4)
    assert float(distance(far, -far)) == 2e4


def test_ds_loss_is_minus_the_distance() -> None:
    real, fake = random_scores()
    for d_losses, _ in implementations(Wasserstein()):
        losses = d_losses(real, fake, None)
        assert float(sum(loss.mean() for loss in losses)) == pytest.approx(-float(distance(real, fake)), rel=1e-14)


def test_only_differences_of_scores_matter_to_d() -> None:
    real, fake = random_scores()
    d_losses, _ = implementations(Wasserstein())[1]
    before, after = (sum(loss.mean() for loss in d_losses(real + c, fake + c, None)) for c in (0, 1e3))
    assert float(before) == pytest.approx(float(after), abs=1e-10)


def test_gradients() -> None:
    real, fake = random_scores_with_grad()
    assert torch.autograd.gradcheck(distance, (real, fake))
    for d_losses, g_losses in implementations(Wasserstein()):
        assert torch.autograd.gradcheck(lambda r, f, d_losses=d_losses: d_losses(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(lambda f, g_losses=g_losses: g_losses(f, None), (fake,))


def test_the_distance_is_logged_in_ds_moves_only() -> None:
    real, fake = random_scores()
    module = Wasserstein().build()
    for side in Side:
        move = MoveData(context(side=side), torch.zeros(7, 2), fake, real)
        move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
        module.after_update(move)
        logged = {name: float(value) for name, value in move.logged.items()}
        expected = {"wasserstein": pytest.approx(float(real.mean() - fake.mean()))} if side is Side.D else {}
        assert logged == expected
