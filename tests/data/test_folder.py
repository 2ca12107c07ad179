"""Folders: classes, ignored files, links, and every reason for which a folder cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages, has_note, load
from PIL import Image
from pydantic import ValidationError

from poise.data.folder import FolderConfig, Walk
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError


def trained(loaded: DataSplits) -> ImageDataset:
    assert isinstance(loaded.train, ImageDataset)
    return loaded.train


def test_a_flat_folder_has_no_classes(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 5)
    loaded = load(tmp_path)
    assert trained(loaded).images.shape == (5, 8, 8, 3)
    assert trained(loaded).labels is None
    assert loaded.train.classes == ()
    assert np.array_equal(trained(loaded).images[3], np.asarray(Image.open(tmp_path / "good-003.png")))


def test_first_level_folders_are_classes(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "dogs" / "small", 2)
    write_images(tmp_path / "dogs" / "large" / "old", 1)
    write_images(tmp_path / "cats", 3)
    write_images(tmp_path / "Zebras", 2)
    loaded = load(tmp_path)
    assert loaded.train.classes == ("Zebras", "cats", "dogs")
    assert trained(loaded).labels is not None
    assert trained(loaded).labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]  # type: ignore[union-attr]


def test_held_out_images_keep_their_labels(tmp_path: Path) -> None:
    for level, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("L", (8, 8), level * 80 + i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "b" / "bad.png").write_bytes(b"")
    loaded = load(tmp_path, held_out=0.4)
    assert isinstance(loaded.held_out, ImageDataset)
    assert (len(trained(loaded)), len(loaded.held_out)) == (18, 12)
    for part in (trained(loaded), loaded.held_out):
        assert part.classes == ("a", "b", "c")
        assert part.labels is not None
        assert np.array_equal(part.images[:, 0, 0, 0] // 80, part.labels)


def test_images_at_both_levels_have_no_classes(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 2)
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    loaded = load(tmp_path)
    assert trained(loaded).labels is None
    assert len(trained(loaded)) == 6
    assert has_note(loaded, "2 images at the top level and others in 2 folders: the folders are not treated as classes")


def test_a_single_sub_folder_is_not_a_class(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "only", 3)
    loaded = load(tmp_path)
    assert trained(loaded).labels is None
    assert has_note(loaded, "all images are in one folder, only: they have no classes")


def test_a_folder_without_usable_images_is_not_a_class(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 3)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.png").write_bytes(b"")
    (tmp_path / "top.png").write_bytes(b"")
    loaded = load(tmp_path)
    assert loaded.train.classes == ("a", "b")
    assert [bad.name for bad in loaded.bad_files] == ["c/x.png", "top.png"]


def test_other_files_are_counted(tmp_path: Path, write_images: WriteImages) -> None:
    """I18, I19."""
    write_images(tmp_path, 3)
    write_images(tmp_path / "__MACOSX", 2)
    write_images(tmp_path / ".cache", 2)
    (tmp_path / "sub").mkdir()
    for name in ("._x.jpg", ".DS_Store", "Thumbs.db", "a.txt", "sub/b.TXT", "README", "c.svg", "d.heic", "e.mp4"):
        (tmp_path / name).write_bytes(b"anything")
    loaded = load(tmp_path)
    assert loaded.bad_files == []
    assert len(trained(loaded)) == 3
    assert (
        "skipped 11 other files: 5 hidden, 2 .txt, 1 .heic, 1 .mp4, 1 .svg, 1 without suffix "
        "(convert .heic, .mp4, .svg to PNG to use them)"
    ) in loaded.notes


@pytest.mark.parametrize("follow", [False, True])
def test_links(tmp_path: Path, write_images: WriteImages, follow: bool) -> None:
    """I20."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write_images(inside / "a", 3)
    write_images(outside, 2)
    (outside / "up").symlink_to(tmp_path)
    (inside / "one.png").symlink_to(outside / "good-000.png")
    (inside / "all").symlink_to(outside)
    (inside / "again").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "a" / "same.png").symlink_to(inside / "a" / "good-000.png")
    loaded = load(inside, follow_links=follow)
    listing = Walk(inside, follow).listing()
    names = sorted(item.name for item in listing.items)
    names_inside = ["a/good-000.png", "a/good-001.png", "a/good-002.png", "a/same.png"]
    if follow:
        assert names == [*names_inside, "again/good-000.png", "again/good-001.png", "one.png"]
        assert loaded.bad_files == []
    else:
        assert names == names_inside
        assert [bad.name for bad in loaded.bad_files] == ["again", "all", "one.png"]
        assert {bad.reason for bad in loaded.bad_files} == {"a link out of the folder (data.follow_links)"}
    assert has_note(loaded, "links to visited folders")


@pytest.mark.parametrize(("name", "folder"), [("cats", True), ("one.png", False)])
def test_a_broken_link_without_suffix_is_taken_for_a_folder(
    tmp_path: Path, write_images: WriteImages, name: str, folder: bool
) -> None:
    write_images(tmp_path, 3)
    (tmp_path / name).symlink_to(tmp_path / "gone")
    loaded = load(tmp_path)
    assert loaded.bad_files == [(name, "a broken link")]
    assert has_note(loaded, "skipped 1 of 4 image files") != folder
    messages = [(one.message, one.cure) for one in loaded.warnings]
    expected = ("1 folder is skipped with all that is in it: cats (a broken link)", "repair or remove it")
    assert messages == [expected] * folder


