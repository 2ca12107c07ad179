"""Which images of a WebDataset are the data if its samples have several, such as a photograph and a mask.

The key of an image is what follows the first dot of its name: `jpg` of `17.jpg`, `seg.png` of `17.seg.png`.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from poise.data.listing import display_name
from poise.data.shards import IMAGES
from poise.errors import DataError
from poise.utils.printing import agree, count_noun

WHERE = "data.image"
MAX_KEYS = 8
"""The largest number of keys that a message lists."""


class Choice(NamedTuple):
    """Which images are the data.

    Attributes:
        used: for each image whether it is used.
        notes: what was chosen, and what is not used; none if each sample has a single image.
    """

    used: list[bool]
    notes: list[str]


def key_of(name: str) -> str:
    """The key of an image of a sample, in lower case."""
    return posixpath.basename(name).partition(".")[2].lower()


def _is_number(key: str) -> bool:
    """Whether a key is only a number or a date in the name of a file.

    So `scan.001.png` and `scan.002.png` are two samples of one image, not two images of one.
    """
    inner, _, _ = key.rpartition(".")
    return bool(inner) and not any(letter.isalpha() for letter in inner)


def choose_images(samples: Sequence[str], keys: Sequence[str], wanted: str | None) -> Choice:
    """Choose among the images of samples; all are used unless `wanted` is given or most samples have several.

    If at least half of the samples have images under several keys, each of which occurs more than once, those of a
    usual name are the data (`IMAGES`: `jpg` rather than `seg.png`, `image.png` rather than `mask.png`). Further usual
    names are used too if no sample has both, such as `jpg` in some samples and `png` in others.

    Args:
        samples: the sample of each image.
        keys: the key of each image; see `key_of`.
        wanted: the key of the images that are used, if it is given.

    Raises:
        DataError: no image has the wanted key, or none of several keys is a usual one.
    """
    counts = Counter(keys)
    if wanted is not None:
        chosen = [wanted.lower().removeprefix(".")]
        if chosen[0] not in counts:
            cure = "name what follows the first dot of the names of the images"
            raise DataError(f"no image has the key '{wanted}'", where=WHERE, found=_listed(counts), cure=cure)
        return _choice(keys, counts, chosen)
    everything = Choice([True] * len(samples), [])
    num_samples = len(set(samples))
    if num_samples == len(samples):
        return everything
    keys_of: dict[str, set[str]] = {}
    for sample, key in zip(samples, keys, strict=True):
        if counts[key] > 1 and not _is_number(key):
            keys_of.setdefault(sample, set()).add(key)
    several = [found for found in keys_of.values() if len(found) > 1]
    if 2 * len(several) < num_samples:
        verb = agree(len(several), "has", "have")
        note = f"{count_noun(len(several), 'sample')} {verb} several images, all of which are used ({WHERE})"
        return everything._replace(notes=[note] if several else [])
    candidates = Counter(key for found in several for key in found)
    chosen = []
    for key in sorted(filter(_is_usual, candidates), key=lambda key: (IMAGES.index(_name(key)), key)):
        if not any(key in found and found.intersection(chosen) for found in several):
            chosen.append(key)
    if not chosen:
        example = min(candidates)
        cure = f'name the key of the images: {WHERE}="{example}"; if each is an image of its own, unpack the archives'
        what = "several images of a sample may be the data"
        raise DataError(what, where=WHERE, found=_listed(candidates), cure=cure)
    return _choice(keys, counts, chosen)


def _choice(keys: Sequence[str], counts: Counter[str], chosen: Sequence[str]) -> Choice:
    """The images under the chosen keys."""
    used = [key in chosen for key in keys]
    others = Counter({key: n for key, n in counts.items() if key not in chosen})
    unused = f"; not used: {_listed(others)}" if others else ""
    word = agree(len(chosen), "key", "keys")
    return Choice(used, [f"the images of the samples are those under the {word} {' and '.join(chosen)}{unused}"])


def _name(key: str) -> str:
    """What says which image it is: `seg` of `seg.png`, and `jpg` of `jpg`."""
    return key.rpartition(".")[0] or key


def _is_usual(key: str) -> bool:
    return _name(key) in IMAGES


def _listed(counts: Counter[str]) -> str:
    """The keys with the numbers of their images, the most frequent ones first."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    listed = ", ".join(f"{n:,} {display_name(key)}" for key, n in ranked[:MAX_KEYS])
    return (listed + (", ..." if len(counts) > MAX_KEYS else "")) or "none"
