"""A checkpoint: the state of a run as safetensors and JSON, with a manifest of sizes and SHA-256 sums. No pickle.

It is written to a temporary folder, synced, renamed to its final name and read back. The manifest contains a checksum
of itself, so that no change to any file goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from poise.core.metrics_log import check_count
from poise.errors import CheckpointError, Diverged
from poise.runs.changes import changes_from_json
from poise.utils.files import write_folder

FORMAT = 2
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "MANIFEST.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified.

    Attributes:
        path: its folder.
        step: the number of steps done.
        manifest: the contents of `MANIFEST.json`.
        state: the contents of `state.json`.
        tensors: the tensors by name.
    """

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
    info: Mapping[str, Any],
    allowed_non_finite: Collection[str] = (),
) -> Path:
    """Write one checkpoint and return its folder.

    Args:
        saves: the folder of the checkpoints.
        step: the number of steps done.
        tensors: the tensors by name; tensors that share memory are stored so that they can be read back.
        state: what is stored beside them as JSON.
        info: further entries of the manifest, such as the hashes of the recipe and of the data.
        allowed_non_finite: names of tensors that need not be finite, such as a mask of -inf.

    Raises:
        Diverged: a tensor is not finite; nothing is written.
        OSError: the disk refused; no checkpoint of this name is left behind.
    """
    _refuse_non_finite(tensors, allowed_non_finite)
    stored, aliases = unshare(tensors)
    contents = {TENSORS: safetensors.torch.save(stored), STATE: _json({"step": step, **state})}
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    required = {"format": FORMAT, "step": step, "files": files, "aliases": aliases}
    manifest = required | {name: fact for name, fact in info.items() if name not in required and name != "sha256"}
    path = saves / f"step-{step:08d}"
    write_folder(path, contents | {MANIFEST: seal_manifest(manifest)})
    verify(path)
    return path


def unshare(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no memory, and the names that are aliases of others.

    Of tensors that are identical in memory (tied weights, a layer with two names) the first is stored, and the others
    become aliases of it. Different views of the same memory are copied.
    """
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[object, str] = {}
    storages: set[tuple[torch.device, int]] = set()
    for name, shared in tensors.items():
        tensor = shared.detach()
        storage = tensor.device, tensor.untyped_storage().data_ptr()
        if tensor.numel():
            key = (*storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
            if (original := first.setdefault(key, name)) != name:
                aliases[name] = original
                continue
        packed = tensor.contiguous()
        if tensor.numel() and packed.untyped_storage().data_ptr() == storage[1]:
            packed = packed.clone() if storage in storages else packed
            storages.add(storage)
        stored[name] = packed
    return stored, aliases


def seal_manifest(manifest: Mapping[str, Any]) -> bytes:
    """The contents of a manifest file: the manifest and, as its last entry, the SHA-256 of the rest."""
    return _json({**manifest, "sha256": hashlib.sha256(_json(manifest)).hexdigest()})


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after comparing all files with it.

    Raises:
        CheckpointError: a file is damaged; names it.
    """
    manifest, listed = _manifest(path)
    for name, (size, digest) in listed.items():
        try:
            data = (path / name).read_bytes()
        except OSError:
            raise CheckpointError(f"{name} is missing", where=path.name) from None
        if len(data) != size:
            wrong = "is truncated" if len(data) < size else "is too long"
            raise CheckpointError(f"{name} {wrong}: {len(data):,} bytes instead of {size:,}", where=path.name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError(f"{name} is damaged: its SHA-256 differs from the manifest's", where=path.name)
    return manifest


def _manifest(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """The manifest, and the size and checksum of each file that it lists."""
    damaged = CheckpointError(f"{MANIFEST} is damaged", where=path.name)
    try:
        raw = (path / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        step, version = check_count(manifest["step"]), check_count(manifest["format"])
        if version > FORMAT:
            raise CheckpointError(f"written by a newer version of poise (format {version})", where=path.name)
        if version > 1 and raw != seal_manifest({name: entry for name, entry in manifest.items() if name != "sha256"}):
            raise damaged
        listed = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        _ = dict(manifest.setdefault("aliases", {}))
    except FileNotFoundError:
        raise CheckpointError(f"has no {MANIFEST}", where=path.name) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    if version < 1 or step != step_of(path):
        raise CheckpointError(
            f"{MANIFEST} is of step {step} and format {version}, which does not match the folder", where=path.name
        )
    if set(listed) != {TENSORS, STATE}:
        raise CheckpointError(f"{MANIFEST} does not list {TENSORS} and {STATE}", where=path.name)
    return manifest, listed


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged or not what a checkpoint contains.
    """
    manifest = verify(path)
    try:
        tensors = safetensors.torch.load((path / TENSORS).read_bytes())
        tensors |= {str(name): tensors[stored] for name, stored in manifest["aliases"].items()}
    except Exception as error:  # safetensors documents no exception types
        raise CheckpointError(f"{TENSORS} can't be read: {error}", where=path.name) from None
    try:
        state = json.loads((path / STATE).read_bytes())
        if check_count(state["step"]) != manifest["step"]:
            raise ValueError
        if not 0 <= float(state["seconds"]) < float("inf"):
            raise ValueError
        _ = check_count(state.get("setbacks", 0)), check_count(state.get("alarms") or 0), str(state.get("recipe", ""))
        _ = returns_in(state), changes_from_json(state.get("changes", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{STATE} is damaged: it is not the state of step {manifest['step']}", where=path.name
        ) from None
    return Checkpoint(path, manifest["step"], manifest, state, tensors)


def returns_in(state: Mapping[str, Any]) -> tuple[int, ...]:
    """The steps to which a run was rolled back, by the state in a checkpoint; earlier versions wrote the last one.

    Raises:
        ValueError, TypeError: they are not steps.
    """
    steps = state.get("returned_to", [])
    return tuple(map(check_count, steps if isinstance(steps, list) else [steps] if steps else []))


def step_of(path: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None if it has none."""
    digits = path.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _refuse_non_finite(tensors: Mapping[str, Tensor], allowed: Collection[str]) -> None:
    # values logged since the last row may be non-finite: no later step depends on them
    if name := first_non_finite({n: t for n, t in tensors.items() if not n.startswith("ledger/") and n not in allowed}):
        raise Diverged("is not finite", where=name, cure="no checkpoint was written of this state")


def first_non_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a non-finite element; empty if there is none."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), "")


def is_finite(tensor: Tensor) -> bool:
    """Whether all elements are finite. Waits for the device."""
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())
