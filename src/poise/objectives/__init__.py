"""The adversarial costs: what each player pays for what D says. One file per family."""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
