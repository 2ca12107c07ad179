"""Saves: the state of a run as safetensors and JSON, under a manifest of sizes and SHA-256 sums. No pickle.

A save is put together in a temporary folder beside its place, synced, renamed and read back before an
older one is let go. The newest *valid* one is chosen by its manifest; a damaged one is named and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from poise.errors import Diverged, SaveError

FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "MANIFEST.json"


@dataclass(frozen=True)
class Save:
    """A save that was read and found whole."""

    path: Path
    step: int
    manifest: dict[str, Any]
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def write(
    saves: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Write one save under `saves`.

    Raises:
        Diverged: a tensor holds a number that is not finite; nothing is written.
        OSError: the disk refused; no save of this name is left behind.
    """
    _refuse_non_finite(tensors)
    contents = {
        TENSORS: safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}),
        STATE: _json({"step": step, **state}),
    }
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    contents[MANIFEST] = _json({"format": FORMAT, "step": step, "files": files, **facts})
    place = saves / f"step-{step:08d}"
    temporary = saves / f".tmp-{step:08d}-{os.getpid()}"
    saves.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
        for name, data in contents.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync(temporary)
        if place.exists():
            shutil.rmtree(place)
        temporary.rename(place)
        sync(saves)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    check(place)
    return place


def check(place: Path) -> dict[str, Any]:
    """The manifest of a save whose files are all as it says.

    Raises:
        SaveError: says which file is damaged, and how.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        listed = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        step, version = int(manifest["step"]), int(manifest["format"])
    except FileNotFoundError:
        raise SaveError(f"has no {MANIFEST}", where=place.name) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SaveError(f"{MANIFEST} is damaged", where=place.name) from None
    if version > FORMAT:
        raise SaveError(f"made by a newer version of poise (format {version})", where=place.name)
    if set(listed) != {TENSORS, STATE}:
        raise SaveError(f"{MANIFEST} does not list {TENSORS} and {STATE}", where=place.name)
    for name, (size, digest) in listed.items():
        try:
            data = (place / name).read_bytes()
        except OSError:
            raise SaveError(f"{name} is missing", where=place.name) from None
        if len(data) != size:
            raise SaveError(f"{name} is cut: {len(data)} of {size} bytes", where=place.name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise SaveError(f"{name} is damaged: its SHA-256 is not the manifest's", where=place.name)
    return {**manifest, "step": step}


def read(place: Path) -> Save:
    """A save, checked.

    Raises:
        SaveError: it is not whole.
    """
    manifest = check(place)
    tensors = safetensors.torch.load((place / TENSORS).read_bytes())
    state = json.loads((place / STATE).read_bytes())
    return Save(place, manifest["step"], manifest, state, tensors)


def newest(saves: Path) -> tuple[Save | None, list[str]]:
    """The newest whole save, by the step in its manifest, and a sentence for every damaged one."""
    whole: list[tuple[int, Path]] = []
    damaged: list[str] = []
    for place in sorted(saves.glob("step-*")) if saves.is_dir() else []:
        try:
            whole.append((check(place)["step"], place))
        except SaveError as error:
            damaged.append(str(error))
    return (read(max(whole)[1]) if whole else None), damaged


def prune(saves: Path, keep: int) -> None:
    """Let go of all but the newest `keep` whole saves, and of what a killed run left half written.

    Damaged ones stay: they are evidence, and nothing loads them.
    """
    for left in saves.glob(".tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
    whole: list[tuple[int, Path]] = []
    for place in saves.glob("step-*"):
        try:
            whole.append((check(place)["step"], place))
        except SaveError:
            continue
    for _, place in sorted(whole)[:-keep]:
        shutil.rmtree(place, ignore_errors=True)


def step_of(place: Path) -> int | None:
    """The step that a save's folder is named for."""
    word = place.name.removeprefix("step-")
    return int(word) if word.isdecimal() else None


def drop(saves: Path, after: int) -> None:
    """Let go of the saves that are of a later step than `after`."""
    for place in saves.glob("step-*"):
        if (step := step_of(place)) is not None and step > after:
            shutil.rmtree(place, ignore_errors=True)


def sync(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    # the ledger's pending readings may be anything: they are what was seen, not what the run stands on
    if name := not_finite({name: tensor for name, tensor in tensors.items() if not name.startswith("ledger/")}):
        raise Diverged("is not finite any more", where=name, cure="no save was made of this state")


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The first tensor that is not all finite, by name; empty if there is none."""
    spoiled = (n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all()))
    return next(spoiled, "")
