"""Codes: the KL against PyTorch's own, and the draw's gradient against the score function's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from poise.core.latent_codes import gaussian_kl, reparameterize, sample_codes
from poise.core.types import EncoderOutput

DRAWS = 400_000
APART = 5.0
"""Standard errors that two estimates of the same number may lie apart."""

MEAN = torch.tensor([0.7, -1.2, 0.0], dtype=torch.float64)
LOG_VAR = torch.tensor([-0.8, 0.5, 0.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regions(n: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    mean, log_var = torch.randn(2, n, dim, dtype=torch.float64, generator=seeded(seed)) * 2
    return mean, log_var


# ---------------------------------------------------------------- the KL


def right_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return kl_divergence(Normal(mean, (log_var / 2).exp()), prior).sum(1)


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (200, 1), (7, 3), (50, 100)])
def test_the_kl_is_pytorchs(n: int, dim: int) -> None:
    mean, log_var = regions(n, dim)
    ours = gaussian_kl(mean, log_var)
    assert ours.shape == (n,)
    torch.testing.assert_close(ours, right_kl(mean, log_var), rtol=1e-12, atol=1e-12)


far = st.floats(-20, 20)


@settings(deadline=None)
@given(st.lists(st.tuples(far, far), min_size=1, max_size=8))
def test_the_kl_of_any_region_is_pytorchs_and_never_below_0(places: list[tuple[float, float]]) -> None:
    mean, log_var = torch.tensor(places, dtype=torch.float64).T[:, None]
    ours = gaussian_kl(mean, log_var)
    torch.testing.assert_close(ours, right_kl(mean, log_var), rtol=1e-9, atol=1e-9)
    assert float(ours) >= -1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_0_at_the_prior_alone(dtype: torch.dtype) -> None:
    nothing = torch.zeros(4, 5, dtype=dtype)
    assert gaussian_kl(nothing, nothing).tolist() == [0.0] * 4
    for mean, log_var in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert bool((gaussian_kl(nothing + mean, nothing + log_var) > 1e-3).all())


def test_its_gradient() -> None:
    """By finite differences, and (mean, (var - 1) / 2) in closed form."""
    mean, log_var = (tensor.requires_grad_() for tensor in regions(3, 2))
    assert torch.autograd.gradcheck(gaussian_kl, (mean, log_var))
    by_mean, by_log_var = torch.autograd.grad(gaussian_kl(mean, log_var).sum(), (mean, log_var))
    torch.testing.assert_close(by_mean, mean)
    torch.testing.assert_close(by_log_var, (log_var.exp() - 1) / 2)


# ---------------------------------------------------------------- draws


def test_a_draw_has_the_mean_and_the_variance_that_are_said() -> None:
    z = reparameterize(MEAN.expand(DRAWS, 3), LOG_VAR.expand(DRAWS, 3), seeded())
    assert z.dtype == torch.float64
    var = LOG_VAR.exp()
    assert bool(((z.mean(0) - MEAN).abs() < APART * (var / DRAWS).sqrt()).all())
    assert bool(((z.var(0) / var - 1).abs() < APART * (2 / DRAWS) ** 0.5).all())
    kurtosis = ((z - MEAN) / var.sqrt()).pow(4).mean(0)
    assert bool(((kurtosis - 3).abs() < APART * (96 / DRAWS) ** 0.5).all())
    apart = torch.corrcoef(z.T)[~torch.eye(3, dtype=torch.bool)]
    assert bool((apart.abs() < APART / DRAWS**0.5).all())


def test_a_draw_is_a_function_of_the_generator() -> None:
    mean, log_var = regions(6, 4)
    one, same, other = (reparameterize(mean, log_var, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).any()
    unit = reparameterize(torch.zeros_like(mean), torch.zeros_like(mean), seeded(1))
    torch.testing.assert_close(one, mean + (log_var / 2).exp() * unit)


def test_a_region_without_width_is_its_mean() -> None:
    mean, _ = regions(6, 4)
    assert torch.equal(reparameterize(mean, torch.full_like(mean, -torch.inf), seeded()), mean)


def test_a_code_that_is_a_point_is_the_latent() -> None:
    mean, _ = regions(6, 4)
    assert torch.equal(sample_codes(EncoderOutput(mean), seeded()), mean)
    rough = sample_codes(EncoderOutput(mean.bfloat16()), seeded())
    assert rough.dtype == torch.float32
    assert torch.equal(rough, mean.bfloat16().float())


def test_of_a_region_one_latent_is_drawn() -> None:
    mean, log_var = regions(6, 4)
    assert torch.equal(sample_codes(EncoderOutput(mean, log_var), seeded(3)), reparameterize(mean, log_var, seeded(3)))
    half = EncoderOutput(mean.bfloat16(), log_var.bfloat16())
    rough = sample_codes(half, seeded(3))
    assert rough.dtype == torch.float32
    assert torch.equal(rough, reparameterize(half.mean.float(), half.log_var.float(), seeded(3)))


# ---------------------------------------------------------------- the gradient of an expectation


def by_path(f: Callable[[Tensor], Tensor]) -> Tensor:
    """d f(z) / d (mean, log var) of each draw through `reparametrised`, DRAWS x 6."""
    mean, log_var = (row.expand(DRAWS, 3).clone().requires_grad_() for row in (MEAN, LOG_VAR))
    return torch.cat(torch.autograd.grad(f(reparameterize(mean, log_var, seeded())).sum(), (mean, log_var)), 1)


def by_score(f: Callable[[Tensor], Tensor]) -> Tensor:
    """f(z) d log q(z) / d (mean, log var) of each of as many draws, DRAWS x 6 (Williams 1992)."""
    eps = torch.randn(DRAWS, 3, dtype=torch.float64, generator=seeded(1))
    std = (LOG_VAR / 2).exp()
    return f(MEAN + std * eps)[:, None] * torch.cat((eps / std, (eps.square() - 1) / 2), 1)


def smooth(z: Tensor) -> Tensor:
    return z.sin().sum(1) + z.square().sum(1)


def quadratic(z: Tensor) -> Tensor:
    """z'Az + b'z."""
    return ((z @ A) * z).sum(1) + z @ B


A = torch.tensor([[1.0, 0.3, -0.2], [0.3, 0.5, 0.1], [-0.2, 0.1, -0.7]], dtype=torch.float64)
B = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("f", [smooth, quadratic])
def test_both_estimates_of_the_gradient_agree_and_the_path_is_the_surer(f: Callable[[Tensor], Tensor]) -> None:
    path, score = by_path(f), by_score(f)
    error = ((path.var(0) + score.var(0)) / DRAWS).sqrt()
    assert bool(((path.mean(0) - score.mean(0)).abs() < APART * error).all())
    assert bool((path.var(0) < score.var(0)).all())
    assert float(path.var(0).sum()) < 0.3 * float(score.var(0).sum())


@pytest.mark.parametrize("estimate", [by_path, by_score])
def test_both_agree_with_the_closed_form_of_a_quadratic(
    estimate: Callable[[Callable[[Tensor], Tensor]], Tensor],
) -> None:
    """E f = mean'A mean + sum A_ii var_i + b'mean."""
    right = torch.cat((2 * A @ MEAN + B, A.diagonal() * LOG_VAR.exp()))
    found = estimate(quadratic)
    error = (found.var(0) / DRAWS).sqrt()
    assert bool(((found.mean(0) - right).abs() <= APART * error + 1e-12).all())


def test_the_path_agrees_with_the_closed_form_of_a_sine() -> None:
    """E sin z = sin(mean) exp(-var / 2), whose gradients follow."""
    var = LOG_VAR.exp()
    calm = (-var / 2).exp()
    right = torch.cat((MEAN.cos() * calm, -0.5 * var * MEAN.sin() * calm))
    found = by_path(lambda z: z.sin().sum(1))
    assert bool(((found.mean(0) - right).abs() < APART * (found.var(0) / DRAWS).sqrt()).all())
