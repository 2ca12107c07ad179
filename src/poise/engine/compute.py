"""What a run computes with: the device, the precision, and the number of parts of a batch."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.version import __version__

Precision = Literal["fp32", "bf16"]

CURES = dict.fromkeys(("fp16", "float16", "half"), "gradient penalties overflow in fp16; bf16 has the range of fp32")
"""Cures for precisions that are refused."""


@dataclass(frozen=True)
class ComputeSettings:
    """What a run computes with.

    Attributes:
        device: the device.
        precision: the precision of the networks' forward passes.
        accumulate: the number of parts of a batch, on each rank, whose gradients are computed one after another.
    """

    device: torch.device
    precision: Precision
    accumulate: int = 1

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """A factory of context managers for the forward passes of the networks."""
        if self.precision == "fp32":
            return nullcontext
        return partial(torch.autocast, self.device.type, torch.bfloat16)

    def settings(self) -> dict[str, Any]:
        """Everything about the machine that bit-exact reproduction depends on, for `run.json`."""
        accumulate = {"accumulate": self.accumulate} if self.accumulate > 1 else {}
        return accumulate | {
            "device": str(self.device),
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "versions": {
                "poise": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }


def choose_compute(device: str, precision: str, recipe: Recipe, accumulate: int = 1) -> ComputeSettings:
    """The compute settings for a recipe, from `--device`, `--precision` and `--accumulate`.

    A CUDA device with a number becomes the current one of PyTorch, as the user's code may ask for "cuda".

    Raises:
        RecipeError: the device is not available, the precision is unknown, or there are no parts.
    """
    chosen = _device(device)
    if accumulate < 1:
        raise RecipeError("must be 1 or more", where="--accumulate", found=str(accumulate))
    if precision not in ("auto", "fp32", "bf16"):
        raise RecipeError(
            "must be auto, fp32 or bf16", where="--precision", found=f"'{precision}'", cure=CURES.get(precision, "")
        )
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if precision == "auto":
        networks = recipe.network.configs.values()
        allowed = recipe.objective.allows_bf16 and all(network.allows_bf16 for network in networks)
        return ComputeSettings(chosen, "bf16" if allowed and native_bf16(chosen) else "fp32", accumulate)
    return ComputeSettings(chosen, "bf16" if precision == "bf16" else "fp32", accumulate)


def is_available(device: str) -> bool:
    """Whether this machine has the device of this name."""
    try:
        _device(device)
    except RecipeError:
        return False
    return True


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware supports bfloat16. Emulation on AVX-512 is four times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    available = "cpu" + (f", cuda:0 to cuda:{count - 1}" if count > 1 else ", cuda" if count else " (no CUDA device)")
    available += ", mps" if apple else ""
    if name == "auto":  # never mps, whose results have not been compared with those of other devices
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    counts = {"cpu": 1, "cuda": count, "mps": int(apple)}
    if device is None or (device.index or 0) >= counts.get(device.type, 0):
        cure = f"available devices: {available}"
        raise RecipeError("this device is not available", where="--device", found=f"'{name}'", cure=cure)
    return device
