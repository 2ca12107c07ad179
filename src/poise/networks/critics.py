"""Frozen networks that judge images without being trained: classifiers of an attribute, matchers of an identity.

The trick `frozen_critic` uses one. Where it comes from is a table of the recipe:

    trained     the small classifier of the measures, trained on the run's labelled data before step 0 and cached
    file        a .safetensors file that `poise.train_classifier` has written
    python      a module of a Python file (`user_code/components.py`)

`training/critics.py` makes the network.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from pydantic import Field
from torch import Tensor, nn

from poise.core.config import ComponentConfig


class CriticOutput(NamedTuple):
    """What a critic says of B images: features, B x F, and class logits, B x K, if it classifies."""

    features: Tensor
    logits: Tensor | None = None


class Critic(nn.Module):
    """A frozen network; always in evaluation mode, and without a gradient of its own.

    Args:
        net: maps images, B x C x H x W in [-1, 1], to features and logits, or to one tensor, B x K, which is both.
        name: what it is called in messages.
        digest: a hash of its weights.
    """

    def __init__(self, net: nn.Module, name: str, digest: str) -> None:
        super().__init__()
        self.net, self.name, self.digest = net, name, digest
        self.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(mode=False)

    def forward(self, images: Tensor) -> CriticOutput:
        """The output for B images, differentiable in them."""
        output = self.net(images)
        return CriticOutput(*output) if isinstance(output, tuple) else CriticOutput(output, output)


class CriticConfig(ComponentConfig):
    """Where the network of a critic comes from."""


class CriticNeeds(NamedTuple):
    """What a trick needs of a critic.

    Attributes:
        network: where it comes from.
        classes: whether it must classify.
        labels_of_data: whether its classes must be those of the data.
    """

    network: CriticConfig
    classes: bool
    labels_of_data: bool


class TrainedCritic(CriticConfig):
    """The small classifier of the measures, trained on the data of the recipe.

    `labels` replaces `data.labels`, for data that has several kinds of labels: None for those of the recipe.
    """

    kind: Literal["trained"] = "trained"
    labels: str | None = None


class CriticFile(CriticConfig):
    """A file that `poise.train_classifier` has written; a relative `path` starts at the working directory."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1)
