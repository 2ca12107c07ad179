"""Random sets of real samples: those that fake samples are compared with, and those that replace them for a floor.

A floor is the measure of real samples against other real samples at the same n as the value that it stands beside,
because most measures depend on n. It is drawn several times, which shows how much it varies. If there are too few real
samples, there is no floor, and the reason is reported.
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
from poise.data.source import SizedSource, Source
from poise.measure.features import Extractor
from poise.measure.sample_set import SampleSet, sample_set
from poise.utils.progress import Progress

NUM_DRAWS = 4
"""The number of draws of a floor."""


class FloorDraw(NamedTuple):
    """Real samples in place of the fake ones, and an equal number of other real samples to compare them with."""

    fake: SampleSet
    real: SampleSet


@dataclass
class ReferenceSamples:
    """The real samples that an evaluator compares samples with.

    Attributes:
        real: n real samples.
        make_floor_draws: makes the draws for a floor at n.
        no_floor_reason: why there are no such draws; empty if there are.
        make_copying_draws: makes draws of which both sides were held out, for tests of copying; fake samples are
            compared with `real` of the first draw.
        mode_samples: real samples whose modes are counted for the floor; empty if there are none.
        notes: remarks that belong to every result.
    """

    real: SampleSet
    make_floor_draws: Callable[[], list[FloorDraw]] = list
    no_floor_reason: str = ""
    make_copying_draws: Callable[[], list[FloorDraw]] = list
    mode_samples: Tensor = field(default_factory=lambda: torch.empty(0))
    notes: list[str] = field(default_factory=list)

    @cached_property
    def floor_draws(self) -> list[FloorDraw]:
        """The draws for a floor at n."""
        return self.make_floor_draws()

    @cached_property
    def copying_draws(self) -> list[FloorDraw]:
        """The draws for tests of copying."""
        return self.make_copying_draws()


def random_order(n: int, seed: int = 0) -> Tensor:
    """A random permutation of n indices, int64; the same for the same seed."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(derive_seed(seed, "measure/reals"))).permutation(n))


def random_flips(n: int) -> Tensor:
    """Which of n images are flipped, bool, n: each one with probability 1/2; always the same."""
    drawn = np.random.Generator(np.random.Philox(derive_seed(0, "measure/mirror"))).random(n)
    return torch.from_numpy(drawn < 0.5)


def held_out_reference(
    train: SizedSource,
    held_out: SizedSource,
    n: int | None,
    max_n: int,
    extractor: Extractor,
    progress: Progress,
    *,
    mirror: bool = False,
) -> ReferenceSamples:
    """Reference samples from the held-out split; in the floors, training samples replace the fake ones.

    Args:
        train: the training split.
        held_out: the held-out split.
        n: the number of samples to compare; by default all held-out samples, at most `max_n`.
        max_n: see `n`.
        extractor: extracts the features.
        progress: called with what is being computed and which share of it is done.
        mirror: whether the run trains on flipped images too. Then new samples for tests of copying are flipped at
            random, as those that G learns to generate.
    """
    requested, n = n, min(n or max_n, len(held_out))
    order, half = random_order(len(held_out)), min(n, len(held_out) // 2)
    real = sample_set(held_out, order[:n], extractor, progress)

    def copying_draws() -> list[FloorDraw]:
        """Draws of two disjoint halves of the held-out samples with which the reference samples begin."""
        flipped = random_flips(2 * half) if mirror else None
        if flipped is None and 2 * half <= n:
            both = real
        else:
            both = sample_set(held_out, order[: 2 * half], extractor, progress, flipped=flipped)
        orders = [torch.arange(2 * half), *(random_order(2 * half, draw) for draw in range(1, NUM_DRAWS))]
        return [FloorDraw(both.subset(order[half:]), both.subset(order[:half])) for order in orders]

    reference = ReferenceSamples(real, make_copying_draws=copying_draws)
    if requested is not None and requested > n:
        reference.notes.append(_too_few_note(n, requested))
    if len(train) < n:
        reference.no_floor_reason = f"{len(train):,} training images are fewer than {n:,} samples"
    else:
        pool_order = random_order(len(train))
        reference.make_floor_draws = partial(_draw_from_pool, real, train, pool_order, n, extractor, progress)
    return reference


def split_reference(
    source: SizedSource, n: int | None, max_n: int, extractor: Extractor, progress: Progress
) -> ReferenceSamples:
    """Reference samples from a source without a held-out split: one random part; the floors use other parts.

    Args:
        source: all real samples.
        n: the number of samples to compare; by default half of all samples, at most `max_n`.
        max_n: see `n`.
        extractor: extracts the features.
        progress: called with what is being computed and which share of it is done.
    """
    requested, n = n, min(n or max(min(2, len(source)), min(max_n, len(source) // 2)), len(source))
    order = random_order(len(source))
    reference = ReferenceSamples(sample_set(source, order[:n], extractor, progress))
    if requested is not None and requested > n:
        reference.notes.append(_too_few_note(n, requested))
    if len(source) < 2 * n:
        reference.no_floor_reason = f"{len(source):,} real images are too few for two parts of {n:,}"
    elif len(source) >= (1 + NUM_DRAWS) * n:
        reference.make_floor_draws = partial(_draw_from_pool, reference.real, source, order[n:], n, extractor, progress)
    else:
        reference.make_floor_draws = partial(_draw_both_sides, reference.real, source, order, n, extractor, progress)
    return reference


def toy_reference(source: Source, n: int, extractor: Extractor) -> ReferenceSamples:
    """Reference samples of a distribution in the plane, which provides any number of points."""
    streams = RandomStreams(0)
    draws = [source.draw(n, streams("measure", draw)) for draw in range(1 + NUM_DRAWS)]
    real, *others = (SampleSet(points, extractor) for points in draws)
    return ReferenceSamples(real, lambda: [FloorDraw(other, real) for other in others], mode_samples=draws[1])


def _too_few_note(n: int, requested: int) -> str:
    return f"only {n:,} real images are available for the comparison, not {requested:,}"


def _draw_from_pool(
    real: SampleSet, pool: SizedSource, order: Tensor, n: int, extractor: Extractor, progress: Progress
) -> list[FloorDraw]:
    """Draws of n samples of a pool against the same real samples; disjoint draws if there are enough samples."""
    drawn = sample_set(pool, order[: NUM_DRAWS * n], extractor, progress)
    if len(drawn) == NUM_DRAWS * n:
        parts = list(torch.arange(len(drawn)).split(n))
    else:
        parts = [random_order(len(drawn), draw)[:n] for draw in range(NUM_DRAWS if len(drawn) > n else 1)]
    return [FloorDraw(drawn.subset(part), real) for part in parts]


def _draw_both_sides(
    real: SampleSet, pool: SizedSource, order: Tensor, n: int, extractor: Extractor, progress: Progress
) -> list[FloorDraw]:
    """Draws of two disjoint parts of n samples each; one part of the first draw is `real` itself."""
    drawn = sample_set(pool, order, extractor, progress)
    orders = (random_order(len(drawn), draw) for draw in range(1, NUM_DRAWS))
    first = FloorDraw(drawn.subset(torch.arange(n, 2 * n)), real)
    return [first, *(FloorDraw(drawn.subset(order[n : 2 * n]), drawn.subset(order[:n])) for order in orders)]
