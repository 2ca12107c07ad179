"""Two piles of pictures, whoever made them, by the same measures as a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.data.source import DataEntry, Finite, Loaded, PictureEntry
from poise.errors import DataError
from poise.measure.base import Measure
from poise.measure.bench import MOST, Bench
from poise.measure.catalogue import Result
from poise.measure.reals import shuffled
from poise.progress import Progress, silent


def compare(
    fake: Loaded,
    real: Loaded,
    measures: Sequence[Measure],
    *,
    entry: DataEntry | None = None,
    n: int | None = None,
    features: str = "auto",
    tell: Progress = silent,
    trust_code: bool = False,
) -> Result:
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
        tell: told of work that takes its time.
        trust_code: whether a Python file may make features.

    Raises:
        DataError: no pictures, or of another size or other channels.
    """
    ours, theirs = fake.train, real.train
    if not isinstance(ours, Finite) or not isinstance(theirs, Finite):
        raise DataError("only pictures can be compared", where="FAKE" if not isinstance(ours, Finite) else "REAL")
    if ours.shape != theirs.shape:
        told = [" x ".join(map(str, one.shape)) for one in (ours, theirs)]
        raise DataError("both must have the same size and channels", found=f"{told[0]} against {told[1]}")
    held_out = real.held_out if isinstance(real.held_out, Finite) else None
    asked, n = n or 0, min(n or at_most(real), len(ours), len(theirs if held_out is None else held_out))
    bench = Bench(entry, real, features, n, tell=tell, trust_code=trust_code)
    order = shuffled(len(ours))
    number = {name: kind for kind, name in enumerate(theirs.classes)}
    known = bool(ours.classes) and number.keys() >= set(ours.classes)
    numbers = torch.tensor([number.get(name, -1) for name in ours.classes])

    def samples(count: int) -> Tensor:
        return ours.take(order[:count]).images

    def labels(count: int) -> Tensor | None:
        found = ours.labels_at(order[:count]) if known else None
        return None if found is None else numbers[found]

    if asked > n:
        bench.notes.append(f"there are {n:,} of each to compare, not {asked:,}")
    return bench.measure(samples, measures, labels)


def at_most(real: Loaded) -> int:
    """How many pictures of each are compared where nobody says: half of REAL is kept for the floor."""
    if isinstance(real.held_out, Finite):
        return min(MOST, len(real.held_out))
    return min(MOST, max(2, len(real.train) // 2)) if isinstance(real.train, Finite) else MOST


def same_channels(entry: DataEntry, channels: int) -> DataEntry:
    """FAKE's entry, told to give as many channels as REAL has."""
    fits = isinstance(entry, PictureEntry) and "channels" in type(entry).model_fields
    return entry.model_copy(update={"channels": channels}) if fits else entry
