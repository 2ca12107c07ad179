"""The tricks: one file each, with the formula, then the recipe entry, then the module that acts."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
