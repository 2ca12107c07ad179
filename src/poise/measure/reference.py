"""Real samples, drawn at random: those that samples are held against, and those that stand in their place for a floor.

A floor is a measure of real samples against other real ones at the same n as the figure beside it, for most measures
depend on n. It is drawn several times, so that one can see by how much it varies; where there are too few real samples
for it, there is none, and it is said why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams, derive_seed
from poise.data.source import SizedSource
from poise.data.toys import PlaneConfig
from poise.measure.features import Extractor
from poise.measure.sample_set import SampleSet, sample_set
from poise.utils.progress import Progress

DRAWS = 4
"""How often a floor is drawn."""


class FloorDraw(NamedTuple):
    """Real samples in the fakes' place, and the real samples that they are held against: as many, and others."""

    fake: SampleSet
    real: SampleSet


@dataclass
class ReferenceSamples:
    """What a bench holds samples against.

    Attributes:
        real: n real samples.
        others: makes the draws for a floor at n.
        no_floor: why there are none, if so.
        halves: makes draws of which both sides were held out, for tests of copying; `real` of the first is what fakes
            are held against there.
        many: real samples whose modes count, for the floor; empty where there are none.
        notes: what the reader of the figures should know.
    """

    real: SampleSet
    others: Callable[[], list[FloorDraw]] = list
    no_floor: str = ""
    halves: Callable[[], list[FloorDraw]] = list
    many: Tensor = field(default_factory=lambda: torch.empty(0))
    notes: list[str] = field(default_factory=list)

    @cached_property
    def draws(self) -> list[FloorDraw]:
        """For a floor at n."""
        return self.others()

    @cached_property
    def copying(self) -> list[FloorDraw]:
        """For tests of copying."""
        return self.halves()


def random_order(n: int, draw: int = 0) -> Tensor:
    """The places of n samples in a random order, the same for the same draw."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(derive_seed(draw, "measure/reals"))).permutation(n))


def held_out_reference(
    train: SizedSource, held_out: SizedSource, n: int | None, most: int, look: Extractor, tell: Progress
) -> ReferenceSamples:
    """Reals that were held out; in the floors the training samples stand in the fakes' place.

    Args:
        train: what was trained on.
        held_out: what was not.
        n: how many are compared; left out, all that are held out, at most `most`.
        most: see `n`.
        look: what makes features of them.
        tell: told of work that takes its time.
    """
    asked, n = n, min(n or most, len(held_out))
    order, half = random_order(len(held_out)), min(n, len(held_out) // 2)
    real = sample_set(held_out, order[:n], look, tell)

    def halves() -> list[FloorDraw]:
        """In the first, what fakes are held against is the beginning of the reals."""
        both = real if 2 * half <= n else sample_set(held_out, order[: 2 * half], look, tell)
        places = [torch.arange(2 * half), *(random_order(2 * half, draw) for draw in range(1, DRAWS))]
        return [FloorDraw(both.subset(some[half:]), both.subset(some[:half])) for some in places]

    reals = ReferenceSamples(real, halves=halves)
    if asked is not None and asked > n:
        reals.notes.append(f"there are {n:,} real pictures to hold against the samples, not {asked:,}")
    if len(train) < n:
        reals.no_floor = f"{len(train):,} training pictures can't stand in for {n:,} samples"
    else:
        reals.others = partial(_beside, real, train, random_order(len(train)), n, look, tell)
    return reals


def split_reference(source: SizedSource, n: int | None, most: int, look: Extractor, tell: Progress) -> ReferenceSamples:
    """Reals of a source of which nothing is held out: one random part, and in the floors others.

    Args:
        source: all real samples.
        n: how many are compared; left out, as many as leave another part as large, at most `most`.
        most: see `held_out_reals`.
        look: see `held_out_reals`.
        tell: see `held_out_reals`.
    """
    asked, n = n, min(n or max(min(2, len(source)), min(most, len(source) // 2)), len(source))
    order = random_order(len(source))
    reals = ReferenceSamples(sample_set(source, order[:n], look, tell))
    if asked is not None and asked > n:
        reals.notes.append(f"there are {n:,} real pictures to hold against the samples, not {asked:,}")
    if len(source) < 2 * n:
        reals.no_floor = f"{len(source):,} real pictures are too few for two parts of {n:,}"
    elif len(source) >= (1 + DRAWS) * n:
        reals.others = partial(_beside, reals.real, source, order[n:], n, look, tell)
    else:
        reals.others = partial(_anew, reals.real, source, order, n, look, tell)
    return reals


def toy_reference(entry: PlaneConfig, n: int, look: Extractor) -> ReferenceSamples:
    """Points of the plane, of which there are as many as one likes."""
    streams = RandomStreams(0)
    drawn = [entry.points(n, streams("measure", draw)) for draw in range(1 + DRAWS)]
    real, *others = (SampleSet(some, look) for some in drawn)
    return ReferenceSamples(real, lambda: [FloorDraw(other, real) for other in others], many=drawn[1])


def _beside(
    real: SampleSet, pool: SizedSource, places: Tensor, n: int, look: Extractor, tell: Progress
) -> list[FloorDraw]:
    """n at a time of the samples at `places`, against the same reals: disjoint draws where there are enough."""
    whole = sample_set(pool, places[: DRAWS * n], look, tell)
    if len(whole) == DRAWS * n:
        chosen = list(torch.arange(len(whole)).split(n))
    else:
        chosen = [random_order(len(whole), draw)[:n] for draw in range(DRAWS if len(whole) > n else 1)]
    return [FloorDraw(whole.subset(some), real) for some in chosen]


def _anew(
    real: SampleSet, pool: SizedSource, order: Tensor, n: int, look: Extractor, tell: Progress
) -> list[FloorDraw]:
    """Two disjoint parts of n, drawn anew each time; the first time one of them are the reals themselves."""
    whole = sample_set(pool, order, look, tell)
    again = (random_order(len(whole), draw) for draw in range(1, DRAWS))
    first = FloorDraw(whole.subset(torch.arange(n, 2 * n)), real)
    return [first, *(FloorDraw(whole.subset(some[n : 2 * n]), whole.subset(some[:n])) for some in again)]
