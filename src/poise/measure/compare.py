"""Two piles of pictures, whoever made them, by the same measures as a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.data.source import DataConfig, DataSplits, ImageDataConfig, SizedSource
from poise.errors import DataError
from poise.measure.base import Measure
from poise.measure.catalogue import EvaluationResult
from poise.measure.evaluator import MOST, Evaluator
from poise.measure.reference import random_order
from poise.utils.progress import Progress, no_progress


def compare(
    fake: DataSplits,
    real: DataSplits,
    measures: Sequence[Measure],
    *,
    entry: DataConfig | None = None,
    n: int | None = None,
    features: str = "auto",
    progress: Progress = no_progress,
    trust_code: bool = False,
) -> EvaluationResult:
    """Measure the pictures of `fake` against those of `real`, which is taken for the data.

    Args:
        fake: pictures of the same size and channels; those trained on are compared, `n` of them at random.
        real: if it holds some out, these are compared and the others serve floors and tests of copying; else one random
            part of them is compared, and floors hold others against it.
        measures: see `chosen`.
        entry: what `real` was loaded from.
        n: how many of each are compared; left out, as many as FAKE has, as long as REAL has as many and others for the
            floors.
        features: see `extractor`.
        progress: told of work that takes its time.
        trust_code: whether a Python file may make features.

    Raises:
        DataError: no pictures, or of another size or other channels.
    """
    ours, theirs = fake.train, real.train
    if not isinstance(ours, SizedSource) or not isinstance(theirs, SizedSource):
        raise DataError("only pictures can be compared", where="FAKE" if not isinstance(ours, SizedSource) else "REAL")
    if ours.shape != theirs.shape:
        told = [" x ".join(map(str, one.shape)) for one in (ours, theirs)]
        raise DataError("both must have the same size and channels", found=f"{told[0]} against {told[1]}")
    held_out = real.held_out if isinstance(real.held_out, SizedSource) else None
    asked, n = n or 0, min(n or max_samples(real), len(ours), len(theirs if held_out is None else held_out))
    bench = Evaluator(entry, real, features, n, progress=progress, trust_code=trust_code)
    order = random_order(len(ours))
    number = {name: kind for kind, name in enumerate(theirs.classes)}
    known = bool(ours.classes) and number.keys() >= set(ours.classes)
    numbers = torch.tensor([number.get(name, -1) for name in ours.classes])

    def samples(count: int) -> Tensor:
        return ours.gather(order[:count]).images

    def labels(count: int) -> Tensor | None:
        found = ours.gather_labels(order[:count]) if known else None
        return None if found is None else numbers[found]

    if asked > n:
        bench.notes.append(f"there are {n:,} of each to compare, not {asked:,}")
    return bench.measure(samples, measures, labels)


def max_samples(real: DataSplits) -> int:
    """How many pictures of each are compared where nobody says: half of REAL is kept for the floor."""
    if isinstance(real.held_out, SizedSource):
        return min(MOST, len(real.held_out))
    return min(MOST, max(2, len(real.train) // 2)) if isinstance(real.train, SizedSource) else MOST


def match_channels(entry: DataConfig, channels: int) -> DataConfig:
    """FAKE's entry, told to give as many channels as REAL has."""
    fits = isinstance(entry, ImageDataConfig) and "channels" in type(entry).model_fields
    return entry.model_copy(update={"channels": channels}) if fits else entry
