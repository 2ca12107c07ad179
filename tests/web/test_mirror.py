"""The live page of runs in an object store that are trained elsewhere."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from poise.runs.remote_runs import open_remote_runs
from poise.utils.remote import RemoteFolder
from poise.web.mirror import MirrorRefresher
from web.running import Running, answer
from web.sites import lines, make_run, row


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a store, with two runs in it."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    make_run(tmp_path / "bucket" / "runs" / "ring", state="running", step=0)
    make_run(tmp_path / "bucket" / "runs" / "deep" / "digits", recipe="dcgan", name="dcgan")
    return tmp_path / "bucket"


def opened(bucket: Path) -> RemoteFolder:
    remote = open_remote_runs(Path(f"file://{bucket}/runs"))
    assert remote is not None
    return remote


def get(page: Running, address: str) -> Any:
    with page.connect() as client:
        client.sendall(page.request(address, "Connection: close\r\n"))
        head, _, body = answer(client).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return json.loads(body) if status == 200 and b"json" in head.lower() else (status, body)


def test_a_run_is_followed(bucket: Path) -> None:
    remote, said = opened(bucket), list[str]()
    rows = bucket / "runs" / "ring" / "rows.jsonl"
    with Running(remote.local, mirror=MirrorRefresher(remote, said.append, seconds=0.05)) as page:
        overview = get(page, "/api/overview")
        assert overview["directory"] == "runs"
        runs = {run["name"]: run for run in overview["runs"]}
        assert {name: run["state"] for name, run in runs.items()} == {"ring": "running", "deep/digits": "done"}
        ring = runs["ring"]["id"]
        series = f"/api/runs/{ring}/series?names=d/adversarial"
        assert get(page, series)["last"] == 100
        with rows.open("a") as stream:
            stream.write(lines([row(110), row(120)]))
        deadline = time.monotonic() + 20
        while get(page, series)["last"] != 120:
            assert time.monotonic() < deadline, "the page did not follow"
            time.sleep(0.02)
        assert get(page, series)["rows"] == 12
        shutil.rmtree(bucket / "runs" / "deep")
        while len(get(page, "/api/overview")["runs"]) != 1:
            assert time.monotonic() < deadline, "the page shows a run that is gone"
            time.sleep(0.02)
    assert said == []


def test_grids_are_fetched_when_they_are_looked_at(bucket: Path) -> None:
    remote = opened(bucket)
    mirrored = remote.local / "ring" / "samples"
    assert {path.name: path.stat().st_size for path in mirrored.iterdir()} == {
        "step-00000000.png": 0,
        "step-00000100.png": 0,
    }
    with Running(remote.local, mirror=MirrorRefresher(remote, print, seconds=60)) as page:
        ring = next(run for run in get(page, "/api/overview")["runs"] if run["name"] == "ring")
        png = (bucket / "runs" / "ring" / "samples" / "step-00000100.png").read_bytes()
        assert get(page, f"/api/runs/{ring['id']}/grids/100") == (200, png)
        assert (mirrored / "step-00000000.png").stat().st_size == 0
        assert get(page, f"/api/runs/{ring['id']}/grids/7")[0] == 404
        (bucket / "runs" / "ring" / "samples" / "step-00000000.png").unlink()
        assert get(page, f"/api/runs/{ring['id']}/grids/0")[0] == 404


def test_frames_are_fetched_when_their_run_is_looked_at(bucket: Path) -> None:
    for run in ("ring", "deep/digits"):
        (bucket / "runs" / run / "frames.bin").write_bytes(b"frames")
    remote = opened(bucket)
    refresher = MirrorRefresher(remote, print, seconds=60)
    with Running(remote.local, mirror=refresher) as page:
        ring = next(run for run in get(page, "/api/overview")["runs"] if run["name"] == "ring")
        assert ring["frames"]
        assert (remote.local / "ring" / "frames.bin").read_bytes() == b""
        assert get(page, f"/api/runs/{ring['id']}")["id"] == ring["id"]
        assert (remote.local / "ring" / "frames.bin").read_bytes() == b"frames"
        (bucket / "runs" / "ring" / "frames.bin").write_bytes(b"new frames")
        refresher.look()
    assert (remote.local / "ring" / "frames.bin").read_bytes() == b"new frames"
    assert (remote.local / "deep" / "digits" / "frames.bin").read_bytes() == b""


def test_a_store_that_is_away_for_a_while(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, said = opened(bucket), list[str]()
    refresher, kind = MirrorRefresher(remote, said.append), fsspec.get_filesystem_class("file")

    def refuse(*args: Any, **more: Any) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as away:
        away.setattr(kind, "find", refuse)
        refresher.look()
        refresher.look()
    refresher.look()
    refresher.look()
    assert len(said) == 2, "each change is told once"
    assert "can't be reached" in said[0]
    assert said[1].endswith("can be read again")
    assert (remote.local / "ring" / "run.json").is_file()
