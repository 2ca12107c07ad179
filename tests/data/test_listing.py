"""File names: unusual ones can be read and printed, and images are sorted by name."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages, encoded, load, pixels

from poise.data import scan as scan_module
from poise.data.folder import FolderConfig, Walk
from poise.data.listing import display_name
from poise.data.scan import scan
from poise.errors import DataError

UNUSUAL_NAMES = {
    "newline": b"a\nb.png",
    "not-utf8": b"caf\xe9\xff.png",
    "quotes": b'"it\'s",.png',
    "emoji": "🎨.png".encode(),
    "escape": b"\x1b[31mred.png",
    "255-bytes": b"x" * 251 + b".png",
    "turned-round": "a\u202egnp.png".encode(),
}


@pytest.mark.parametrize("raw", UNUSUAL_NAMES.values(), ids=[f"I25-{name}" for name in UNUSUAL_NAMES])
def test_unusual_names_can_be_read_and_printed(tmp_path: Path, write_images: WriteImages, raw: bytes) -> None:
    write_images(tmp_path, 1)
    good = tmp_path / "folder" / os.fsdecode(raw)
    good.parent.mkdir()
    try:
        good.write_bytes(encoded("PNG"))
        (tmp_path / os.fsdecode(raw)).write_bytes(b"bad")
    except OSError:
        pytest.skip("this file system refuses the name")
    loaded = load(tmp_path)
    assert len(pixels(loaded)) == 2
    (bad,) = loaded.bad_files
    assert bad.name.isprintable()
    table = io.StringIO(newline="")
    csv.writer(table).writerow(bad)
    assert table.getvalue().encode().count(b"\n") == 1
    assert next(csv.reader(io.StringIO(table.getvalue()))) == list(bad)
    with pytest.raises(DataError) as raised:
        load(tmp_path, max_bad=0.1)
    assert bad.name in str(raised.value)
    assert str(raised.value).isprintable()


def test_different_names_are_displayed_differently() -> None:
    unusual = "a\nb"
    assert display_name(unusual) != display_name(repr(unusual)) != display_name(repr(repr(unusual)))
    assert display_name("plain name-1.png") == "plain name-1.png"


def test_images_are_sorted_by_name(tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, 6)
    config = FolderConfig(path=str(tmp_path), size=8)
    expected = load(tmp_path).train.fingerprint
    for seed in range(3):
        listing = Walk(tmp_path, follow=False).listing()
        np.random.default_rng(seed).shuffle(listing.items)  # type: ignore[arg-type]
        assert scan(listing, config.model_copy(update={"held_out": 0.0})).train.fingerprint == expected
    monkeypatch.setattr(scan_module, "THREADS", 1)
    monkeypatch.setattr(scan_module, "CHUNK", 2)
    assert load(tmp_path).train.fingerprint == expected
