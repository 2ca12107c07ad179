"""The players' networks: one file per family, each with its two recipe entries and its two modules."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
