"""The Wasserstein costs against numpy, and the reading that is their distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.tiny import context
from objectives.scores import near, pairs, wanting, ways
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, Side
from poise.objectives.wasserstein import Wasserstein, distance


def test_costs_are_plain_scores() -> None:
    real, fake = pairs()
    for d_costs, g_costs in ways(Wasserstein()):
        for_real, for_fake = d_costs(real, fake, None)
        np.testing.assert_array_equal(for_real.numpy(), -real.numpy())
        np.testing.assert_array_equal(for_fake.numpy(), fake.numpy())
        (for_g,) = g_costs(fake, None)
        np.testing.assert_array_equal(for_g.numpy(), -fake.numpy())


def test_distance_is_the_difference_of_means() -> None:
    random = np.random.default_rng(0)
    real, fake = random.normal(3, 1, 50), random.normal(-2, 4, 50)
    ours = distance(torch.from_numpy(real), torch.from_numpy(fake))
    assert ours.shape == ()
    assert float(ours) == pytest.approx(real.mean() - fake.mean(), rel=1e-14)
    far = torch.full((4,), 1e4)
    assert float(distance(far, -far)) == 2e4


def test_d_descends_minus_the_distance() -> None:
    real, fake = near()
    for d_costs, _ in ways(Wasserstein()):
        costs = d_costs(real, fake, None)
        assert float(sum(cost.mean() for cost in costs)) == pytest.approx(-float(distance(real, fake)), rel=1e-14)


def test_only_differences_of_scores_matter_to_d() -> None:
    real, fake = near()
    d_costs, _ = ways(Wasserstein())[1]
    before, after = (sum(cost.mean() for cost in d_costs(real + c, fake + c, None)) for c in (0, 1e3))
    assert float(before) == pytest.approx(float(after), abs=1e-10)


def test_gradients() -> None:
    real, fake = wanting()
    assert torch.autograd.gradcheck(distance, (real, fake))
    for d_costs, g_costs in ways(Wasserstein()):
        assert torch.autograd.gradcheck(lambda r, f, d_costs=d_costs: d_costs(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(lambda f, g_costs=g_costs: g_costs(f, None), (fake,))


def test_the_rows_show_the_distance_of_ds_moves_alone() -> None:
    real, fake = near()
    rule = Wasserstein().build()
    for side in Side:
        move = MoveData(context(side=side), torch.zeros(7, 2), fake, real)
        move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
        rule.after_update(move)
        logged = {name: float(reading) for name, reading in move.logged.items()}
        shown = {"wasserstein": pytest.approx(float(real.mean() - fake.mean()))} if side is Side.D else {}
        assert logged == shown
