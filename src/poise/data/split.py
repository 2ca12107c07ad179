"""The choice of held-out images, by content and class only.

Images with identical pixels are always on the same side: otherwise training images would be evaluated as if they were
new. If training shows flips too (`data.mirror`), so are an image and its flip. Every class keeps at least one training
image: otherwise G would be conditioned on a class that it has never been trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.pixel_statistics import as_items, pixel_hashes
from poise.data.source import Labels
from poise.utils.cache import remembered
from poise.utils.images import Bytes

SALT = b"held out"


def held_out_split(
    hashes: Bytes, labels: Labels | None, fraction: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The indices of the training images and of the held-out images, both ascending.

    The number of held-out images, rounded down, is divided among the classes in proportion to their sizes (largest
    remainder method). Groups of equal images are visited in the order of a keyed hash of their content, and each is
    held out as a whole or not at all: the first pass takes the groups that fit into the remaining quota of their
    classes, the second those that exceed it, as long as the total is not exceeded. A group is skipped if a class would
    be left without training images. So the split depends on the contents and the classes only, not on file names or
    their order.

    Args:
        hashes: N x 16, uint8, equal for images that stay together; see `group_hashes`.
        labels: N, or None.
        fraction: the fraction that is held out, from 0 to below 1.
    """
    classes = np.zeros(len(hashes), np.int64) if labels is None else labels
    groups = _Groups(hashes, classes)
    total = int(len(hashes) * fraction)
    groups_left = Counter(label for group in range(len(groups)) for label in groups.classes(group))
    quota = _quotas(groups, groups_left, total)
    held_out: list[int] = []
    pending: Iterable[int] = range(len(groups))
    for within_quota in (True, False):
        skipped: list[int] = []
        for group in pending:
            sizes = groups.classes(group)
            fits = len(held_out) + sum(sizes.values()) <= total and all(
                quota[label] >= (size if within_quota else 1) and groups_left[label] > 1
                for label, size in sizes.items()
            )
            if not fits:
                skipped.append(group)
                continue
            held_out += groups.indices(group)
            quota.subtract(sizes)
            groups_left.subtract(sizes.keys())
        pending = skipped if len(held_out) < total else ()
    held_out_indices = np.sort(np.array(held_out, np.intp))
    return np.setdiff1d(np.arange(len(hashes)), held_out_indices, assume_unique=True), held_out_indices


def group_hashes(
    images: Bytes, rows: npt.NDArray[np.intp], hashes: Bytes, *, mirror: bool, fingerprints: Path | None = None
) -> Bytes:
    """The hashes of M images, M x 16, uint8, equal for those that training can't tell apart.

    These are images with equal pixels; with `mirror` also an image and its flip.

    Args:
        images: N x H x W x C.
        rows: which of them are meant, M, ascending.
        hashes: their hashes, M x 16; see `pixel_hashes`.
        mirror: whether training shows flips too; see `ImageDataConfig`.
        fingerprints: a file that remembers what was found, see `ImageDataset`; so the pixels are read once only.
    """
    if not mirror:
        return hashes

    def find() -> str:
        joined = join_flips(hashes, pixel_hashes(images[:, :, ::-1])[rows])
        changed = np.flatnonzero((joined != hashes).any(1)).tolist()
        return json.dumps({"images": changed, "hashes": joined[changed].tobytes().hex()})

    key = f"flips of {hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()[:16]}"
    found = json.loads(find() if fingerprints is None else remembered(fingerprints, key, find))
    groups = hashes.copy()
    groups[found["images"]] = np.frombuffer(bytes.fromhex(found["hashes"]), np.uint8).reshape(-1, 16)
    return groups


def join_flips(hashes: Bytes, flipped: Bytes) -> Bytes:
    """The hashes of images, of which those that are flips of each other share the smaller one.

    All others keep theirs, so a set without flips is split as it would be if flips were not shown.

    Args:
        hashes: those of the images, N x 16, uint8.
        flipped: those of their flips, N x 16, uint8.
    """
    joined = hashes.copy()
    known = {content.tobytes() for content in hashes}
    for index, (own, flip) in enumerate(zip(hashes, flipped, strict=True)):
        if flip.tobytes() in known and flip.tobytes() < own.tobytes():
            joined[index] = flip
    return joined


class _Groups:
    """Equal images, in the order of a keyed hash of their content. It needs a few numbers per image only.

    Args:
        hashes: N x 16; see `held_out_split`.
        labels: N.
    """

    def __init__(self, hashes: Bytes, labels: Labels) -> None:
        contents, members = np.unique(as_items(hashes), return_inverse=True)
        keyed = (hashlib.blake2b(content, key=SALT, digest_size=16).digest() for content in contents)
        digests = np.frombuffer(b"".join(keyed), ">u8").reshape(-1, 2)
        order = np.lexsort((digests[:, 1], digests[:, 0]))
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        group_of = position[members.reshape(-1)]
        self._indices = np.argsort(group_of, kind="stable")
        self._ends = np.cumsum(np.bincount(group_of, minlength=len(order))).tolist()
        self._labels = labels[self._indices].tolist()

    def __len__(self) -> int:
        return len(self._ends)

    def _slice(self, group: int) -> slice:
        return slice(self._ends[group - 1] if group else 0, self._ends[group])

    def indices(self, group: int) -> list[int]:
        """The indices of the images of a group, ascending."""
        return self._indices[self._slice(group)].tolist()

    def classes(self, group: int) -> dict[int, int]:
        """The number of images of a group by class."""
        rows = self._slice(group)
        if rows.stop - rows.start == 1:
            return {self._labels[rows.start]: 1}
        return Counter(self._labels[rows])

    @property
    def sizes(self) -> Counter[int]:
        """The number of all images by class; the class of the first group comes first."""
        return Counter(self._labels)


def _quotas(groups: _Groups, num_groups: Counter[int], total: int) -> Counter[int]:
    """The number of held-out images of each class, `total` in all if possible; 0 for a class with a single group.

    Among classes with equal remainders, the one whose first group comes first has precedence.
    """
    sizes = groups.sizes
    maximum = {label: size - 1 if num_groups[label] > 1 else 0 for label, size in sizes.items()}
    exact = {label: total * size / max(1, sizes.total()) for label, size in sizes.items()}
    quota = Counter({label: min(int(exact[label]), maximum[label]) for label in sizes})
    by_remainder = sorted(sizes, key=lambda label: int(exact[label]) - exact[label])  # stable: by first group
    missing = total - quota.total()
    while missing > 0 and (eligible := [label for label in by_remainder if quota[label] < maximum[label]]):
        quota.update(eligible[:missing])
        missing = total - quota.total()
    return quota
