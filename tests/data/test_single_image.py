"""One image file, read as the images of a data set are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.config import ImageDataConfig
from poise.data.digits import DigitsConfig, load_digits
from poise.data.folder import FolderConfig
from poise.data.npz import NpzConfig
from poise.data.single_image import read_image
from poise.data.source import ImageDataset
from poise.data.stacked_digits import StackedConfig
from poise.data.torchvision_data import VisionConfig
from poise.errors import DataError

RANDOM = np.random.Generator(np.random.Philox(3))


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("size", [8, 16, 28, 32, 40])
def test_digit_is_read_as_in_the_data(tmp_path: Path, size: int) -> None:
    config, image = DigitsConfig(size=size), load_digits()[0][1504]
    read = read_image(write(tmp_path / "three.png", image[..., 0]), config, (1, size, size))
    train, held_out = config.load().train, config.load().held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    assert any((read.pixels == row).all() for row in (*train.images, *held_out.images))
    assert read.changes == ([] if size == 28 else [f"converted from 28 x 28 to {size} x {size} like the data"])


@pytest.mark.parametrize(("channels", "background"), [(1, "white"), (3, "black"), (4, "white"), (2, "grey")])
def test_images_of_a_folder_are_read_as_in_the_data(tmp_path: Path, channels: int, background: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    colour, grey = RANDOM.integers(0, 256, (40, 56, 4), np.uint8), RANDOM.integers(0, 256, (24, 24), np.uint8)
    paths = [
        write(folder / "a.png", colour),
        write(folder / "b.jpg", grey),
        write(folder / "c.png", colour[:, ::-1, :3]),
    ]
    config = FolderConfig(path=str(folder), size=16, channels=channels, background=background, held_out=0)  # type: ignore[arg-type]
    train = config.load().train
    assert isinstance(train, ImageDataset)
    for path, image in zip(paths, train.images, strict=True):
        assert np.array_equal(read_image(path, config, train.shape).pixels, image), path


def test_changes_are_described(tmp_path: Path) -> None:
    colour = RANDOM.integers(0, 256, (40, 56, 4), np.uint8)
    config = NpzConfig(path="x.npz", size=16)
    path = write(tmp_path / "a.png", colour)
    assert read_image(path, config, (1, 16, 16)).changes == [
        "cropped from 56 x 40 to 40 x 40",
        "composited over white",
        "converted to greyscale",
        "converted from 40 x 40 to 16 x 16 like the data",
    ]
    assert read_image(path, config, (4, 16, 16)).changes[1:] == ["converted from 40 x 40 to 16 x 16 like the data"]
    deep = write(tmp_path / "b.png", np.zeros((16, 16), np.uint16))
    assert read_image(deep, config, (1, 16, 16)).changes == ["reduced to 8 bits"]
    frames = [Image.fromarray(RANDOM.integers(0, 256, (16, 16), np.uint8)) for _ in range(2)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert "reduced to its first frame" in read_image(tmp_path / "c.gif", config, (1, 16, 16)).changes


def test_small_grey_image_is_padded_as_mnist_is(tmp_path: Path) -> None:
    image = RANDOM.integers(0, 256, (28, 28), np.uint8)
    path = write(tmp_path / "a.png", image)
    padded = read_image(path, VisionConfig(dataset="MNIST", size=32), (1, 32, 32)).pixels
    assert np.array_equal(padded[2:-2, 2:-2, 0], image)
    assert padded.sum() == image.sum()
    resized = read_image(path, VisionConfig(dataset="MNIST", size=32, fit="crop"), (1, 32, 32)).pixels
    assert resized.sum() > image.sum()


@pytest.mark.parametrize("stack", [2, 3])
def test_colours_are_the_digits_of_a_stack(tmp_path: Path, stack: int) -> None:
    digits = np.concatenate(load_digits()[0][[0, 1504, 2504]], axis=2)
    config = StackedConfig(size=32, stack=stack)  # type: ignore[arg-type]
    read = read_image(write(tmp_path / "a.png", digits), config, (stack, 32, 32)).pixels
    assert np.array_equal(read[2:-2, 2:-2], digits[..., :stack])


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", "missing", "folder", "cut"])
@pytest.mark.parametrize("config", [DigitsConfig(size=32), NpzConfig(path="x.npz")], ids=["digits", "npz"])
def test_unusable_file_is_refused(tmp_path: Path, content: bytes | str, config: ImageDataConfig) -> None:
    path = tmp_path / "a.png"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        whole = write(path, RANDOM.integers(0, 256, (64, 64, 3), np.uint8)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path, config, (1, 32, 32))


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
@pytest.mark.parametrize("size", [16, (16, 24), (24, 8)])
def test_another_aspect_ratio_is_fitted_like_the_images_of_the_data(
    tmp_path: Path, fit: str, size: int | tuple[int, int]
) -> None:
    images = np.random.default_rng(3).integers(0, 256, (4, 40, 60, 3), np.uint8)
    (tmp_path / "data").mkdir()
    paths = [write(tmp_path / "data" / f"{row}.png", image) for row, image in enumerate(images)]
    config = FolderConfig(path=str(tmp_path / "data"), size=size, fit=fit, background="grey", held_out=0)  # type: ignore[arg-type]
    train = config.load().train
    assert isinstance(train, ImageDataset)
    for path, image in zip(paths, train.images, strict=True):
        read = read_image(path, config, train.shape)
        assert np.array_equal(read.pixels, image)
    height, width = config.height_width
    assert read.changes[-1].startswith("converted from ")
    assert read.changes[-1].endswith(f" to {width} x {height} like the data")
    aspect = {16: "a square", (24, 8): "1:3"}.get(size)
    expected = {"pad": f"padded to {aspect}", "squeeze": f"squeezed to {aspect}"}
    if fit in expected and aspect is not None:
        assert read.changes[0] == expected[fit]
    if fit == "crop" and size == 16:
        assert read.changes == ["cropped from 60 x 40 to 40 x 40", "converted from 40 x 40 to 16 x 16 like the data"]