def test_a_link_to_a_folder_inside_is_not_a_class(tmp_path: Path, write_images: WriteImages) -> None:
    """Also if the name of the link is sorted first: the images are found under the real folder's name."""
    write_images(tmp_path / "cats", 2)
    write_images(tmp_path / "dogs", 2)
    (tmp_path / "an alias").symlink_to(tmp_path / "dogs")
    assert load(tmp_path).train.classes == ("cats", "dogs")
    assert (
        sorted(item.name.split("/")[0] for item in Walk(tmp_path, follow=True).listing().items)
        == ["cats"] * 2 + ["dogs"] * 2
    )


@pytest.fixture
def deep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder deeper than Python's recursion limit, whose last image has a longer path than the system allows."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2100):
        Path("d").mkdir()
        os.chdir("d")
    Path("x.png").write_bytes(b"")
    yield tmp_path
    Path("x.png").unlink()
    for _ in range(2100):
        os.chdir("..")
        Path("d").rmdir()


def test_very_deep_folders(deep_folder: Path, write_images: WriteImages) -> None:
    """I26."""
    write_images(deep_folder, 2)
    write_images(deep_folder / "/".join(["e"] * 50), 2)
    loaded = load(deep_folder)
    assert len(trained(loaded)) == 4
    (bad,) = loaded.bad_files
    assert bad.name.startswith("d/d/d/")
    assert bad.reason.endswith("File name too long")


def test_an_unreadable_sub_folder_is_a_bad_file(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I22."""
    write_images(tmp_path, 3)
    write_images(tmp_path / "closed", 3)
    original = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", guarded)
    loaded = load(tmp_path)
    assert [tuple(bad) for bad in loaded.bad_files] == [("closed", "unreadable folder: Permission denied")]
    assert not has_note(loaded, "as invalid")
    (warning,) = loaded.warnings
    assert warning.message.endswith("it: closed (unreadable folder: Permission denied)")
    assert warning.cure == "make it readable, or remove it"
    assert len(trained(loaded)) == 3


def test_relative_paths_and_the_home_folder(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "p", 3)
    monkeypatch.chdir(tmp_path)
    assert len(trained(load("p"))) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(trained(load("~/p"))) == 3


def refused(path: Path | str) -> str:
    with pytest.raises(DataError) as raised:
        load(path)
    assert raised.value.exit_code == 3
    return str(raised.value)


def test_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused("no-such")
    assert message.startswith(
        "data.path: no such file or folder, found no-such; check the spelling; relative paths start at"
    )
    assert refused(tmp_path / "no-such").endswith("check the spelling")


@pytest.mark.parametrize(
    ("name", "cure"),
    [("x.zip", 'set data.kind = "zip"'), ("x.npz", 'set data.kind = "npz"'), ("x.png", "give the folder that")],
)
def test_a_file_instead_of_a_folder(tmp_path: Path, name: str, cure: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    message = refused(tmp_path / name)
    assert "this is a file, not a folder" in message
    assert cure in message


def test_a_folder_without_images(tmp_path: Path) -> None:
    """I23."""
    assert "there are no images in this folder, found nothing at all" in refused(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.heic").write_text("x")
    assert "found only 1 .heic, 1 .txt (convert .heic to PNG to use them)" in refused(tmp_path)


def test_a_folder_without_permission(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, 2)

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    assert "no permission to read this" in refused(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"path": ""},
        {"path": "a\0b"},
        {"held_out": 1.0},
        {"held_out": -0.1},
        {"max_bad": 1.1},
        {"channels": 5},
        {"background": "red"},
        {"size": 0},
        {"folow_links": True},
    ],
    ids=str,
)
def test_invalid_fields_are_rejected(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FolderConfig(**{"path": "x", **fields})  # type: ignore[arg-type]


class WindowsEntry:
    """An entry of a folder as Windows tells it: without device and inode."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path, self._entry = entry.name, entry.path, entry
        self.is_dir, self.is_symlink = entry.is_dir, entry.is_symlink

    def stat(self) -> os.stat_result:
        return without_inode(self._entry.stat())


def without_inode(status: os.stat_result) -> os.stat_result:
    named = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
    return os.stat_result([status.st_mode, 0, 0, *status[3:]], named | {"st_ino": 0, "st_dev": 0})


@pytest.mark.parametrize("inodes", [True, False], ids=["with inodes", "without any"])
def test_all_folders_are_read_on_windows(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch, inodes: bool
) -> None:
    for name in ("a", "b", "c/d"):
        write_images(tmp_path / "top" / name, 2)
    write_images(tmp_path / "out", 2)
    (tmp_path / "top" / "e").symlink_to(tmp_path / "out")
    (tmp_path / "top" / "f").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "out")
    plain = Walk(tmp_path / "top", follow=True).listing()
    scandir, stat = os.scandir, Path.stat

    @contextmanager
    def windows_scandir(path: Path) -> Iterator[list[WindowsEntry]]:
        with scandir(path) as entries:
            yield [WindowsEntry(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", windows_scandir)
    if not inodes:
        monkeypatch.setattr(Path, "stat", lambda path, **options: without_inode(stat(path, **options)))
    listing = Walk(tmp_path / "top", follow=True).listing()
    monkeypatch.undo()
    assert [item.name for item in listing.items] == [item.name for item in plain.items]
    assert listing.folders == plain.folders
    if inodes:
        assert [item.stamp for item in listing.items] == [item.stamp for item in plain.items]
