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

from poise.data.source import Finite
from poise.data.toys import PlaneEntry
from poise.measure.features import Extractor
from poise.measure.sitting import Pile, pile_of
from poise.progress import Progress
from poise.randomness import Dice, derive

DRAWS = 4
"""How often a floor is drawn."""


class Draw(NamedTuple):
    """Real samples in the fakes' place, and the real samples that they are held against: as many, and others."""

    fake: Pile
    real: Pile


@dataclass
class Reals:
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

    real: Pile
    others: Callable[[], list[Draw]] = list
    no_floor: str = ""
    halves: Callable[[], list[Draw]] = list
    many: Tensor = field(default_factory=lambda: torch.empty(0))
    notes: list[str] = field(default_factory=list)

    @cached_property
    def draws(self) -> list[Draw]:
        """For a floor at n."""
        return self.others()

    @cached_property
    def copying(self) -> list[Draw]:
        """For tests of copying."""
        return self.halves()


def shuffled(n: int, draw: int = 0) -> Tensor:
    """The places of n samples in a random order, the same for the same draw."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(derive(draw, "measure/reals"))).permutation(n))


def held_out_reals(train: Finite, held_out: Finite, n: int | None, most: int, look: Extractor, tell: Progress) -> Reals:
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
    order, half = shuffled(len(held_out)), min(n, len(held_out) // 2)
    real = pile_of(held_out, order[:n], look, tell)

    def halves() -> list[Draw]:
        """In the first, what fakes are held against is the beginning of the reals."""
        both = real if 2 * half <= n else pile_of(held_out, order[: 2 * half], look, tell)
        places = [torch.arange(2 * half), *(shuffled(2 * half, draw) for draw in range(1, DRAWS))]
        return [Draw(both.part(some[half:]), both.part(some[:half])) for some in places]

    reals = Reals(real, halves=halves)
    if asked is not None and asked > n:
        reals.notes.append(f"there are {n:,} real pictures to hold against the samples, not {asked:,}")
    if len(train) < n:
        reals.no_floor = f"{len(train):,} training pictures can't stand in for {n:,} samples"
    else:
        reals.others = partial(_beside, real, train, shuffled(len(train)), n, look, tell)
    return reals


def parted_reals(source: Finite, n: int | None, most: int, look: Extractor, tell: Progress) -> Reals:
    """Reals of a source of which nothing is held out: one random part, and in the floors others.

    Args:
        source: all real samples.
        n: how many are compared; left out, as many as leave another part as large, at most `most`.
        most: see `held_out_reals`.
        look: see `held_out_reals`.
        tell: see `held_out_reals`.
    """
    asked, n = n, min(n or max(min(2, len(source)), min(most, len(source) // 2)), len(source))
    order = shuffled(len(source))
    reals = Reals(pile_of(source, order[:n], look, tell))
    if asked is not None and asked > n:
        reals.notes.append(f"there are {n:,} real pictures to hold against the samples, not {asked:,}")
    if len(source) < 2 * n:
        reals.no_floor = f"{len(source):,} real pictures are too few for two parts of {n:,}"
    elif len(source) >= (1 + DRAWS) * n:
        reals.others = partial(_beside, reals.real, source, order[n:], n, look, tell)
    else:
        reals.others = partial(_anew, reals.real, source, order, n, look, tell)
    return reals


def points(entry: PlaneEntry, n: int, look: Extractor) -> Reals:
    """Points of the plane, of which there are as many as one likes."""
    dice = Dice(0)
    drawn = [entry.points(n, dice("measure", draw)) for draw in range(1 + DRAWS)]
    real, *others = (Pile(some, look) for some in drawn)
    return Reals(real, lambda: [Draw(other, real) for other in others], many=drawn[1])


def _beside(real: Pile, pool: Finite, places: Tensor, n: int, look: Extractor, tell: Progress) -> list[Draw]:
    """n at a time of the samples at `places`, against the same reals: disjoint draws where there are enough."""
    whole = pile_of(pool, places[: DRAWS * n], look, tell)
    if len(whole) == DRAWS * n:
        chosen = list(torch.arange(len(whole)).split(n))
    else:
        chosen = [shuffled(len(whole), draw)[:n] for draw in range(DRAWS if len(whole) > n else 1)]
    return [Draw(whole.part(some), real) for some in chosen]


def _anew(real: Pile, pool: Finite, order: Tensor, n: int, look: Extractor, tell: Progress) -> list[Draw]:
    """Two disjoint parts of n, drawn anew each time; the first time one of them are the reals themselves."""
    whole = pile_of(pool, order, look, tell)
    again = (shuffled(len(whole), draw) for draw in range(1, DRAWS))
    first = Draw(whole.part(torch.arange(n, 2 * n)), real)
    return [first, *(Draw(whole.part(some[n : 2 * n]), whole.part(some[:n])) for some in again)]
