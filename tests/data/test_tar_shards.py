"""Tar shards: their images are those of a folder, their labels are beside them, and damage is never silent."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import load, noise_png, pixels, write_tar

from poise.data import decode_cache
from poise.data.facts import image_facts
from poise.data.lookup import data_config
from poise.data.shards import expand
from poise.data.source import DataSplits, ImageDataset
from poise.data.tar_shards import TarConfig
from poise.errors import DataError

PNGS = [noise_png(seed) for seed in range(12)]


def load_tar(path: Path | str, **fields: object) -> DataSplits:
    return TarConfig(path=str(path), **{"size": 8, "held_out": 0.0, **fields}).load()  # type: ignore[arg-type]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four images, which have the same names in each, with a class and a colour."""
    for part in range(3):
        files: dict[str, bytes] = {}
        for i in range(4):
            files[f"000/{i}.png"] = PNGS[4 * part + i]
            files[f"000/{i}.cls"] = b"%d\n" % (i % 2)
            files[f"000/{i}.json"] = json.dumps({"colour": ["red", "blue"][part % 2], "size": [8, 8]}).encode()
            files[f"000/{i}.txt"] = b"a caption"
        write_tar(tmp_path / "shards" / f"photos-{part:03d}.tar", files)
    return tmp_path / "shards"


def labels_of(loaded: DataSplits) -> list[str]:
    assert isinstance(loaded.train, ImageDataset)
    assert loaded.train.labels is not None
    return [loaded.train.classes[label] for label in loaded.train.labels]


