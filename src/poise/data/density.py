"""`density`: points in the plane drawn from an image, whose darkness is their density.

So a distribution can be drawn with any painting program: where the image is black there are most points, where it is
white, or transparent, there are none. The formula is p(x) ~ 255 - v(x), where v is the grey value of the pixel at x.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from poise.data.decode import decode_image, read_header, strict_pillow
from poise.data.fit import TargetFormat
from poise.data.listing import display_name
from poise.data.paths import WHERE, PathText, access_error, file_at
from poise.data.source import DataSplits
from poise.data.toys import PlaneConfig, ToySource
from poise.data.unread_formats import explain
from poise.errors import DataError
from poise.utils.images import Bytes

MAX_SIDE = 512
"""The largest side of the grid of cells, in pixels; larger images are reduced to it."""


def cells_to_points(n: int, cumulative: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """n points from a density that is constant in each cell of a grid, n x 2, float64, in cells from the top left.

    Args:
        n: the number of points.
        cumulative: the sums of the cells' weights up to each cell, row by row, height * width, float64.
        width: the number of cells in a row.
        generator: the source of random numbers.
    """
    drawn = torch.rand(n, generator=generator, dtype=torch.float64) * cumulative[-1]
    last = torch.searchsorted(cumulative, cumulative[-1])  # the last cell with a weight, should a product be rounded up
    cell = torch.searchsorted(cumulative, drawn, right=True).clamp_max(last)
    corner = torch.stack((cell % width, cell // width), 1)
    return corner + torch.rand(n, 2, generator=generator, dtype=torch.float64)


class DensityConfig(PlaneConfig):
    """Points whose density is the darkness of an image, uniform within each pixel.

    The longer side of the image spans -`half_width` to `half_width`, the shorter one is centred, and the first row of
    pixels is at the top. Colours are reduced to greyscale, and images above 512 x 512 pixels are made smaller. `sigma`
    is the standard deviation of noise that is added to each point.
    """

    kind: Literal["density"] = "density"
    path: PathText
    half_width: float = Field(default=2.0, gt=0)
    sigma: float = Field(default=0.0, ge=0)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `cells_to_points`; reads the image."""
        return DensitySource(self, read_darkness(self.path)).draw(n, generator)

    def load(self, root: Path | None = None) -> DataSplits:
        """Read the image; `root` is not used. Held-out samples are fresh points.

        Raises:
            DataError: the file does not exist, is not an image, or is white everywhere.
        """
        source = DensitySource(self, read_darkness(self.path))
        return DataSplits(train=source, held_out=source)


class DensitySource(ToySource):
    """An endless source of points.

    Args:
        config: the config of the data.
        darkness: uint8, height x width; not all of it is 0.
    """

    def __init__(self, config: DensityConfig, darkness: Bytes) -> None:
        super().__init__(config)
        self.darkness, self.half_width, self.sigma = darkness, config.half_width, config.sigma
        self.cumulative = torch.from_numpy(darkness.astype("f8")).flatten().cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, n x 2, float32."""
        height, width = self.darkness.shape
        cells = cells_to_points(n, self.cumulative, width, generator) - torch.tensor([width / 2, height / 2])
        points = cells * torch.tensor([1, -1]) * (2 * self.half_width / max(height, width))
        return (points + torch.randn(n, 2, generator=generator) * self.sigma).float()

    @property
    def fingerprint(self) -> str:
        """A hash of the content of the image and of the other parameters, wherever the file is."""
        parameters = (self.darkness.shape, self.half_width, self.sigma)
        return hashlib.sha256(repr(parameters).encode() + self.darkness.tobytes()).hexdigest()[:16]


def read_darkness(path: str) -> Bytes:
    """255 minus the grey value of each pixel of an image file, uint8, height x width.

    Raises:
        DataError: see `DensityConfig.load`.
    """
    location = file_at(path)
    try:
        raw = location.read_bytes()
    except OSError as error:
        raise access_error(path, error) from None
    try:
        with strict_pillow():
            header = read_header(BytesIO(raw))
            scale = min(1.0, MAX_SIDE / max(header.height, header.width))
            height, width = (max(1, round(scale * side)) for side in (header.height, header.width))
            pixels, _ = decode_image(BytesIO(raw), TargetFormat((height, width), 1, "white", "squeeze"))
    except Exception as error:  # a decoder can raise anything
        what, found = "can't be used as a density", f"{display_name(path)}: {explain(error, lambda: BytesIO(raw))}"
        raise DataError(what, where=WHERE, found=found, cure="give an image, drawn in black on white") from None
    darkness = np.ascontiguousarray(255 - pixels[..., 0])
    if not darkness.any():
        cure = "draw in black: points lie where it is dark"
        raise DataError("the image is white everywhere", where=WHERE, found=display_name(path), cure=cure)
    return darkness
