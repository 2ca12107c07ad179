"""Random numbers of a layer that a caller gives, where the layer can't draw them itself: in an exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NoiseInput:
    """The numbers of one random layer, each from N(0, 1).

    A layer that is random in evaluation has a method `take_noise_as_input()`. After it, the layer calls the returned
    object, with the shape that it needs, instead of drawing.

    Attributes:
        given: the numbers of the next call, B x any; None to draw them from PyTorch's global generator.
        shape: the shape of one sample's numbers in the last call that drew them; None before.
    """

    def __init__(self) -> None:
        self.given: Tensor | None = None
        self.shape: tuple[int, ...] | None = None

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The numbers, float32, in the shape B x ... that the layer needs."""
        if self.given is not None:
            return self.given.reshape(-1, *shape[1:])
        self.shape = tuple(shape[1:])
        return torch.randn(*shape)


def take_noise_as_input_(net: nn.Module) -> list[NoiseInput]:
    """Let all layers that can take their random numbers as an input do so, in place; their inputs, in order.

    Layers that are not random in evaluation are left out.
    """
    methods = [getattr(module, "take_noise_as_input", None) for module in net.modules()]
    inputs = [method() for method in methods if method is not None]
    return [one for one in inputs if one is not None]
