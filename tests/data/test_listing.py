"""Names: odd ones work and print, and the order is theirs alone."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from making import Fill, encoded, load, pixels

from poise.data import scan as scanning
from poise.data.folder import FolderConfig, Walk
from poise.data.listing import display_name
from poise.data.scan import scan
from poise.errors import DataError

ODD_NAMES = {
    "newline": b"a\nb.png",
    "not-utf8": b"caf\xe9\xff.png",
    "quotes": b'"it\'s",.png',
    "emoji": "🎨.png".encode(),
    "escape": b"\x1b[31mred.png",
    "255-bytes": b"x" * 251 + b".png",
    "turned-round": "a\u202egnp.png".encode(),
}


@pytest.mark.parametrize("raw", ODD_NAMES.values(), ids=[f"I25-{name}" for name in ODD_NAMES])
def test_odd_names_work_and_print(tmp_path: Path, fill: Fill, raw: bytes) -> None:
    fill(tmp_path, 1)
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


def test_names_are_never_confused() -> None:
    odd = "a\nb"
    assert display_name(odd) != display_name(repr(odd)) != display_name(repr(repr(odd)))
    assert display_name("plain name-1.png") == "plain name-1.png"


def test_order_is_that_of_names(tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 6)
    entry = FolderConfig(path=str(tmp_path), size=8)
    expected = load(tmp_path).train.fingerprint
    for seed in range(3):
        listing = Walk(tmp_path, follow=False).listing()
        np.random.default_rng(seed).shuffle(listing.items)  # type: ignore[arg-type]
        assert scan(listing, entry.model_copy(update={"held_out": 0.0})).train.fingerprint == expected
    monkeypatch.setattr(scanning, "THREADS", 1)
    monkeypatch.setattr(scanning, "CHUNK", 2)
    assert load(tmp_path).train.fingerprint == expected
