"""Counts of copies and of images of a single colour among training samples, without a copy of all of them in memory."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from torch import Tensor

from poise.data.pixel_statistics import CHUNK_BYTES
from poise.data.source import SizedSource

MAX_IMAGES = 20_000
"""The number of images that are searched for copies."""


class Repeats(NamedTuple):
    """How many samples are of little use.

    Attributes:
        total: how many were looked at.
        plain: those of a single value.
        copies: those that are equal to another one, which is not counted, or to its flip if flips are trained on.
        flips: those of the copies that only a flip is equal to.
    """

    total: int
    plain: int
    copies: int
    flips: int


def count_repeats(source: SizedSource, *, mirror: bool) -> Repeats:
    """The repeats among up to `MAX_IMAGES` samples, of which about `CHUNK_BYTES` are in memory at a time.

    Args:
        source: the samples, B x H x W x C or B x D.
        mirror: whether flips of images are trained on too.
    """
    indices, plain = source.evenly_spaced(MAX_IMAGES), 0
    contents, groups = set[bytes](), set[bytes]()
    for chunk in indices.split(max(1, CHUNK_BYTES // math.prod(source.shape))):
        samples = source.gather(chunk).images
        flat = samples.flatten(1)
        plain += int((flat.amin(1) == flat.amax(1)).sum())
        own = list(map(_digest, samples))
        contents.update(own)
        groups.update(map(min, own, map(_digest, samples.flip(2))) if mirror else own)
    total, distinct = len(indices), len(groups)
    return Repeats(total, plain, total - distinct, len(contents) - distinct)


def _digest(sample: Tensor) -> bytes:
    return hashlib.blake2b(sample.numpy().tobytes(), digest_size=8).digest()
