"""Data sets: images as uint8 in memory, converted to [-1, 1] on the device, or points in the plane.

Start with `source.py`. Each kind of data has a module with its config for the recipe's `[data]` table.
"""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    ("DataConfig", "DataSplits", "Source"),
    {"load": "lookup"},
)
