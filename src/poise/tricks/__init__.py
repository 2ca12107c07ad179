"""The tricks, one per file: the formula as a pure function, then the recipe's config, then the module that acts."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
