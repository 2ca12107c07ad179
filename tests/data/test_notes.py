"""Notes and warnings about images: each is reported once, with numbers."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_helpers import NOISE, WriteImages, encoded, has_note, load, pixels
from PIL import Image

from poise.data import notes
from poise.data.npz import NpzConfig
from poise.data.zip_archive import ZipConfig


@pytest.mark.parametrize(("n", "warned"), [(49, True), (50, False)], ids=["I23-under-50", "I23-50"])
def test_few_images_are_reported(tmp_path: Path, write_images: WriteImages, n: int, warned: bool) -> None:
    write_images(tmp_path, n, size=4)
    assert has_note(load(tmp_path), rf"only {n} images.*tip M02") is warned


def test_mixed_formats_are_summarised_once(tmp_path: Path, write_images: WriteImages) -> None:
    """I13."""
    write_images(tmp_path / "p", 3, size=9)
    Image.fromarray(NOISE).convert("L").save(tmp_path / "p" / "x.png")
    Image.fromarray(NOISE[:20]).convert("CMYK").save(tmp_path / "p" / "y.tif")
    loaded = load(tmp_path / "p")
    assert pixels(loaded).shape == (5, 8, 8, 3)
    mixed = (
        "the images are 3 RGB, 1 L, 1 CMYK, of 3 sizes from 9 x 9 to 40 x 40; all are converted to 8 x 8 x 3 channels"
    )
    assert loaded.notes.count(mixed) == 1


def test_greyscale_images_have_one_channel(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "p", 2, mode="L")
    write_images(tmp_path / "p" / "q", 2, mode="LA")
    write_images(tmp_path / "p" / "r", 2, mode="1")
    assert pixels(load(tmp_path / "p")).shape == (6, 8, 8, 1)
    assert pixels(load(tmp_path / "p", channels=3)).shape == (6, 8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"], ids=lambda kind: f"I15-{kind}")
def test_the_first_frame_is_used(tmp_path: Path, write_images: WriteImages, kind: str) -> None:
    write_images(tmp_path)
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / f"x.{kind.lower()}", kind, save_all=True, append_images=[second], **lossless)
    loaded = load(tmp_path)
    assert np.array_equal(pixels(loaded)[-1], np.asarray(first))
    assert has_note(loaded, "1 image with several frames or pages: the first is used")


def test_a_jpeg_with_several_frames_is_a_jpeg(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path)
    first = Image.fromarray(NOISE)
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[first.rotate(90)])
    loaded = load(tmp_path)
    assert loaded.bad_files == []
    assert has_note(loaded, "1 image with several frames or pages: the first is used")
    assert not has_note(loaded, "another format")


def test_small_images_are_enlarged_and_reported(tmp_path: Path, write_images: WriteImages) -> None:
    """I16."""
    write_images(tmp_path)
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert (pixels(loaded)[-1] == (7, 8, 9)).all()
    assert has_note(loaded, "1 image smaller than 8 x 8: enlarged")


def test_the_content_determines_the_format(tmp_path: Path, write_images: WriteImages) -> None:
    """I17."""
    write_images(tmp_path)
    (tmp_path / "x.png").write_bytes(encoded("JPEG"))
    loaded = load(tmp_path)
    assert loaded.bad_files == []
    assert has_note(loaded, r"1 image with the suffix of another format \(x.png is JPEG\)")


def test_16_bit_greyscale_is_reported(tmp_path: Path, write_images: WriteImages) -> None:
    """I09."""
    write_images(tmp_path, mode="L")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert np.array_equal(pixels(loaded)[-1, ..., 0], np.arange(64).reshape(8, 8) * 1000 >> 8)
    assert has_note(loaded, "1 image with 16-bit grey")


@pytest.mark.parametrize(
    ("channels", "words"), [(3, "composited over black"), (4, "kept")], ids=["I12-composited", "I12-kept"]
)
def test_alpha_is_reported(tmp_path: Path, write_images: WriteImages, channels: int, words: str) -> None:
    write_images(tmp_path)
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "x.png")
    loaded = load(tmp_path, background="black", channels=channels)
    assert has_note(loaded, f"1 image with transparency: {words}")
    assert (pixels(loaded)[-1] == 0).all() or channels == 4


def test_copies_and_single_colours_are_counted(tmp_path: Path, write_images: WriteImages) -> None:
    """I24."""
    write_images(tmp_path)
    for name in ("same-1.png", "same-2.png"):
        Image.fromarray(NOISE).save(tmp_path / name)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert has_note(loaded, "^1 of 7 images is an exact copy")
    assert has_note(loaded, "^1 of 7 images has a single colour")
    assert not has_note(loaded, "zero variance")


def test_identical_images_are_reported(tmp_path: Path) -> None:
    """I24."""
    for i in range(3):
        Image.fromarray(NOISE).save(tmp_path / f"{i}.png")
    assert has_note(load(tmp_path), "all 3 images are identical.*zero variance")


# ---- the range of the values, and cropping --------------------------------------------------------


def grey(n: int, low: int, high: int, size: int = 8, deep: bool = False) -> np.ndarray:
    dtype = np.uint16 if deep else np.uint8
    return np.random.default_rng(high).integers(low, high + 1, (n, size, size)).astype(dtype)


RANGES = {
    "masks": (grey(60, 0, 1), "nearly black", "by 255"),
    "12 bits": (grey(60, 0, 4095, deep=True), "nearly black", "12-bit values in 16-bit files, multiply them by 16"),
    "10 bits": (grey(60, 0, 1023, deep=True), "nearly black", "10-bit values in 16-bit files, multiply them by 64"),
    "14 bits": (grey(60, 0, 16383, deep=True), "dark", "14-bit values in 16-bit files, multiply them by 4"),
    "0 to 15": (grey(60, 0, 15), "nearly black", "multiply them by 17"),
    "dark": (grey(60, 0, 100), "dark", "multiply them by 2"),
    "bright": (grey(60, 200, 255), "bright", r"\(x - 200\) \* 255 / 55"),
    "white": (grey(60, 240, 255), "nearly white", "rescale them"),
    "flat": (grey(60, 100, 150), "low in contrast", "rescale them"),
    "with outliers": (np.concatenate((grey(58, 0, 1), grey(2, 0, 255))), "95% of the images are nearly", "255"),
    "empty masks": (np.concatenate((grey(20, 0, 1), np.zeros((60, 8, 8), np.uint8))), "nearly black", "by 255"),
    "full": (grey(60, 0, 255), None, ""),
    "half": (grey(60, 100, 228), None, ""),
    "some dark": (np.concatenate((grey(50, 0, 60), grey(10, 0, 255))), None, ""),
    "of a single colour": (np.arange(60, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8), None, ""),
}


@pytest.mark.parametrize(("images", "level", "cure"), RANGES.values(), ids=RANGES)
def test_a_narrow_range_gives_a_warning(tmp_path: Path, images: np.ndarray, level: str | None, cure: str) -> None:
    """In a folder, an archive and an array."""
    folder = tmp_path / "p"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    loaded_all = [load(folder), ZipConfig(path=str(tmp_path / "p.zip"), size=8).load()]
    if images.dtype == np.uint8:
        np.savez(tmp_path / "p.npz", images=images)
        loaded_all.append(NpzConfig(path=str(tmp_path / "p.npz"), size=8).load())
    for loaded in loaded_all:
        assert len(loaded.warnings) == (level is not None)
        for warning in loaded.warnings:
            assert re.search(level or "", warning.message)
            assert re.search(cure, warning.cure)


def test_alpha_does_not_count_for_the_range(tmp_path: Path) -> None:
    """An alpha channel of 0 to 255 does not hide that the colours are dark."""
    images = np.stack((grey(60, 0, 15), grey(60, 0, 255)), axis=-1)
    np.savez(tmp_path / "p.npz", images=images)
    (warning,) = NpzConfig(path=str(tmp_path / "p.npz"), size=8, channels=2).load().warnings
    assert "from 0 to 15" in warning.message


def test_images_of_one_size_are_reported(tmp_path: Path) -> None:
    """The notes are the same for a folder and an array; there are none if no pixel is changed."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 16, 3), np.uint8)
    (tmp_path / "p").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "p" / f"{i:03}.png")
    np.savez(tmp_path / "p.npz", images=images)
    crop = "the images are not square: the centred square is used (data.fit)"
    for size in (4, 8, 32):
        notes = [f"all images are 16 x 8 and are resized to {size} x {size}", crop]
        assert load(tmp_path / "p", size=size).notes == notes
        assert NpzConfig(path=str(tmp_path / "p.npz"), size=size, held_out=0.0).load().notes == notes
    np.savez(tmp_path / "q.npz", images=images[:, :, :8])
    assert NpzConfig(path=str(tmp_path / "q.npz"), size=8).load().notes == []


