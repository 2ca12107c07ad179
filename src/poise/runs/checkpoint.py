"""Saves: the state of a run as safetensors and JSON, under a manifest of sizes and SHA-256 sums. No pickle.

A save is put together in a temporary folder beside its place, synced, renamed and read back before an
older one is let go. The newest *valid* one is chosen; a damaged one is named and passed over. The manifest carries a
checksum of itself, so that nothing that is read back can change unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from poise.core.metrics_log import check_count
from poise.errors import CheckpointError, Diverged
from poise.utils.files import remove_folder, write_folder
from poise.utils.temporary import remove_leftovers

FORMAT = 2
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "MANIFEST.json"


@dataclass(frozen=True)
class Checkpoint:
    """A save that was read and found whole."""

    path: Path
    step: int
    manifest: dict[str, Any]
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def write(
    saves: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
    constant: Collection[str] = (),
) -> Path:
    """Write one save under `saves`.

    Args:
        saves: the folder of the saves.
        step: steps done.
        tensors: by name; what has two names, or two places in one memory, is stored so that it can be read back.
        state: goes with them, as JSON.
        facts: what the save stands on, for the manifest.
        constant: names of tensors that need not be finite (a mask of -inf).

    Raises:
        Diverged: a tensor holds a number that is not finite; nothing is written.
        OSError: the disk refused; no save of this name is left behind.
    """
    _refuse_non_finite(tensors, constant)
    stored, aliases = unshare(tensors)
    contents = {TENSORS: safetensors.torch.save(stored), STATE: _json({"step": step, **state})}
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    own = {"format": FORMAT, "step": step, "files": files, "aliases": aliases}
    told = own | {name: fact for name, fact in facts.items() if name not in own and name != "sha256"}
    place = saves / f"step-{step:08d}"
    write_folder(place, contents | {MANIFEST: seal_manifest(told)})
    verify(place)
    return place


def unshare(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no memory, and which of the others is which of these.

    Of tensors that are the very same memory (tied weights, a layer with two names) the first is stored. Views of one
    memory that differ are copied.
    """
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[object, str] = {}
    memories: set[tuple[torch.device, int]] = set()
    for name, tensor in tensors.items():
        own = tensor.detach()
        memory = own.device, own.untyped_storage().data_ptr()
        if own.numel():
            same = (*memory, own.storage_offset(), own.shape, own.stride(), own.dtype)
            if (known := first.setdefault(same, name)) != name:
                aliases[name] = known
                continue
        packed = own.contiguous()
        if own.numel() and packed.untyped_storage().data_ptr() == memory[1]:
            packed = packed.clone() if memory in memories else packed
            memories.add(memory)
        stored[name] = packed
    return stored, aliases


def seal_manifest(told: Mapping[str, Any]) -> bytes:
    """A manifest as its file has it, with the SHA-256 of all the rest of it at its end."""
    return _json({**told, "sha256": hashlib.sha256(_json(told)).hexdigest()})


