"""Sheets: many samples in one picture file. Grids of pictures, and points of the plane over the real ones."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from poise.utils.files import write_bytes
from poise.utils.images import Bytes, to_bytes

PAPER, REAL, FAKE = (255, 255, 255), (176, 184, 196), (214, 74, 32)
GAP = 2
WIDTH = 640
LARGEST = 4096
"""Pixels that a sheet has on a side, at most; a single picture that is larger still has all of its own."""

CLASS_ROWS = 16
"""Rows of a sheet with a row for each class, at most."""


def grid_capacity(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many rows and columns of pictures, C x H x W, a sheet holds."""
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    return max(1, (LARGEST - GAP) // (height + GAP)), max(1, (LARGEST - GAP) // (width + GAP))


def num_shown(shape: tuple[int, ...], n: int) -> int:
    """How many of n samples of this shape a sheet shows: all points, and as many pictures as there is room for."""
    return n if len(shape) == 1 else min(n, math.prod(grid_capacity(shape)))


def evenly_spaced(n: int, room: int) -> Tensor:
    """Which of n things are shown where there is room for fewer: `room` of them, evenly, the first and the last too."""
    return torch.linspace(0, n - 1, min(n, room)).round().long()


def image_grid(images: Tensor, columns: int | None = None, *, alpha: bool = True) -> Bytes:
    """Pictures, B x C x H x W in [-1, 1], side by side: H' x W' x 1 (C = 1, 2), 3 or 4 channels.

    Small pictures are enlarged by whole pixels to a sheet at least 640 wide. Two channels are
    grey with alpha, shown as RGBA, or if not `alpha` two inks, red and green. What a sheet has no room for (see `most`)
    is cut off at the right and at the bottom.
    """
    images, columns = _cut(images, columns)
    tiles = to_bytes(images)
    n, height, width, channels = tiles.shape
    if channels == 2 and not alpha:
        tiles, channels = np.concatenate((tiles, np.zeros_like(tiles[..., :1])), axis=3), 3
    if channels == 2:
        tiles = np.concatenate((np.repeat(tiles[..., :1], 3, axis=3), tiles[..., 1:]), axis=3)
        channels = 4
    rows = math.ceil(n / columns)
    scale = math.ceil((WIDTH - GAP * (columns + 1)) / (columns * width))
    scale = max(1, min(scale, ((LARGEST - GAP) // rows - GAP) // height))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = tiles.shape[1:3]
    sheet = np.zeros((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), np.uint8)
    sheet[...] = 128 if channels == 1 else np.array([128, 128, 128, 255][:channels])
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + GAP) + GAP, (k % columns) * (width + GAP) + GAP
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _cut(images: Tensor, columns: int | None) -> tuple[Tensor, int]:
    """The pictures that there is room for, and in how many columns they stand."""
    rows, across = grid_capacity(tuple(images.shape[1:]))
    if columns is None:
        images = images[: rows * across]
        return images, min(across, math.ceil(math.sqrt(len(images))))
    if columns > across:
        images = torch.cat([row[:across] for row in images[: rows * columns].split(columns)])
    columns = min(columns, across)
    return images[: rows * columns], columns


def scatter_plot(fake: Tensor, real: Tensor, side: int = WIDTH) -> Bytes:
    """Points of the plane, N x 2: the real ones broad and grey, G's in colour on top. The real ones set the window."""
    low, high = real.min(0).values, real.max(0).values
    centre, reach = (low + high) / 2, float((high - low).max()) * 0.65 + 1e-6
    sheet = np.full((side, side, 3), PAPER, np.uint8)
    for points, colour, radius in ((real, REAL, 5), (fake, FAKE, 1)):
        at = ((points.detach().float().cpu() - centre) / (2 * reach) + 0.5) * side
        inside = at[torch.isfinite(at).all(1)].round().long().numpy()
        for dx in range(-radius, radius + 1):
            for dy in range(-radius, radius + 1):
                x, y = inside[:, 0] + dx, side - 1 - inside[:, 1] + dy
                seen = (x >= 0) & (x < side) & (y >= 0) & (y < side)
                sheet[y[seen], x[seen]] = colour
    return sheet


def sample_grid(samples: Tensor, real: Tensor | None, columns: int | None = None, *, alpha: bool = True) -> Bytes:
    """The sheet for whatever the samples are; points need some real ones to be drawn over."""
    if samples.dim() == 4:
        return image_grid(samples, columns, alpha=alpha)
    return scatter_plot(samples, samples if real is None else real)


def grid_by_class(samples: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Samples for a sheet with one row per class, and its columns: of each class as many as the rarest has."""
    kinds, counts = labels.unique(return_counts=True)
    columns = int(counts.min())
    return torch.cat([samples[labels == kind][:columns] for kind in kinds]), columns


def to_pil(sheet: Bytes) -> Image.Image:
    """A sheet as a Pillow image."""
    return Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)


def encode_png(sheet: Bytes) -> bytes:
    """A sheet as the bytes of a PNG file; equal sheets give equal bytes."""
    buffer = BytesIO()
    to_pil(sheet).save(buffer, "png")
    return buffer.getvalue()


def write_png(sheet: Bytes, path: Path) -> None:
    """Write a sheet; the folder must exist.

    Raises:
        DiskError: it can't be written.
    """
    write_bytes(path, encode_png(sheet))
