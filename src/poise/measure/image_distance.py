"""A differentiable distance between images, relative to how far apart two real images are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from poise.measure.features import Extractor
from poise.measure.sample_set import BATCH_SIZE
from poise.utils.printing import count_noun

MIN_SIDE = 4
"""The smallest side of the reduced images that are compared."""


def average_pyramid(images: Tensor, min_side: int = MIN_SIDE) -> list[Tensor]:
    """The images, B x C x H x W, then their 2 x 2 means, the 2 x 2 means of those, and so on.

    It ends before a side falls below `min_side` or can't be halved.
    """
    levels = [images]
    while all(side % 2 == 0 and side // 2 >= min_side for side in levels[-1].shape[2:]):
        levels.append(avg_pool2d(levels[-1], 2))
    return levels


class ImageDistance:
    """The distance d(x, y) of images: the mean over representations r of ||r(x) - r(y)||^2 / E ||r(a) - r(b)||^2.

    The expectation is over pairs of different real images a and b, so 1 is the distance of two random real images, and
    0 that of equal ones. With a feature extractor, the representations are the pixels and its features. Without one,
    they are the levels of `average_pyramid`: the larger the pixels, the less a shift by a few of them counts.

    Args:
        real: real images, N x C x H x W in [-1, 1].
        extractor: a differentiable extractor of features; None for pixels alone.

    Attributes:
        name: what is compared, such as "pixels at 4 sizes".
    """

    def __init__(self, real: Tensor, extractor: Extractor | None) -> None:
        self.extractor = extractor
        with torch.no_grad():
            batches = [self._represent(batch) for batch in real.split(BATCH_SIZE)]
        self._scales = [_mean_pair_distance(torch.cat(vectors)) for vectors in zip(*batches, strict=True)]
        sizes = count_noun(len(self._scales), "size")
        self.name = f"pixels at {sizes}" if extractor is None else f"pixels and features ({extractor.name})"

    def to(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """The function that maps images, B x C x H x W, to their distances from `target`, C x H x W: B."""
        with torch.no_grad():
            target_vectors = self._represent(target[None])

        def distance(images: Tensor) -> Tensor:
            terms = [
                (vectors - target_vector).square().sum(1) / scale
                for vectors, target_vector, scale in zip(
                    self._represent(images), target_vectors, self._scales, strict=True
                )
            ]
            return torch.stack(terms).mean(0)

        return distance

    def _represent(self, images: Tensor) -> list[Tensor]:
        """The representations, B x d each, of images, B x C x H x W."""
        if self.extractor is None:
            return [level.flatten(1) for level in average_pyramid(images)]
        return [images.flatten(1), self.extractor(images).features]


def _mean_pair_distance(vectors: Tensor) -> float:
    """The mean of ||a - b||^2 over pairs of different rows, N x d: twice the total variance.

    1 if that is 0 or there is a single row, so that one can divide by it.
    """
    total_variance = float(vectors.double().var(0).sum()) if len(vectors) > 1 else 0.0
    return 2 * total_variance or 1.0
