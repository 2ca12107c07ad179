"""The energy-based losses compared with numpy, schedules of the margin, and the logged metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.tiny import context
from objectives.scores import FloatArray, random_scores
from poise.core.move import MoveData
from poise.core.schedules import Linear, Staircase
from poise.core.types import DiscriminatorOutput, Side
from poise.errors import RecipeError
from poise.objectives.energy import Energy, EnergyModule, margin_loss
from poise.recipe.decode import decode

ENERGIES = np.concatenate([[0.0, 1e-8], np.linspace(0.05, 29.95, 120), [100.0, 1e3, 1e4]])
MARGINS = [0.0, 1.0, 10.0, 1e4]


def hinge(energy: FloatArray, margin: float) -> FloatArray:
    """[m - E]^+."""
    return np.where(energy < margin, margin - energy, 0.0)


@pytest.mark.parametrize("margin", MARGINS)
def test_margin_loss_matches_its_formula(margin: float) -> None:
    actual = margin_loss(torch.from_numpy(ENERGIES), margin)
    np.testing.assert_allclose(actual.numpy(), hinge(ENERGIES, margin), rtol=1e-15)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_match_equations_1_and_2(margin: float, dtype: torch.dtype) -> None:
    energy = torch.from_numpy(ENERGIES).to(dtype)
    real, fake = -energy, -energy.flip(0)
    module = Energy(margin=margin).build()
    loss_real, loss_fake = module.d_losses(real, fake, None, context())
    (loss_g,) = module.g_losses(fake, None, context(side=Side.G))
    assert loss_real.dtype == loss_fake.dtype == loss_g.dtype == dtype
    np.testing.assert_allclose(loss_real.numpy(), ENERGIES, rtol=1e-6)
    np.testing.assert_allclose(loss_fake.numpy(), hinge(ENERGIES[::-1], margin), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss_g.numpy(), ENERGIES[::-1], rtol=1e-6)


def test_gradients() -> None:
    energy = torch.linspace(0.3, 19.7, 20, dtype=torch.float64, requires_grad=True)
    module = Energy(margin=10.0).build()
    assert torch.autograd.gradcheck(lambda e: margin_loss(e, 10.0), (energy,))
    assert torch.autograd.gradcheck(lambda e: module.d_losses(-e, -e, None, context()), (energy,))
    assert torch.autograd.gradcheck(lambda e: module.g_losses(-e, None, context()), (energy,))


def test_the_margin_follows_its_schedule() -> None:
    fake = -torch.tensor([0.0, 3.0, 7.0, 30.0], dtype=torch.float64)
    ramp = Energy(margin=Linear(start=0.0, end=20.0, until=0.5)).build()
    stairs = Energy(margin=Staircase(values=(2.0, 8.0), at=(4,), over="steps")).build()
    for at, on_ramp, on_stairs in ((0, 0.0, 2.0), (1, 4.0, 2.0), (3, 12.0, 2.0), (4, 16.0, 8.0), (9, 20.0, 8.0)):
        for module, margin in ((ramp, on_ramp), (stairs, on_stairs)):
            actual = module.d_losses(fake, fake, None, context(at, steps=10))[1]
            np.testing.assert_allclose(actual.numpy(), hinge(-fake.numpy(), margin), rtol=1e-12)


def test_at_margin_zero_fake_samples_do_not_contribute_to_ds_loss() -> None:
    """Fake samples give neither a loss nor a gradient at any energy; real samples do."""
    module = Energy(margin=Linear(start=0.0, end=10.0)).build()
    for at, pulled in ((0, 0.0), (5, -1.0)):
        real = -torch.tensor([2.0, 0.5], requires_grad=True)
        fake = -torch.tensor([0.0, 1.0, 4.0])
        fake.requires_grad_()
        loss_real, loss_fake = module.d_losses(real, fake, None, context(at, steps=10))
        (grad,) = torch.autograd.grad(loss_fake.sum(), fake)
        assert grad.tolist() == pytest.approx([-pulled] * 3, abs=0)
        assert bool(loss_fake.any()) is (at > 0)
        assert loss_real.tolist() == [2.0, 0.5]


def test_negative_margins_are_refused() -> None:
    for margin in (-1.0, {"kind": "linear", "start": 5.0, "end": -0.5}):
        with pytest.raises(RecipeError, match="margin"):
            decode({"objective": {"kind": "energy", "margin": margin}})


def test_the_logged_metrics_are_mean_energies() -> None:
    real, fake = (-origin.abs() for origin in random_scores())
    move = MoveData(context(), torch.zeros(7, 2), fake, real)
    move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
    module = Energy().build()
    assert isinstance(module, EnergyModule)
    module.after_update(move)
    assert {name: float(reading) for name, reading in move.logged.items()} == {
        "real_energy": pytest.approx(np.mean(-real.numpy()), rel=1e-12),
        "fake_energy": pytest.approx(np.mean(-fake.numpy()), rel=1e-12),
    }
    g = MoveData(context(side=Side.G), torch.zeros(7, 2), fake)
    g.outputs = {"fake": DiscriminatorOutput(fake)}
    module.after_update(g)
    assert g.logged == {}
