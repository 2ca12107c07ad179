"""How G's samples lie to the training pictures: numbers that tell copies from new pictures, and both from blobs.

A sample that is near to a training picture need not be a copy of it: early in training samples are blobs near the mean
of the data, which lie near to many pictures. So nearness alone (`g/newness`) proves nothing, and two more numbers are
taken. A copy is near to one picture and far from all others (`g/nearest_ratio`); and a G that has learned the training
pictures by heart, in pieces or in mixtures, makes samples that are nearer to them than to held-out pictures of the same
kind (`g/train_ratio`). For a blob both are 1.

Sources: the ratio of nearest to second nearest is Lowe's test of a match (2004, section 7.1); to compare with as many
held-out pictures is the three-sample idea of Meehan 2020 (C_T, `poise measure`), here cheap enough for every row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from poise.data.source import SizedSource
from poise.utils.images import to_float

KNOWN, SIDE = 5000, 16
"""Training pictures among which a sample's nearest is looked for, and the side to which all are shrunk for that."""

COUNT = 64
"""Held-out pictures that say how far a new picture lies from the training pictures."""

CHUNK = 256
"""Pictures that are shrunk at a time: all of them at full size at once might not fit."""

SAME = 0.25
"""Training pictures nearer to each other than this share of the distance from a held-out picture to its nearest
training picture count as one: a second copy in the data set must not stand for a second neighbour."""

FLAT = 0.1
"""A picture with less than this share of the usual contrast has no shape to copy, and is no copy."""

QUARTER = 0.25
"""`g/nearest_ratio` is the lower quartile over samples: it is enough that some of them are copies."""

ENOUGH = 50
"""Pictures on the smaller side of the split below which `g/train_ratio` is mostly chance: with 50, for a G that knows
neither side it lies between 0.93 and 1.08 in 98 of 100 draws of digits."""

Fraction = tuple[Tensor, Tensor, Tensor]
"""What is above and below the line, and the scale of the latter: if it is rounding noise on that, there is no ratio."""


def downsample_rows(images: Tensor) -> Tensor:
    """Pictures shrunk to 16 x 16 at most, as rows."""
    side = min(SIDE, *images.shape[2:])
    return adaptive_avg_pool2d(images.float(), side).flatten(1)


def standardize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their mean, at length 1: brightness and contrast are taken out. With the length before, n."""
    centred = rows - rows.mean(1, keepdim=True)
    contrast = centred.norm(dim=1)
    return centred / contrast.clamp_min(1e-6)[:, None], contrast


def distances(samples: Tensor, known: Tensor, *, exactly: bool = False) -> Tensor:
    """The Euclidean distance from each of n samples to each of m known ones, n x m.

    `exactly`: 0 for a copy; ten times as slow as by matrix products, which are off by a thousandth there.
    """
    mode = "donot_use_mm_for_euclid_dist" if exactly else "use_mm_for_euclid_dist_if_necessary"
    return torch.cdist(samples, known, compute_mode=mode)


def nearest_ratio(apart: Tensor, known: Tensor, same: Tensor | float) -> Tensor:
    """For each of n samples the distance to the nearest known one over that to the second nearest, n, 0 to 1.

    A copy: about 0. A new picture, or a blob near the mean of the data: about 1.

    Args:
        apart: `distances(samples, known)`, n x m.
        known: m rows.
        same: known ones that lie within this distance of the nearest are taken to be the same picture, and are not the
            second nearest. Where all are, the ratio is 0.
    """
    first, place = apart.min(1)
    alike = distances(known[place], known) <= same
    second = apart.masked_fill(alike.scatter_(1, place[:, None], True), torch.inf).min(1).values
    return first / second


def nearest_rank_probabilities(count: int, n: int) -> Tensor:
    """How often the 1st, 2nd, ... nearest of `count` is the nearest of n drawn from them, 1-dim, sum 1.

    C(count - k, n - 1) / C(count, n) for the k-th; what is rarer than one in a million is left out.
    """
    told, left = [n / count], count - n
    while told[-1] > 1e-6 and len(told) <= left:
        k = len(told)
        told.append(told[-1] * (left - k + 1) / (count - k))
    found = torch.tensor(told)
    return found / found.sum()


def expected_nearest(apart: Tensor, weights: Tensor) -> Tensor:
    """For each of n samples the expected distance to the nearest of a random part of m known ones, n.

    Args:
        apart: `distances(samples, known)`, n x m.
        weights: `shares(m, size of the part)`.
    """
    return apart.topk(len(weights), largest=False).values @ weights


class MemorizationCheck:
    """Training and held-out pictures to look among.

    Args:
        train: pictures that are trained on.
        held_out: pictures that are not.
        device: where samples will be.
    """

    def __init__(self, train: SizedSource, held_out: SizedSource, device: torch.device) -> None:
        self.known, self.others = (_shrunk(source, device) for source in (train, held_out))
        some = downsample_rows(held_out.preview(COUNT).to(device))
        self.away = distances(some, self.known, exactly=True).min(1).values.median()
        shapes, contrast = standardize_rows(self.known)
        self.least = FLAT * contrast.median()
        self.shapes = shapes[contrast > self.least]
        self.same = torch.zeros_like(self.away)
        self.usual_ratio = torch.zeros_like(self.away)
        if len(self.shapes) > 1:
            self.same = SAME * distances(standardize_rows(some)[0], self.shapes, exactly=True).min(1).values.median()
            self.usual_ratio = self._ratio(some)
        n = min(len(self.known), len(self.others))
        both = (self.known, self.others)
        self.weights = [nearest_rank_probabilities(len(rows), n).to(device) for rows in both] if n >= ENOUGH else []

    def _ratio(self, rows: Tensor) -> Tensor:
        """The lower quartile of `nearest_ratio` over samples, of standardised pictures, 0-dim; 1 for flat samples."""
        shapes, contrast = standardize_rows(rows)
        found = nearest_ratio(distances(shapes, self.shapes), self.shapes, self.same)
        return found.masked_fill(contrast <= self.least, 1.0).quantile(QUARTER)

    def compute(self, fake: Tensor) -> dict[str, Fraction]:
        """For samples, n x C x H x W: each quantity as a fraction of 0-dim tensors.

        `g/newness`: the median distance to the nearest training picture, over that of held-out pictures.
        `g/nearest_ratio`: the lower quartile of `nearest_ratio`, of standardised pictures, over that of held-out ones.
        `g/train_ratio`: the expected distance to the nearest of n training pictures over that to the nearest of as many
        held-out ones; the median over samples. Left out where one of them has fewer than 50.
        """
        rows = downsample_rows(fake)
        apart, size = distances(rows, self.known), self.known.norm(dim=1).mean()
        told = {"g/newness": (apart.min(1).values.median(), self.away, size)}
        if len(self.shapes) > 1:
            told["g/nearest_ratio"] = self._ratio(rows), self.usual_ratio, torch.ones_like(self.away)
        if self.weights:
            here = expected_nearest(apart, self.weights[0])
            there = expected_nearest(distances(rows, self.others), self.weights[1])
            usual = there.median()
            told["g/train_ratio"] = (here / there).nan_to_num(1.0, 1e6).median() * usual, usual, size
        return told


def _shrunk(source: SizedSource, device: torch.device) -> Tensor:
    """Up to 5,000 pictures of a source, spread evenly, as rows."""
    parts = source.evenly_spaced(KNOWN).split(CHUNK)
    return torch.cat([downsample_rows(to_float(source.gather(places).images, device)) for places in parts])
