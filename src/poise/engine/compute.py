"""What a run computes with: the device, the precision, the threads."""

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


@dataclass(frozen=True)
class ComputeSettings:
    """Where and how precisely a run computes."""

    device: torch.device
    precision: Precision

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """The context in which networks run forward."""
        if self.precision == "fp32":
            return nullcontext
        return partial(torch.autocast, self.device.type, torch.bfloat16)

    def settings(self) -> dict[str, Any]:
        """What exact repetition depends on."""
        return {
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


def choose_compute(device: str, precision: str, recipe: Recipe) -> ComputeSettings:
    """The machine for a recipe, from the words of the command line.

    Raises:
        RecipeError: the device is not here.
    """
    chosen = _device(device)
    if precision not in ("auto", "fp32", "bf16"):
        raise RecipeError("must be auto, fp32 or bf16", where="--precision", found=f"'{precision}'")
    if precision == "auto":
        there = [network for _, network in recipe.network if network is not None]
        wanted = recipe.objective.allows_bf16 and all(network.allows_bf16 for network in there)
        return ComputeSettings(chosen, "bf16" if wanted and native_bf16(chosen) else "fp32")
    return ComputeSettings(chosen, "bf16" if precision == "bf16" else "fp32")


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is in the hardware. Emulated it is slower than float32, by four times on AVX-512 without it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return False
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    here = "cpu" + (f", cuda:0 to cuda:{count - 1}" if count > 1 else ", cuda" if count else " (no CUDA device)")
    here += ", mps" if apple else ""
    if name == "auto":  # mps only by its name: nobody has measured that it computes the same
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    there = {"cpu": 1, "cuda": count, "mps": int(apple)}
    if device is None or (device.index or 0) >= there.get(device.type, 0):
        raise RecipeError("no such device here", where="--device", found=f"'{name}'", cure=f"there is: {here}")
    return device
