"""Sample grids: many samples in one image file, either images in rows and columns or points of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from poise.utils.files import write_bytes
from poise.utils.images import Bytes, to_bytes, to_rgb

BACKGROUND, REAL, FAKE = (255, 255, 255), (176, 184, 196), (214, 74, 32)
GAP = 2
MIN_WIDTH = 640
MAX_SIDE = 4096
"""The largest side of a grid in pixels. A single image that is larger is still shown in full."""

MAX_CLASS_ROWS = 16
"""The largest number of rows in a grid with one row per class."""


def grid_capacity(shape: tuple[int, ...], gap: int = GAP, group: int = 1) -> tuple[int, int]:
    """The largest numbers of rows and columns in a grid of images of `shape`, C x H x W, `gap` pixels apart.

    Of images in groups (`image_grid`), there is room for one group at least, and the columns are those of whole groups.
    """
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    wider = _group_gap(gap, group)
    groups = (MAX_SIDE - gap + wider) // (group * (width + gap) + wider)
    return max(1, (MAX_SIDE - gap) // (height + gap)), group * max(1, groups)


def _group_gap(gap: int, group: int) -> int:
    """By how much the gap between two groups of images is wider than that between two images."""
    return 2 * gap if group > 1 else 0


def columns_of_groups(n: int, group: int, shape: tuple[int, ...], gap: int = GAP) -> int:
    """The number of columns with which a grid of n groups of images of `shape` is about as high as wide.

    There are more if the rows would exceed the largest number.
    """
    height, width = shape[1:]
    max_rows, max_columns = grid_capacity(shape, gap, group)
    columns = max(1, round(math.sqrt(n * height / (group * width))), math.ceil(n / max_rows))
    return group * min(columns, max(1, n), max_columns // group)


def side_by_side(images: Sequence[Tensor], *, alpha: bool = True) -> Tensor:
    """Images in groups: those of the same index one after the other, n k x C x H x W, for `image_grid`.

    If they have different numbers of channels, all are converted to colour.

    Args:
        images: k tensors of n images each, n x C_k x H x W in [-1, 1].
        alpha: see `to_rgb`.
    """
    if len({image.shape[1] for image in images}) > 1:
        images = [to_rgb(image, alpha=alpha) for image in images]
    return torch.stack(list(images), 1).flatten(0, 1)


def num_shown(shape: tuple[int, ...], n: int, gap: int = GAP) -> int:
    """How many of n samples of `shape` fit into a grid: all points, and as many images as `grid_capacity` allows."""
    return n if len(shape) == 1 else min(n, math.prod(grid_capacity(shape, gap)))


def evenly_spaced(n: int, num: int) -> Tensor:
    """The indices of at most `num` of n items, evenly spaced, including the first and the last."""
    return torch.linspace(0, n - 1, min(n, num)).round().long()


def in_colour(images: Bytes) -> Bytes:
    """Images of two channels that are not grey with alpha as red and green, N x H x W x 3; others are unchanged."""
    if images.shape[3] != 2:
        return images
    return np.concatenate((images, np.zeros_like(images[..., :1])), axis=3)


def image_grid(
    images: Tensor,
    columns: int | None = None,
    *,
    alpha: bool = True,
    gap: int = GAP,
    min_width: int = MIN_WIDTH,
    group: int = 1,
) -> Bytes:
    """A grid of images: uint8, H' x W' x C', with C' = C, or 4 for grey with alpha.

    Small images are enlarged by an integer factor, so that the grid is at least `min_width` pixels wide. What exceeds
    `MAX_SIDE` is cut off at the right and at the bottom.

    Args:
        images: B x C x H x W in [-1, 1].
        columns: the number of columns; if None, about the square root of B.
        alpha: whether the second of two channels is alpha, shown as RGBA. Otherwise two channels are shown as red and
            green.
        gap: the number of pixels between two images, and around the grid.
        min_width: in pixels.
        group: the number of images that belong together, between which and the next ones the gap is three times as
            wide; `columns` is a multiple of it.
    """
    images, columns = _crop(images, columns, gap, group)
    tiles = to_bytes(images) if alpha else in_colour(to_bytes(images))
    n, height, width, channels = tiles.shape
    if channels == 2:
        tiles = np.concatenate((np.repeat(tiles[..., :1], 3, axis=3), tiles[..., 1:]), axis=3)
        channels = 4
    rows, wider = math.ceil(n / columns), _group_gap(gap, group)
    gaps = gap * (columns + 1) + wider * (columns // group - 1)
    scale = math.ceil((min_width - gaps) / (columns * width))
    scale = max(1, min(scale, ((MAX_SIDE - gap) // rows - gap) // height))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = tiles.shape[1:3]
    grid = np.zeros((rows * (height + gap) + gap, columns * width + gaps, channels), np.uint8)
    grid[...] = 128 if channels == 1 else np.array([128, 128, 128, 255][:channels])
    for k, tile in enumerate(tiles):
        row, column = divmod(k, columns)
        top, left = row * (height + gap) + gap, column * (width + gap) + gap + column // group * wider
        grid[top : top + height, left : left + width] = tile
    return grid


def _crop(images: Tensor, columns: int | None, gap: int, group: int) -> tuple[Tensor, int]:
    """The images that fit into a grid, and its number of columns."""
    max_rows, max_columns = grid_capacity(tuple(images.shape[1:]), gap, group)
    if columns is None and group > 1:
        columns = columns_of_groups(len(images) // group, group, tuple(images.shape[1:]), gap)
    if columns is None:
        images = images[: max_rows * max_columns]
        square, fewest = math.ceil(math.sqrt(len(images))), math.ceil(len(images) / max_rows)
        return images, min(max_columns, max(square, fewest))
    if columns > max_columns:
        images = torch.cat([row[:max_columns] for row in images[: max_rows * columns].split(columns)])
    columns = min(columns, max_columns)
    return images[: max_rows * columns], columns


def on_main_plane(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Points in the plane in which the real ones vary most, N x 2 and M x 2: their first two principal components.

    Args:
        fake: N x d.
        real: M x d, with d of at least 2; with 2 the points stay as they are.
    """
    if real.shape[1] == 2:
        return fake, real
    real, fake = real.double().cpu(), fake.double().cpu()
    _, _, axes = torch.linalg.svd(real - real.mean(0), full_matrices=False)
    plane = torch.nn.functional.pad(axes[:2].T, (0, max(0, 2 - len(axes))))
    return (fake @ plane).float(), (real @ plane).float()


