"""`stacked_digits`: random digits laid over each other, one to a channel; a thousand modes that can be counted.

Three digits are the thousand modes of Metz et al. 2017 (arXiv:1611.02163) and of Lin et al. 2018 (PacGAN,
arXiv:1712.04086, whose 128,000 stacks are the default here); two digits, in two channels, a cheaper hundred.
A stack's label is its number, read from the first channel on: digits 4, 0 and 7 are mode 407.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from poise.core.types import Batch
from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataConfig, ImageDataset, SizedSource
from poise.data.torchvision_data import VisionConfig

SEED = 20171212
DIGITS = 10


def mode_numbers(digits: Tensor) -> Tensor:
    """Digits, B x stack, first channel first, to the mode's number, B."""
    return digits @ (DIGITS ** torch.arange(digits.shape[1] - 1, -1, -1))


class StackedDigits(SizedSource):
    """`count` stacks of `stack` pictures of `digits`, put together when they are asked for.

    Args:
        digits: grey pictures with labels from 0 to 9.
        stack: how many are laid over each other.
        count: how many stacks there are; which digits each is made of is the same in every run.
    """

    def __init__(self, digits: ImageDataset, stack: int, count: int) -> None:
        self.digits, self.stack, self.count = digits, stack, count
        self.shape = (stack, *digits.shape[1:])
        self.classes = tuple(f"{number:0{stack}}" for number in range(DIGITS**stack))
        drawn = np.random.Generator(np.random.Philox(SEED)).integers(len(digits), size=(count, stack))
        self._places = torch.from_numpy(drawn)
        self._orders = {}

    def __len__(self) -> int:
        return self.count

    def gather(self, places: Tensor) -> Batch:
        """See `Finite.take`."""
        chosen = self._places[places]
        images = self.digits.gather(chosen.flatten()).images.squeeze(3)
        stacked = images.unflatten(0, chosen.shape).permute(0, 2, 3, 1).contiguous()
        return Batch(stacked, self.gather_labels(places))

    def gather_labels(self, places: Tensor) -> Tensor:
        """See `Finite.labels_at`."""
        digits = self.digits.gather_labels(self._places[places].flatten())
        assert digits is not None, "digits have labels"
        return mode_numbers(digits.unflatten(0, (-1, self.stack)))

    @property
    def fingerprint(self) -> str:
        """A hash of the digits and of how they are stacked."""
        told = f"{self.digits.fingerprint}/{self.stack}/{self.count}/{SEED}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]


class StackedConfig(ImageDataConfig):
    """Stacks of real MNIST digits: of the 5,000 embedded ones, or of the complete set (`digits = "MNIST"`)."""

    alpha: ClassVar[bool] = False
    kind: Literal["stacked_digits"] = "stacked_digits"
    digits: Literal["digits", "MNIST"] = "digits"
    stack: Literal[2, 3] = 3
    count: int = Field(default=128_000, ge=2, le=10**8)

    def load(self, root: Path | None = None) -> DataSplits:
        """Stacks of the digits to train on; a quarter as many, up to 26,000, of those held out.

        Raises:
            RecipeError, DataError: as the digits' own entries do.
        """
        of = DigitsConfig(size=self.size) if self.digits == "digits" else VisionConfig(dataset="MNIST", size=self.size)
        loaded = of.load(root)
        train, held_out = loaded.train, loaded.held_out
        assert isinstance(train, ImageDataset)
        assert isinstance(held_out, ImageDataset)
        fewer = max(1, min(26_000, self.count // 4))
        loaded.train, loaded.held_out = (
            StackedDigits(train, self.stack, self.count),
            StackedDigits(held_out, self.stack, fewer),
        )
        return loaded