def verify(place: Path) -> dict[str, Any]:
    """The manifest of a save whose files are all as it says.

    Raises:
        CheckpointError: says which file is damaged, and how.
    """
    manifest, listed = _manifest(place)
    for name, (size, digest) in listed.items():
        try:
            data = (place / name).read_bytes()
        except OSError:
            raise CheckpointError(f"{name} is missing", where=place.name) from None
        if len(data) != size:
            raise CheckpointError(f"{name} is cut: {len(data)} of {size} bytes", where=place.name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError(f"{name} is damaged: its SHA-256 is not the manifest's", where=place.name)
    return manifest


def _manifest(place: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """The manifest, and size and checksum of each file that it lists."""
    damaged = CheckpointError(f"{MANIFEST} is damaged", where=place.name)
    try:
        raw = (place / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        step, version = check_count(manifest["step"]), check_count(manifest["format"])
        if version > FORMAT:
            raise CheckpointError(f"made by a newer version of poise (format {version})", where=place.name)
        if version > 1 and raw != seal_manifest({name: told for name, told in manifest.items() if name != "sha256"}):
            raise damaged
        listed = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        _ = dict(manifest.setdefault("aliases", {}))
    except FileNotFoundError:
        raise CheckpointError(f"has no {MANIFEST}", where=place.name) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    if version < 1 or step != step_of(place):
        raise CheckpointError(
            f"{MANIFEST} says step {step} in format {version}, in a folder of this name", where=place.name
        )
    if set(listed) != {TENSORS, STATE}:
        raise CheckpointError(f"{MANIFEST} does not list {TENSORS} and {STATE}", where=place.name)
    return manifest, listed


def read(place: Path) -> Checkpoint:
    """A save, checked.

    Raises:
        CheckpointError: it is not whole, or holds what no save does.
    """
    manifest = verify(place)
    try:
        tensors = safetensors.torch.load((place / TENSORS).read_bytes())
        tensors |= {str(name): tensors[stored] for name, stored in manifest["aliases"].items()}
    except Exception as error:  # the reader raises whatever it happens to meet
        raise CheckpointError(f"{TENSORS} can't be read: {error}", where=place.name) from None
    try:
        state = json.loads((place / STATE).read_bytes())
        if check_count(state["step"]) != manifest["step"]:
            raise ValueError
        if not 0 <= float(state["seconds"]) < float("inf"):
            raise ValueError
        _ = check_count(state.get("setbacks", 0)), check_count(state.get("alarms") or 0), str(state.get("recipe", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{STATE} is damaged: it is not the state of step {manifest['step']}", where=place.name
        ) from None
    return Checkpoint(place, manifest["step"], manifest, state, tensors)


def valid_checkpoints(saves: Path, damaged: list[str]) -> Iterator[Checkpoint]:
    """The whole saves, the newest first; a sentence for every one that was passed over goes into `damaged`."""
    places = [(step, place) for place in saves.glob("step-*") if (step := step_of(place)) is not None]
    for _, place in sorted(places, reverse=True):
        try:
            found = read(place)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        yield found


def newest_valid(saves: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole save, and a sentence for every newer one that is damaged."""
    damaged: list[str] = []
    return next(valid_checkpoints(saves, damaged), None), damaged


def prune(saves: Path, keep: int) -> None:
    """Let go of all but the newest `keep` whole saves, and of what a killed run left half written.

    Damaged ones stay: they are evidence, and nothing loads them.
    """
    remove_leftovers(saves)
    kept: list[tuple[int, Path]] = []
    for place in saves.glob("step-*"):
        with suppress(CheckpointError):
            kept.append((verify(place)["step"], place))
    for _, place in sorted(kept)[:-keep]:
        _let_go(place)


def step_of(place: Path) -> int | None:
    """The step that a save's folder is named for."""
    word = place.name.removeprefix("step-")
    return int(word) if word.isdecimal() else None


def delete_after(saves: Path, after: int) -> None:
    """Let go of the saves that are of a later step than `after`."""
    for place in saves.glob("step-*"):
        if (step := step_of(place)) is not None and step > after:
            _let_go(place)


def _let_go(place: Path) -> None:
    with suppress(OSError):  # what can't be removed is in nobody's way
        remove_folder(place)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _refuse_non_finite(tensors: Mapping[str, Tensor], constant: Collection[str]) -> None:
    # the ledger's pending readings may be anything: they are what was seen, not what the run stands on
    if name := first_non_finite(
        {n: t for n, t in tensors.items() if not n.startswith("ledger/") and n not in constant}
    ):
        raise Diverged("is not finite", where=name, cure="no save was made of this state")


def first_non_finite(tensors: Mapping[str, Tensor]) -> str:
    """The first tensor that is not all finite, by name; empty if there is none."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), "")


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds no number that is not finite; waits for the device."""
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())
