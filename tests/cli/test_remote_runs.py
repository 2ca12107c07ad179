"""Commands that read runs in an object store: the same results as from a folder, with few files fetched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import poise
from poise.errors import RecipeError
from poise.utils.remote import RemoteFolder


class Store:
    """An object store in memory with runs in it."""

    def __init__(self, name: str) -> None:
        self.url, self.fs = f"memory://{name}", fsspec.filesystem("memory")

    def put(self, folder: Path, name: str) -> str:
        """Copy a run folder into the store; returns its URL."""
        self.fs.put(f"{folder}/", f"{self.url}/{name}", recursive=True)
        return f"{self.url}/{name}"

    def content(self) -> dict[str, bytes]:
        return {path: self.fs.cat_file(path) for path in self.fs.find(self.url)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path.name)
    yield store
    store.fs.store.clear()
    store.fs.pseudo_dirs[:] = [""]


def mirrored(url: str) -> set[str]:
    """The files with content in the mirror of a URL."""
    local = RemoteFolder(url).local
    return {p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file() and p.stat().st_size}


def test_samples_are_those_of_the_folder(poise: Any, store: Store, ring_run: Path) -> None:
    url, before = store.put(ring_run, "runs/ring"), store.content()
    for run, out in ((ring_run, "local.npz"), (url, "remote.npz")):
        result = poise("sample", run, "--npz", out)
        assert result.code == 0, result.err
    assert Path("remote.npz").read_bytes() == Path("local.npz").read_bytes()
    newest = max(path.name for path in (ring_run / "saves").iterdir())
    checkpoints = {path.parent.relative_to(ring_run).as_posix() for path in ring_run.rglob("MANIFEST.json")}
    small = {f"{path}/{name}.json" for path in checkpoints for name in ("MANIFEST", "state")}
    expected = {"run.json", "recipe.toml", "measures.jsonl", f"saves/{newest}/tensors.safetensors"} | small
    assert mirrored(url) == expected
    assert poise("sample", url, "--best", "--npz", "best.npz").code == 0
    assert poise("interpolate", url, "--out", "i.png").code == 0
    assert poise("export", url, "--out", "g.safetensors").code == 0
    measured = [json.loads(poise("measure", run, "--measures", "modes", "--json").out) for run in (ring_run, url)]
    assert measured[0] == measured[1]
    assert store.content() == before


def test_rows_are_those_of_the_store(store: Store, ring_copy: Path) -> None:
    """Now, and after the run has gone on."""
    url = store.put(ring_copy, "ring")
    assert poise.Run(url).rows == poise.Run(ring_copy).rows != []
    with (ring_copy / "rows.jsonl").open("a") as file:
        file.write(json.dumps(poise.Run(ring_copy).rows[-1] | {"step": 99}) + "\n")
    store.put(ring_copy, "ring")
    assert poise.Run(url).rows == poise.Run(ring_copy).rows
    assert poise.Run(url).rows[-1]["step"] == 99


def test_run_of_a_script(store: Store, ring_run: Path) -> None:
    url = store.put(ring_run, "ring")
    assert np.array_equal(poise.Run(url).sample(5), poise.Run(ring_run).sample(5))
    assert np.array_equal(poise.Run(Path(url)).sample(5), poise.Run(ring_run).sample(5))


@pytest.mark.parametrize("missing", ["tensors.safetensors", "MANIFEST.json"])
def test_a_checkpoint_that_is_half_uploaded(poise: Any, store: Store, ring_copy: Path, missing: str) -> None:
    saves = sorted((ring_copy / "saves").iterdir())
    (saves[-1] / missing).unlink()
    if missing == "MANIFEST.json":
        content = (saves[-1] / "tensors.safetensors").read_bytes()
        (saves[-1] / "tensors.safetensors").write_bytes(content[: len(content) // 2])
    url = store.put(ring_copy, "ring")
    result = poise("sample", url, "--npz", "x.npz")
    assert result.code == 0, result.err
    assert f"skipped a damaged checkpoint: {saves[-1].name}" in result.err
    result = poise("sample", ring_copy, "--npz", "y.npz")
    assert Path("x.npz").read_bytes() == Path("y.npz").read_bytes()


def test_a_damaged_run_is_named_by_its_url(poise: Any, store: Store, ring_copy: Path) -> None:
    (ring_copy / "run.json").write_text("{")
    url = store.put(ring_copy, "ring")
    poise("sample", url, "--npz", "x.npz").assert_error(4, f"{url}/run.json: is damaged")
    [found] = json.loads(poise("runs", store.url, "--json").out)
    assert (found["state"], found["path"]) == ("damaged", url)
    assert found["reason"].startswith(f"{url}/run.json")


def test_overview_logs_and_comparison(poise: Any, store: Store, ring_run: Path, digits_run: Path) -> None:
    url = store.put(ring_run, "runs/ring")
    store.put(digits_run, "runs/study/runs/abc")
    runs = json.loads(poise("runs", f"{store.url}/runs", "--json").out)
    assert {run["name"]: (run["state"], run["path"]) for run in runs} == {
        "ring": ("done", url),
        "study/runs/abc": ("done", f"{store.url}/runs/study/runs/abc"),
    }
    assert not any(name.endswith((".safetensors", ".png")) for name in mirrored(f"{store.url}/runs"))
    local, remote = (json.loads(poise("watch", run, "--json").out) for run in (ring_run, url))
    assert local == remote
    assert poise("watch", url).out.startswith(f"{url}: 4 rows")
    compared = json.loads(poise("compare", url, ring_run, "--json").out)
    assert compared["a"] == compared["b"] | {"path": url}
    images = store.put(digits_run, "digits")
    result = [
        poise("compare", run, digits_run, "--n", 16, "--measures", "kid", "--json") for run in (images, digits_run)
    ]
    assert result[0].out == result[1].out, result[0].err


def test_a_run_that_is_trained_elsewhere(poise: Any, store: Store, ring_copy: Path) -> None:
    info = json.loads((ring_copy / "run.json").read_text())
    (ring_copy / "run.json").write_text(json.dumps(info | {"state": "running"}))
    (ring_copy / "run.lock").write_text(f"process {os.getpid()} on another-machine")
    shutil.copytree(ring_copy, ring_copy.parent / "runs" / "now")
    quiet = shutil.copytree(ring_copy, ring_copy.parent / "runs" / "quiet")
    for path in quiet.rglob("*"):
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    found = json.loads(poise("runs", f"file://{ring_copy.parent}/runs", "--json").out)
    assert {run["name"]: run["state"] for run in found} == {"now": "running", "quiet": "interrupted"}
    assert found[1]["changed"] == pytest.approx(time.time() - 1000, abs=60)


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("sample RUN", "--out"),
        ("sample RUN --out s3://b/x.png", "--out"),
        ("sample RUN --npz s3://b/x.npz", "--npz"),
        ("interpolate RUN", "--out"),
        ("project RUN x.png", "--out"),
        ("export RUN", "--out"),
        ("watch RUN --plot s3://b/x.png", "--plot"),
        ("measure RUN --neighbours s3://b/x.png", "--neighbours"),
        ("train ring --out s3://b/x", "--out"),
        ("train --resume --out s3://b/x", "--out"),
        ("train --init-from s3://b/x", "--init-from"),
        ("web s3://b/runs --playground", "--playground"),
        ("align --resume --out s3://b/x", "--out"),
        ("ladder --out s3://b/x", "--out"),
    ],
)
def test_nothing_is_written_to_a_store(poise: Any, store: Store, command: str, where: str) -> None:
    result = poise(*command.replace("RUN", f"{store.url}/run").split())
    assert result.code == 2, result.err
    assert result.last.startswith(f"poise: {where}: ")
    assert "; " in result.last, "there is a cure"
    assert not list(Path().glob("s3*"))


def test_training_in_a_script_is_refused_too(store: Store) -> None:
    with pytest.raises(RecipeError, match="does not write to them"):
        poise.train("ring", out="s3://bucket/runs/x", progress=False)
    with pytest.raises(RecipeError, match="does not write to them"):
        poise.train(out=Path("s3://bucket/runs/x"), resume=True, progress=False)


def test_no_such_run(poise: Any, store: Store) -> None:
    for command in ("measure", "watch"):
        poise(command, f"{store.url}/none").assert_error(4, f"{store.url}/none", "not a run folder")
    for command in ("runs", "web"):
        poise(command, f"{store.url}/none").assert_error(2, f"{store.url}/none", "no such folder")
    assert not list((Path("cache") / "remote").glob("*")), "no empty mirror stays"
