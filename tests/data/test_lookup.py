"""The data that a name or a path refers to, and what is kept of the table that it replaces."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.core.config import find_components
from poise.data.config import DataConfig, ImageDataConfig
from poise.data.lookup import IDENTITY, data_config, data_table, kept_keys
from poise.data.vectors import VectorSetsConfig
from poise.errors import DataError

CONFIGS = {
    kind: config
    for kind, config in find_components(DataConfig, "poise.data").items()
    if not issubclass(config, VectorSetsConfig)  # `--data` does not refer to vectors
}
IMAGES = sorted(kind for kind, config in CONFIGS.items() if issubclass(config, ImageDataConfig))
TOYS = sorted(CONFIGS.keys() - set(IMAGES))
TWO_DOMAINS = ("domains", "pairs")
UNUSUAL = {
    "size": 64,
    "mirror": True,
    "channels": 4,
    "background": "black",
    "fit": "squeeze",
    "held_out": 0.3,
    "max_bad": 0.01,
    "follow_links": True,
    "download": False,
    "digits": "MNIST",
    "stack": 2,
    "count": 500,
    "sigma": 0.5,
    "modes": 3,
    "radius": 4.0,
    "side": 7,
    "step": 9.0,
    "arms": 5,
    "half_width": 5.0,
    "source": "right",
    "task": "fonts",
    "most_frequent": 5,
    "normalisation": ["centre"],
    "vocabulary": 50,
    "dim": 3,
    "clusters": 9,
    "zipf": 0.5,
    "spread": 0.25,
    "noise": 0.5,
    "draw": 7,
    "labels": "thickness",
    "image": "photo",
    "label": "breed",
    "split": "val",
}
"""A value other than the default for every key."""


def unusual(kind: str) -> dict[str, object]:
    """A table of a kind in which no key has its default."""
    fields = CONFIGS[kind].model_fields
    keys = fields.keys() - set(IDENTITY)
    assert keys <= UNUSUAL.keys(), f"{kind} has keys without an unusual value: {keys - UNUSUAL.keys()}"
    assert all(fields[key].default != UNUSUAL[key] for key in keys)
    return {"kind": kind, **{key: UNUSUAL[key] for key in sorted(keys)}}


@pytest.fixture
def values(tmp_path: Path) -> dict[str, str]:
    """For each kind a value of `--data` that refers to such data."""
    (tmp_path / "folder").mkdir()
    for name in ("new.png", "new.tar", "new.parquet"):
        (tmp_path / name).write_bytes(b"unread")
    np.savez(tmp_path / "new.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("a.txt", "nothing")
    paths = {
        "folder": "folder",
        "npz": "new.npz",
        "zip": "new.zip",
        "tar": "new.tar",
        "parquet": "new.parquet",
        "density": "new.png",
    }
    values = {kind: str(tmp_path / path) for kind, path in paths.items()}
    values |= {kind: f"{kind}:{tmp_path / 'new.npz'}" for kind in TWO_DOMAINS}
    return {kind: kind for kind in CONFIGS} | values | {"torchvision": "cifar10"}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_data_of_the_same_kind_keeps_all_keys(
    kind: str, values: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    previous = unusual(kind) | {key: "old" for key in ("path", "dataset") if key in CONFIGS[kind].model_fields}
    table = data_table(values[kind], previous)
    identity = {key: table.pop(key) for key in IDENTITY if key in table}
    assert identity.pop("kind") == kind
    assert "old" not in identity.values()
    assert table == {key: value for key, value in previous.items() if key not in IDENTITY}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("new", IMAGES)
@pytest.mark.parametrize("old", IMAGES)
def test_images_of_another_kind_keep_what_they_have_and_the_rest_is_named(
    old: str, new: str, values: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    if old == new:
        return
    stated = f"{new}:" if CONFIGS[old].two_domains and new in ("folder", "npz", "zip") else ""  # type: ignore[attr-defined]
    table = data_table(f"{stated}{values[new]}", unusual(old))
    shared = (CONFIGS[old].model_fields.keys() & CONFIGS[new].model_fields.keys()) - set(IDENTITY)
    assert {key: value for key, value in table.items() if key not in IDENTITY} == {key: UNUSUAL[key] for key in shared}
    assert {"size", "mirror"} <= shared
    err, dropped = capsys.readouterr().err, CONFIGS[old].model_fields.keys() - shared - set(IDENTITY)
    assert len(err.splitlines()) == bool(dropped)
    assert all(f"data.{key}" in err for key in dropped)
    assert not dropped or f"data of kind '{new}'" in err


@pytest.mark.parametrize("old", sorted(CONFIGS))
def test_a_toy_keeps_nothing_of_other_data_and_images_nothing_of_a_toy(old: str) -> None:
    for new in TOYS if old in IMAGES else sorted(CONFIGS.keys() - {old}):
        assert kept_keys(unusual(old), new) == ({}, [])


def test_a_default_of_the_old_kind_gives_way_to_that_of_the_new_one() -> None:
    """The canonical form of a recipe states every key, which no one has decided."""
    defaults = {"kind": "torchvision", "dataset": "MNIST", "size": 32, "fit": "pad", "download": True}
    assert kept_keys(defaults, "folder") == ({}, [])
    assert kept_keys(defaults, "torchvision")[0] == {"size": 32, "fit": "pad", "download": True}


def test_a_table_that_is_none_is_left_to_the_decoder(values: dict[str, str]) -> None:
    assert data_table("digits", None) == {"kind": "digits"}
    assert data_table("digits", {"kind": "unheard of", "size": 8, "colour": 1}) == {"kind": "digits", "size": 8}
    assert data_table("digits", 3) == {"kind": "digits"}  # type: ignore[arg-type]


def test_a_config_is_replaced_in_the_same_way(values: dict[str, str]) -> None:
    before = CONFIGS["folder"].model_validate({"path": "old", "held_out": 0.4, "background": "black"})
    after = data_config(values["zip"], before)  # type: ignore[arg-type]
    assert (after.tag(), after.held_out, after.background) == ("zip", 0.4, "black")  # type: ignore[attr-defined]


# ---------------------------------------------------------------- two domains


def npz_of(path: Path, **arrays: int) -> str:
    """An npz file with arrays of so many images."""
    np.savez(path, **{name: np.zeros((n, 4, 4), np.uint8) for name, n in arrays.items()})  # type: ignore[arg-type]
    return str(path)


def folder_of(path: Path, **files: str) -> str:
    """A folder with sub-folders that hold these files; none of them is read."""
    for folder, names in files.items():
        (path / folder).mkdir(parents=True, exist_ok=True)
        for name in names.split():
            (path / folder / name).write_bytes(b"")
    return str(path)


FOUND: dict[str, tuple[dict[str, Any], str, str, list[str]]] = {
    "an npz of equal lengths": ({"a": 3, "b": 3}, "pairs", "a and b have 3 images each", ["domains"]),
    "an npz of other lengths": ({"a": 3, "b": 4}, "domains", "a has 3 images and b 4", []),
    "an npz with images": ({"a": 3, "b": 3, "images": 3}, "", "", []),
    "an npz with one domain": ({"a": 3}, "", "", []),
    "common names": (
        {"a": "1.png 2.png", "b": "1.jpg 2.jpg 3.jpg"},
        "pairs",
        "2 of 3 file names are in both of them",
        ["domains", "folder"],
    ),
    "capitals": ({"A": "1.png", "B": "1.png"}, "pairs", "1 of 1 file names are in both of them", ["domains", "folder"]),
    "other names": (
        {"a": "1.png 2.png", "b": "x.jpg y.jpg"},
        "domains",
        "0 of 2 file names are in both of them",
        ["folder"],
    ),
    "few common names": (
        {"a": "1.png 2.png 3.png", "b": "1.jpg x.jpg y.jpg"},
        "domains",
        "1 of 3 file names are in both of them",
        ["pairs", "folder"],
    ),
    "sets of different sizes that are numbered alike": (
        {"a": "0.png 1.png 2.png 3.png", "b": "0.png 1.png"},
        "domains",
        "2 of 4 file names are in both of them",
        ["pairs", "folder"],
    ),
    "an empty domain": ({"a": "1.png", "b": ""}, "domains", "0 of 1 file names are in both of them", ["folder"]),
    "classes within the domains": (
        {"a/x": "1.png 2.png", "b/x": "1.png", "b/y": "2.png"},
        "domains",
        "1 of 2 file names are in both of them",
        ["pairs", "folder"],
    ),
    "what encloses everything, and what is no image": (
        {"set/a": "1.png", "set/b": "1.png", "set": "notes.txt .hidden"},
        "pairs",
        "1 of 1 file names are in both of them",
        ["domains", "folder"],
    ),
    "images beside them": ({"a": "1.png", "b": "1.png", "": "2.png"}, "", "", []),
    "a third folder": ({"a": "1.png", "b": "1.png", "c": "1.png"}, "", "", []),
    "CycleGAN's splits": (
        {"trainA": "1.png", "trainB": "1.png", "testA": "2.png", "testB": "2.png"},
        "domains",
        "its folders are called trainA and trainB",
        ["pairs", "folder"],
    ),
    "no split to train on": ({"testA": "1.png", "testB": "1.png"}, "", "", []),
    "pix2pix's splits": ({"train": "1.png", "val": "2.png"}, "", "", []),
    "two classes": ({"cats": "1.png", "dogs": "2.png"}, "", "", []),
}


def zip_of(path: Path, folder: str) -> str:
    """A zip archive of a folder, empty folders included."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(Path(folder).rglob("*")):
            archive.write(file, file.relative_to(folder))
    return str(path)


