"""The hinge loss compared with numpy, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.objectives.hinge import Hinge, hinge

GRID = np.concatenate((np.linspace(-30, 30, 61), [-1e4, -1.0, 1.0, 1e4]))


def test_losses_match_numpy() -> None:
    score = torch.tensor(GRID)
    real, fake = Hinge().d_losses(score, score, None)
    np.testing.assert_array_equal(real.numpy(), np.maximum(0, 1 - GRID))
    np.testing.assert_array_equal(fake.numpy(), np.maximum(0, 1 + GRID))
    (loss_g,) = Hinge().g_losses(score, None)
    np.testing.assert_array_equal(loss_g.numpy(), -GRID)


def test_loss_and_gradient_are_zero_beyond_the_margin() -> None:
    score = torch.tensor([1.5, 0.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(hinge(score).sum(), score)
    assert gradient.tolist() == [0.0, -1.0]


@pytest.mark.parametrize("at", [-7.3, -0.2, 0.4, 3.1])
def test_gradients(at: float) -> None:
    """Away from the two margins, where the loss is not differentiable."""
    score = torch.full((3,), at, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: torch.cat(Hinge().d_losses(s, s, None)), score)
    assert torch.autograd.gradcheck(lambda s: Hinge().g_losses(s, None)[0], score)
