"""The objectives: the loss of each player as a function of D's output. One file per family."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
