"""Files are written atomically, whatever error a system call raises, and leave no temporary files behind."""

from __future__ import annotations

import ast
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.core.metrics_log import check_alarm, read_jsonl
from poise.errors import CheckpointError, DiskError, RecipeError
from poise.utils import temporary
from poise.utils.files import (
    append_line,
    open_atomic,
    remove_folder,
    sync_folder,
    write_bytes,
    write_folder,
    write_text,
)
from poise.utils.locks import file_lock
from poise.utils.system import system
from poise.utils.temporary import remove_leftovers, temporary_name

SRC = Path(__file__).parents[2] / "src" / "poise"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(monkeypatch: pytest.MonkeyPatch, method: str, number: int, times: int = 1) -> list[int]:
    """Make a system call fail a number of times."""
    real, left = getattr(system, method), [times]

    def refused(*arguments: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(system, method, refused)
    return left


# ---- whole files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("method", ["open", "write", "fsync", "replace"])
def test_failed_write_keeps_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    write_text(tmp_path / "a.json", "old")
    with monkeypatch.context() as patch:
        failing(patch, method, number)
        with pytest.raises(DiskError, match=os.strerror(number)) as raised:
            write_text(tmp_path / "a.json", "new")
    assert str(tmp_path / "a.json") in str(raised.value)
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("method", ["open", "write", "fsync", "replace", "mkdir", "rename"])
def test_interrupted_call_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    left = failing(monkeypatch, method, errno.EINTR, times=3)
    write_text(tmp_path / "a", "new")
    append_line(tmp_path / "lines", {"step": 1})
    write_folder(tmp_path / "folder", {"b": b"new"})
    assert left == [0]
    assert ((tmp_path / "a").read_text(), (tmp_path / "folder" / "b").read_bytes()) == ("new", b"new")
    assert names(tmp_path) == ["a", "folder", "lines"]


def short(handle: int, data: Any) -> int:
    """A system that writes three bytes at a time."""
    return os.write(handle, bytes(data)[:3])


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "write", short)
    data = bytes(range(256)) * 20
    write_bytes(tmp_path / "a", data)
    append_line(tmp_path / "lines", {"words": "ä" * 30})
    write_folder(tmp_path / "folder", {"b": data})
    with open_atomic(tmp_path / "c.npz") as stream:
        np.savez_compressed(stream, images=np.arange(99))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "folder" / "b").read_bytes() == data
    assert json.loads((tmp_path / "lines").read_text()) == {"words": "ä" * 30}
    assert np.load(tmp_path / "c.npz")["images"].tolist() == list(range(99))


