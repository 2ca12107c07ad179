"""The ledger: what a step has to say stays on the device until a row is due, then moves in one transfer.

The step only appends detached tensors to lists. Means over a batch, accuracies and norms are worked out
for a whole interval at once, when the row is written.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Series = npt.NDArray[np.float64]


class Stat(NamedTuple):
    """One quantity over one interval."""

    mean: float
    std: float
    min: float
    max: float


class Row(NamedTuple):
    """One line of `rows.jsonl`, as plain numbers.

    Attributes:
        step: steps done.
        images: real pictures seen.
        seconds: time spent training, from the run's beginning, resumed or not.
        stats: by name, `side/quantity`.
    """

    step: int
    images: int
    seconds: float
    stats: dict[str, Stat]


def statistics(series: Series) -> Stat:
    """Mean, standard deviation (of the interval itself: divided by n), least and greatest."""
    if not np.isfinite(series).all():
        mean = float(series.sum())  # nan or inf, whichever it is
        return Stat(mean, math.nan, float(series.min()), float(series.max()))
    return Stat(float(series.mean()), float(series.std()), float(series.min()), float(series.max()))


class Ledger:
    """Readings of the steps since the last row."""

    def __init__(self) -> None:
        self._notes: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[list[Tensor]]] = defaultdict(list)
        self._scores: list[tuple[Tensor, Tensor]] = []
        self._settled: dict[str, list[Series]] = defaultdict(list)

    def note(self, name: str, reading: Tensor) -> None:
        """A 0-dim reading."""
        self._notes[name].append(reading.detach())

    def norm(self, name: str, tensors: list[Tensor]) -> None:
        """The Euclidean length of all `tensors` together."""
        self._norms[name].append(list(torch._foreach_norm(tensors)))

    def scores(self, real: Tensor, fake: Tensor) -> None:
        """D's scores of both piles, B each."""
        self._scores.append((real.detach(), fake.detach()))

    def settle(self) -> None:
        """Reduce everything said so far to one number per step and name, in one transfer."""
        series: dict[str, Tensor] = {name: torch.stack(notes) for name, notes in self._notes.items()}
        for name, norms in self._norms.items():
            series[name] = torch.stack([n for step in norms for n in step]).view(len(norms), -1).norm(dim=1)
        if self._scores:
            real, fake = (torch.stack(pile) for pile in zip(*self._scores, strict=True))
            right_real, right_fake = (real > 0).float().mean(1), (fake < 0).float().mean(1)
            series |= {"d/real_score": real.mean(1), "d/fake_score": fake.mean(1)}
            series |= {"d/real_accuracy": right_real, "d/fake_accuracy": right_fake}
            series["d/accuracy"] = (right_real + right_fake) / 2
        if series:
            numbers = torch.cat([s.double() for s in series.values()]).cpu().numpy()
            at = 0
            for name, s in series.items():
                self._settled[name].append(numbers[at : at + len(s)])
                at += len(s)
        self._notes.clear()
        self._norms.clear()
        self._scores.clear()

    def stats(self) -> dict[str, Stat]:
        """What the interval came to; the ledger is empty afterwards."""
        self.settle()
        done = {name: statistics(np.concatenate(parts)) for name, parts in sorted(self._settled.items())}
        self._settled.clear()
        return done

    def state(self) -> dict[str, Tensor]:
        """What is pending, for a save in the middle of an interval."""
        self.settle()
        return {name: torch.from_numpy(np.concatenate(parts)) for name, parts in self._settled.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what was pending."""
        self._settled = defaultdict(list, {name: [series.numpy()] for name, series in state.items()})


def encode(number: float) -> float | str:
    """A number that JSON knows, or its name: "nan", "inf", "-inf"."""
    return number if math.isfinite(number) else repr(number)


def as_json(row: Row) -> dict[str, Any]:
    """The row as `rows.jsonl` has it."""
    stats = {name: {k: encode(v) for k, v in stat._asdict().items()} for name, stat in row.stats.items()}
    return {"step": row.step, "images": row.images, "seconds": row.seconds, "stats": stats}