def test_images_that_are_not_square_are_counted(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 4, size=8)
    Image.fromarray(NOISE[:20]).save(tmp_path / "wide.png")
    assert "1 image that is not square: the centred square is used (data.fit)" in load(tmp_path).notes


@pytest.mark.parametrize("modes", [["RGB", "RGBA"], ["RGB", "L"], ["P", "L", "RGBA"]])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 8}, ["that are not square: the centred square is used (data.fit)"]),
        ({"size": 8, "fit": "squeeze"}, ["that are not square: they are squeezed (data.fit)"]),
        (
            {"size": 32},
            ["that are not square: the centred square is used (data.fit)", "smaller than 32 x 32: enlarged"],
        ),
        ({"size": [8, 16]}, []),
    ],
)
def test_images_of_one_size_and_several_modes_are_counted(
    tmp_path: Path, modes: list[str], options: dict[str, object], expected: list[str]
) -> None:
    for i, mode in enumerate(modes):
        Image.fromarray(NOISE[:16, :32]).convert(mode).save(tmp_path / f"{i}.png")
    notes = [note for note in load(tmp_path, **options).notes if "square" in note or "smaller" in note]
    assert notes == [f"{len(modes)} images {text}" for text in expected]


@pytest.mark.parametrize(("channels", "told"), [(None, False), (1, True), (2, True), (3, False), (4, False)])
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_the_loss_of_colour_is_reported(tmp_path: Path, kind: str, channels: int | None, told: bool) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    note = "3 images in colour: converted to greyscale (data.channels)"
    if kind == "npz":
        np.savez(tmp_path / "p.npz", images=colour)
        notes = NpzConfig(path=str(tmp_path / "p.npz"), size=8, channels=channels).load().notes  # type: ignore[arg-type]
        np.savez(tmp_path / "g.npz", images=colour[..., :1])
        grey = NpzConfig(path=str(tmp_path / "g.npz"), size=8, channels=channels).load().notes  # type: ignore[arg-type]
        assert not any("in colour" in one for one in grey)
    else:
        for i, image in enumerate(colour):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(colour[0]).convert("L").save(tmp_path / "grey.png")
        notes = load(tmp_path, channels=channels).notes
    assert (note in notes) == told