def test_libraries_write_through_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would bypass a stream that has a file descriptor."""
    frames = [Image.new("L", (64, 64), shade) for shade in range(9)]
    with open_atomic(tmp_path / "a.gif") as stream:
        frames[0].save(stream, "gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 9
    failing(monkeypatch, "write", errno.ENOSPC, times=99)
    for save in (
        lambda stream: frames[0].save(stream, "gif", save_all=True, append_images=frames[1:]),
        lambda stream: frames[0].save(stream, "png"),
        lambda stream: np.savez_compressed(stream, images=np.arange(10_000)),
    ):
        with pytest.raises(DiskError, match="No space left"), open_atomic(tmp_path / "b.gif") as stream:
            save(stream)
    assert names(tmp_path) == ["a.gif"]


def test_error_in_block_keeps_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def broken() -> None:
        with open_atomic(tmp_path / "a") as stream:
            stream.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_symlink_is_kept_and_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_text(tmp_path / "real" / "a", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    messages: list[bytes] = []
    reader = threading.Thread(target=lambda: messages.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_text(tmp_path / "pipe", "new")
    reader.join(5)
    assert messages == [b"new"]


def test_file_name_of_255_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / ("ä" * 120 + ".toml"), "new")
    assert len(names(tmp_path)) == 1


# ---- folders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mkdir", "open", "write", "fsync", "rename"])
def test_folder_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        failing(patch, method, errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            write_folder(tmp_path / "there" / "save", {"a": b"1", "b": b"2"})
    assert names(tmp_path / "there") == []
    write_folder(tmp_path / "there" / "save", {"a": b"1", "b": b"2"})
    assert names(tmp_path / "there" / "save") == ["a", "b"]


@pytest.mark.parametrize("method", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_folder_that_can_not_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    folder = tmp_path / "there" / "model"
    write_folder(folder, {"a": b"old"})
    with monkeypatch.context() as patch:
        failing(patch, method, errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            write_folder(folder, {"a": b"new", "b": b"new"})
    assert (names(folder.parent), names(folder), (folder / "a").read_bytes()) == (["model"], ["a"], b"old")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_the_old_folder_is_back_if_the_new_one_can_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_folder(tmp_path / "model", {"a": b"old"})
    rename, calls = system.rename, list[Path]()

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise error
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(system, "rename", second_fails)
        with pytest.raises(type(error)):
            write_folder(tmp_path / "model", {"a": b"new"})
    assert len(calls) == 3
    assert (names(tmp_path), (tmp_path / "model" / "a").read_bytes()) == (["model"], b"old")
    write_folder(tmp_path / "model", {"a": b"new"})
    assert (names(tmp_path), (tmp_path / "model" / "a").read_bytes()) == (["model"], b"new")


def test_deleted_folder_disappears_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is renamed before its contents are deleted, so that a kill in between leaves a temporary folder."""
    write_folder(tmp_path / "save", {"a": b"1", "b": b"2"})
    with monkeypatch.context() as patch:
        failing(patch, "unlink", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            remove_folder(tmp_path / "save")
    assert not (tmp_path / "save").exists()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


# ---- lines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_line_that_does_not_fit_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    append_line(tmp_path / "rows.jsonl", {"step": 1})
    before = (tmp_path / "rows.jsonl").read_bytes()
    taken: list[int] = []

    def full(handle: int, data: Any) -> int:
        if taken:
            raise OSError(number, os.strerror(number))
        taken.append(os.write(handle, bytes(data)[:5]))
        return 5

    with monkeypatch.context() as patch:
        patch.setattr(system, "write", full)
        with pytest.raises(DiskError, match=r"rows\.jsonl"):
            append_line(tmp_path / "rows.jsonl", {"step": 2})
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("torn", "kept"), [('{"step": 2, "im', [1]), ('{"step": 2}', [1, 2]), ("\x00\x00", [1]), ("", [1])]
)
def test_incomplete_line_is_repaired_before_the_next_one(tmp_path: Path, torn: str, kept: list[int]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n' + torn)
    append_line(path, {"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*kept, 3]


ALARM = {"step": 1, "detector": "a", "level": "note", "message": "m", "advice": "x", "tip": "T01"}


def alarms(path: Path, *lines: object) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


@pytest.mark.parametrize(
    "damage",
    [b"{\n", b"\xff\xfe\n", b"[1]\n", b"3\n", b"null\n", b"\x00" * 9 + b"\n", b'{"step": "7"}\n', b"[" * 9999 + b"\n"],
)
def test_damaged_line_is_reported(tmp_path: Path, damage: bytes) -> None:
    path = alarms(tmp_path / "alarms.jsonl", ALARM, damage, ALARM | {"step": 9})
    with pytest.raises(CheckpointError, match="line 2 is damaged") as raised:
        read_jsonl(path, check_alarm)
    assert f"{path}:2" in str(raised.value)
    assert read_jsonl(path, check_alarm, until=1) == [ALARM]
    assert read_jsonl(path, check_alarm, limit=1) == [ALARM]
    with pytest.raises(CheckpointError, match="line 2"):
        read_jsonl(path, check_alarm, until=9)


@pytest.mark.parametrize("key", [*ALARM])
def test_line_with_wrong_types_is_reported(tmp_path: Path, key: str) -> None:
    for wrong in (None, [], 1.5, {}):
        path = alarms(tmp_path / "alarms.jsonl", ALARM | {key: wrong}, ALARM)
        with pytest.raises(CheckpointError, match="line 1 is damaged"):
            read_jsonl(path, check_alarm)
    short = {name: result for name, result in ALARM.items() if name != key}
    with pytest.raises(CheckpointError, match="line 2 is damaged"):
        read_jsonl(alarms(tmp_path / "alarms.jsonl", ALARM, short), check_alarm)


# ---- what the system does not have ---------------------------------------------------------------------

UNSUPPORTED = [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY]


@pytest.mark.parametrize("number", UNSUPPORTED)
def test_file_system_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = system.fsync

    def files_only(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(system, "fsync", files_only)
    write_text(tmp_path / "a", "new")
    write_folder(tmp_path / "save", {"b": b"1"})
    assert names(tmp_path) == ["a", "save"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTSUP])
def test_file_system_that_cannot_open_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def files_only(path: Any, flags: int, *mode: int) -> int:
        if os.path.isdir(path):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", files_only)
    write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_other_disk_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing(monkeypatch, "fsync", number)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)


def refuse(number: int) -> Callable[[int], bool]:
    def lock(handle: int) -> bool:
        raise OSError(number, os.strerror(number))

    return lock


@pytest.mark.parametrize("number", [*UNSUPPORTED, errno.ENOLCK])
def test_file_system_without_locks_gives_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(system, "lock", refuse(number))
    with file_lock(tmp_path / "run.lock", "--out x") as note:
        assert "does not support locks" in note
        assert os.strerror(number) in note


def test_lock_error_contains_system_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "lock", refuse(errno.EIO))
    with pytest.raises(DiskError, match="Input/output error"), file_lock(tmp_path / "run.lock", "--out x"):
        pass


def test_holder_of_lock_is_named_and_its_end_releases_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from poise.utils.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "run.lock"
    words, pipe = [sys.executable, "-c", code, path], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as rival:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "held\n"
        message = f"another run is writing to this folder, found process {rival.pid} on"
        for _ in range(2):  # being refused does not wipe out the name
            with pytest.raises(RecipeError, match=message), file_lock(path, "--out x"):
                pass
        rival.kill()
    with file_lock(path, "--out x") as note:
        assert note == ""


# ---- left over -----------------------------------------------------------------------------------------


def test_leftovers_of_ended_processes_only_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getppid()):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        (tmp_path / temporary_name("a.json")).write_text("half")
        (tmp_path / temporary_name("other")).write_text("half")
    monkeypatch.undo()
    (tmp_path / ".tmp-mine").write_text("a user's")
    write_text(tmp_path / "a.json", "whole")
    left = [name for name in names(tmp_path) if name != "a.json"]
    assert len(left) == 4, "only what was to be this file, by somebody who is dead"
    assert not any(f"-{gone.pid}-a.json" in name for name in left)
    remove_leftovers(tmp_path)  # by whoever holds the lock
    assert names(tmp_path) == ["a.json"]


