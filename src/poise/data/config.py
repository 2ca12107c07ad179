"""What the `[data]` table of a recipe says: the base of the configurations of all kinds of data."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from poise.core.config import ComponentConfig, reject_value
from poise.core.types import Shape
from poise.data.fit import TargetFormat, convert_array
from poise.errors import memory_errors
from poise.utils.images import Bytes

if TYPE_CHECKING:
    from poise.data.source import DataSplits

MAX_SIDE = 4096
"""The largest side of the images that the networks get."""


class DataConfig(ComponentConfig):
    """The `[data]` table of a recipe.

    Attributes:
        two_domains: if a sample has an image of each of two domains, whether these are "pairs" or unrelated, "domains";
            so is called the kind of data that the user's files are read as in its place. Empty for ordinary data.
    """

    two_domains: ClassVar[Literal["", "pairs", "domains"]] = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders that the data is read from; empty for data that is found by name."""
        path = getattr(self, "path", None)
        return () if path is None else (path,)

    @property
    def uses_root(self) -> bool:
        """Whether the data is a set given by name, which `load` looks for in `root`."""
        return False

    def load(self, root: Path | None = None) -> DataSplits:
        """Read and check the data. `root` is the folder that holds data sets which are given by name (`--data-root`).

        Raises:
            DataError: there is no usable data.
        """
        raise NotImplementedError


def _check_size(value: Any) -> int | tuple[int, int]:
    """A side, or [height, width] as a tuple; a square becomes its side, so that each size has one form."""
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in sides):
        what = f"must be a whole number from 1 to {MAX_SIDE}, or two of them for [height, width]"
        reject_value(what, found=repr(value)[:60])
    height, width = sides
    return height if height == width else (height, width)


class ImageDataConfig(DataConfig):
    """The base of all image data; `size` is that of the images that the networks get: a side, or [height, width].

    With `mirror`, each image of a training batch is flipped left to right with probability 1/2
    (`poise.engine.batches`), and an image and its flip are on the same side of the held-out split
    (`poise.data.split`); everything else that uses the data gets the images as they are.

    Attributes:
        alpha: whether the second of two channels, and the fourth of four, is an alpha channel.
    """

    alpha: ClassVar[bool] = True

    size: Annotated[int | tuple[int, int], BeforeValidator(_check_size)] = 32
    mirror: bool = False

    @property
    def height_width(self) -> tuple[int, int]:
        """`size` as (height, width)."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def target_format(self, channels: int) -> TargetFormat:
        """The format that images of another size are converted to."""
        return TargetFormat(self.height_width, channels, "white")

    def convert(self, images: Bytes) -> Bytes:
        """Convert decoded images, N x H x W x C, to the size of the data, N x height x width x C."""
        return convert_array(images, self.target_format(images.shape[3]))


def with_size(config: ImageDataConfig, size: tuple[int, int]) -> ImageDataConfig:
    """The config with images of (height, width)."""
    return config.model_copy(update={"size": _check_size(size)})


class PointsConfig(DataConfig):
    """Points or vectors, which have no range and of which there is no end."""


class ToyConfig(PointsConfig):
    """A distribution in the plane, whose shape is known before it is loaded."""

    shape: ClassVar[Shape] = (2,)


def loading_memory(config: DataConfig) -> AbstractContextManager[None]:
    """A context that turns "out of memory" while data is loaded into an error that suggests a remedy.

    Raises:
        OutOfMemory: memory ran out inside the context.
    """
    found, cure = "", "use fewer images"
    if isinstance(config, ImageDataConfig):
        height, width = config.height_width
        half = height // 2 if height == width else f"[{height // 2},{width // 2}]"
        found = f"{height} x {width} pixels"
        cure += f", or smaller ones: --set data.size={half}"
    return memory_errors("not enough memory to load the data", found, cure)
