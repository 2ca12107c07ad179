"""What passes as equal to PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.export.comparison import ROUNDING, TOLERANCE, compare
from poise.export.network import GeneratorInputs

INPUTS = [GeneratorInputs(torch.full((n, 2), 0.5)) for n in (1, 3)]


def doubled(inputs: GeneratorInputs) -> Tensor:
    return 2 * inputs.latents


@pytest.mark.parametrize(
    ("factor", "passed"), [(1.0, True), (1 + 0.5 * TOLERANCE, True), (1 + 2 * TOLERANCE, False), (0.0, False)]
)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_the_limit_is_relative(factor: float, passed: bool, scale: float) -> None:
    result = compare(lambda i: scale * doubled(i), lambda i: factor * scale * doubled(i), INPUTS)
    assert result.passed is passed
    assert result.scale == pytest.approx(scale)
    assert result.difference == pytest.approx(abs(factor - 1) * scale, abs=1e-6 * scale)


def test_almost_nothing_may_differ_by_rounding() -> None:
    assert compare(lambda i: 0 * i.latents, lambda i: 0 * i.latents + ROUNDING / 2, INPUTS).passed
    assert not compare(lambda i: 0 * i.latents, lambda i: 0 * i.latents + 2 * ROUNDING, INPUTS).passed


def test_every_batch_counts() -> None:
    assert not compare(doubled, lambda i: doubled(i) + (len(i.latents) == 3), INPUTS).passed
    assert not compare(doubled, lambda i: doubled(i) + (len(i.latents) == 1), INPUTS).passed


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_do_not_pass(wrong: float) -> None:
    assert not compare(doubled, lambda i: torch.full_like(i.latents, wrong), INPUTS).passed
    assert not compare(lambda i: torch.full_like(i.latents, wrong), doubled, INPUTS).passed


def test_another_shape_does_not_pass() -> None:
    assert not compare(doubled, lambda i: doubled(i)[:, :1], INPUTS).passed


def test_both_have_the_same_random_numbers() -> None:
    assert compare(lambda i: torch.rand_like(i.latents), lambda i: torch.rand_like(i.latents), INPUTS).difference == 0
