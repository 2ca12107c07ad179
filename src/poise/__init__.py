"""poise: train GANs and keep the two players in balance.

The parts can also be used one by one in any PyTorch loop (see docs/library.md). Names and submodules are imported on
first use, so that `import poise` is fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from poise.retired import attribute_of, install
from poise.version import __version__

if TYPE_CHECKING:
    from poise import data as data
    from poise import functional as functional
    from poise import latents as latents
    from poise import measure as measure
    from poise import networks as networks
    from poise import objectives as objectives
    from poise import optimizers as optimizers
    from poise import tricks as tricks
    from poise.api import align as align
    from poise.api import train as train
    from poise.errors import PoiseError as PoiseError
    from poise.errors import Stopped as Stopped
    from poise.export.load import load_generator as load_generator
    from poise.interpolation import lerp as lerp
    from poise.interpolation import slerp as slerp
    from poise.recipe.model import Recipe as Recipe
    from poise.runs.run import Run as Run
    from poise.training.critics import train_classifier as train_classifier
    from poise.training.default_recipe import choose_recipe as choose_recipe
    from poise.training.listener import NullListener as NullListener
    from poise.watch.base import Alarm as Alarm
    from poise.watch.monitor import Monitor as Monitor

_MODULE_OF = {
    "Alarm": "poise.watch.base",
    "Monitor": "poise.watch.monitor",
    "NullListener": "poise.training.listener",
    "PoiseError": "poise.errors",
    "Recipe": "poise.recipe.model",
    "Run": "poise.runs.run",
    "Stopped": "poise.errors",
    "align": "poise.api",
    "choose_recipe": "poise.training.default_recipe",
    "lerp": "poise.interpolation",
    "load_generator": "poise.export.load",
    "slerp": "poise.interpolation",
    "train": "poise.api",
    "train_classifier": "poise.training.critics",
}
_SUBMODULES = ("data", "functional", "latents", "measure", "networks", "objectives", "optimizers", "tricks")

__all__ = [
    "Alarm",
    "Monitor",
    "NullListener",
    "PoiseError",
    "Recipe",
    "Run",
    "Stopped",
    "__version__",
    "align",
    "choose_recipe",
    "data",
    "functional",
    "latents",
    "lerp",
    "load_generator",
    "measure",
    "networks",
    "objectives",
    "optimizers",
    "slerp",
    "train",
    "train_classifier",
    "tricks",
]


install()
_retired = attribute_of("poise")


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    if name in _SUBMODULES:
        return import_module(f"poise.{name}")
    return _retired(name)


def __dir__() -> list[str]:
    return sorted(__all__)
