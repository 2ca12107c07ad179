"""Which shapes networks are built for, which generators have intermediate latents, and how these are reached.

They are reached through the module that adds the labels.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.config import find_components
from poise.core.types import Shape
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, TranslatorConfig, intermediate_space
from poise.networks.conditioning import Concat


class Mapped(nn.Module):
    """Maps 5 inputs to a w of 3 numbers, and those to a 2 x 2 image."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.synthesis = nn.Linear(5, 3), nn.Linear(3, 4)

    def map_latents(self, latents: Tensor) -> Tensor:
        return self.mapping(latents)

    def synthesize(self, w: Tensor) -> Tensor:
        return self.synthesis(w).view(-1, 1, 2, 2)

    def forward(self, latents: Tensor) -> Tensor:
        return self.synthesize(self.map_latents(latents))


def test_space_of_a_generator() -> None:
    net, z = Mapped(), torch.randn(6, 5)
    space = intermediate_space(net)
    assert space is not None
    w = space.map_latents(z, None)
    assert w.shape == (6, 3)
    assert torch.equal(space.synthesize(w), net(z))


def test_space_of_a_conditional_generator() -> None:
    net, z, labels = Concat(Mapped(), 4, 2, scale=0.5), torch.randn(6, 3), torch.arange(6) % 4
    space = intermediate_space(net)
    assert space is not None
    w = space.map_latents(z, labels)
    assert torch.equal(space.synthesize(w), net(z, labels))
    assert not torch.equal(w, space.map_latents(z, labels.flip(0)))


def test_other_generators_have_none() -> None:
    for net in (nn.Linear(2, 3), Concat(nn.Linear(5, 3), 4, 2)):
        assert intermediate_space(net) is None


@pytest.mark.parametrize("shape", [(2,), (3, 2, 2), (3, 33, 33), (3, 100, 100), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("base", [GeneratorConfig, DiscriminatorConfig])
def test_a_shape_that_a_network_does_not_support_is_refused_when_it_is_built(base: Any, shape: Shape) -> None:
    """And every network that is built has outputs of the right shape."""
    for config in (kind() for kind in find_components(base, "poise.networks").values()):
        arguments = (16, shape) if base is GeneratorConfig else (shape,)
        mismatch = config.incompatibility(shape)
        if mismatch is not None:
            with pytest.raises(RecipeError) as caught:
                config.build(*arguments)
            assert str(caught.value) == f"shape: {mismatch[0]}, found {shape}; {mismatch[1]}"
        elif base is GeneratorConfig and not isinstance(config, TranslatorConfig):
            assert config.build(*arguments).eval()(torch.randn(2, 16)).shape == (2, *shape)