def test_the_images_are_those_of_a_folder(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for i, png in enumerate(PNGS):
        (tmp_path / "folder" / f"{i:02d}.png").write_bytes(png)
    loaded = load_tar(shards)
    assert np.array_equal(pixels(loaded), pixels(load(tmp_path / "folder")))
    assert labels_of(loaded) == ["0", "1"] * 6
    assert any("12 other files: 12 .txt" in note for note in loaded.notes)


def test_a_key_of_the_json_may_be_the_label(shards: Path) -> None:
    assert labels_of(load_tar(shards, label="colour")) == ["red"] * 4 + ["blue"] * 4 + ["red"] * 4


@pytest.mark.parametrize("value", ["shards", "shards/photos-{000..002}.tar", "tar:shards", "shards/photos-001.tar"])
def test_shards_are_recognised(shards: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards.parent)
    config = data_config(value)
    assert isinstance(config, TarConfig)
    assert len(config.listing()[0].items) == (4 if "001" in value else 12)


def test_a_folder_with_images_beside_an_archive_stays_a_folder(shards: Path) -> None:
    (shards / "a.png").write_bytes(PNGS[0])
    assert data_config(str(shards)).kind == "folder"  # type: ignore[attr-defined]


def test_without_labels_folders_are_classes_over_all_shards(tmp_path: Path) -> None:
    for part in range(2):
        write_tar(tmp_path / f"{part}.tar", {f"top/{c}/{i}.png": PNGS[i + 6 * part] for i, c in enumerate("aabbab")})
    loaded = load_tar(tmp_path)
    assert loaded.train.class_counts == (6, 6)
    assert loaded.train.classes == ("a", "b")


def test_splits_are_kept_apart(tmp_path: Path) -> None:
    for name in ("set-train-0", "set-train-1", "set-val-0"):
        write_tar(tmp_path / f"{name}.tar", {f"{i}.png": PNGS[i] for i in range(3)})
    loaded = load_tar(tmp_path)
    assert len(pixels(loaded)) == 6
    assert "the split train is used, and not val (data.split)" in loaded.notes
    assert len(pixels(load_tar(tmp_path, split="val"))) == 3
    with pytest.raises(DataError, match=r"data.split: there is no split 'test', found train, val; choose one"):
        load_tar(tmp_path, split="test")


def test_images_without_label_and_labels_without_image_are_bad_files(tmp_path: Path) -> None:
    files = {f"{i}.{suffix}": PNGS[i] if suffix == "png" else b"0" for i in range(4) for suffix in ("png", "cls")}
    del files["1.cls"], files["2.png"]
    write_tar(tmp_path / "a.tar", files)
    loaded = load_tar(tmp_path / "a.tar")
    assert [tuple(bad) for bad in loaded.bad_files] == [
        ("1.png", "no label beside it"),
        ("2", "a label without an image"),
    ]
    with pytest.raises(DataError, match=r"2 of 4 image files can't be used: 1\.png"):
        load_tar(tmp_path / "a.tar", max_bad=0.1)


@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_contradictory_labels_of_a_sample_are_not_guessed(tmp_path: Path, suffix: str) -> None:
    """The sample of run_0.1.png is run_0, which the labels of run_0.0 to run_0.3 all belong to."""
    files = {f"{i}.png": PNGS[i] for i in range(8)} | {f"run_0.{i}.png": PNGS[8 + i] for i in range(4)}
    for name in list(files):
        word = name[-5] if name.startswith("run") else "9"
        files[name.replace("png", suffix)] = (word if suffix == "cls" else json.dumps({"label": word})).encode()
    write_tar(tmp_path / "a.tar", files)
    loaded = load_tar(tmp_path / "a.tar")
    assert labels_of(loaded) == ["9"] * 8
    assert {bad.name for bad in loaded.bad_files} == {f"run_0.{i}.png" for i in range(4)}
    assert all("several labels for the sample run_0" in bad.reason for bad in loaded.bad_files)
    with pytest.raises(DataError, match="several labels for the sample run_0"):
        load_tar(tmp_path / "a.tar", max_bad=0.1)


@pytest.mark.parametrize("value", [3, 3.0, "3", [0, 0, 0, 1]], ids=str)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_labels_in_json_are_read_like_those_of_dataset_json(tmp_path: Path, value: object, bom: bytes) -> None:
    files = {f"{i}.png": PNGS[i] for i in range(4)}
    files |= {f"{i}.json": bom + json.dumps({"label": value}).encode() for i in range(4)}
    write_tar(tmp_path / "a.tar", files)
    assert labels_of(load_tar(tmp_path / "a.tar")) == ["3"] * 4
    write_tar(
        tmp_path / "b.tar",
        {f"{i}.{suffix}": PNGS[i] if suffix == "png" else bom + b"3" for i in range(4) for suffix in ("png", "cls")},
    )
    assert labels_of(load_tar(tmp_path / "b.tar")) == ["3"] * 4


def test_json_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    files = {f"{i}.png": PNGS[i] for i in range(4)}
    write_tar(
        tmp_path / "a.tar",
        files | {"0.json": b"{", "1.json": b'{"label": 1}', "2.json": b"{}", "3.json": b'{"label": 1}'},
    )
    assert "1 .json file can't be read" in load_tar(tmp_path / "a.tar").notes
    write_tar(tmp_path / "b.tar", files | {"0.json": b"{"})
    assert "1 .json file can't be read" in load_tar(tmp_path / "b.tar").notes


def test_facts_are_remembered(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.0)
    known = image_facts(data_config(str(shards)))
    assert known is not None
    assert (known.count, known.size, known.grey) == (12, (8, 8), False)
    listed = TarConfig.list_images
    monkeypatch.setattr(TarConfig, "list_images", lambda *_: pytest.fail("the shards are read again"))
    assert image_facts(data_config(str(shards))) == known
    monkeypatch.setattr(TarConfig, "list_images", listed)
    (shards / "photos-002.tar").unlink()
    changed = image_facts(data_config(str(shards)))
    assert changed is not None
    assert changed.count == 8


@pytest.mark.parametrize("text", ["null", "[12]", "{", '[12, [["wide", 8]], false, []]'])
def test_damaged_facts_are_found_anew(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.0)
    known = image_facts(data_config(str(shards)))
    (remembered,) = (tmp_path / "cache" / "shards").iterdir()
    remembered.write_text(json.dumps({"facts": text}))
    assert known is not None
    assert image_facts(data_config(str(shards))) == known


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut within an image": (lambda data: data[:700], "unexpected end of data, after 1 file;"),
    "cut between images": (lambda data: data[:3072], "no header and no end at byte 3,072, after 3 files"),
    "a damaged header": (lambda data: data[:2048] + b"x" * 99 + data[2147:], "no header and no end at byte 2,048"),
    "another archive after it": (
        lambda data: data + data,
        "something follows the end of the archive at byte 4,096, after 4 files; if archives were appended",
    ),
    "no archive": (lambda _: b"text", "truncated header"),
    "empty": (lambda _: b"", "empty file"),
    "compressed": (lambda data: b"\x1f\x8b" + data, "this archive is compressed; decompress it: gunzip bad.tar"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_an_error(tmp_path: Path, damage: str) -> None:
    write_tar(tmp_path / "bad.tar", {f"{i}.png": PNGS[i][:400] for i in range(4)})
    change, message = DAMAGE[damage]
    (tmp_path / "bad.tar").write_bytes(change((tmp_path / "bad.tar").read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load_tar(tmp_path)
    assert "bad.tar: this" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("shards", {"label": "shape"}, "data.label: no .json beside an image has .* 'shape', found colour, size; name"),
        (
            "shards/photos-{000..004}.tar",
            {},
            "not all shards .* found 2 missing shards: photos-003.tar, photos-004.tar",
        ),
        ("shards/photos-{5..4}.tar", {}, "the range must have 1 to 100,000 numbers, found {5..4}"),
        ("empty", {}, "there are no .tar files in this folder, found .*; give the folder"),
        ("nowhere.tar", {}, "no such file"),
    ],
)
def test_errors(shards: Path, path: str, fields: dict[str, object], message: str) -> None:
    (shards.parent / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        load_tar(shards.parent / path, **fields)


def test_damaged_images_and_links_are_bad_files(tmp_path: Path) -> None:
    good = {f"{i}.png": PNGS[i] for i in range(4)}
    write_tar(tmp_path / "a.tar", good | {"5.png": PNGS[5][:-60], "._1.png": b"mac", "6.jpg": b"text"})
    os.link(tmp_path / "a.tar", tmp_path / "b.tar")
    loaded = load_tar(tmp_path / "b.tar")
    assert [bad.name for bad in loaded.bad_files] == ["5.png", "6.jpg"]


@pytest.mark.parametrize("size", [2**61, 2**62, 2**63 - 1, 2**63, 2**80])
def test_a_member_of_an_impossible_size_is_damage(tmp_path: Path, size: int) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}.png": png for i, png in enumerate(PNGS)})
    with (tmp_path / "a.tar").open("r+b") as file:
        member = tarfile.TarInfo("0.png")
        member.size = size
        file.write(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(DataError, match=r"a.tar: this shard is damaged"):
        load_tar(tmp_path / "a.tar")


def test_a_shard_that_the_system_cannot_open_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}.png": png for i, png in enumerate(PNGS)})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(DataError, match=r"data.path: can't be read: Too many open files, found .*a.tar"):
        load_tar(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x/d{0..1}/a.tar", {"d0:a.tar:0.png", "d1:a.tar:0.png"}),
        ("x/d{0..1}/e/a-{0..1}.tar", {f"d{i}:e:a-{j}.tar:0.png" for i in range(2) for j in range(2)}),
        ("d{0..1}/a.tar", {"d0:a.tar:0.png", "d1:a.tar:0.png"}),
        ("{0..1}/a.tar", {"0:a.tar:0.png", "1:a.tar:0.png"}),
        ("x/../d{0..1}/a.tar", {"d0:a.tar:0.png", "d1:a.tar:0.png"}),
        ("d0/a-{0..1}.tar", {"a-0.tar:0.png", "a-1.tar:0.png"}),
        ("d0/a-{0..0}.tar", {"0.png"}),
    ],
)
@pytest.mark.parametrize("relative", [True, False])
def test_a_range_may_be_anywhere_in_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: set[str], relative: bool
) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    path = pattern if relative else f"{tmp_path}/{pattern}"
    for shard in expand(path):
        write_tar(shard, {"0.png": PNGS[0]})
    assert {item.name for item in TarConfig(path=path).listing()[0].items} == names
    found = data_config(path)
    assert isinstance(found, TarConfig)
    assert {item.name for item in found.listing()[0].items} == names


