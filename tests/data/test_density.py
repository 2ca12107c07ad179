"""The density of points that is drawn in an image: where points lie, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from poise.core.random_streams import RandomStreams
from poise.data.density import MAX_SIDE, DensityConfig, DensitySource, read_darkness
from poise.data.lookup import data_table
from poise.data.toys import PlaneConfig
from poise.errors import DataError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.runs.run import Run
from poise.training.train import train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(place: Path, grey: np.ndarray, name: str = "drawing.png") -> str:
    path = place / name
    Image.fromarray(grey.astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def ramp(tmp_path: Path) -> str:
    """3 x 4 pixels, darker to the right; the top row is white."""
    grey = np.tile([255 - 10, 255 - 20, 255 - 30, 255 - 60], (3, 1))
    grey[0] = 255
    return save(tmp_path, grey)


def cell_counts(points: torch.Tensor, height: int, width: int, half_width: float) -> np.ndarray:
    """How many points lie in each pixel, the first row at the top."""
    size = 2 * half_width / max(height, width)
    column = (points[:, 0] / size + width / 2).floor().long()
    row = (height / 2 - points[:, 1] / size).floor().long()
    assert column.min() >= 0
    assert column.max() < width
    assert row.min() >= 0
    assert row.max() < height
    return (row * width + column).bincount(minlength=height * width).reshape(height, width).numpy()


def test_points_are_as_dense_as_the_image_is_dark(ramp: str) -> None:
    n = 60_000
    counts = cell_counts(DensityConfig(path=ramp).points(n, seeded()), 3, 4, 2.0)
    assert not counts[0].any()
    expected = np.tile(np.array([10, 20, 30, 60]) / 240 * n, (2, 1))
    assert chisquare(counts[1:].ravel(), expected.ravel()).pvalue > 0.001


def test_points_are_uniform_within_a_pixel(tmp_path: Path) -> None:
    grey = np.full((4, 4), 255)
    grey[0, 3] = 0
    points = DensityConfig(path=save(tmp_path, grey)).points(40_000, seeded())
    assert points.min(0).values.tolist() == pytest.approx([1, 1], abs=1e-3)
    assert points.max(0).values.tolist() == pytest.approx([2, 2], abs=1e-3)
    counts = torch.histogramdd(points.double(), [5, 5], range=[1.0, 2.0, 1.0, 2.0]).hist.flatten()
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_half_width_and_sigma(ramp: str) -> None:
    wide = DensityConfig(path=ramp, half_width=6.0)
    torch.testing.assert_close(wide.points(50, seeded()), 3 * DensityConfig(path=ramp).points(50, seeded()))
    noisy = DensityConfig(path=ramp, sigma=0.5).points(20_000, seeded())
    noise = noisy - DensityConfig(path=ramp).points(20_000, seeded())
    assert noise.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.03)


def test_batches_and_preview(ramp: str) -> None:
    config = DensityConfig(path=ramp)
    assert isinstance(config, PlaneConfig)
    assert config.mode_centres() is None
    source = config.load().train
    assert source.shape == (2,)
    batch = source.batch(4, 9, RandomStreams(1)).images
    assert batch.shape == (9, 2)
    assert batch.dtype == torch.float32
    assert batch.equal(source.batch(4, 9, RandomStreams(1)).images)
    assert not batch.equal(source.batch(5, 9, RandomStreams(1)).images)
    assert source.preview(6).equal(source.preview(6))
    assert config.points(7, seeded(3)).equal(config.points(7, seeded(3)))


def test_fingerprint_is_that_of_the_content(ramp: str, tmp_path: Path) -> None:
    config, elsewhere = DensityConfig(path=ramp), tmp_path / "moved.bmp"
    Image.open(ramp).save(elsewhere)
    mark = config.load().train.fingerprint
    assert DensityConfig(path=str(elsewhere)).load().train.fingerprint == mark
    others = [
        DensityConfig(path=ramp, sigma=0.1),
        DensityConfig(path=ramp, half_width=1.0),
        DensityConfig(path=save(tmp_path, np.zeros((3, 4)), "black.png")),
        DensityConfig(path=save(tmp_path, np.zeros((4, 3)), "upright.png")),
    ]
    marks = {mark, *(other.load().train.fingerprint for other in others)}
    assert len(marks) == 5


def test_colours_transparency_and_large_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    assert np.unique(read_darkness(str(tmp_path / "red.png"))).tolist() == [255 - 76]  # ITU-R 601-2 luma
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, :4, 3] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    assert read_darkness(str(tmp_path / "half.png"))[0].tolist() == [255] * 4 + [0] * 4
    Image.new("L", (3 * MAX_SIDE, MAX_SIDE)).save(tmp_path / "large.png")
    assert read_darkness(str(tmp_path / "large.png")).shape == (round(MAX_SIDE / 3), MAX_SIDE)


def test_cell_without_weight_is_never_drawn() -> None:
    darkness = np.zeros((1, 5), np.uint8)
    darkness[0, 2] = 1
    points = DensitySource(DensityConfig(path="unread.png"), darkness).draw(10_000, seeded())
    assert points[:, 0].abs().max() <= 0.4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "no such file"),
        ("text.png", b"no image", "can't be used as a density"),
        ("white.png", np.full((4, 4), 255), "white everywhere"),
        ("long.png", np.zeros((1, 40)), "can't be used as a density.*aspect ratio"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes | np.ndarray | None, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        save(tmp_path, content, name)
    with pytest.raises(DataError, match=message):
        DensityConfig(path=str(tmp_path / name)).load()


def test_truncated_image_is_refused(ramp: str) -> None:
    content = Path(ramp).read_bytes()
    Path(ramp).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="can't be used as a density"):
        DensityConfig(path=ramp).load()


def test_image_file_given_as_data_is_a_density(ramp: str) -> None:
    assert data_table(ramp, load_table("ring")["data"]) == {"kind": "density", "path": ramp}
    assert data_table(ramp, {"kind": "density", "path": "old.png", "sigma": 0.1})["sigma"] == 0.1


def test_run_is_trained_resumed_and_sampled_wherever_the_image_is(ramp: str, tmp_path: Path) -> None:
    """The image is read once: it may be gone while the run is trained, measured and sampled."""
    table = load_table("ring") | {"data": {"kind": "density", "path": ramp}, "steps": 4, "batch": 8}
    table |= {"measure": {"every": 2, "measures": ["coverage"], "n": 40}, "log": {"rows": 2, "to": []}}
    recipe, moved = decode(table), tmp_path / "moved.png"
    mark = recipe.data.load().train.fingerprint
    run = train(recipe, tmp_path / "run")
    assert run.info["data"]["fingerprint"] == mark
    assert (tmp_path / "run" / "frames.bin").is_file()
    Path(ramp).rename(moved)
    with pytest.raises(DataError, match="--data"):
        train(recipe.model_copy(update={"steps": 6}), tmp_path / "run", resume=True)
    data = DensityConfig(path=str(moved))
    longer = train(recipe.model_copy(update={"steps": 6, "data": data}), tmp_path / "run", resume=True)
    assert [line["step"] for line in longer.measures] == [2, 4, 6]
    real = longer.real(5)
    assert real is not None
    assert real.shape == (5, 2)
    save(tmp_path, np.zeros((3, 4)), "moved.png")
    assert Run(tmp_path / "run").real(5) is None
    moved.unlink()
    assert Run(tmp_path / "run").real(5) is None
    assert Run(tmp_path / "run").sample(3).shape == (3, 2)
