"""Noise on D's input: none at sigma 0, the right size, and independent for every batch, move, step and seed."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from contracts.tiny import context
from poise.core.schedules import Linear
from poise.core.types import Side
from poise.tricks.instance_noise import InstanceNoise, InstanceNoiseConfig, add_noise

IMAGES = torch.linspace(-1, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8)


def test_at_sigma_0_the_same_tensor_is_returned() -> None:
    assert add_noise(IMAGES, 0.0, torch.Generator()) is IMAGES
    assert InstanceNoise("noise", 0.0).transform_input(IMAGES, "real", context()) is IMAGES


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0])
def test_noise_is_gaussian_with_the_given_sigma(sigma: float) -> None:
    flat = torch.zeros(64, 3, 8, 8)
    noise = add_noise(flat, sigma, torch.Generator().manual_seed(0)) / sigma
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.std()) - 1) < 5 / math.sqrt(2 * n)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3


def test_noise_is_added_out_of_place() -> None:
    images = IMAGES.clone()
    noisy = add_noise(images, 0.3, torch.Generator().manual_seed(1))
    noise = add_noise(torch.zeros_like(images), 0.3, torch.Generator().manual_seed(1))
    assert torch.allclose(noisy, images + noise, atol=1e-6)
    assert torch.equal(images, IMAGES)


def test_the_gradient_is_unchanged() -> None:
    images = IMAGES.clone().requires_grad_()
    weight = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    (grad,) = torch.autograd.grad((add_noise(images, 0.5, torch.Generator()) * weight).sum(), images)
    assert torch.equal(grad, weight)


def test_batches_moves_steps_seeds_and_names_have_independent_noise() -> None:
    def noise(origin: str = "real", name: str = "noise", **when: int | Side) -> torch.Tensor:
        return InstanceNoise(name, 0.5).transform_input(IMAGES, origin, context(**when)) - IMAGES  # type: ignore[arg-type]

    base = noise()
    assert torch.equal(base, noise())
    others = [
        noise("fake"),
        noise(at=1),
        noise(seed=1),
        noise(turn=1),
        noise(side=Side.G),
        noise(name="noise_2"),
    ]
    for k, other in enumerate(others):
        assert not torch.isclose(other, base).any(dim=(1, 2, 3)).all(), k
        overlap = torch.corrcoef(torch.stack((base.flatten(), other.flatten())))[0, 1]
        assert abs(float(overlap)) < 5 / math.sqrt(base.numel()), k


def test_samples_of_a_batch_have_independent_noise() -> None:
    noise = add_noise(torch.zeros(3, 1, 8, 8), 1.0, torch.Generator().manual_seed(0)).flatten(1)
    assert (torch.corrcoef(noise) - torch.eye(3)).abs().max() < 0.6
    assert not torch.equal(noise[0], noise[1])


def test_sigma_may_follow_a_schedule() -> None:
    trick = InstanceNoise("noise", Linear(start=0.4, end=0.0, over="steps", until=4))
    sizes = [float((trick.transform_input(IMAGES, "real", context(at)) - IMAGES).std()) for at in range(5)]
    for size, sigma in zip(sizes, (0.4, 0.3, 0.2, 0.1, 0.0), strict=True):
        assert size == pytest.approx(sigma, rel=0.15)
    assert sizes[4] == 0.0


def test_the_default_is_annealed_over_the_run() -> None:
    trick = InstanceNoiseConfig().build("noise", {})
    size = [float((trick.transform_input(IMAGES, "fake", context(at, steps=100)) - IMAGES).std()) for at in (0, 50, 99)]
    assert size[0] == pytest.approx(0.1, rel=0.1)
    assert size[1] == pytest.approx(0.05, rel=0.1)
    assert size[2] == pytest.approx(0.001, rel=0.1)