def test_leftovers_of_another_machine_are_removed_after_a_day(tmp_path: Path) -> None:
    half = tmp_path / ".tmp-zzzz-4711-a.json"
    half.write_text("half")
    write_text(tmp_path / "a.json", "whole")
    assert half.exists()
    old = half.stat().st_mtime - temporary.MAX_AGE - 60
    os.utime(half, (old, old))
    write_text(tmp_path / "a.json", "whole")
    assert not half.exists()


# ---- nobody writes past it -----------------------------------------------------------------------------

WRITERS = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "mkdir", "rmtree", "unlink", "rmdir"}
WRITERS |= {"rename", "copytree", "copyfile", "truncate", "makedirs", "symlink_to", "touch", "imsave", "save_file"}
HOMES = {"utils/files.py", "utils/batch_files.py", "utils/system.py", "utils/temporary.py", "utils/locks.py"}
ALLOWED = {
    ("utils/plotting.py", "savefig"),  # into memory
    ("utils/video.py", "open"),  # below a temporary name of `atomic_path`
    ("cli/project.py", "savez_compressed"),  # into a stream of `open_atomic`
    ("cli/sample.py", "savez_compressed"),  # into a stream of `open_atomic`
    ("alignment/record.py", "savez"),  # into a stream of `open_atomic`
    ("data/word_vectors.py", "savez"),  # into a stream of `open_atomic`
    ("export/load.py", "truncate"),  # latents
    ("runs/run.py", "truncate"),  # latents
}


def writes(path: Path) -> list[str]:
    """The calls in a module that may write to a disk."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        method, alone = getattr(node.func, "attr", ""), getattr(node.func, "id", "")
        if method in WRITERS:
            found.append(method)
        given = (*node.args, *(keyword.value for keyword in node.keywords))
        words = [word.value for word in given if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        if "open" in (method, alone) and any(set(word) <= set("rwabxt+") and set(word) & set("wax+") for word in words):
            found.append("open")
    return found


def test_no_other_module_writes_files() -> None:
    inside = {path.relative_to(SRC).as_posix(): path for path in sorted(SRC.rglob("*.py"))}
    calls = {(name, call) for name, path in inside.items() if name not in HOMES for call in writes(path)}
    assert calls - set(ALLOWED) == set()


def test_no_module_needs_fcntl_or_resource() -> None:
    for path in SRC.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            words = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            assert "fcntl" not in words, path
            assert "resource\n" not in f"{words}\n", path
