"""Sample grids: every sample is unchanged and at its position, and equal grids give equal bytes."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from poise.core.random_streams import RandomStreams
from poise.latents import Gaussian
from poise.training.recorder import SampleGrids
from poise.utils.image_grid import (
    BACKGROUND,
    GAP,
    MAX_SIDE,
    MIN_WIDTH,
    REAL,
    encode_png,
    evenly_spaced,
    grid_by_class,
    grid_capacity,
    image_grid,
    num_shown,
    scatter_plot,
)
from poise.utils.images import to_bytes


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_each_image_is_at_its_position(channels: int) -> None:
    images = torch.rand(7, channels, 5, 4) * 2 - 1
    sheet = image_grid(images, columns=3)
    scale = -(-(MIN_WIDTH - 4 * GAP) // (3 * 4))
    assert sheet.shape[1] >= MIN_WIDTH
    tiles = to_bytes(images).repeat(scale, axis=1).repeat(scale, axis=2)
    for k, tile in enumerate(tiles):
        top, left = (k // 3) * (5 * scale + GAP) + GAP, (k % 3) * (4 * scale + GAP) + GAP
        seen = sheet[top : top + 5 * scale, left : left + 4 * scale]
        wanted = tile if channels != 2 else np.concatenate((tile[..., :1].repeat(3, axis=2), tile[..., 1:]), axis=2)
        assert np.array_equal(seen, wanted)


def test_large_images_are_not_enlarged() -> None:
    assert image_grid(torch.zeros(4, 3, 400, 400)).shape == (2 * 402 + GAP, 2 * 402 + GAP, 3)


def test_values_out_of_range_are_clipped() -> None:
    assert set(np.unique(to_bytes(torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1)))) == {0, 255}


def test_fake_points_are_drawn_at_their_coordinates() -> None:
    real = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    sheet = scatter_plot(torch.tensor([[1.0, -1.0], [float("nan"), 0.0], [90.0, 90.0]]), real)
    red = np.argwhere((sheet != BACKGROUND).any(2) & (sheet != REAL).any(2))
    row, column = red.mean(0)
    assert row > sheet.shape[0] * 0.7  # below
    assert column > sheet.shape[1] * 0.7  # and to the right
    assert len(red) == 9  # one dot: what is not finite or far away is not drawn


def test_png_contains_the_grid() -> None:
    sheet = image_grid(torch.rand(4, 3, 8, 8) * 2 - 1)
    assert encode_png(sheet) == encode_png(sheet.copy())
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode_png(sheet)))), sheet)


def test_grid_by_class_has_one_row_per_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    shown, columns = grid_by_class(torch.arange(8)[:, None], labels)
    assert columns == 2
    assert shown.flatten().tolist() == [0, 1, 3, 4, 5, 6]


# ---- sheets are bounded -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "side", "columns"),
    [
        (100_000, 2, None),
        (20_000, 8, 1),
        (3_000, 8, 2_000),
        (600, 64, 100),
        (9, 2_000, None),
        (3, 4_096, 3),
        (100, 4, 1),
    ],
)
def test_no_grid_is_larger_than_4096_pixels(n: int, side: int, columns: int | None) -> None:
    """Except for a single larger image; the first images are shown, each at its position."""
    images = torch.linspace(-1, 1, n)[:, None, None, None].expand(n, 1, side, side)
    sheet = image_grid(images, columns)
    assert max(sheet.shape) <= max(MAX_SIDE, side + 2 * GAP)
    rows, across = grid_capacity((1, side, side))
    assert sheet.shape[0] <= sheet.shape[1] or columns is not None or n < 9
    step = (sheet.shape[1] - GAP) // min(across, columns or math.ceil(math.sqrt(min(n, rows * across))))
    shown = min(across, columns or across)
    tiles = sheet[GAP::step, GAP::step, 0]
    assert tiles[0, 0] == 0
    assert tiles.shape[1] <= shown
    if columns is not None and len(tiles) > 1 and columns < n:
        assert tiles[1, 0] == to_bytes(images[columns : columns + 1])[0, 0, 0, 0], "rows stay rows"


@pytest.mark.parametrize(("height", "width"), [(512, 256), (1024, 256), (2000, 100), (256, 1024)])
@pytest.mark.parametrize("group", [1, 2])
def test_grids_of_oblong_images_show_all_that_fit(height: int, width: int, group: int) -> None:
    """Within 4,096 pixels, in wider or higher grids than square ones if necessary."""
    rows, columns = grid_capacity((1, height, width), group=group)
    n = min(64, rows * columns)
    sheet = image_grid(torch.ones(n, 1, height, width), group=group)
    assert max(sheet.shape) <= MAX_SIDE
    assert int((sheet == 255).sum()) == n * height * width


def test_grid_capacity() -> None:
    assert num_shown((2,), 10**6) == 10**6
    assert num_shown((3, 32, 32), 50) == 50
    assert num_shown((3, 32, 32), 10**6) == 120 * 120
    assert num_shown((3, 4096, 4096), 5) == 1
    assert evenly_spaced(100, 16).tolist()[:2] == [0, 7]
    assert evenly_spaced(100, 16).tolist()[-1] == 99
    assert evenly_spaced(3, 16).tolist() == [0, 1, 2]
    assert len(evenly_spaced(1000, 16).unique()) == 16


@pytest.mark.parametrize(
    ("classes", "count", "rows", "columns"), [(100, 100, 16, 6), (999, 64, 16, 4), (10, 40, 10, 4)]
)
def test_training_grids_show_16_of_many_classes(classes: int, count: int, rows: int, columns: int) -> None:
    sheets = SampleGrids(Gaussian(dim=2), count, torch.zeros(4, 1, 8, 8), RandomStreams(0), classes)
    assert sheets.labels is not None
    assert (len(sheets.labels.unique()), sheets.columns) == (rows, columns)
    assert len(sheets.latents) == rows * columns
    assert sheets.labels.unique().tolist()[-1] == classes - 1
    assert sheets.notes == ([f"the sample grid shows {rows} of {classes:,} classes"] if rows < classes else [])


def test_training_grids_of_large_images_show_fewer() -> None:
    sheets = SampleGrids(Gaussian(dim=2), 100, torch.zeros(1, 3, 1024, 1024), RandomStreams(0))
    assert len(sheets.latents) == 9
    assert sheets.notes == ["the sample grid has room for 9 of 100 samples (log.sheet)"]