def stylegan(labels: object, root: str = "") -> dict[str, bytes]:
    """The files of a set that StyleGAN's `dataset_tool.py` writes."""
    files = {f"{root}{i // 6:05d}/img{i:08d}.png": png for i, png in enumerate(PNGS)}
    return files | {f"{root}dataset.json": json.dumps({"labels": labels}).encode()}


@pytest.mark.parametrize("root", ["", "top/"])
@pytest.mark.parametrize("padding", [0, 2**21], ids=["small", "large"])
def test_a_dataset_json_defines_the_classes_as_in_a_folder(tmp_path: Path, root: str, padding: int) -> None:
    files = stylegan([[f"{i // 6:05d}/img{i:08d}.png", i % 3] for i in range(12)], root)
    files[f"{root}dataset.json"] += b" " * padding
    for order in (1, -1):
        write_tar(tmp_path / "a.tar", dict(list(files.items())[::order]))
        loaded = load_tar(tmp_path / "a.tar")
        assert labels_of(loaded) == ["0", "1", "2"] * 4
        assert loaded.notes[0].startswith("from dataset.json: 3 classes")


def test_a_dataset_json_may_say_that_there_are_no_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", stylegan(None))
    loaded = load_tar(tmp_path / "a.tar")
    assert loaded.train.classes == ()
    assert loaded.notes[0].startswith("dataset.json states that there are no labels")


