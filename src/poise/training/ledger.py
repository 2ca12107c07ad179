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
CONDENSE = 64


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
        with np.errstate(invalid="ignore"):
            mean = float(series.sum())  # nan or inf, whichever it is
        return Stat(mean, math.nan, float(series.min()), float(series.max()))
    return Stat(float(series.mean()), float(series.std()), float(series.min()), float(series.max()))


class Ledger:
    """Readings of the steps since the last row.

    Args:
        undecided: the score of a sample that D can't place, from which its accuracy is counted. None where scores
            mean something in comparison only: then D is right about a pair if the real scores higher.
    """

    def __init__(self, undecided: float | None = 0.0) -> None:
        self._undecided = undecided
        self._notes: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[list[Tensor]]] = defaultdict(list)
        self._scores: list[tuple[Tensor, Tensor]] = []
        self._series: dict[str, list[Tensor]] = defaultdict(list)

    def note(self, name: str, reading: Tensor) -> None:
        """A 0-dim reading."""
        self._notes[name].append(reading.detach())

    def norm(self, name: str, tensors: list[Tensor]) -> None:
        """The Euclidean length of all `tensors` together."""
        if tensors:
            self._norms[name].append(list(torch._foreach_norm(tensors)))

    def scores(self, real: Tensor, fake: Tensor) -> None:
        """D's scores of both piles, B each."""
        self._scores.append((real.detach(), fake.detach()))
        if len(self._scores) >= CONDENSE:
            self._condense()

    def _condense(self) -> None:
        """Reduce everything said so far to one number per step and name, still on the device.

        Done every 64 steps at the latest: thousands of tensors of one number each, kept between the large ones
        of a step, would leave the allocator's memory in shreds.
        """
        for name, notes in self._notes.items():
            self._series[name].append(torch.stack(notes))
        for name, norms in self._norms.items():
            self._series[name].append(_together(norms))
        if self._scores:
            real, fake = (torch.stack(pile) for pile in zip(*self._scores, strict=True))
            told = {"d/real_score": real.mean(1), "d/fake_score": fake.mean(1)} | self._accuracy(real, fake)
            for name, series in told.items():
                self._series[name].append(series)
        self._notes.clear()
        self._norms.clear()
        self._scores.clear()

    def _accuracy(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if self._undecided is None:
            return {"d/accuracy": (real > fake).float().mean(1)}
        right_real, right_fake = (right.float().mean(1) for right in (real > self._undecided, fake < self._undecided))
        both = (right_real + right_fake) / 2
        return {"d/real_accuracy": right_real, "d/fake_accuracy": right_fake, "d/accuracy": both}

    def stats(self) -> dict[str, Stat]:
        """What the interval came to, in one transfer; the ledger is empty afterwards."""
        pending = self.state()
        self._series.clear()
        if not pending:
            return {}
        numbers = torch.cat([series.double() for series in pending.values()]).cpu().numpy()
        ends = np.cumsum([len(series) for series in pending.values()])[:-1]
        return {name: statistics(series) for name, series in sorted(zip(pending, np.split(numbers, ends), strict=True))}

    def state(self) -> dict[str, Tensor]:
        """What is pending, one number per step and name: for a row, or a save in the middle of an interval."""
        self._condense()
        return {name: torch.cat(parts) for name, parts in self._series.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what was pending."""
        self._series = defaultdict(list, {name: [series] for name, series in state.items()})


def _together(norms: list[list[Tensor]]) -> Tensor:
    """One length per step from the lengths of its tensors; a step may have had more tensors than another."""
    if len({len(step) for step in norms}) == 1:
        return torch.stack([norm for step in norms for norm in step]).view(len(norms), -1).norm(dim=1)
    return torch.stack([torch.stack(step).norm() for step in norms])


def encode(number: float) -> float | str:
    """A number that JSON knows, or its name: "nan", "inf", "-inf"."""
    return number if math.isfinite(number) else repr(number)


def as_json(row: Row) -> dict[str, Any]:
    """The row as `rows.jsonl` has it."""
    stats = {name: {k: encode(v) for k, v in stat._asdict().items()} for name, stat in row.stats.items()}
    return {"step": row.step, "images": row.images, "seconds": row.seconds, "stats": stats}
