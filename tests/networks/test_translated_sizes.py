"""At which sizes a translator works: every size that its config promises, and no smaller claim than it could make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from poise.networks.base import TranslatorConfig
from poise.networks.linear import LinearMapConfig
from poise.networks.translation import (
    GeneratedPart,
    OneTranslation,
    TranslateBothWays,
    build_translation,
    translator_to,
)
from poise.networks.translator import RefinerConfig, ResidualTranslatorConfig
from poise.networks.unet import UNetConfig

CONFIGS: dict[str, TranslatorConfig] = {
    "unet": UNetConfig(width=2),
    "shallow unet": UNetConfig(width=2, depth=2, norm="instance"),
    "translator": ResidualTranslatorConfig(width=2, blocks=1),
    "plain translator": ResidualTranslatorConfig(width=2, blocks=1, downsamplings=0, norm="none"),
    "refiner": RefinerConfig(width=2, blocks=1),
}
SHAPE = (1, 16, 16)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
def test_what_a_config_promises_works(name: str, norm: Any) -> None:
    config = CONFIGS[name].model_copy(update={"norm": norm})
    net = config.build_translator(SHAPE, (3, 16, 16)).eval()
    sizes = [(16, 16), (32, 16), (16, 48), (12, 20), (8, 8), (4, 4), (17, 16), (3, 3), (64, 4)]
    promised = [size for size in sizes if config.translates_size(SHAPE, size)]
    assert (16, 16) in promised
    for size in promised:
        with torch.no_grad():
            assert net(torch.rand(2, 1, *size)).shape == (2, 3, *size), size
    for size in set(sizes) - set(promised):
        try:
            with torch.no_grad():
                worked = net(torch.rand(2, 1, *size)).shape == (2, 3, *size)
        except (RuntimeError, ValueError):
            worked = False
        assert not worked or min(size) <= 4, f"{size} could be translated too"


def test_other_translators_have_one_size() -> None:
    virtual = UNetConfig(width=2, norm="virtual")
    assert virtual.size_multiple(SHAPE) is None
    assert virtual.translates_size(SHAPE, (16, 16))
    assert not virtual.translates_size(SHAPE, (32, 32))
    assert LinearMapConfig().size_multiple((5,)) is None


@pytest.mark.parametrize("index", [0, 1])
def test_one_direction_of_two(index: int) -> None:
    """Whether its network is known, or G is wrapped and is given whole samples."""
    parts = (1, 3)
    net = build_translation(ResidualTranslatorConfig(width=2, blocks=1), "both_ways", (4, 16, 16), parts)
    assert isinstance(net, TranslateBothWays)
    part = GeneratedPart(parts, index)
    source = torch.rand(2, parts[1 - index], 16, 16)
    direct, wrapped = translator_to(net, part), translator_to(nn.Sequential(net), part)
    assert isinstance(wrapped, OneTranslation)
    assert direct(source).shape == (2, parts[index], 16, 16)
    torch.testing.assert_close(direct(source), wrapped(source))
