"""Diversity of a set of samples: the Vendi score and the mean pairwise distance."""

from __future__ import annotations

from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import normalize

from poise.measure.base import BLOCK_SIZE, Measure, MeasuredValue, validate_features, validate_matrix
from poise.measure.prdc import pairwise_distances

MAX_SAMPLES = 512
"""The number of samples of a set that are compared pairwise."""
MIN_SAMPLES_OF_CLASS = 2


def vendi(features: Tensor) -> float:
    """The effective number of different samples, 1 to N (Vendi score; Friedman & Dieng 2023, arXiv:2210.02410).

    exp(-sum l log l) over the eigenvalues l of K / N, where K is the matrix of cosine similarities of the features,
    N x d. The eigenvalues are computed from K / N or from the d x d matrix with the same eigenvalues, whichever is
    smaller. For class probabilities p, features sqrt(p) give the kernel sum_y sqrt(p_y q_y). A row of zeros has
    similarity 0 to all rows, including itself.

    Raises:
        ValueError: see `poise.measure.base.validate_matrix`.
    """
    rows = normalize(validate_matrix(features, "features"), dim=1)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(gram / len(rows)).clamp_min(0)
    return float(torch.exp(-torch.xlogy(eigenvalues, eigenvalues).sum()))


def diversity(fake: Tensor, real: Tensor, max_samples: int = MAX_SAMPLES) -> float:
    """The mean distance between fake samples divided by the mean distance between real samples (after Karras 2018).

    mean_{i != j} |x_i - x_j| / mean_{i != j} |y_i - y_j| with Euclidean distances. 1 for equal distributions, 0 on
    collapse; NaN if all real samples are equal.

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.
        max_samples: the first that many samples of each set are used.

    Raises:
        ValueError: see `poise.measure.base.validate_features`.
    """
    fake, real = validate_features(fake, real)
    real_distance = _mean_pairwise_distance(real[:max_samples])
    return _mean_pairwise_distance(fake[:max_samples]) / real_distance if real_distance else float("nan")


def class_diversity(fake: Tensor, real: Tensor, fake_labels: Tensor, real_labels: Tensor, num_classes: int) -> float:
    """`diversity` within each class, averaged over the classes; features N x d and M x d, int64 labels N and M.

    The distances are Euclidean. 1 for equal distributions, 0 if all samples of a class are equal. A class with fewer
    than two samples on either side does not count, so this says nothing of missing classes (`class_balance` does), nor
    does one whose real samples are all equal. NaN if no class counts.

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.
        fake_labels: the class of each fake sample, N, from 0 to num_classes - 1.
        real_labels: the class of each real sample, M.
        num_classes: the number of classes.

    Raises:
        ValueError: see `poise.measure.base.validate_features`.
    """
    fake, real = validate_features(fake, real)
    classes = [(fake[fake_labels == label], real[real_labels == label]) for label in range(num_classes)]
    values = [
        diversity(of_fake, of_real)
        for of_fake, of_real in classes
        if min(len(of_fake), len(of_real)) >= MIN_SAMPLES_OF_CLASS and bool((of_real != of_real[:1]).any())
    ]
    return fmean(values) if values else float("nan")


def _mean_pairwise_distance(features: Tensor) -> float:
    total = sum(float(pairwise_distances(part, features).sum()) for part in features.split(BLOCK_SIZE))
    return total / (len(features) * (len(features) - 1))


VENDI = Measure(
    name="vendi",
    description="effective number of different samples, 1 to n (Friedman 2023); variety only, noise scores high",
    better="floor",
    compute=lambda context: MeasuredValue(vendi(context.fake.features)),
)
DIVERSITY = Measure(
    name="diversity",
    description="mean distance between fakes over that between reals, 1 if equal (after Karras 2018); variety only",
    better="floor",
    compute=lambda context: MeasuredValue(diversity(context.fake.features, context.real.features)),
)
CLASS_DIVERSITY = Measure(
    name="class_diversity",
    description="`diversity` within each class that a classifier sees, 1 if equal; blind to missing classes",
    better="floor",
    compute=lambda context: MeasuredValue(
        class_diversity(
            context.fake.features,
            context.real.features,
            context.fake.logits.argmax(1),
            context.real.logits.argmax(1),
            context.fake.logits.shape[1],
        )
    ),
    requires=frozenset({"logits"}),
)
