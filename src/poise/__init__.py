"""poise: train GANs and keep the two players in balance.

The parts can be used one by one in any PyTorch loop; nothing is imported before it is asked for. docs/library.md says
what there is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from poise import data as data
    from poise import functional as functional
    from poise import latents as latents
    from poise import measure as measure
    from poise import networks as networks
    from poise import objectives as objectives
    from poise import optimizers as optimizers
    from poise import tricks as tricks
    from poise.errors import PoiseError as PoiseError
    from poise.errors import Stopped as Stopped
    from poise.latents import lerp as lerp
    from poise.latents import slerp as slerp
    from poise.library import train as train
    from poise.recipe.model import Recipe as Recipe
    from poise.training.run import Run as Run
    from poise.training.watcher import Nobody as Nobody
    from poise.watch.base import Alarm as Alarm
    from poise.watch.monitor import Monitor as Monitor

_HOMES = {
    "Alarm": "poise.watch.base",
    "Monitor": "poise.watch.monitor",
    "Nobody": "poise.training.watcher",
    "PoiseError": "poise.errors",
    "Recipe": "poise.recipe.model",
    "Run": "poise.training.run",
    "Stopped": "poise.errors",
    "lerp": "poise.latents",
    "slerp": "poise.latents",
    "train": "poise.library",
}
_MODULES = ("data", "functional", "latents", "measure", "networks", "objectives", "optimizers", "tricks")

__all__ = [
    "Alarm",
    "Monitor",
    "Nobody",
    "PoiseError",
    "Recipe",
    "Run",
    "Stopped",
    "__version__",
    "data",
    "functional",
    "latents",
    "lerp",
    "measure",
    "networks",
    "objectives",
    "optimizers",
    "slerp",
    "train",
    "tricks",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"poise.{name}")
    raise AttributeError(f"module 'poise' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