CONTAINERS = {name: ["npz"] if name.startswith("an npz") else ["folder", "zip"] for name in FOUND}


@pytest.mark.parametrize(("name", "ordinary"), [(name, kind) for name, kinds in CONTAINERS.items() for kind in kinds])
def test_what_is_taken_for_two_domains_is_said_with_the_reason_and_the_other_kinds_that_it_can_be(
    name: str, ordinary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, found, reason, others = FOUND[name]
    path = npz_of(tmp_path / "d.npz", **content) if ordinary == "npz" else folder_of(tmp_path / "d", **content)
    if ordinary == "zip":
        path = zip_of(tmp_path / "d.zip", path)
        others = [kind.replace("folder", "zip") for kind in others]
    assert data_table(path) == {"kind": found or ordinary, "path": path}
    err = capsys.readouterr().err
    assert bool(err) == bool(found)
    assert f"{reason}: it is read as {found}" in err or not found
    kinds = ("pairs", "domains", "npz", "folder", "zip")
    assert [kind for kind in kinds if f"--data {kind}:{path}" in err] == [kind for kind in kinds if kind in others]
    assert data_table(path, two_domains=False) == {"kind": ordinary, "path": path}
    for kind in ("pairs", "domains", ordinary):
        assert data_table(f"{kind}:{path}") == {"kind": kind, "path": path}
        assert capsys.readouterr().err == "", "what the user states is not said again"
        of_recipe = kind if kind != "npz" else found or "npz"
        assert data_table(path, {"kind": kind})["kind"] == of_recipe, "a recipe decides how a folder is read"
        err = capsys.readouterr().err
        if kind in ("pairs", "domains"):
            assert (f"is read as {kind}, as the recipe demands, although" in err) == (kind in others)


def test_a_stated_kind_needs_an_existing_path_and_a_path_may_contain_a_colon(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data, found 'pairs:"):
        data_table(f"pairs:{tmp_path / 'nothing'}")
    with pytest.raises(DataError, match="no such data"):
        data_table("digits:5")
    (tmp_path / "pairs:x").mkdir()
    assert data_table(str(tmp_path / "pairs:x"))["kind"] == "folder"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "--data: the name of the data is empty; .* for the current folder, give ."),
        ("x" * 300, "--data: can't be read: File name too long"),
        ("vectors", "--data: no such data, found 'vectors'; known: cifar10, "),
        ("link", "--data: this link leads nowhere, found 'link', a link to gone"),
        ("~nobody-has-this-name/x", "--data: no such data, found '~nobody-has-this-name/x'"),
    ],
    ids=["empty", "long", "vectors", "link", "user"],
)
def test_what_refers_to_no_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("gone")
    with pytest.raises(DataError, match=message):
        data_config(value)


