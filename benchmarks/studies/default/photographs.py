"""Features in which the emoji of the plan are measured: those of a classifier of CIFAR-10's photographs.

    poise measure RUN --features benchmarks/studies/default/photographs.py:photographs --trust-code --n 480

Run it from the root of the repository, with CIFAR-10's training images in `runs/data/cifar10` (see `plan.toml`).

The emoji have no labels, and the features that can be learned from them alone do not rank generators: in those of a
classifier of rotations, the base of the plan reaches the floor while its samples are visibly wrong, and pixels hardly
see blur. Features of photographs that are applied to other images are what FID with Inception is as well.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from poise.data.folder import FolderConfig
from poise.data.source import SizedSource
from poise.measure.classifier import load_or_train

FOLDER = Path("runs/data/cifar10")
SIDE = 32


class Features(nn.Module):
    """Maps images, B x 3 x 32 x 32 in [-1, 1], to the classifier's features, B x 64."""

    side = SIDE

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """The features without the logits."""
        return self.classifier(images)[0]


def photographs() -> nn.Module:
    """The small classifier of `poise.measure.classifier`, trained on the photographs or loaded from the cache."""
    splits = FolderConfig(path=str(FOLDER), size=SIDE, held_out=0.1).load()
    assert isinstance(splits.train, SizedSource)
    assert isinstance(splits.held_out, SizedSource)
    return Features(load_or_train(splits.train, splits.held_out).net)
