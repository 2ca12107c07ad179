"""Parquet and arrow files: images are those of a folder, columns are found or named, and damage is never silent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import load, noise_png, pixels

from poise.data import parquet_tables
from poise.data.facts import native_size
from poise.data.lookup import data_config
from poise.data.parquet_shards import ParquetConfig
from poise.data.parquet_tables import ParquetTable
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError, RecipeError

PNGS = [noise_png(seed) for seed in range(12)]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["tabby", "lynx", "puma"], "_type": "ClassLabel"}}
ROWS = [{"image": {"bytes": png, "path": None}, "label": i % 2, "note": f"row {i}"} for i, png in enumerate(PNGS)]

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def load_parquet(path: Path | str, **fields: object) -> DataSplits:
    return ParquetConfig(path=str(path), **{"size": 8, "held_out": 0.0, **fields}).load()  # type: ignore[arg-type]


def write_parquet(path: Path, rows: list[dict[str, Any]], features: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table_of(rows, features), path, row_group_size=5)


def write_stream(path: Path, rows: list[dict[str, Any]], features: object = None) -> None:
    """As `Dataset.save_to_disk` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table_of(rows, features)
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def write_arrow_file(path: Path, rows: list[dict[str, Any]], features: object = None) -> None:
    table = table_of(rows, features)
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def table_of(rows: list[dict[str, Any]], features: object) -> Any:
    metadata = {} if features is None else {"huggingface": json.dumps({"info": {"features": features}})}
    return arrow.Table.from_pylist(rows).replace_schema_metadata(metadata)


WRITERS = {"a.parquet": write_parquet, "b.arrow": write_stream, "c.arrow": write_arrow_file}


@pytest.mark.parametrize("name", WRITERS)
def test_the_images_are_those_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for i, png in enumerate(PNGS):
        (tmp_path / "folder" / f"{i:02d}.png").write_bytes(png)
    WRITERS[name](tmp_path / name, ROWS, FEATURES)
    loaded = load_parquet(tmp_path / name)
    assert np.array_equal(pixels(loaded), pixels(load(tmp_path / "folder")))
    assert loaded.train.classes == ("tabby", "lynx")
    assert loaded.train.class_counts == (6, 6)
    assert loaded.notes[0] == "the images are the column image, the labels the column label; not used: note"
    assert native_size(data_config(str(tmp_path / name))) == (8, 8)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("given", ["link", "hash"])
def test_a_shard_may_be_a_link_to_a_file_that_is_called_by_its_hash(tmp_path: Path, name: str, given: str) -> None:
    """As in the cache of Hugging Face."""
    (tmp_path / "snapshot").mkdir()
    WRITERS[name](tmp_path / "3fe2a1", ROWS, FEATURES)
    (tmp_path / "snapshot" / name).symlink_to(tmp_path / "3fe2a1")
    value = tmp_path / "snapshot" / name if given == "link" else f"parquet:{tmp_path / '3fe2a1'}"
    config = data_config(str(value))
    assert Path(config.paths[0]).name == (name if given == "link" else "3fe2a1")
    assert config.load().train.class_counts == (5, 6)


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "{}/data-00000-of-00001.arrow"])
def test_folders_of_hugging_face_are_recognised_and_their_splits_kept_apart(tmp_path: Path, layout: str) -> None:
    write = WRITERS["a.parquet" if "parquet" in layout else "b.arrow"]
    for split, rows in (("train", ROWS[:8]), ("test", ROWS[8:])):
        write(tmp_path / layout.format(split), rows, FEATURES)
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "train").mkdir(exist_ok=True)
    (tmp_path / "train" / "cache-1.arrow").write_text("of map")
    config = data_config(str(tmp_path))
    assert isinstance(config, ParquetConfig)
    loaded = config.load()
    assert "the split train is used, and not test (data.split)" in loaded.notes
    assert len(config.listing()[0].items) == 8
    assert len(pixels(load_parquet(tmp_path, split="test"))) == 4


@pytest.mark.parametrize("name", ["a.parquet", "b.arrow"])
def test_each_shard_has_its_own_names_of_classes(tmp_path: Path, name: str) -> None:
    suffix = name[1:]
    WRITERS[name](tmp_path / f"s-0{suffix}", ROWS[:6], FEATURES)
    turned = FEATURES | {"label": {"names": ["puma", "tabby", "serval"], "_type": "ClassLabel"}}
    WRITERS[name](tmp_path / f"s-1{suffix}", [row | {"label": 2 - row["label"]} for row in ROWS[6:]], turned)
    loaded = load_parquet(tmp_path)
    assert isinstance(loaded.train, ImageDataset)
    assert loaded.train.labels is not None
    words = [loaded.train.classes[label] for label in loaded.train.labels]
    assert words == ["tabby", "lynx"] * 3 + ["serval", "tabby"] * 3
    assert loaded.train.classes == ("tabby", "lynx", "serval")


