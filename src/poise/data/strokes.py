"""The width of the strokes of a digit or letter, and classes of it: labels beside those of the digit itself.

For a stroke of length L and width w, area / (perimeter / 2) = w L / (L + w), which is nearly w if the stroke is long.
Of a grey image the area is the sum of the grey levels and the perimeter their total variation: by the coarea formula,
both are then the means over all thresholds of those of the binary image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poise.data.source import Labels
from poise.utils.images import Bytes

WIDTH_CLASSES = ("thin", "medium", "thick")

CHUNK = 250
"""The number of images that are measured at once."""


def stroke_widths(images: Bytes) -> npt.NDArray[np.float64]:
    """The stroke width of each image in pixels, N; 0 for a black image.

    Args:
        images: uint8, N x H x W x 1, light strokes on black.
    """
    parts = [_stroke_widths(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _stroke_widths(images: Bytes) -> npt.NDArray[np.float64]:
    grey = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1))).astype(np.float64)
    down, right = np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1]
    perimeters = np.sqrt(down**2 + right**2).sum((1, 2))
    return 2 * grey.sum((1, 2)) / np.maximum(perimeters, np.finfo(np.float64).tiny)


def width_bounds(widths: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The widths that separate the three classes: the terciles."""
    low, high = np.quantile(widths, (1 / 3, 2 / 3))
    return float(low), float(high)


def width_classes(widths: npt.NDArray[np.float64], bounds: tuple[float, float]) -> Labels:
    """The class of each width, N: thin below the first bound, thick from the second one on."""
    return np.searchsorted(bounds, widths, "right").astype(np.int64)
