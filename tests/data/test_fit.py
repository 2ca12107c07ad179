"""`data.size` of two numbers and `data.fit`: images of another aspect ratio are cropped, padded or squeezed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import NOISE, load, pixels
from PIL import Image
from torchvision import datasets

from poise.data.config import loading_memory
from poise.data.decode import decode_image, read_header, strict_pillow
from poise.data.decoded import files_of
from poise.data.digits import DigitsConfig
from poise.data.fit import Fit, TargetFormat, convert_array, fit_image, has_other_aspect
from poise.data.folder import FolderConfig
from poise.data.listing import Item
from poise.data.npz import NpzConfig
from poise.data.source import ImageDataset
from poise.data.stacked_digits import StackedConfig
from poise.data.torchvision_data import VisionConfig
from poise.errors import OutOfMemory, RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table

FITS: tuple[Fit, ...] = ("crop", "pad", "squeeze")


def fitted(image: np.ndarray, size: tuple[int, int], fit: Fit, channels: int = 3, background: Any = "white") -> Any:
    """What becomes of an array, H x W x C or H x W."""
    return fit_image(Image.fromarray(image), TargetFormat(size, channels, background, fit))


# ---------------------------------------------------------------- pixels


def test_crop_keeps_the_pixels_of_the_centred_rectangle() -> None:
    wide, tall = NOISE[:4, :8], NOISE[:10, :6]
    assert np.array_equal(fitted(wide, (4, 6), "crop"), wide[:, 1:7])
    assert np.array_equal(fitted(tall, (4, 6), "crop"), tall[3:7])
    assert np.array_equal(fitted(tall, (8, 6), "crop"), tall[1:9])


def test_crop_then_resizes() -> None:
    rectangle = Image.fromarray(NOISE[:, 5:35]).resize((12, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(fitted(NOISE, (16, 12), "crop"), np.asarray(rectangle))


def test_pad_keeps_all_pixels_and_adds_background() -> None:
    image = NOISE[:4, :4]
    for background, level in (("white", 255), ("black", 0), ("grey", 128)):
        padded = fitted(image, (4, 7), "pad", background=background)
        assert np.array_equal(padded[:, 1:5], image)
        assert (padded[:, [0, 5, 6]] == level).all()
        padded = fitted(image[..., 0], (9, 4), "pad", 1, background)
        assert np.array_equal(padded[2:6, :, 0], image[..., 0])
        assert (padded[[0, 1, 6, 7, 8]] == level).all()


def test_pad_resizes_the_whole_image() -> None:
    """40 x 20 pixels in 10 x 12 are 10 x 5, with 3 columns of background before and 4 after them."""
    whole = Image.fromarray(NOISE[:, :20]).resize((5, 10), Image.Resampling.LANCZOS)
    padded = fitted(NOISE[:, :20], (10, 12), "pad", background="black")
    assert np.array_equal(padded[:, 3:8], np.asarray(whole))
    assert not padded[:, :3].any()
    assert not padded[:, 8:].any()


def test_squeeze_resizes_the_whole_image_to_the_target() -> None:
    expected = Image.fromarray(NOISE[:, :20]).resize((12, 10), Image.Resampling.LANCZOS)
    assert np.array_equal(fitted(NOISE[:, :20], (10, 12), "squeeze"), np.asarray(expected))


def test_padding_of_an_image_with_alpha() -> None:
    """It is transparent where alpha is kept; otherwise image and padding have the same background."""
    image = np.dstack((NOISE[:4, :4], np.full((4, 4), 255, np.uint8)))
    image[0, 0, 3] = 0
    kept = fitted(image, (4, 6), "pad", 4)
    assert np.array_equal(kept[:, 1:5], image)
    assert not kept[:, [0, 5]].any()
    composited = fitted(image, (4, 6), "pad", 3, "grey")
    assert (composited[0, 1] == 128).all()
    assert (composited[:, [0, 5]] == 128).all()
    assert np.array_equal(composited[1:, 1:5], image[1:, :, :3])


def test_the_orientation_is_applied_before_the_fit() -> None:
    """A 12 x 8 file (width x height) that is to be turned is an image of 8 x 12, of which nothing is cropped."""
    stored = Image.fromarray(NOISE[:8, :12])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be shown
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        out = io.BytesIO()
        stored.save(out, kind, exif=exif, **options)
        target = TargetFormat((12, 8), 3, "white")
        with strict_pillow():
            header = read_header(io.BytesIO(out.getvalue()))
            decoded, traits = decode_image(io.BytesIO(out.getvalue()), target)
        assert (header.width, header.height) == (8, 12), kind
        assert not has_other_aspect(header.width, header.height, target)
        assert traits == set()
        assert np.array_equal(decoded, np.rot90(NOISE[:8, :12], -1)), kind


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_square_crops_are_those_of_the_largest_centred_square(mode: str) -> None:
    """Written down once more as it was when images were always square."""
    random = np.random.default_rng(1)
    for width, height in random.integers(1, 30, (40, 2)).tolist():
        im = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8)).convert(mode)
        side = min(im.size)
        left, top = (im.width - side) // 2, (im.height - side) // 2
        expected = im.crop((left, top, left + side, top + side)).resize((8, 8), Image.Resampling.LANCZOS)
        target = TargetFormat((8, 8), len(im.getbands()), "white")
        assert np.array_equal(fit_image(im, target), np.asarray(expected).reshape(8, 8, -1))
        assert has_other_aspect(width, height, target) == (width != height)


@pytest.mark.parametrize("fit", FITS)
def test_any_shape_becomes_any_shape(fit: Fit) -> None:
    random = np.random.default_rng(2)
    for height, width, rows, columns in random.integers(1, 21, (60, 4)).tolist():
        image = np.full((height, width, 3), 77, np.uint8)
        made = fitted(image, (rows, columns), fit, background="black")
        assert made.shape == (rows, columns, 3)
        inside = made.any(-1)
        assert (made[inside] == 77).all()
        assert inside.all() or (fit == "pad" and (inside.all(0).any() or inside.all(1).any()))
    array = random.integers(0, 256, (3, 10, 12, 4), np.uint8)
    target = TargetFormat((6, 10), 3, "grey", fit)
    one_by_one = [fit_image(Image.fromarray(image), target) for image in array]
    assert np.array_equal(convert_array(array, target), np.stack(one_by_one))


# ---------------------------------------------------------------- configs


def test_a_square_is_written_as_one_number() -> None:
    table = load_table("dcgan") | {"data": {"kind": "npz", "path": "a.npz", "size": [32, 32]}}
    recipe = decode(table)
    assert recipe.canonical()["data"]["size"] == 32
    assert recipe.hash == decode(table | {"data": {**table["data"], "size": 32}}).hash
    assert recipe.data.height_width == (32, 32)  # type: ignore[attr-defined]
    oblong = decode(table | {"data": {**table["data"], "size": [48, 64], "fit": "pad"}})
    assert oblong.canonical()["data"]["size"] == [48, 64]
    assert oblong.data.height_width == (48, 64)  # type: ignore[attr-defined]
    assert "size = [\n    48,\n    64,\n]" in oblong.to_toml()
    assert decode(oblong.canonical()) == oblong


@pytest.mark.parametrize("config", [DigitsConfig, StackedConfig])
def test_digits_are_square(config: Any) -> None:
    with pytest.raises(RecipeError, match="the digits are square") as caught:
        config(size=(32, 48)).load()
    assert caught.value.where == "data.size"
    assert caught.value.found == "[32, 48]"
    assert "32" in caught.value.cure
    with pytest.raises(RecipeError, match="square"):
        StackedConfig(size=(32, 48), digits="MNIST").load()


def test_the_cure_for_too_little_memory_keeps_the_aspect_ratio() -> None:
    for size, half in (((48, 64), "[24,32]"), (64, "32")):
        with (
            pytest.raises(OutOfMemory) as caught,
            loading_memory(FolderConfig(path="a", size=size)),  # type: ignore[arg-type]
        ):
            raise MemoryError
        assert f"--set data.size={half}" in caught.value.cure


def test_the_cache_tells_formats_apart() -> None:
    items = [Item("a.png", io.BytesIO, (1, 2), 0)]
    formats = [(size, fit) for size in ((8, 8), (8, 12), (12, 8)) for fit in FITS]
    keys = {files_of(items, 0.0, size, None, "white", fit).key for size, fit in formats}
    assert len(keys) == len(formats)


# ---------------------------------------------------------------- notes


@pytest.mark.parametrize(
    ("size", "fit", "rest"),
    [
        ((8, 8), "crop", "not square: the centred square is used (data.fit)"),
        ((8, 8), "pad", "not square: they are padded with white (data.fit)"),
        ((8, 8), "squeeze", "not square: they are squeezed (data.fit)"),
        ((6, 8), "crop", "not of the aspect ratio 4:3: the centred rectangle is used (data.fit)"),
        ((6, 8), "pad", "not of the aspect ratio 4:3: they are padded with white (data.fit)"),
        ((6, 8), "squeeze", "not of the aspect ratio 4:3: they are squeezed (data.fit)"),
    ],
)
def test_notes_count_what_is_cropped_padded_or_squeezed(
    tmp_path: Path, size: tuple[int, int], fit: Fit, rest: str
) -> None:
    """Two of five images have the aspect ratio of the target, in several sizes."""
    for k, factor in enumerate((1, 2)):
        Image.fromarray(NOISE[: factor * size[0], : factor * size[1]]).save(tmp_path / f"same-{k}.png")
    for k, (height, width) in enumerate(((20, 7), (9, 30), (16, 8))):
        Image.fromarray(NOISE[:height, :width]).save(tmp_path / f"other-{k}.png")
    loaded = load(tmp_path, size=size, fit=fit)
    assert pixels(loaded).shape == (5, *size, 3)
    assert [note for note in loaded.notes if "data.fit" in note] == [f"3 images that are {rest}"]
    order = " (width x height)" if size[0] != size[1] else ""
    converted = f"{size[1]} x {size[0]} x 3 channels{order}"
    assert sum(note.endswith(f"all are converted to {converted}") for note in loaded.notes) == 1


def test_notes_on_images_of_one_shape(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 16, 4), np.uint8)
    np.savez(tmp_path / "p.npz", images=images)
    config = NpzConfig(path=str(tmp_path / "p.npz"), size=(6, 12), held_out=0.0, channels=4)
    resized = "all images are 16 x 8 and are resized to 12 x 6 (width x height)"
    assert config.load().notes[0] == resized
    assert not any("data.fit" in note for note in config.load().notes)
    padded = config.model_copy(update={"size": (8, 8), "fit": "pad"}).load()
    assert padded.notes[1] == "the images are not square: they are padded with transparency (data.fit)"
    assert isinstance(padded.train, ImageDataset)
    assert not padded.train.images[:, [0, 1, 6, 7]].any()
    assert config.model_copy(update={"size": (8, 16)}).load().notes[0].endswith("kept")


# ---------------------------------------------------------------- torchvision


class GreyDataset:
    """Replaces MNIST: 28 x 28."""

    def __init__(self, root: str, download: bool, train: bool) -> None:
        self.data = np.random.default_rng(train).integers(0, 256, (4, 28, 28), np.uint8)
        self.targets = np.arange(4) % 2


class ColourDataset(GreyDataset):
    """Replaces CIFAR10: 32 x 32 x 3."""

    def __init__(self, root: str, download: bool, train: bool) -> None:
        super().__init__(root, download, train)
        self.data = np.random.default_rng(train).integers(0, 256, (4, 32, 32, 3), np.uint8)


def test_a_torchvision_set_that_is_not_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MNIST", GreyDataset)
    monkeypatch.setattr(datasets, "CIFAR10", ColourDataset)

    def loaded(name: str, size: tuple[int, int], fit: Fit) -> np.ndarray:
        return pixels(VisionConfig(dataset=name, size=size, fit=fit).load())

    grey, colour = GreyDataset("", False, True).data, ColourDataset("", False, True).data
    padded = loaded("MNIST", (32, 48), "pad")
    assert np.array_equal(padded[:, 2:30, 10:38, 0], grey)
    assert padded.sum() == grey.sum()
    for name, images, fit in (("MNIST", grey[..., None], "crop"), ("CIFAR10", colour, "pad")):
        target = TargetFormat((32, 48), images.shape[3], "black", fit)  # type: ignore[arg-type]
        assert np.array_equal(loaded(name, (32, 48), fit), convert_array(images, target))  # type: ignore[arg-type]
    assert np.array_equal(loaded("CIFAR10", (32, 48), "pad")[:, :, 8:40], colour)
    for size in (16, 32, 40):
        same = [loaded("CIFAR10", (size, size), fit) for fit in FITS]
        assert all(np.array_equal(images, same[0]) for images in same)
