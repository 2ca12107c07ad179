"""What is worked out once for the same data: classifiers and reference features, by a hash of all they depend on.

See `utils/cache.py` for where they are kept.
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
    """What was stored, or None; a damaged file is as good as none."""
    try:
        found = safetensors.torch.load((cache_dir() / kind / f"{key}.safetensors").read_bytes())
        sums = found.pop("sum", None)
        return found if sums is not None and sums.tolist() == list(_sum(found)) else None
    except Stopped:
        raise
    except Exception:  # a damaged header raises whatever the reader happens to meet
        return None


def store(kind: str, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors, in one go; a disk that refuses is no error."""
    import torch

    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    data = safetensors.torch.save(whole | {"sum": torch.tensor(list(_sum(whole)), dtype=torch.uint8)})
    path = cache_dir() / kind / f"{key}.safetensors"
    with suppress(OSError, DiskError):
        make_folder(path.parent)
        write_bytes(path, data)


def _sum(tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of names and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.digest()