def test_a_sample_may_be_called_dataset(tmp_path: Path) -> None:
    names = ["dataset", *map(str, range(11))]
    files = {f"{name}.png": png for name, png in zip(names, PNGS, strict=True)}
    files |= {f"{name}.json": json.dumps({"label": len(name) % 2}).encode() for name in names}
    write_tar(tmp_path / "a.tar", files)
    assert sorted(labels_of(load_tar(tmp_path / "a.tar"))) == sorted(str(len(name) % 2) for name in names)


def test_only_keys_with_classes_are_advised(tmp_path: Path) -> None:
    for values, note in (
        ({"caption": [1.5], "size": {}}, "the .json files have no label"),
        ({"caption": [1.5], "breed": "lynx"}, "the .json files have no label, unless data.label names one of breed"),
    ):
        files = {f"{i}.png": png for i, png in enumerate(PNGS)}
        write_tar(tmp_path / "a.tar", files | {f"{i}.json": json.dumps(values).encode() for i in range(12)})
        assert note in load_tar(tmp_path / "a.tar").notes


def test_of_files_of_one_name_the_last_one_is_used(tmp_path: Path) -> None:
    """As `tar --append` updates them."""
    write_tar(tmp_path / "a.tar", {f"{i}.png": PNGS[i] for i in range(4)} | {f"{i}.cls": b"old" for i in range(4)})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, content in (("0.png", PNGS[7]), ("./0.png", PNGS[8]), ("0.cls", b"new"), ("1.cls", b"new")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    loaded = load_tar(tmp_path / "a.tar")
    write_tar(tmp_path / "b.tar", {f"{i}.png": PNGS[8 if i == 0 else i] for i in range(4)})
    assert np.array_equal(pixels(loaded), pixels(load_tar(tmp_path / "b.tar")))
    assert labels_of(loaded) == ["new", "new", "old", "old"]
    assert "skipped 2 other files: 2 replaced by a later one of the same name" in loaded.notes


# ---- samples with several images -------------------------------------------------------------------------


def write_samples(path: Path, keys_of: list[list[str]], *, label: str = "cls") -> None:
    """Samples 0, 1, ..., each with a different image under each of its keys."""
    files: dict[str, bytes] = {}
    for i, keys in enumerate(keys_of):
        files |= {f"{i}.{key}": noise_png(100 * len(key) + i) for key in keys}
        files |= {f"{i}.{label}": b"%d" % (i % 2)} if label else {}
    write_tar(path, files)


@pytest.mark.parametrize("label", ["cls", ""])
@pytest.mark.parametrize(
    ("keys", "used", "note"),
    [
        (["jpg", "seg.png"], [["jpg"]] * 4, "under the key jpg; not used: 4 seg.png"),
        (["seg.png", "JPG"], [["JPG"]] * 4, "under the key jpg; not used: 4 seg.png"),
        (["mask.png", "image.png"], [["image.png"]] * 4, "under the key image.png; not used: 4 mask.png"),
        (["png", "jpg"], [["jpg"]] * 4, "under the key jpg; not used: 4 png"),
        (["depth.png", "jpg", "seg.png"], [["jpg"]] * 4, "under the key jpg; not used: 4 depth.png, 4 seg.png"),
    ],
)
def test_of_several_images_of_a_sample_the_usual_one_is_used(
    tmp_path: Path, label: str, keys: list[str], used: list[list[str]], note: str
) -> None:
    write_samples(tmp_path / "a.tar", [keys] * 4, label=label)
    write_samples(tmp_path / "b.tar", used, label=label)
    loaded, alone = (load_tar(tmp_path / name) for name in ("a.tar", "b.tar"))
    assert np.array_equal(pixels(loaded), pixels(alone))
    assert loaded.train.fingerprint == alone.train.fingerprint
    assert any(note in one for one in loaded.notes)
    assert not any("the images of the samples" in one for one in alone.notes)


def test_usual_names_that_no_sample_has_both_of_are_used_together(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.tar", [["jpg", "seg.png"], ["png", "seg.png"]] * 2)
    write_samples(tmp_path / "b.tar", [["jpg"], ["png"]] * 2)
    loaded = load_tar(tmp_path / "a.tar")
    assert loaded.train.fingerprint == load_tar(tmp_path / "b.tar").train.fingerprint
    assert any("under the keys jpg and png; not used: 4 seg.png" in note for note in loaded.notes)


@pytest.mark.parametrize("wanted", ["target.png", ".target.png", "TARGET.png"])
def test_the_key_of_the_images_may_be_given(tmp_path: Path, wanted: str) -> None:
    write_samples(tmp_path / "a.tar", [["input.png", "target.png"]] * 4)
    write_samples(tmp_path / "b.tar", [["target.png"]] * 4)
    loaded = load_tar(tmp_path / "a.tar", image=wanted)
    assert loaded.train.fingerprint == load_tar(tmp_path / "b.tar").train.fingerprint
    with pytest.raises(DataError, match=r"data\.image: no image has the key 'x', found 4 input\.png, 4 target\.png"):
        load_tar(tmp_path / "a.tar", image="x")


def test_the_key_may_be_a_number(tmp_path: Path) -> None:
    """Without it, images whose names differ by a number are samples of their own."""
    write_samples(tmp_path / "a.tar", [["0.png", "1.png"]] * 4)
    write_samples(tmp_path / "b.tar", [["0.png"]] * 4)
    loaded = load_tar(tmp_path / "a.tar", image="0.png")
    assert loaded.train.fingerprint == load_tar(tmp_path / "b.tar").train.fingerprint
    assert "the images of the samples are those under the key 0.png; not used: 4 1.png" in loaded.notes
    with_both = load_tar(tmp_path / "a.tar")
    assert with_both.train.fingerprint != loaded.train.fingerprint
    assert not any("the images of the samples" in note for note in with_both.notes)


def test_several_images_without_a_usual_name_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.tar", [["input.png", "target.png"]] * 4)
    message = (
        r'data\.image: several images .*, found 4 input\.png, 4 target\.png; .*: data\.image="input\.png"; if each'
    )
    with pytest.raises(DataError, match=message):
        load_tar(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("keys_of", "note"),
    [
        ([["jpg"], ["png"]] * 3, None),  # one image each
        ([["seg.png"]] * 6, None),
        ([["001.png", "002.png"]] * 3, None),  # numbers in names
        ([["2020.01.02.png", "2020-01-03.png"]] * 3, None),
        ([["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"]], None),  # keys that do not repeat
        ([["jpg", "edited.jpg"], ["jpg", "edited.jpg"], *[["jpg"]] * 3], "2 samples have several images, all of which"),
    ],
)
def test_other_images_are_all_used(tmp_path: Path, keys_of: list[list[str]], note: str | None) -> None:
    write_samples(tmp_path / "a.tar", keys_of)
    loaded = load_tar(tmp_path / "a.tar")
    assert len(pixels(loaded)) == sum(map(len, keys_of))
    assert [one for one in loaded.notes if "images, all of which" in one or "of the samples" in one] == [
        one for one in loaded.notes if note and one.startswith(note)
    ]
    assert note is None or any(one.startswith(note) for one in loaded.notes)
