"""Distances from G's samples to training images: statistics that tell copies from new images, and both from blobs.

A sample that is close to a training image need not be a copy of it: early in training, samples are blobs near the mean
of the data, which are close to many images. So nearness alone (`g/newness`) proves nothing, and there are two more
statistics. A copy is close to one image and far from all others (`g/nearest_ratio`). A G that has memorised the
training images, in parts or in mixtures, generates samples that are closer to them than to held-out images of the same
distribution (`g/train_ratio`). For a blob both are 1.

In a run that trains on flipped images too (`data.mirror`), an image and its flip are one image, and the distance to it
is that to the nearer of the two. So flipped copies are found, no image is its own second neighbour, and training and
held-out images are treated alike.

Sources: the ratio of nearest to second-nearest distance is the matching test of Lowe 2004 (section 7.1); the comparison
with equally many held-out images is the three-sample test of Meehan 2020 (C_T, `poise measure`), here cheap enough for
every row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from poise.data.source import SizedSource
from poise.utils.images import to_float

KNOWN, SIDE = 5000, 16
"""The number of training images that are searched for the nearest, and the side to which all images are downsampled."""

COUNT = 64
"""The number of held-out images that give the usual distance from a new image to the training images."""

CHUNK = 256
"""Images that are downsampled at a time, because all of them at full size may not fit into memory."""

SAME = 0.25
"""Training images closer to each other than this fraction of the usual distance from a held-out image to its nearest
training image count as one, so that a duplicate in the data set is not taken for a second neighbour."""

FLAT = 0.1
"""An image with less than this fraction of the usual contrast has no shape that could be a copy."""

QUARTER = 0.25
"""`g/nearest_ratio` is the lower quartile over samples, so that it shows copies even if most samples are new."""

ENOUGH = 50
"""The size of the smaller split below which `g/train_ratio` is mostly chance: with 50 images, for a G that has seen
neither split, it lies between 0.93 and 1.08 in 98 of 100 draws of digits."""

Fraction = tuple[Tensor, Tensor, Tensor]
"""Numerator, denominator and the scale of the denominator, 0-dim each. If the denominator is rounding noise on that
scale, there is no ratio."""


def downsampled_side(height: int, width: int) -> int:
    """The side of the square to which images are downsampled."""
    return min(SIDE, height, width)


def downsample_rows(images: Tensor) -> Tensor:
    """Images, n x C x H x W, downsampled to at most 16 x 16 and flattened."""
    return adaptive_avg_pool2d(images.float(), downsampled_side(*images.shape[2:])).flatten(1)


def standardize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with mean 0 and norm 1, which removes brightness and contrast; and their norms before scaling, n."""
    centred = rows - rows.mean(1, keepdim=True)
    contrast = centred.norm(dim=1)
    return centred / contrast.clamp_min(1e-6)[:, None], contrast


def flip_rows(rows: Tensor, width: int) -> Tensor:
    """The flattened images of that width, n x dim, flipped left to right."""
    return rows.unflatten(1, (-1, width)).flip(2).flatten(1)


def distances(samples: Tensor, known: Tensor, *, mirror_width: int | None = None, exact: bool = False) -> Tensor:
    """The Euclidean distance from each of n samples to each of m known ones, n x m.

    Args:
        samples: n x dim.
        known: m x dim.
        mirror_width: the width of the images of which these are the pixels, if the distance to an image or its flip,
            whichever is nearer, is wanted: min(||a - b||, ||flip(a) - b||).
        exact: compute differences, which gives 0 for a copy and takes ten times as long; matrix products are off by
            about a thousandth there.
    """
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist_if_necessary"
    result = torch.cdist(samples, known, compute_mode=mode)
    if mirror_width is None:
        return result
    return torch.minimum(result, torch.cdist(flip_rows(samples, mirror_width), known, compute_mode=mode))


def nearest_ratio(
    sample_distances: Tensor, known: Tensor, same: Tensor | float, *, mirror_width: int | None = None
) -> Tensor:
    """For each of n samples, the distance to the nearest known one over that to the second nearest, n, 0 to 1.

    It is about 0 for a copy and about 1 for a new image or a blob near the mean of the data.

    Args:
        sample_distances: `distances(samples, known)`, n x m.
        known: m x dim.
        same: known images within this distance of the nearest count as the same image and not as the second nearest.
            If this is true of all of them, the ratio is 0.
        mirror_width: see `distances`.
    """
    first, index = sample_distances.min(1)
    duplicates = distances(known[index], known, mirror_width=mirror_width) <= same
    second = sample_distances.masked_fill(duplicates.scatter_(1, index[:, None], True), torch.inf).min(1).values
    return first / second


