"""Rotated copies of images, for features of images without labels (Gidaris, Singh & Komodakis 2018, arXiv:1803.07728).

A classifier that tells by how many quarter turns an image was rotated must know what an upright image looks like, so
its features describe shapes and their arrangement. Images of textures, or seen from above, have no upright position;
the classifier is then no better than chance, which `poise.measure.extractors` finds out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core.types import Batch
from poise.data.source import SizedSource

MIN_IMAGES = 500
"""The number of images from which on a classifier of rotations is trained."""


class RotatedImages(SizedSource):
    """All rotations of the images of a source; the label is the number of quarter turns, counter-clockwise.

    Sample i is image i // k, rotated i % k times by 360 / k degrees, with k = 4 for square images and 2 for others.

    Args:
        source: images, with or without labels.
    """

    def __init__(self, source: SizedSource) -> None:
        self.source, self.shape = source, source.shape
        self.classes = ("0", "90", "180", "270") if source.shape[1] == source.shape[2] else ("0", "180")
        self._orders = {}

    def __len__(self) -> int:
        return len(self.source) * len(self.classes)

    def gather(self, indices: Tensor) -> Batch:
        """See `SizedSource.gather`."""
        k, labels = len(self.classes), self.gather_labels(indices)
        images = self.source.gather(indices // k).images
        rotated = torch.empty_like(images)
        for label in range(k):
            chosen = labels == label
            rotated[chosen] = images[chosen].rot90(label * 4 // k, (1, 2))
        return Batch(rotated, labels)

    def gather_labels(self, indices: Tensor) -> Tensor:
        """See `SizedSource.gather_labels`."""
        return indices % len(self.classes)

    def indices_of(self, images: Tensor) -> Tensor:
        """The indices of all rotations of the images at some indices, B, of `source`; B * k."""
        k = len(self.classes)
        return (images[:, None] * k + torch.arange(k)).flatten()

    @property
    def fingerprint(self) -> str:
        """That of the source, marked."""
        return f"{self.source.fingerprint}/rotations"
