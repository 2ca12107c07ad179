"""Layers that double or halve a feature map: sizes, formulas, and a DCGAN that trains with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pixel_shuffle

from contracts.tiny import recipe, session, source
from poise.core.double_backward import Conv2d, ConvTranspose2d
from poise.networks.blocks import Down, Up, downsampling, upsampling
from poise.recipe.checks.compatibility import check_compatibility

UPS: tuple[Up, ...] = get_args(Up)
DOWNS: tuple[Down, ...] = get_args(Down)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize("kind", UPS)
def test_upsampling_doubles(kind: Up, size: int, bias: bool) -> None:
    layers = upsampling(kind, 5, 3, bias=bias)
    assert nn.Sequential(*layers)(torch.randn(2, 5, size, size)).shape == (2, 3, 2 * size, 2 * size)
    assert [m.bias is not None for m in layers if hasattr(m, "bias")] == [bias]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [4, 8, 32])
@pytest.mark.parametrize("kind", DOWNS)
def test_downsampling_halves(kind: Down, size: int, bias: bool) -> None:
    layers = downsampling(kind, 5, 3, bias=bias)
    assert nn.Sequential(*layers)(torch.randn(2, 5, size, size)).shape == (2, 3, size // 2, size // 2)
    assert [m.bias is not None for m in layers if hasattr(m, "bias")] == [bias]


def test_layers_match_their_definitions() -> None:
    x = torch.randn(2, 5, 4, 4)

    def apply(layers: list[Any]) -> Tensor:
        return nn.Sequential(*layers)(x)

    layers: list[Any] = upsampling("pixel_shuffle", 5, 3, bias=True)
    assert torch.equal(apply(layers), pixel_shuffle(layers[0](x), 2))
    layers = upsampling("nearest", 5, 3, bias=True)
    assert torch.equal(apply(layers), layers[1](interpolate(x, scale_factor=2, mode="nearest")))
    layers = upsampling("bilinear", 5, 3, bias=True)
    smooth = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(apply(layers), layers[1](smooth))
    layers = upsampling("transposed", 5, 3, bias=True)
    assert [(type(m), m.kernel_size, m.stride) for m in layers] == [(ConvTranspose2d, (4, 4), (2, 2))]
    layers = downsampling("conv", 5, 3, bias=True)
    assert [(type(m), m.kernel_size, m.stride) for m in layers] == [(Conv2d, (4, 4), (2, 2))]
    layers = downsampling("average", 5, 3, bias=True)
    assert torch.equal(apply(layers), avg_pool2d(layers[0](x), 2))
    layers = downsampling("max", 5, 3, bias=True)
    assert torch.equal(apply(layers), max_pool2d(layers[0](x), 2))


@pytest.mark.parametrize("down", DOWNS)
@pytest.mark.parametrize("up", UPS)
def test_dcgan_trains_with_each(up: Up, down: Down) -> None:
    network = {"g": {"kind": "dcgan", "width": 2, "up": up}, "d": {"kind": "dcgan", "width": 2, "down": down}}
    run = session("pictures", network=network)
    names = {ConvTranspose2d: "transposed", nn.PixelShuffle: "pixel_shuffle", nn.AvgPool2d: "average"}
    names |= {nn.MaxPool2d: "max"}
    seen = [names.get(type(m), getattr(m, "mode", None)) for p in run.game.players.values() for m in p.net.modules()]
    assert [kind for kind in seen if isinstance(kind, str)] == ([down] * 2 if down != "conv" else []) + [up] * 2
    before = run.saved()
    after = run.play(1).saved()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    weights = [name for name in before if name.endswith(".weight") and name.startswith("game/")]
    assert len(weights) >= 9
    assert all(not torch.equal(before[name], after[name]) for name in weights)


def test_max_pooling_in_d_gives_a_warning() -> None:
    """T06a: avoid sparse gradients."""
    for down, warned in (("max", True), ("average", False), ("conv", False)):
        network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "down": down}}
        findings = check_compatibility(recipe("pictures", network=network), source("pictures").shape)
        assert findings.refusals == []
        assert ("network.d.down" in [finding.field for finding in findings.warnings]) is warned