@pytest.mark.parametrize("name", ["new.png", "new.tar", "new.parquet", "new.npz", "new.zip", "folder"])
def test_a_linked_file_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], name: str
) -> None:
    target = tmp_path / "blobs" / "3fe2a1"
    target.parent.mkdir()
    (tmp_path / name).rename(target)
    (tmp_path / "outer").symlink_to(tmp_path)
    (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path / "blobs")
    expected = target if name == "folder" else tmp_path / name
    assert data_table(f"{tmp_path}/outer/{name}")["path"] == str(expected)
    assert data_table(f"../{name}")["path"] == str(expected)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """A shell does not expand it in `--data=~/folder`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_table("~/folder") == data_table(values["folder"])
    assert data_table("pairs:~/new.npz") == data_table(values["pairs"])


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("x.npy", r"save .*np.savez\(path, images=images\)"),
        ("x.tar.gz", r"decompress it first \(gunzip\)"),
        ("x.csv", "give the folder .* or a file that ends in .zip .npz .tar .parquet .arrow"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_remedy(tmp_path: Path, name: str, cure: str) -> None:
    (tmp_path / name).write_bytes(b"unread")
    with pytest.raises(DataError, match=f"this is a file, not a folder, found .*; {cure}"):
        data_config(str(tmp_path / name)).load()


@pytest.mark.parametrize("damage", ["scalars", "text", "encrypted"])
def test_an_npz_that_may_have_two_domains_and_is_damaged(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array(1), b=np.array(2))
    if damage == "text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "x")
            archive.writestr("b", "y")
    if damage == "encrypted":
        path.write_bytes(path.read_bytes().replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"))
    with pytest.raises(DataError, match=r"data\.path: "):
        data_config(str(path)).load()


MIXED = {
    "an archive beside class folders": ("backup.tar", "cats/1.png", "tar"),
    "the metadata of an image folder": ("train/metadata.parquet", "train/1.png", "parquet"),
    "metadata above the classes": ("metadata.parquet", "train/cats/1.JPG", "parquet"),
    "an archive beside the images": ("old.arrow", "1.webp", "parquet"),
}


@pytest.mark.parametrize("case", MIXED)
def test_images_are_never_left_out_because_shards_lie_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    shard, image, kind = MIXED[case]
    for name in (shard, image):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"unread")
    assert data_config(str(tmp_path)).kind == "folder"
    note = f"note: --data {tmp_path} has images and {Path(shard).suffix} files: the images are read; "
    assert capsys.readouterr().err == f"{note}for the files give --data {kind}:{tmp_path}\n"
    assert data_config(f"{kind}:{tmp_path}").kind == kind
    assert data_table(str(tmp_path), {"kind": kind})["kind"] == kind, "as the recipe demands"
    assert capsys.readouterr().err == ""


def test_folders_of_shards_are_recognised_beside_what_is_no_image(tmp_path: Path) -> None:
    for name in ("README.md", ".hidden.png", "cache-1.arrow", ".git/1.png", "data/train-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"unread")
    assert data_config(str(tmp_path)).kind == "parquet"
    (tmp_path / "data" / "1.tar").write_bytes(b"unread")
    assert data_config(str(tmp_path)).kind == "tar"
    assert data_table(str(tmp_path), {"kind": "parquet"})["kind"] == "parquet"
    (tmp_path / "deep" / "er" / "still").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "still" / "1.png").write_bytes(b"unread")
    assert data_config(str(tmp_path)).kind == "tar", "no shard would be found there either"
