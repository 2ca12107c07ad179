"""The truncation of latents: the distribution it gives, its limits, and which latents have one."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm, truncnorm

from poise import functional
from poise.core.config import find_components
from poise.errors import RecipeError
from poise.latents import Codes, Gaussian, Latent, Sphere, Truncated, Uniform, gaussian
from poise.truncation import truncate_gaussian


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("truncation", [0.01, 0.3, 0.7, 0.999])
def test_truncated_gaussian_latents_are_scaled_truncnorm(truncation: float) -> None:
    """Compared with scipy's distribution functions, coordinate by coordinate, and as a sample."""
    z = gaussian(5_000, 4, seeded())
    result = truncate_gaussian(z, truncation)
    expected = truncation * truncnorm(-2, 2).ppf(norm.cdf(z.double().numpy()))
    assert np.allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert result.dtype == z.dtype
    assert kstest(result.flatten().numpy() / truncation, truncnorm(-2, 2).cdf).pvalue > 1e-3


def test_truncation_is_monotonic_odd_and_finite_in_the_tails() -> None:
    z = torch.linspace(-50, 50, 2001)[:, None]
    result = truncate_gaussian(z, 0.5)
    assert (result.diff(dim=0) >= 0).all()
    assert torch.equal(result, -truncate_gaussian(-z, 0.5))
    assert result.abs().max() <= 1
    assert torch.equal(truncate_gaussian(z, 1.0), z)


def test_gaussian_and_truncated_latents_are_truncated() -> None:
    z = torch.randn(5, 6, generator=seeded())
    assert torch.equal(Gaussian(dim=6).truncate(z, 0.4), truncate_gaussian(z, 0.4))
    assert torch.equal(Truncated(dim=6, threshold=0.2).truncate(z, 0.4), 0.4 * z)


@pytest.mark.parametrize(("latent", "reason"), [(Sphere(dim=6), "on a sphere"), (Uniform(dim=6), "in a cube")])
def test_latents_of_equal_density_are_refused(latent: Latent, reason: str) -> None:
    with pytest.raises(RecipeError, match=rf"latent\.kind: .*{latent.tag()}.*{reason}.*gaussian"):
        latent.truncate(torch.ones(2, 6), 0.4)


SPACES = {kind: part for kind, part in find_components(Latent, "poise.latents").items() if part.is_space}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_1_is_no_truncation_and_other_numbers_are_refused(kind: str) -> None:
    latent = SPACES[kind](dim=80)
    z = latent.sample(5, seeded())
    assert torch.equal(latent.truncate(z, 1.0), z)
    for wrong in (0.0, -0.5, 1.01, math.nan):
        with pytest.raises(RecipeError, match="truncation: must be above 0 and at most 1"):
            latent.truncate(z, wrong)


def test_codes_without_noise_are_refused_and_the_noise_of_others_is_truncated() -> None:
    with pytest.raises(RecipeError, match=r"latent\.dim: .*can't be truncated here: all 4 coordinates are codes"):
        Codes(dim=4, categories=(2, 2), continuous=0).truncate(torch.ones(2, 4), 0.4)
    latent = Codes(dim=9, categories=(2, 2), continuous=1)
    z = latent.sample(5, seeded())
    assert torch.equal(latent.truncate(z, 0.4), torch.cat((z[:, :5], truncate_gaussian(z[:, 5:], 0.4)), 1))


class Laplace(Latent):
    """A user's own kind, without a method `truncate`."""

    kind: Literal["laplace"] = "laplace"


def test_a_kind_without_truncation_is_refused_with_a_cure() -> None:
    with pytest.raises(RecipeError) as caught:
        Laplace(dim=6).truncate(torch.ones(2, 6), 0.4)
    assert "latent.kind" in str(caught.value)
    assert "can't be truncated; train with latent kind" in str(caught.value)


def test_the_function_is_offered_for_other_training_loops() -> None:
    assert functional.truncate_gaussian is truncate_gaussian
