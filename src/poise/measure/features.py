"""Feature extractors: their interface, and the preprocessing of images that several of them share.

Images keep their size unless an extractor requires another; then they are resized with antialiasing, and the name of
the extractor says so. `extractors.py` holds the extractors that need no file, `pretrained.py` those that load one.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn.functional import interpolate


class ExtractorOutput(NamedTuple):
    """The output of an extractor for B samples: features, B x d, and logits, B x K, if it classifies."""

    features: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """A map from samples to features.

    Attributes:
        name: the name that is reported with every result.
        key: a hash of everything that the features depend on besides the samples; None if that is not known, as of
            code that may change without its weights. Features without a key are not cached on disk.
        classifies: whether it returns logits.
        has_data_classes: whether these are the logits of the data's classes, in the order of the labels.
    """

    @property
    def classifies(self) -> bool:
        """See above."""

    @property
    def has_data_classes(self) -> bool:
        """See above."""

    @property
    def name(self) -> str:
        """See above."""

    @property
    def key(self) -> str | None:
        """See above."""

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """Extract features from images, B x C x H x W in [-1, 1], or points, B x 2."""


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images, B x C x H x W, to B x C x side x side: bilinear with antialiasing; unchanged at equal size."""
    if images.shape[2:] == (side, side):
        return images
    return interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


def hash_weights(net: nn.Module) -> str:
    """A hash of the names and values of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]
