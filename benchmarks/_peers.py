"""What the systems that `time_to_quality.py` compares have in common: their interface and their data.

A system trains on real images and labels that it draws from `Batches`, in steps, and generates samples. Each of the
other modules `_peers_*.py` has one, with its source and the settings that are taken from there; `_peers_poise.py` has
poise itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Facts(NamedTuple):
    """What a system must know of the training images to be built.

    Attributes:
        channels: 1 or 3.
        classes: the number of classes.
        count: the number of images.
        flips: whether a flipped image is as likely as the image itself, which is false for digits.
    """

    channels: int
    classes: int
    count: int
    flips: bool


class Labelled(NamedTuple):
    """Images, B x C x 32 x 32 in [-1, 1], and their classes, B."""

    images: Tensor
    labels: Tensor


Draw = Callable[[int], Labelled]
"""Draws that many training images."""


class System(Protocol):
    """A system that is trained and measured.

    Attributes:
        settings: what it is, in a few words for the table.
        images_per_step: the number of real images that D sees in a step.
        parameters: the number of parameters of G and of D.
        ended: whether it has made all of its steps; never true of most, which have no last step.
    """

    settings: str
    images_per_step: int
    parameters: tuple[int, ...]
    ended: bool

    def step(self, draw: Draw) -> None:
        """Train D and G once."""

    def sample(self, n: int) -> Tensor:
        """n samples, n x C x 32 x 32 in [-1, 1], drawn with PyTorch's global generator."""


class Batches:
    """Batches of training images in random order, anew in each epoch; what does not fill a batch is left out.

    Args:
        images: N x C x 32 x 32 in [-1, 1].
        labels: N.
        seed: the seed of the orders.
    """

    def __init__(self, images: Tensor, labels: Tensor, seed: int) -> None:
        self.images, self.labels = images, labels
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)

    def __call__(self, n: int) -> Labelled:
        """The next n images."""
        if len(self.order) < n:
            self.order = torch.randperm(len(self.images), generator=self.generator)
        chosen, self.order = self.order[:n], self.order[n:]
        return Labelled(self.images[chosen], self.labels[chosen])


def count_parameters(*networks: nn.Module) -> tuple[int, ...]:
    """The number of parameters of each network."""
    return tuple(sum(weight.numel() for weight in net.parameters()) for net in networks)


@torch.no_grad()
def in_blocks(generate: Callable[[int], Tensor], n: int, block: int) -> Tensor:
    """n samples from a function that generates a given number of them, at most `block` at a time."""
    return torch.cat([generate(min(block, n - start)) for start in range(0, n, block)])
