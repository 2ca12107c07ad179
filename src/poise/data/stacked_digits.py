"""`stacked_digits`: images whose channels are random digits, with up to a thousand countable modes (stacked MNIST).

Three digits give the thousand modes of Metz et al. 2017 (arXiv:1611.02163) and of Lin et al. 2018 (PacGAN,
arXiv:1712.04086, whose 128,000 stacks are the default here); two digits, in two channels, give a hundred and train
faster. The label of a stack is the number that its digits form, first channel first: digits 4, 0 and 7 are mode 407.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from poise.core.types import Batch
from poise.data.config import ImageDataConfig
from poise.data.digits import DigitsConfig, square_side
from poise.data.source import DataSplits, ImageDataset, SizedSource
from poise.data.torchvision_data import VisionConfig
from poise.utils.images import Bytes

SEED = 20171212
DIGITS = 10


def mode_numbers(digits: Tensor) -> Tensor:
    """The mode numbers, B, of digits, B x stack, first channel first."""
    return digits @ (DIGITS ** torch.arange(digits.shape[1] - 1, -1, -1))


class StackedDigits(SizedSource):
    """`count` stacks of `stack` images of `digits`, assembled on demand.

    Args:
        digits: greyscale images with labels from 0 to 9.
        stack: the number of digits in a stack.
        count: the number of stacks. Their composition is the same in every run.
    """

    def __init__(self, digits: ImageDataset, stack: int, count: int) -> None:
        self.digits, self.stack, self.count = digits, stack, count
        self.shape = (stack, *digits.shape[1:])
        self.classes = tuple(f"{number:0{stack}}" for number in range(DIGITS**stack))
        indices = np.random.Generator(np.random.Philox(SEED)).integers(len(digits), size=(count, stack))
        self._digit_indices = torch.from_numpy(indices)
        self._orders = {}

    def __len__(self) -> int:
        return self.count

    def gather(self, indices: Tensor) -> Batch:
        """See `SizedSource.gather`."""
        digit_indices = self._digit_indices[indices]
        images = self.digits.gather(digit_indices.flatten()).images.squeeze(3)
        stacked = images.unflatten(0, digit_indices.shape).permute(0, 2, 3, 1).contiguous()
        return Batch(stacked, self.gather_labels(indices))

    def gather_labels(self, indices: Tensor) -> Tensor:
        """See `SizedSource.gather_labels`."""
        digits = self.digits.gather_labels(self._digit_indices[indices].flatten())
        assert digits is not None, "digits have labels"
        return mode_numbers(digits.unflatten(0, (-1, self.stack)))

    @property
    def fingerprint(self) -> str:
        """A hash of the digits and of the parameters of the stacks."""
        description = f"{self.digits.fingerprint}/{self.stack}/{self.count}/{SEED}"
        return hashlib.sha256(description.encode()).hexdigest()[:16]


class StackedConfig(ImageDataConfig):
    """Stacks of MNIST digits: of the 5,000 built-in ones, or of the complete data set (`digits = "MNIST"`).

    The built-in ones are "digits" or, as in `DerivedDigitsConfig`, "builtin", which is stored as "digits".
    """

    alpha: ClassVar[bool] = False
    kind: Literal["stacked_digits"] = "stacked_digits"
    digits: Literal["digits", "MNIST"] = "digits"
    stack: Literal[2, 3] = 3
    count: int = Field(default=128_000, ge=2, le=10**8)

    @field_validator("digits", mode="before")
    @classmethod
    def _also_builtin(cls, value: Any) -> Any:
        return "digits" if value == "builtin" else value

    def load(self, root: Path | None = None) -> DataSplits:
        """`count` stacks of the training digits, and a quarter as many, at most 26,000, of the held-out digits.

        Raises:
            RecipeError: see `DigitsConfig.load`.
            DataError: see `VisionConfig.load`.
        """
        splits = self._digits_config.load(root)
        train, held_out = splits.train, splits.held_out
        assert isinstance(train, ImageDataset)
        assert isinstance(held_out, ImageDataset)
        splits.train = StackedDigits(train, self.stack, self.count)
        splits.held_out = StackedDigits(held_out, self.stack, max(1, min(26_000, self.count // 4)))
        return splits

    def convert(self, images: Bytes) -> Bytes:
        """Each channel as the single digits are converted."""
        return np.concatenate([self._digits_config.convert(channel) for channel in np.split(images, self.stack, 3)], 3)

    @property
    def uses_root(self) -> bool:
        """Whether the digits are those of MNIST."""
        return self._digits_config.uses_root

    @property
    def _digits_config(self) -> ImageDataConfig:
        """The config of the single digits."""
        side = square_side(self)
        return DigitsConfig(size=side) if self.digits == "digits" else VisionConfig(dataset="MNIST", size=side)