def test_words_in_a_column_with_names_are_labels_too(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [row | {"label": ["lynx", "tabby"][row["label"]]} for row in ROWS], FEATURES)
    assert load_parquet(tmp_path).train.classes == ("tabby", "lynx")


def test_labels_outside_of_the_names_are_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [row | {"label": -1} for row in ROWS], FEATURES)
    loaded = load_parquet(tmp_path)
    assert loaded.train.classes == ()
    assert "the column label has no label that can be used" in loaded.notes[0]


def test_columns_may_be_named(tmp_path: Path) -> None:
    rows = [{"scan": png, "mask": PNGS[0], "kind": "ab"[i % 2]} for i, png in enumerate(PNGS)]
    write_parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(
        DataError, match=r"data.image: a.parquet: several columns may be the images, found mask, scan|scan"
    ):
        load_parquet(tmp_path)
    loaded = load_parquet(tmp_path, image="scan", label="kind")
    assert len(np.unique(pixels(loaded), axis=0)) == 12
    assert loaded.train.classes == ("a", "b")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"image": "photo"},
            r"data.image: a.parquet: there is no column 'photo', found image \(struct<.*label \(int64",
        ),
        ({"image": "note"}, r"the column 'note' has no encoded images, found .*; store each image as the bytes"),
        ({"label": "breed"}, r"data.label: a.parquet: there is no column 'breed', found .*name a column of integers"),
        ({"label": "image"}, r"the column 'image' has no labels"),
    ],
)
def test_wrong_columns(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    with pytest.raises(DataError, match=message):
        load_parquet(tmp_path, **fields)


def test_a_table_without_images_and_one_with_other_columns_are_errors(tmp_path: Path) -> None:
    write_parquet(tmp_path / "numbers.parquet", [{"x": 1.5, "label": 0}])
    with pytest.raises(
        DataError, match=r"numbers.parquet: no column has encoded images, found x .double., label .int64."
    ):
        load_parquet(tmp_path)
    write_parquet(tmp_path / "before.parquet", ROWS)
    with pytest.raises(DataError, match=r"data.image: numbers.parquet: there is no column 'image'"):
        load_parquet(tmp_path)


def test_rows_without_image_or_label_are_bad_files(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[1]["image"], rows[2]["image"] = None, {"bytes": None, "path": "far/away.png"}
    rows[3]["label"], rows[4]["label"] = -1, None
    write_parquet(tmp_path / "a.parquet", rows, FEATURES)
    loaded = load_parquet(tmp_path)
    reasons = [
        "no image in this row",
        "no image, only the path far/away.png",
        "no label in this row",
        "no label in this row",
    ]
    assert [bad.reason for bad in loaded.bad_files] == reasons
    for row in rows:
        row["label"] = -1  # as test splits without labels have
    write_parquet(tmp_path / "a.parquet", rows, FEATURES)
    assert load_parquet(tmp_path).train.classes == ()


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut": ("a.parquet", lambda data: data[:-50], "Parquet magic bytes not found"),
    "empty": ("a.parquet", lambda _: b"", "size is 0 bytes"),
    "stream cut within a batch": ("b.arrow", lambda data: data[:-300], "no end of the stream"),
    "stream cut between batches": ("b.arrow", lambda data: data[:-8], "no end of the stream"),
    "file cut": ("c.arrow", lambda data: data[:-50], "a.*"),
    "no arrow": ("b.arrow", lambda _: b"hello", "no end of the stream"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_an_error(tmp_path: Path, damage: str) -> None:
    name, change, message = DAMAGE[damage]
    WRITERS[name](tmp_path / name, ROWS, None)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(
        DataError, match=rf"{name}: this shard is damaged, found .*{message}.*; download or write it again"
    ):
        load_parquet(tmp_path)


OFFSETS = np.cumsum([0, *map(len, PNGS[:5])]).astype("<i4").tobytes()
"""Where the images of the first five rows start and end, as arrow stores it."""


@pytest.mark.parametrize("name", ["b.arrow", "c.arrow"])
@pytest.mark.parametrize("row", [0, 3, 5])
@pytest.mark.parametrize("bit", [12, 30, 31])
def test_a_place_of_an_image_outside_of_an_arrow_file_is_an_error(
    tmp_path: Path, name: str, row: int, bit: int
) -> None:
    """Without a check of all places, reading such an image ends the process."""
    WRITERS[name](tmp_path / name, ROWS, None)
    data = bytearray((tmp_path / name).read_bytes())
    data[data.index(OFFSETS) + 4 * row + bit // 8] ^= 1 << bit % 8
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: this shard is damaged, found .*offset.*; download or write it"):
        load_parquet(tmp_path)


def test_a_label_outside_of_its_dictionary_is_an_error(tmp_path: Path) -> None:
    words = arrow.DictionaryArray.from_arrays(arrow.array([0, 1] * 6, arrow.int32()), ["lynx", "puma"])
    table = arrow.table({"image": PNGS, "label": words})
    with arrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, arrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data.replace(np.array([0, 1] * 6, "<i4").tobytes(), b"\x77" * 48))
    with pytest.raises(DataError, match=r"a.arrow: this shard is damaged"):
        load_parquet(tmp_path)


def test_a_damaged_page_costs_its_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    start = data.index(PNGS[0][:16])
    data[4 : start - 8] = b"\xff" * (start - 12)
    (tmp_path / "a.parquet").write_bytes(data)
    loaded = load_parquet(tmp_path)
    assert [bad.name for bad in loaded.bad_files] == [f"{row:06d}" for row in range(5)]


def test_without_pyarrow_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(parquet_tables.importlib, "import_module", refuse)
    with pytest.raises(RecipeError, match=r"needs pyarrow, which is not installed; install it with: pip install"):
        load_parquet(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_set_may_have_more_shards_than_files_may_be_open(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    write = {".parquet": write_parquet, ".arrow": write_stream}[suffix]
    for number in range(40):
        row = {"image": noise_png(number, 4), "label": number % 2}
        write(tmp_path / f"train-{number:05d}-of-00040{suffix}", [row, row])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)  # the lowest free number, below which all are in use
    os.close(taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 20, limits[1]))
    try:
        loaded = load_parquet(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (len(loaded.train), loaded.bad_files) == (80, [])  # type: ignore[arg-type]


def test_few_row_groups_of_all_shards_are_in_memory(tmp_path: Path) -> None:
    noise = [noise_png(seed, 120) for seed in range(5)]
    for number in range(16):
        write_parquet(tmp_path / f"train-{number:05d}-of-00016.parquet", [{"image": png} for png in noise])
    listing, _ = ParquetConfig(path=str(tmp_path)).listing()
    before = arrow.total_allocated_bytes()
    for item in listing.items:
        with item.open() as stream:
            assert stream.read() in noise
    kept = (arrow.total_allocated_bytes() - before) / sum(map(len, noise))
    assert kept < 7, "two of 16 groups, and what pyarrow has not freed yet"


def test_a_shard_that_the_system_cannot_open_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(tmp_path / "a.arrow", ROWS)
    listing, _ = ParquetConfig(path=str(tmp_path)).listing()

    def refuse(_: str) -> None:
        raise OSError(errno.EMFILE, "Failed to open local file")

    monkeypatch.setattr(arrow, "memory_map", refuse)
    with pytest.raises(DataError, match=r"data.path: can't be read: Too many open files, found .*a.arrow"):
        load_parquet(tmp_path)
    with pytest.raises(OSError, match="Failed to open local file"):
        listing.items[0].open()


def test_a_column_of_labels_of_another_length_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As damaged metadata of a row group say."""
    write_parquet(tmp_path / "a.parquet", ROWS)
    whole = ParquetTable.whole
    monkeypatch.setattr(ParquetTable, "whole", lambda table, column: whole(table, column)[1:])
    with pytest.raises(DataError, match=r"a.parquet: this shard is damaged, found 11 labels in 12 rows"):
        load_parquet(tmp_path)


def test_a_damaged_label_is_an_error_that_names_the_shard(tmp_path: Path) -> None:
    rows = [{"image": png, "label": f"a word of some length, number {i}"} for i, png in enumerate(PNGS)]
    write_parquet(tmp_path / "b.parquet", rows)
    data, metadata = (tmp_path / "b.parquet").read_bytes(), parquet.ParquetFile(tmp_path / "b.parquet").metadata
    start = metadata.row_group(0).column(1).dictionary_page_offset
    end = start + metadata.row_group(0).column(1).total_compressed_size
    found = set[tuple[str, str | None]]()
    for place in range(start, end, 5):
        (tmp_path / "b.parquet").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            load_parquet(tmp_path)
        except DataError as error:  # not always, as some damage only changes a label
            found.add((error.what, error.where))
    assert found == {("this shard is damaged", str(tmp_path / "b.parquet"))}
