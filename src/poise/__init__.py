"""poise: train GANs and keep the two players in balance.

The parts can be used one by one in any PyTorch loop; nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from poise.recipe.model import Recipe as Recipe
    from poise.training.begin import train as train
    from poise.training.run import Run as Run
    from poise.watch.base import Alarm as Alarm
    from poise.watch.monitor import Monitor as Monitor

_HOMES = {
    "Alarm": "poise.watch.base",
    "Monitor": "poise.watch.monitor",
    "Recipe": "poise.recipe.model",
    "Run": "poise.training.run",
    "train": "poise.training.begin",
}

__all__ = ["Alarm", "Monitor", "Recipe", "Run", "__version__", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'poise' has no attribute '{name}'")
