"""Mirrors of folders in an object store: what is fetched, what is left out, and what is said about errors."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from poise.errors import DiskError, RecipeError
from poise.utils import remote as remote_module
from poise.utils.object_store import without_secrets
from poise.utils.paths import refuse_url, url_of
from poise.utils.remote import RemoteFolder, with_urls

ALL = re.compile(r".*")
STORE = "memory://bucket/runs"


class Traffic:
    """The files that were fetched whole, and the ranges that were read, since the last look."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.whole: list[str] = []
        self.ranges: list[int] = []
        kind = fsspec.get_filesystem_class("memory")
        get_file, cat_file = kind.get_file, kind.cat_file

        def counted_get(fs: Any, rpath: str, lpath: str, **more: Any) -> Any:
            self.whole.append(rpath.rpartition("/")[2])
            return get_file(fs, rpath, lpath, **more)

        def counted_cat(fs: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> Any:
            self.ranges.append((end or 0) - (start or 0))
            return cat_file(fs, path, start=start, end=end, **more)

        patch.setattr(kind, "get_file", counted_get)
        patch.setattr(kind, "cat_file", counted_cat)

    def look(self) -> tuple[list[str], list[int]]:
        found = sorted(self.whole), self.ranges[:]
        self.whole.clear()
        self.ranges.clear()
        return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_wanted_and_only_what_has_changed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/run.json", "x/recipe.toml", "x/big.bin", "y/run.json"):
        store.pipe(f"/bucket/runs/{name}", name.encode())
    wanted, traffic = re.compile(r"[xy]/(run\.json|recipe\.toml)"), Traffic(monkeypatch)
    remote = RemoteFolder(STORE)
    remote.refresh(wanted)
    assert traffic.look() == (["recipe.toml", "run.json", "run.json"], [])
    assert files(remote.local) == {name: name.encode() for name in ("x/run.json", "x/recipe.toml", "y/run.json")}
    remote.refresh(wanted)
    again = RemoteFolder(STORE)  # another process
    again.refresh(wanted)
    assert traffic.look() == ([], [])
    store.pipe("/bucket/runs/x/run.json", b"X/RUN.JSON")  # as long as before
    store.rm("/bucket/runs/y", recursive=True)
    again.refresh(wanted)
    assert traffic.look() == (["run.json"], [])
    assert files(again.local) == {"x/run.json": b"X/RUN.JSON", "x/recipe.toml": b"x/recipe.toml"}
    assert not (again.local / "y").exists()
    assert abs((again.local / "x/run.json").stat().st_mtime - time.time()) < 60
    (again.local / "x/run.json").write_bytes(b"a mirror that was damaged")
    again.refresh(wanted)
    assert traffic.look() == (["run.json"], [])


def test_a_store_without_versions_is_read_each_time(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same size may be another one."""
    kind = fsspec.get_filesystem_class("memory")
    find = kind.find

    def bare(fs: Any, *args: Any, **more: Any) -> Any:
        found = find(fs, *args, **more)
        known = ("name", "size", "type")
        return {name: {key: info[key] for key in known} for name, info in found.items()}

    monkeypatch.setattr(kind, "find", bare)
    for content in (b"step 1000", b"step 2000"):
        store.pipe("/bucket/runs/x/run.json", content)
        remote = RemoteFolder(STORE)
        remote.refresh(ALL)
        assert files(remote.local) == {"x/run.json": content}


def test_of_a_log_only_the_new_lines(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f'{{"step": {n}, "text": "{"x" * 90}"}}\n'.encode() for n in range(100)]
    path, traffic = "/bucket/runs/rows.jsonl", Traffic(monkeypatch)
    remote = RemoteFolder(STORE)
    for count in (40, 41, 100):
        store.pipe(path, b"".join(lines[:count]))
        remote.refresh(ALL)
        inode = (remote.local / "rows.jsonl").stat().st_ino
        assert (remote.local / "rows.jsonl").read_bytes() == b"".join(lines[:count])
    line, mark = len(lines[50]), remote_module.MARK
    assert traffic.look() == (["rows.jsonl"], [mark + line, mark + 59 * line])
    assert (remote.local / "rows.jsonl").stat().st_ino == inode, "followers of the file read on"
    rolled_back = lines[:90] + [line.replace(b"x", b"y") for line in lines[90:]] + lines[:5]
    store.pipe(path, b"".join(rolled_back))
    remote.refresh(ALL)
    assert (remote.local / "rows.jsonl").read_bytes() == b"".join(rolled_back)
    assert traffic.look()[0] == ["rows.jsonl"]


def test_files_on_demand_are_empty_until_then(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe("/bucket/runs/samples/1.png", b"one")
    store.pipe("/bucket/runs/samples/2.png", b"two")
    remote, traffic = RemoteFolder(STORE), Traffic(monkeypatch)
    nothing, grids = re.compile("nothing"), re.compile(r"samples/.*")
    remote.refresh(nothing, grids)
    assert files(remote.local) == {"samples/1.png": b"", "samples/2.png": b""}
    remote.fetch("samples/2.png", "samples/3.png", "../../etc/passwd")
    remote.fetch("samples/2.png")
    remote.refresh(nothing, grids)
    assert files(remote.local) == {"samples/1.png": b"", "samples/2.png": b"two"}
    assert traffic.look() == (["2.png"], [])


HOSTILE = (
    "../escaped/run.json",
    "x/../../escaped/run.json",
    "x//run.json",
    "x/./run.json",
    ".hidden/run.json",
    "x\\..\\y/run.json",
    "x\0/run.json",
    "x\x1b[31m/run.json",
    f"{'x' * 300}/run.json",
    "a/run.json",  # beside a file "a"
)


def test_names_that_are_no_paths_below_the_folder_are_left_out(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*HOSTILE, "a", "good/run.json", "ünïcode/run.json"]
    infos = {f"/bucket/runs/{name}": {"type": "file", "size": 2, "created": 1.0} for name in names}
    infos["/bucket/runs/link/run.json"] = {"type": "file", "size": 2, "created": 1.0, "islink": True}
    kind = fsspec.get_filesystem_class("memory")
    monkeypatch.setattr(kind, "find", lambda *args, **more: infos)
    monkeypatch.setattr(kind, "get_file", lambda fs, source, target: Path(target).write_bytes(b"{}"))
    remote = RemoteFolder(STORE)
    before = set(remote.local.parent.parent.parent.rglob("*"))
    remote.refresh(ALL)
    assert remote.names() == ["a", "good/run.json", "ünïcode/run.json"]
    assert set(files(remote.local)) == set(remote.names())
    new = set(remote.local.parent.parent.parent.rglob("*")) - before
    assert all(path.is_relative_to(remote.local.parent) for path in new)


def test_a_file_that_vanishes_while_it_is_fetched(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe("/bucket/runs/run.json", b"{}")
    store.pipe("/bucket/runs/old.json", b"{}")
    kind = fsspec.get_filesystem_class("memory")
    get_file = kind.get_file

    def vanishing(fs: Any, source: str, target: str, **more: Any) -> Any:
        if source.endswith("old.json"):
            raise FileNotFoundError(source)
        return get_file(fs, source, target, **more)

    monkeypatch.setattr(kind, "get_file", vanishing)
    remote = RemoteFolder(STORE)
    remote.refresh(ALL)
    assert files(remote.local) == {"run.json": b"{}"}


class NoCredentialsError(Exception):
    """As botocore has one."""


class EndpointConnectionError(Exception):
    """As botocore has one."""


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (PermissionError("Access Denied"), ("denies the access", "Access Denied", "credentials")),
        (NoCredentialsError("Unable to locate credentials"), ("no valid credentials", "AWS_PROFILE")),
        (EndpointConnectionError('"https://me:pass@host/b?sig=abcdef"'), ("can't be reached", "network")),
        (TimeoutError(), ("can't be reached",)),
        (OSError(28, "No space left on device"), ("disk is full", "POISE_CACHE")),
        (ValueError("odd, with hunter22 and https://me:pass@host/b?sig=abcdef in it"), ("ValueError: odd, with ***",)),
    ],
)
@pytest.mark.parametrize("call", ["find", "get_file"])
def test_errors_say_what_to_do_and_no_secrets(
    store: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, parts: tuple[str, ...], call: str
) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise error

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    store.pipe("/bucket/runs/run.json", b"{}")
    remote = RemoteFolder(STORE)
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), call, fail)
    with pytest.raises(DiskError) as raised:
        remote.refresh(ALL)
    for part in parts:
        assert part in str(raised.value)
    for secret in ("hunter22", "pass", "abcdef"):
        assert secret not in str(raised.value)
    assert files(remote.local) == {}, "nothing is left half fetched"


def test_missing_packages(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="not a known kind of object store, found nothing://"):
        RemoteFolder("nothing://bucket/x")
    registry = importlib.import_module("fsspec.registry")
    absent = {"class": "absent_store.FileSystem", "err": "install absent_store"}
    monkeypatch.setitem(registry.known_implementations, "absent", absent)
    with pytest.raises(RecipeError, match=r"needs the package absent_store.*pip install absent_store"):
        RemoteFolder("absent://me:secret@bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(RecipeError, match=r"pip install 'poise\[remote\]'"):
        RemoteFolder(STORE)


def test_unused_mirrors_are_deleted(store: Any) -> None:
    store.pipe("/bucket/runs/run.json", b"{}")
    old, used = RemoteFolder(STORE), RemoteFolder("memory://bucket")
    for remote in (old, used):
        remote.refresh(ALL)
    long_ago = time.time() - (remote_module.UNUSED_DAYS + 1) * 86400
    os.utime(old.local.parent / "index.json", (long_ago, long_ago))
    used = RemoteFolder("memory://bucket")
    assert not old.local.exists()
    assert used.local.exists()


def test_much_is_announced(store: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(remote_module, "LARGE", 1_000_000)
    for name in "ab":
        store.pipe(f"/bucket/runs/{name}", bytes(600_000))
    RemoteFolder(STORE).refresh(ALL)
    RemoteFolder(STORE).refresh(ALL)
    assert capsys.readouterr() == ("", f"fetching 1 MB from {STORE} into the cache folder\n")


def test_the_cache_may_be_deleted_at_any_time(store: Any) -> None:
    store.pipe("/bucket/runs/run.json", b"{}")
    remote = RemoteFolder(STORE)
    for _ in range(2):
        remote.refresh(ALL)
        assert files(remote.local) == {"run.json": b"{}"}
        shutil.rmtree(remote.local.parent.parent)


@pytest.mark.parametrize("make", [str, Path])
def test_urls_survive_pathlib(make: type[str] | type[Path]) -> None:
    for url in ("s3://bucket/runs/x", "memory://x", "gs://bucket", "file:///tmp/x", "az://c@account/x"):
        assert url_of(make(url)) == url
    for local in ("runs/x", "/tmp/s3:/x", "C:/x", "C:\\x", "x", ".", "a:b", "~/s3:"):
        assert url_of(make(local)) is None
    assert url_of(make("S3://bucket/x/")) == "s3://bucket/x"
    with pytest.raises(RecipeError, match=r"--out: poise reads object stores .*found 's3://b/x'; .*aws s3 sync"):
        refuse_url(make("s3://me:secret@b/x?token=1"))
    refuse_url(make("runs/x"))


def test_texts_name_the_url_and_no_secrets(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteFolder("memory://me:pass@bucket/runs?key=1")
    assert with_urls(f"{remote.local}/run.json: is damaged") == "memory://bucket/runs/run.json: is damaged"
    monkeypatch.setenv("MY_TOKEN", "abcdefgh")
    assert without_secrets("x abcdefgh s3://u:p@b/c?d=e, f") == "x *** s3://b/c f"
