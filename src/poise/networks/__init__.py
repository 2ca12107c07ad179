"""The networks of the players: one file per family, with the modules and their configurations in a recipe."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
