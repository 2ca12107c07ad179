"""What the user is told of files and folders that can't be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from image_helpers import WriteImages, load

from poise.data.source import BadFile, SkippedFolder
from poise.data.unusable_files import MAX_FOLDERS, count_unusable, folder_warning
from poise.errors import DataError
from poise.training.run_info import bad_image_notes


def test_max_bad(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 3)
    for i in range(4):
        (tmp_path / f"bad-{i}.png").write_bytes(b"")
    message = (
        "data.path: 4 of 7 image files can't be used: bad-0.png (an empty file), bad-1.png (an empty file), "
        "bad-2.png (an empty file), ...; repair or remove them, or raise data.max_bad, which is 0.5"
    )
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    assert str(raised.value) == message
    assert raised.value.exit_code == 3
    assert len(load(tmp_path, max_bad=0.6).bad_files) == 4
    (tmp_path / "bad-0.png").unlink()
    assert len(load(tmp_path).bad_files) == 3


@pytest.fixture
def half_lost(tmp_path: Path, write_images: WriteImages) -> Path:
    """Two classes, and links to two more."""
    for name in ("set/dogs", "set/zebras", "disk/cats", "disk/birds"):
        write_images(tmp_path / name, 4)
    for name in ("cats", "birds"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "disk" / name)
    return tmp_path / "set"


def test_skipped_folders_are_a_warning_and_not_counted_as_files(half_lost: Path) -> None:
    (half_lost / "dogs" / "bad.png").write_bytes(b"")
    loaded = load(half_lost, max_bad=0.12)
    assert "skipped 1 of 9 image files as invalid" in loaded.notes
    (warning,) = loaded.warnings
    assert warning.message == (
        "2 folders are skipped with all that is in them: birds, cats (a link out of the folder (data.follow_links))"
    )
    assert warning.cure == "set data.follow_links=true to follow the links out of the folder"
    assert not load(half_lost, follow_links=True).warnings


def test_the_cure_counts_the_links_that_can_be_followed(half_lost: Path) -> None:
    (half_lost / "cats").unlink()
    (half_lost / "cats").symlink_to(half_lost / "nowhere")
    (warning,) = load(half_lost).warnings
    assert "birds (a link out of the folder (data.follow_links)), cats (a broken link)" in warning.message
    assert warning.cure == "set data.follow_links=true to follow the link out of the folder"
    lines = bad_image_notes(load(half_lost).bad_files)
    assert lines[1] == "skipped folder: cats: a broken link"


def test_nothing_but_skipped_folders_is_refused_with_the_cure(half_lost: Path) -> None:
    for name in ("dogs", "zebras"):
        shutil.rmtree(half_lost / name)
    with pytest.raises(
        DataError, match=r"no images outside of skipped folders, found 2 skipped folders: birds, cats"
    ) as e:
        load(half_lost)
    assert e.value.cure == "set data.follow_links=true to follow the links out of the folder"


@pytest.mark.parametrize("links", [True, False])
def test_too_many_bad_files_get_the_cure_for_their_reason(
    tmp_path: Path, write_images: WriteImages, links: bool
) -> None:
    write_images(tmp_path / "set", 2)
    write_images(tmp_path / "disk", 1)
    for i in range(3):
        path = tmp_path / "set" / f"more-{i}.png"
        path.symlink_to(tmp_path / "disk" / "good-000.png") if links else path.write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 5 image files can't be used: more-0\.png \(") as e:
        load(tmp_path / "set")
    repair = "repair or remove them, or raise data.max_bad, which is 0.5"
    assert e.value.cure == ("set data.follow_links=true to follow the links out of the folder" if links else repair)


@pytest.mark.parametrize(
    ("files", "folders", "words"),
    [
        (0, 0, ""),
        (1, 0, "1 bad image file"),
        (2, 0, "2 bad image files"),
        (0, 1, "1 skipped folder"),
        (1, 2, "1 bad image file and 2 skipped folders"),
    ],
)
def test_files_and_folders_are_counted_apart(files: int, folders: int, words: str) -> None:
    assert count_unusable([BadFile("a", "damaged")] * files + [SkippedFolder("b", "unreadable")] * folders) == words


def test_the_first_skipped_folders_are_named_and_a_shared_reason_once() -> None:
    folders = [SkippedFolder(str(n), "unreadable: denied" if n else "a broken link") for n in range(MAX_FOLDERS + 1)]
    (warning,) = folder_warning(folders)
    assert warning.message == (
        "9 folders are skipped with all that is in them: "
        "0 (a broken link), 1, 2, 3, 4, 5, 6, 7 (unreadable: denied), ..."
    )
    assert warning.cure == "repair or remove them"
    (warning,) = folder_warning(folders[1:2])
    assert warning.cure == "make it readable, or remove it"