def scatter_plot(fake: Tensor, real: Tensor, side: int = MIN_WIDTH) -> Bytes:
    """A scatter plot of points of the plane, uint8, side x side x 3.

    Args:
        fake: G's points, N x 2, drawn as small coloured squares on top.
        real: the real points, M x 2, drawn as large grey squares. They determine the window.
        side: in pixels.
    """
    low, high = real.min(0).values, real.max(0).values
    centre, half_width = (low + high) / 2, float((high - low).max()) * 0.65 + 1e-6
    plot = np.full((side, side, 3), BACKGROUND, np.uint8)
    for points, colour, radius in ((real, REAL, 5), (fake, FAKE, 1)):
        pixels = ((points.detach().float().cpu() - centre) / (2 * half_width) + 0.5) * side
        finite = pixels[torch.isfinite(pixels).all(1)].round().long().numpy()
        for dx in range(-radius, radius + 1):
            for dy in range(-radius, radius + 1):
                x, y = finite[:, 0] + dx, side - 1 - finite[:, 1] + dy
                visible = (x >= 0) & (x < side) & (y >= 0) & (y < side)
                plot[y[visible], x[visible]] = colour
    return plot


def sample_grid(
    samples: Tensor,
    real: Tensor | None,
    columns: int | None = None,
    *,
    alpha: bool = True,
    gap: int = GAP,
    min_width: int = MIN_WIDTH,
) -> Bytes:
    """An `image_grid` of images, or a `scatter_plot` of points.

    Args:
        samples: images, B x C x H x W, or points, B x 2.
        real: real points for the scatter plot.
        columns: see `image_grid`.
        alpha: see `image_grid`.
        gap: see `image_grid`.
        min_width: see `image_grid`.
    """
    if samples.dim() == 4:
        return image_grid(samples, columns, alpha=alpha, gap=gap, min_width=min_width)
    return scatter_plot(samples, samples if real is None else real)


def grid_by_class(samples: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Samples sorted for a grid with one row per class, and its columns: as many as the rarest class has samples."""
    classes, counts = labels.unique(return_counts=True)
    columns = int(counts.min())
    return torch.cat([samples[labels == label][:columns] for label in classes]), columns


def to_pil(grid: Bytes) -> Image.Image:
    """A grid as a Pillow image."""
    return Image.fromarray(grid[..., 0] if grid.shape[2] == 1 else grid)


def encode_png(grid: Bytes) -> bytes:
    """A grid as the bytes of a PNG file; equal grids give equal bytes."""
    buffer = BytesIO()
    to_pil(grid).save(buffer, "png")
    return buffer.getvalue()


def write_png(grid: Bytes, path: Path) -> None:
    """Write a grid as a PNG file into an existing folder.

    Raises:
        DiskError: it can't be written.
    """
    write_bytes(path, encode_png(grid))
