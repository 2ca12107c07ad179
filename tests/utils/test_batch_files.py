"""Many files at once, and files that libraries open by name: each has its old content or its new one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from poise.errors import DiskError
from poise.utils.batch_files import atomic_path, write_files
from poise.utils.system import system


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail_at(monkeypatch: pytest.MonkeyPatch, method: str, number: int, at: int) -> None:
    """Make one system call fail once, at its `at`-th call from 0."""
    real, calls = getattr(system, method), [0]

    def refused(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 == at:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(system, method, refused)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an old file, and a sub-folder."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "sub").mkdir()
    return tmp_path


NEW = {"a": b"new", "b": b"", "sub/c": bytes(range(256)) * 9000}


def test_files_of_several_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "write", errno.EINTR, 0)
    write_files({folder / name: data for name, data in NEW.items()})
    assert contents(folder) == NEW
    write_files({})
    assert contents(folder) == NEW


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("method", ["open", "write", "fsync", "replace"])
def test_a_failure_leaves_each_file_old_or_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, at: int
) -> None:
    fail_at(monkeypatch, method, errno.ENOSPC, at)
    with pytest.raises(DiskError, match="No space left") as raised:
        write_files({folder / name: data for name, data in NEW.items()})
    assert str(folder) in str(raised.value)
    found = contents(folder)
    assert found.pop("a") in (b"old", b"new")
    assert found.items() <= NEW.items()


def test_a_library_writes_by_name(folder: Path) -> None:
    with atomic_path(folder / "a") as temporary:
        temporary.write_bytes(b"new")
        assert (folder / "a").read_bytes() == b"old"
    (folder / "link").symlink_to("sub/c")
    with atomic_path(folder / "link") as temporary:
        temporary.write_bytes(b"linked")
    assert (folder / "link").is_symlink()
    assert contents(folder) == {"a": b"new", "link": b"linked", "sub/c": b"linked"}


@pytest.mark.parametrize("method", ["fsync", "replace"])
def test_a_failed_library_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    with pytest.raises(ZeroDivisionError), atomic_path(folder / "a") as temporary:
        assert temporary.write_bytes(b"half") / 0
    fail_at(monkeypatch, method, errno.EIO, 0)
    with pytest.raises(DiskError, match=os.strerror(errno.EIO)), atomic_path(folder / "a") as temporary:
        temporary.write_bytes(b"new")
    assert contents(folder) == {"a": b"old"}
    with pytest.raises(DiskError, match="not a regular file"), atomic_path(folder / "sub"):
        pass
