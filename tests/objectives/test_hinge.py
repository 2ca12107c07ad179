"""The hinge against numpy, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.objectives.hinge import Hinge, hinge

GRID = np.concatenate((np.linspace(-30, 30, 61), [-1e4, -1.0, 1.0, 1e4]))


def test_costs_are_the_papers() -> None:
    score = torch.tensor(GRID)
    real, fake = Hinge().d_losses(score, score, None)
    np.testing.assert_array_equal(real.numpy(), np.maximum(0, 1 - GRID))
    np.testing.assert_array_equal(fake.numpy(), np.maximum(0, 1 + GRID))
    (mine,) = Hinge().g_losses(score, None)
    np.testing.assert_array_equal(mine.numpy(), -GRID)


def test_what_is_clear_costs_nothing_and_pulls_nowhere() -> None:
    score = torch.tensor([1.5, 0.5], dtype=torch.float64, requires_grad=True)
    (pull,) = torch.autograd.grad(hinge(score).sum(), score)
    assert pull.tolist() == [0.0, -1.0]


@pytest.mark.parametrize("at", [-7.3, -0.2, 0.4, 3.1])
def test_gradients(at: float) -> None:
    """Away from the two edges, where there is none."""
    score = torch.full((3,), at, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: torch.cat(Hinge().d_losses(s, s, None)), score)
    assert torch.autograd.gradcheck(lambda s: Hinge().g_losses(s, None)[0], score)
