"""Modulated convolutions, the mapping network, style mixing and truncation."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from poise.networks.smoothing import smoothing_kernel, upsampling_convolution
from poise.networks.styles import (
    W_MEAN_DECAY,
    MappingNetwork,
    StyleBroadcast,
    modulated_conv2d,
)
from poise.truncation import truncated_layers


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def parts() -> tuple[Tensor, Tensor, Tensor]:
    x, weight = torch.randn(3, 4, 5, 6), torch.randn(7, 4, 3, 3)
    x, weight = x.double(), weight.double()
    return x, weight, torch.randn(3, 4).double() + 1


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_the_formula_sample_by_sample(demodulate: bool) -> None:
    x, weight, styles = parts()
    result = modulated_conv2d(x, weight, styles, demodulate)
    for i in range(len(x)):
        own = weight.clone()
        for o in range(7):
            for c in range(4):
                own[o, c] *= styles[i, c]
            if demodulate:
                own[o] /= (own[o].square().sum() + 1e-8).sqrt()
        assert torch.allclose(result[i : i + 1], conv2d(x[i : i + 1], own, padding=1), atol=1e-12)


def test_demodulated_output_has_unit_variance() -> None:
    """For inputs of variance 1, whatever the scale of weights and styles."""
    x, weight = torch.randn(2, 16, 66, 66), 5 * torch.randn(8, 16, 3, 3)
    styles = torch.rand(2, 16) * torch.tensor([[10.0], [0.1]])
    inside = modulated_conv2d(x, weight, styles)[:, :, 1:-1, 1:-1]
    assert torch.allclose(inside.var((2, 3)), torch.ones(2, 8), atol=0.15)


@pytest.mark.parametrize("up", [False, True])
def test_second_derivatives(up: bool) -> None:
    """Those of numerical differentiation, by the input, the weight and the styles."""
    x, weight, styles = parts()
    resize = {"convolve": partial(upsampling_convolution, kernel=smoothing_kernel())} if up else {}
    inputs = [t.requires_grad_() for t in (x[:1, :2, :2, :3].clone(), weight[:2, :2].clone(), styles[:1, :2].clone())]
    function = partial(modulated_conv2d, **resize)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_mapping_does_not_depend_on_the_scale_of_z() -> None:
    mapping = MappingNetwork(6, 10, 3)
    z = torch.randn(4, 6)
    assert torch.allclose(mapping(z), mapping(9 * z), atol=1e-5)
    label = torch.randn(4, 2)
    scaled = mapping(torch.cat((3 * z[:, :4], 0.1 * label), 1), 2)
    assert torch.allclose(scaled, mapping(torch.cat((z[:, :4], label), 1), 2), atol=1e-4)
    assert [m.lr_multiplier for m in mapping if isinstance(m, nn.Linear)] == [0.01] * 3


def test_the_variance_of_w_is_about_that_of_z() -> None:
    w = MappingNetwork(64, 64, 2)(torch.randn(500, 64))
    assert 0.5 < float(w.detach().square().mean()) < 2


def test_the_mean_of_w_follows_in_training_mode_only() -> None:
    broadcast = StyleBroadcast(4, 3, 0.0)
    batches = [torch.randn(5, 3) for _ in range(3)]
    expected = torch.zeros(3)
    for w in batches:
        assert torch.equal(broadcast(w), w[:, None].expand(5, 4, 3))
        expected = W_MEAN_DECAY * expected + (1 - W_MEAN_DECAY) * w.mean(0)
    assert torch.allclose(broadcast.w_mean, expected, atol=1e-7)
    broadcast.eval()(batches[0])
    assert torch.allclose(broadcast.w_mean, expected, atol=1e-7)


def test_mixed_styles_have_one_crossover_per_batch() -> None:
    broadcast, w, other = StyleBroadcast(4, 3, 1.0), torch.zeros(2, 3), torch.ones(2, 3)
    seen = set()
    for _ in range(60):
        styles = broadcast(w, other)
        first = int((styles[0, :, 0] == 0).sum())
        seen.add(first)
        assert torch.equal(styles, (torch.arange(4) >= first).float()[None, :, None].expand(2, 4, 3))
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("mixing", [0.0, 0.5])
def test_the_probability_of_mixing(mixing: float) -> None:
    broadcast, w, other = StyleBroadcast(3, 1, mixing), torch.zeros(1, 1), torch.ones(1, 1)
    share = sum(bool(broadcast(w, other).any()) for _ in range(400)) / 400
    assert share == pytest.approx(mixing, abs=0.1 * (mixing > 0))


def test_truncation_moves_w_towards_its_mean_while_the_context_lasts() -> None:
    broadcast = StyleBroadcast(2, 3, 0.9)
    broadcast.w_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    net, w = nn.Sequential(nn.Sequential(broadcast)).eval(), torch.randn(4, 3)
    plain = net(w)
    for psi in (0.0, 0.3, 1.0, 1.5):
        with truncated_layers(net, psi) as found:
            assert found
            expected = broadcast.w_mean + psi * (w - broadcast.w_mean)
            assert torch.allclose(net(w)[:, 1], expected, atol=1e-6)
            copied = copy.deepcopy(net)
            assert torch.equal(copied(w), net(w))
        broadcast.truncation = torch.tensor(psi)
        assert torch.allclose(net(w)[:, 1], expected, atol=1e-6), "a tensor is no branch, also if it is 1"
        broadcast.truncation = 1.0
    assert torch.equal(net(w), plain)
    with pytest.raises(ZeroDivisionError), truncated_layers(net, 0.5):
        raise ZeroDivisionError
    assert torch.equal(net(w), plain), "also after an error"
    with truncated_layers(nn.Linear(2, 2), 0.5) as found:
        assert not found


def test_training_ignores_truncation() -> None:
    broadcast, w = StyleBroadcast(2, 3, 0.0), torch.randn(4, 3)
    with truncated_layers(broadcast, 0.0):
        assert torch.equal(broadcast(w)[:, 0], w)
