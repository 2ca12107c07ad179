"""Which pictures are held out of training: chosen by what they show and by their class, never by where they lie.

Equal pictures stand on one side, else what was trained on would be measured as if it were new; every class keeps at
least one picture to train on, else G could be asked for what it has never seen.
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


def pixel_hashes(pictures: Iterable[Bytes]) -> list[bytes]:
    """A hash of the pixels of each picture, H x W x C of uint8: equal for equal pixels."""
    return [hashlib.blake2b(np.ascontiguousarray(one).tobytes(), digest_size=16).digest() for one in pictures]


def held_out_split(
    contents: Sequence[bytes], labels: Labels | None, share: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places to train on and places to hold out, both ascending.

    The share, rounded down to whole pictures, is dealt out to the classes by their sizes (largest remainders first).
    Groups of equal pictures are met in the order of a hash of their content and held out whole: first those that fit
    into what their classes still have to give, then those that overdraw it, as long as the total is kept. A group that
    would leave a class without anything to train on stays. So the split depends on the contents and the classes alone,
    not on names or on the order of the files.

    Args:
        contents: N, equal for equal pictures; see `digests`.
        labels: N, or None.
        share: how much is held out, from 0 to below 1.
    """
    kinds = np.zeros(len(contents), np.int64) if labels is None else labels
    groups: dict[bytes, list[int]] = {}
    for place, content in enumerate(contents):
        groups.setdefault(content, []).append(place)
    order = sorted(groups, key=lambda content: hashlib.blake2b(content, key=SALT, digest_size=16).digest())
    inside = [(groups[content], Counter(kinds[groups[content]].tolist())) for content in order]
    left = Counter(kind for _, own in inside for kind in own)
    total = int(len(contents) * share)
    quota = _quotas(inside, left, total)
    held: list[int] = []
    for whole in (True, False):
        waiting: list[tuple[list[int], Counter[int]]] = []
        for places, own in inside:
            fits = all(quota[kind] >= (size if whole else 1) and left[kind] > 1 for kind, size in own.items())
            if not fits or len(held) + len(places) > total:
                waiting.append((places, own))
                continue
            held += places
            quota.subtract(own)
            left.subtract(own.keys())
        inside = waiting
    apart = np.sort(np.array(held, np.intp))
    return np.setdiff1d(np.arange(len(contents)), apart, assume_unique=True), apart


def _quotas(inside: list[tuple[list[int], Counter[int]]], groups: Counter[int], total: int) -> Counter[int]:
    """How many pictures each class gives, `total` in all where there are enough; a class of one group gives none.

    Among equal remainders the class comes first whose first group does.
    """
    sizes = Counter[int]()
    for _, own in inside:
        sizes.update(own)
    most = {kind: size - 1 if groups[kind] > 1 else 0 for kind, size in sizes.items()}
    exact = {kind: total * size / max(1, sizes.total()) for kind, size in sizes.items()}
    quota = Counter({kind: min(int(exact[kind]), most[kind]) for kind in sizes})
    by_rest = sorted(sizes, key=lambda kind: int(exact[kind]) - exact[kind])  # stable: by first group
    missing = total - quota.total()
    while missing > 0 and (able := [kind for kind in by_rest if quota[kind] < most[kind]]):
        quota.update(able[:missing])
        missing = total - quota.total()
    return quota
