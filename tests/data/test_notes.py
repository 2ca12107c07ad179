"""What was settled on the way is told, once, with numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import NOISE, Fill, encoded, load, pixels, said
from PIL import Image


@pytest.mark.parametrize(("n", "warned"), [(49, True), (50, False)], ids=["I23-under-50", "I23-50"])
def test_few_pictures_are_warned_of(tmp_path: Path, fill: Fill, n: int, warned: bool) -> None:
    fill(tmp_path, n, size=4)
    assert said(load(tmp_path), rf"only {n} pictures.*DiffAugment \(M02\)") is warned


def test_mixture_is_summed_up_once(tmp_path: Path, fill: Fill) -> None:
    """I13."""
    fill(tmp_path / "p", 3, size=9)
    Image.fromarray(NOISE).convert("L").save(tmp_path / "p" / "x.png")
    Image.fromarray(NOISE[:20]).convert("CMYK").save(tmp_path / "p" / "y.tif")
    loaded = load(tmp_path / "p")
    assert pixels(loaded).shape == (5, 8, 8, 3)
    mixed = "the pictures are 3 RGB, 1 L, 1 CMYK, 3 sizes from 9 x 9 to 40 x 40; all become 8 x 8 x 3 channels"
    assert loaded.notes.count(mixed) == 1


def test_all_grey_gives_one_channel(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path / "p", 2, mode="L")
    fill(tmp_path / "p" / "q", 2, mode="LA")
    fill(tmp_path / "p" / "r", 2, mode="1")
    assert pixels(load(tmp_path / "p")).shape == (6, 8, 8, 1)
    assert pixels(load(tmp_path / "p", channels=3)).shape == (6, 8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"], ids=lambda kind: f"I15-{kind}")
def test_the_first_frame_is_taken(tmp_path: Path, fill: Fill, kind: str) -> None:
    fill(tmp_path)
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / f"x.{kind.lower()}", kind, save_all=True, append_images=[second], **lossless)
    loaded = load(tmp_path)
    assert np.array_equal(pixels(loaded)[-1], np.asarray(first))
    assert said(loaded, "1 picture with more frames or pages than one: the first is taken")


def test_a_phones_jpeg_with_more_pictures_than_one_is_a_jpeg(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path)
    first = Image.fromarray(NOISE)
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[first.rotate(90)])
    loaded = load(tmp_path)
    assert loaded.bad == []
    assert said(loaded, "1 picture with more frames or pages than one")
    assert not said(loaded, "another format")


def test_small_ones_are_enlarged_and_told(tmp_path: Path, fill: Fill) -> None:
    """I16."""
    fill(tmp_path)
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert (pixels(loaded)[-1] == (7, 8, 9)).all()
    assert said(loaded, "1 picture smaller than 8 x 8: enlarged")


def test_content_counts_not_the_name(tmp_path: Path, fill: Fill) -> None:
    """I17."""
    fill(tmp_path)
    (tmp_path / "x.png").write_bytes(encoded("JPEG"))
    loaded = load(tmp_path)
    assert loaded.bad == []
    assert said(loaded, r"1 picture named after another format \(x.png is JPEG\)")


def test_16_bit_grey_is_told(tmp_path: Path, fill: Fill) -> None:
    """I09."""
    fill(tmp_path, mode="L")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert np.array_equal(pixels(loaded)[-1, ..., 0], np.arange(64).reshape(8, 8) * 1000 >> 8)
    assert said(loaded, "1 picture with 16-bit grey")


@pytest.mark.parametrize(("channels", "words"), [(3, "laid over black"), (4, "kept")], ids=["I12-laid", "I12-kept"])
def test_alpha_is_told(tmp_path: Path, fill: Fill, channels: int, words: str) -> None:
    fill(tmp_path)
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "x.png")
    loaded = load(tmp_path, background="black", channels=channels)
    assert said(loaded, f"1 picture with transparency: {words}")
    assert (pixels(loaded)[-1] == 0).all() or channels == 4


def test_copies_and_flat_pictures_are_counted(tmp_path: Path, fill: Fill) -> None:
    """I24."""
    fill(tmp_path)
    for name in ("same-1.png", "same-2.png"):
        Image.fromarray(NOISE).save(tmp_path / name)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert said(loaded, "^1 of 7 pictures repeats")
    assert said(loaded, "^1 of 7 pictures is all one colour")
    assert not said(loaded, "zero variance")


def test_zero_variance(tmp_path: Path) -> None:
    """I24."""
    for i in range(3):
        Image.fromarray(NOISE).save(tmp_path / f"{i}.png")
    assert said(load(tmp_path), "all 3 pictures are the same.*zero variance")