def test_fully_transparent_images_are_reported(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 3)
    transparent = np.concatenate((NOISE, np.zeros_like(NOISE[..., :1])), axis=2)
    Image.fromarray(transparent).save(tmp_path / "clear.png")
    assert has_note(load(tmp_path), "1 image fully transparent: .*entirely white.*without alpha")
    assert has_note(load(tmp_path, channels=4), "1 image fully transparent: alpha is kept")
    np.savez(tmp_path / "p.npz", images=np.stack((transparent, transparent)))
    assert has_note(NpzConfig(path=str(tmp_path / "p.npz"), size=8).load(), "2 images fully transparent")


# ---------------------------------------------------------------- grey images in colour files

GREY = "are grey, although they are stored in colour: data.channels=1"


@pytest.mark.parametrize(("number", "which"), [(6, "^all images"), (9, "^all of 5 images that were looked at")])
def test_grey_images_in_colour_files_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, which: str
) -> None:
    monkeypatch.setattr(notes, "MAX_GREY", 6)
    for i in range(number):
        Image.fromarray(NOISE[..., :1].repeat(3, 2) // (i + 1)).save(tmp_path / f"{i}.png")
    np.savez(tmp_path / "set.npz", images=np.stack([NOISE[..., :1].repeat(3, 2) // (i + 1) for i in range(number)]))
    array = NpzConfig(path=str(tmp_path / "set.npz"), size=8)
    for loaded in (load(tmp_path), array.load()):
        (found,) = [note for note in loaded.notes if GREY in note]
        assert re.match(which, found)
        assert found not in notes.notes_for_comparison(loaded.notes, resizing=True)
    assert not has_note(load(tmp_path, channels=3), "stored in colour"), "that was decided"
    assert not has_note(array.model_copy(update={"channels": 3}).load(), "stored in colour")
    Image.fromarray(NOISE).save(tmp_path / "0.png")
    assert not has_note(load(tmp_path), "stored in colour")
