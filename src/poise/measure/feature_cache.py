"""A cache of classifiers and reference features on disk, under a hash of everything that they depend on.

`poise.utils.cache` defines where it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

import safetensors.torch
from torch import Tensor

from poise.errors import DiskError, Stopped
from poise.utils.cache import cache_dir, cache_key
from poise.utils.files import make_folder, write_bytes

__all__ = ["cache_key", "load", "store"]


def load(kind: str, key: str) -> dict[str, Tensor] | None:
    """The stored tensors, or None if there are none or the file is damaged."""
    try:
        tensors = safetensors.torch.load((cache_dir() / kind / f"{key}.safetensors").read_bytes())
        checksum = tensors.pop("sum", None)
        return tensors if checksum is not None and checksum.tolist() == list(_checksum(tensors)) else None
    except Stopped:
        raise
    except Exception:  # a damaged header may raise anything
        return None


def store(kind: str, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Store tensors in one atomic write; a failing disk is not an error."""
    import torch

    stored = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    checksum = torch.tensor(list(_checksum(stored)), dtype=torch.uint8)
    data = safetensors.torch.save(stored | {"sum": checksum})
    path = cache_dir() / kind / f"{key}.safetensors"
    with suppress(OSError, DiskError):
        make_folder(path.parent)
        write_bytes(path, data)


def _checksum(tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.digest()