def nearest_rank_probabilities(count: int, n: int) -> Tensor:
    """The probability that the 1st, 2nd, ... nearest of `count` is the nearest of n drawn from them, 1-dim, sum 1.

    It is C(count - k, n - 1) / C(count, n) for the k-th; probabilities below one in a million are left out.
    """
    probabilities, remaining = [n / count], count - n
    while probabilities[-1] > 1e-6 and len(probabilities) <= remaining:
        k = len(probabilities)
        probabilities.append(probabilities[-1] * (remaining - k + 1) / (count - k))
    result = torch.tensor(probabilities)
    return result / result.sum()


def expected_nearest(sample_distances: Tensor, weights: Tensor) -> Tensor:
    """For each of n samples, the expected distance to the nearest in a random subset of m known ones, n.

    Args:
        sample_distances: `distances(samples, known)`, n x m.
        weights: `nearest_rank_probabilities(m, size of the subset)`.
    """
    return sample_distances.topk(len(weights), largest=False).values @ weights


class MemorizationCheck:
    """Compares samples with training and held-out images.

    Args:
        train: the training images.
        held_out: images that are not trained on.
        device: the device of the samples.
        mirror: whether the run trains on flipped images too.
    """

    def __init__(
        self, train: SizedSource, held_out: SizedSource, device: torch.device, *, mirror: bool = False
    ) -> None:
        self.known, self.held_out = (_downsampled(source, device) for source in (train, held_out))
        self.mirror_width = downsampled_side(*train.shape[1:]) if mirror else None
        reference = downsample_rows(held_out.preview(COUNT).to(device))
        self.usual_distance = self._distances(reference, self.known, exact=True).min(1).values.median()
        shapes, contrast = standardize_rows(self.known)
        self.min_contrast = FLAT * contrast.median()
        self.shapes = shapes[contrast > self.min_contrast]
        self.same = torch.zeros_like(self.usual_distance)
        self.usual_ratio = torch.zeros_like(self.usual_distance)
        if len(self.shapes) > 1:
            nearest = self._distances(standardize_rows(reference)[0], self.shapes, exact=True).min(1).values
            self.same = SAME * nearest.median()
            self.usual_ratio = self._ratio(reference)
        splits = (self.known, self.held_out)
        n = min(map(len, splits))
        self.weights = [nearest_rank_probabilities(len(rows), n).to(device) for rows in splits] if n >= ENOUGH else []

    def _distances(self, samples: Tensor, known: Tensor, *, exact: bool = False) -> Tensor:
        return distances(samples, known, mirror_width=self.mirror_width, exact=exact)

    def _ratio(self, rows: Tensor) -> Tensor:
        """The lower quartile over samples of `nearest_ratio` of standardised images, 0-dim; it is 1 for flat images."""
        shapes, contrast = standardize_rows(rows)
        to_shapes = self._distances(shapes, self.shapes)
        ratios = nearest_ratio(to_shapes, self.shapes, self.same, mirror_width=self.mirror_width)
        return ratios.masked_fill(contrast <= self.min_contrast, 1.0).quantile(QUARTER)

    def compute(self, fake: Tensor) -> dict[str, Fraction]:
        """The statistics of samples, n x C x H x W, as fractions.

        `g/newness`: the median distance to the nearest training image, over that of held-out images.
        `g/nearest_ratio`: the lower quartile of `nearest_ratio` of standardised images, over that of held-out images.
        `g/train_ratio`: the expected distance to the nearest of n training images, over that to the nearest of n
        held-out images; the median over samples. It is left out if a split has fewer than 50 images.
        """
        rows = downsample_rows(fake)
        to_train, scale = self._distances(rows, self.known), self.known.norm(dim=1).mean()
        fractions = {"g/newness": (to_train.min(1).values.median(), self.usual_distance, scale)}
        if len(self.shapes) > 1:
            fractions["g/nearest_ratio"] = self._ratio(rows), self.usual_ratio, torch.ones_like(self.usual_distance)
        if self.weights:
            train = expected_nearest(to_train, self.weights[0])
            held_out = expected_nearest(self._distances(rows, self.held_out), self.weights[1])
            usual = held_out.median()
            fractions["g/train_ratio"] = (train / held_out).nan_to_num(1.0, 1e6).median() * usual, usual, scale
        return fractions


def _downsampled(source: SizedSource, device: torch.device) -> Tensor:
    """Up to 5,000 evenly spaced images of a source, downsampled and flattened."""
    chunks = source.evenly_spaced(KNOWN).split(CHUNK)
    return torch.cat([downsample_rows(to_float(source.gather(indices).images, device)) for indices in chunks])
