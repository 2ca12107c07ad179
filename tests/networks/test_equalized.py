"""Layers with an equalised learning rate: He's constants at run time, and the speed of learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import conv2d

from poise.networks.equalized import EqualizedConv2d, EqualizedLinear, ScaledLeakyReLU, normalize_second_moment


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_linear_keeps_the_variance_whatever_the_multiplier(lr_multiplier: float) -> None:
    layer = EqualizedLinear(400, 300, lr_multiplier=lr_multiplier)
    assert float(layer.weight.detach().std()) * lr_multiplier == pytest.approx(1, rel=0.02)
    assert float(layer(torch.randn(200, 400)).detach().var()) == pytest.approx(1, rel=0.05)


def test_linear_is_the_formula() -> None:
    layer = EqualizedLinear(9, 4, bias_init=2.0, lr_multiplier=0.1)
    x = torch.randn(5, 9)
    expected = torch.stack([0.1 / 3 * layer.weight @ row + 0.1 * 2 for row in x])
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_one_step_of_adam_is_smaller_by_the_multiplier() -> None:
    """Adam moves each stored weight by lr, so the effective weight by lr x multiplier / sqrt(fan in)."""
    moved = []
    for lr_multiplier in (1.0, 0.01):
        layer = EqualizedLinear(16, 3, lr_multiplier=lr_multiplier)
        before = layer(torch.eye(16)) - layer(torch.zeros(1, 16))
        optimiser = torch.optim.Adam([layer.weight], lr=1e-2)
        layer(torch.randn(8, 16)).sum().backward()
        optimiser.step()
        moved.append(float((layer(torch.eye(16)) - layer(torch.zeros(1, 16)) - before).detach().abs().mean()))
    assert moved[0] == pytest.approx(1e-2 / 4, rel=1e-3)
    assert moved[1] == pytest.approx(moved[0] / 100, rel=1e-2)


def test_convolution_keeps_the_variance_and_is_the_formula() -> None:
    layer = EqualizedConv2d(32, 64, 3)
    x = torch.randn(8, 32, 12, 12)
    y = layer(x)
    assert float(y.detach().var()) == pytest.approx(1, rel=0.05)
    assert torch.allclose(y, conv2d(x, layer.weight / math.sqrt(32 * 9), layer.bias), atol=1e-5)
    assert not layer.bias.any()  # type: ignore[union-attr]
    assert EqualizedConv2d(3, 4, 1, bias=False).bias is None


def test_activation_and_normalisation() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0])
    assert torch.allclose(ScaledLeakyReLU()(x), math.sqrt(2) * torch.tensor([-0.2, 0.0, 2.0]))
    assert torch.allclose(ScaledLeakyReLU(1.0)(x), torch.tensor([-0.2, 0.0, 2.0]))
    z = 7 * torch.randn(3, 5)
    assert torch.allclose(normalize_second_moment(z).square().mean(1), torch.ones(3), atol=1e-5)
    assert not normalize_second_moment(torch.zeros(1, 5)).any()
