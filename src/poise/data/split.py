"""The choice of held-out images, by content and class only.

Images with identical pixels are always on the same side: otherwise training images would be evaluated as if they were
new. Every class keeps at least one training image: otherwise G would be conditioned on a class that it has never been
trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from poise.data.source import Labels
from poise.utils.images import Bytes

SALT = b"held out"


def pixel_hashes(images: Iterable[Bytes]) -> list[bytes]:
    """A hash of the pixels of each image, uint8, H x W x C; equal for equal pixels."""
    return [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in images]


def held_out_split(
    hashes: Sequence[bytes], labels: Labels | None, fraction: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The indices of the training images and of the held-out images, both ascending.

    The number of held-out images, rounded down, is divided among the classes in proportion to their sizes (largest
    remainder method). Groups of equal images are visited in the order of a keyed hash of their content, and each is
    held out as a whole or not at all: the first pass takes the groups that fit into the remaining quota of their
    classes, the second those that exceed it, as long as the total is not exceeded. A group is skipped if a class would
    be left without training images. So the split depends on the contents and the classes only, not on file names or
    their order.

    Args:
        hashes: N, equal for equal images; see `pixel_hashes`.
        labels: N, or None.
        fraction: the fraction that is held out, from 0 to below 1.
    """
    classes = np.zeros(len(hashes), np.int64) if labels is None else labels
    groups: dict[bytes, list[int]] = {}
    for index, content in enumerate(hashes):
        groups.setdefault(content, []).append(index)
    order = sorted(groups, key=lambda content: hashlib.blake2b(content, key=SALT, digest_size=16).digest())
    pending = [(groups[content], Counter(classes[groups[content]].tolist())) for content in order]
    groups_left = Counter(label for _, sizes in pending for label in sizes)
    total = int(len(hashes) * fraction)
    quota = _quotas(pending, groups_left, total)
    held_out: list[int] = []
    for within_quota in (True, False):
        skipped: list[tuple[list[int], Counter[int]]] = []
        for indices, sizes in pending:
            fits = all(
                quota[label] >= (size if within_quota else 1) and groups_left[label] > 1
                for label, size in sizes.items()
            )
            if not fits or len(held_out) + len(indices) > total:
                skipped.append((indices, sizes))
                continue
            held_out += indices
            quota.subtract(sizes)
            groups_left.subtract(sizes.keys())
        pending = skipped
    held_out_indices = np.sort(np.array(held_out, np.intp))
    return np.setdiff1d(np.arange(len(hashes)), held_out_indices, assume_unique=True), held_out_indices


def _quotas(groups: list[tuple[list[int], Counter[int]]], num_groups: Counter[int], total: int) -> Counter[int]:
    """The number of held-out images of each class, `total` in all if possible; 0 for a class with a single group.

    Among classes with equal remainders, the one whose first group comes first has precedence.
    """
    sizes = Counter[int]()
    for _, group_sizes in groups:
        sizes.update(group_sizes)
    maximum = {label: size - 1 if num_groups[label] > 1 else 0 for label, size in sizes.items()}
    exact = {label: total * size / max(1, sizes.total()) for label, size in sizes.items()}
    quota = Counter({label: min(int(exact[label]), maximum[label]) for label in sizes})
    by_remainder = sorted(sizes, key=lambda label: int(exact[label]) - exact[label])  # stable: by first group
    missing = total - quota.total()
    while missing > 0 and (eligible := [label for label in by_remainder if quota[label] < maximum[label]]):
        quota.update(eligible[:missing])
        missing = total - quota.total()
    return quota
