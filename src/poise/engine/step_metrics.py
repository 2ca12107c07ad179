"""The ledger: what a step has to say stays on the device until a row is due, then moves in one transfer.

The step only appends detached tensors to lists. Means over a batch, accuracies and norms are worked out
for a whole interval at once, when the row is written.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.core.metrics_log import Stat
from poise.core.types import to_float64

Series = npt.NDArray[np.float64]
CONDENSE = 64


def statistics(series: Series) -> Stat:
    """Mean, standard deviation (of the interval itself: divided by n), least and greatest."""
    if not np.isfinite(series).all():
        with np.errstate(invalid="ignore"):
            mean = float(series.sum())  # nan or inf, whichever it is
        return Stat(mean, math.nan, float(series.min()), float(series.max()))
    return Stat(float(series.mean()), float(series.std()), float(series.min()), float(series.max()))


class NonFiniteGradient(NamedTuple):
    """Which tensor of a norm was not finite: its place among those that were there, and how many these were."""

    index: int
    count: int


class StepMetrics:
    """Readings of the steps since the last row.

    Args:
        decision_threshold: the score above which D calls a sample real, for its accuracy. None where scores
            mean something in comparison only: then D is right about a pair if the real scores higher.
    """

    def __init__(self, decision_threshold: float | None = 0.0) -> None:
        self._decision_threshold = decision_threshold
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[Tensor]] = defaultdict(list)
        self._scores: list[tuple[Tensor, Tensor]] = []
        self._series: dict[str, list[Tensor]] = defaultdict(list)
        self._first_non_finite: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, reading: Tensor) -> None:
        """A 0-dim reading."""
        self._values[name].append(reading.detach())

    def add_norms(self, name: str, tensors: list[Tensor]) -> Tensor:
        """The Euclidean length of all `tensors` together; returns that of each."""
        norms = torch.stack(torch._foreach_norm(tensors)) if tensors else torch.zeros(1)
        if tensors:
            self._norms[name].append(norms)
        return norms

    def add_scores(self, real: Tensor, fake: Tensor) -> None:
        """D's scores of both piles, B each."""
        self._scores.append((real.detach(), fake.detach()))
        if len(self._scores) >= CONDENSE:
            self._condense()

    def _condense(self) -> None:
        """Reduce everything said so far to one number per step and name, still on the device.

        Done every 64 steps at the latest: thousands of tensors of one number each, kept between the large ones
        of a step, would leave the allocator's memory in shreds.
        """
        for name, notes in self._values.items():
            self._series[name].append(torch.stack(notes))
        for name, norms in self._norms.items():
            self._series[name].append(_together(norms))
            self._first_non_finite[name].append(_first_non_finite(norms))
        if self._scores:
            real, fake = (torch.stack(pile) for pile in zip(*self._scores, strict=True))
            told = {"d/real_score": real.mean(1), "d/fake_score": fake.mean(1)} | self._accuracy(real, fake)
            for name, series in told.items():
                self._series[name].append(series)
        self._values.clear()
        self._norms.clear()
        self._scores.clear()

    def _accuracy(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if self._decision_threshold is None:
            return {"d/accuracy": (real > fake).float().mean(1)}
        right_real, right_fake = (
            right.float().mean(1) for right in (real > self._decision_threshold, fake < self._decision_threshold)
        )
        both = (right_real + right_fake) / 2
        return {"d/real_accuracy": right_real, "d/fake_accuracy": right_fake, "d/accuracy": both}

    def reduce(self) -> dict[str, Stat]:
        """What the interval came to, in one transfer; the ledger is empty afterwards."""
        pending = self.state_dict()
        self._series.clear()
        self._first_non_finite.clear()
        if not pending:
            return {}
        numbers = torch.cat([to_float64(series) for series in pending.values()]).cpu().double().numpy()
        ends = np.cumsum([len(series) for series in pending.values()])[:-1]
        return {name: statistics(series) for name, series in sorted(zip(pending, np.split(numbers, ends), strict=True))}

    def first_non_finite(self, name: str) -> NonFiniteGradient | None:
        """Which of a norm's tensors was the first that was not finite since the last row."""
        self._condense()
        found = (NonFiniteGradient(*part.tolist()) for part in self._first_non_finite.get(name, []))
        return next((one for one in found if one.index >= 0), None)

    def all_finite(self) -> bool:
        """Whether all that is pending is finite; waits for the device."""
        pending = self.state_dict().values()
        return not pending or bool(torch.isfinite(torch.cat([to_float64(series) for series in pending])).all())

    def state_dict(self) -> dict[str, Tensor]:
        """What is pending, one number per step and name: for a row, or a save in the middle of an interval."""
        self._condense()
        return {name: torch.cat(parts) for name, parts in self._series.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what was pending."""
        self._series = defaultdict(list, {name: [series] for name, series in state.items()})


def _together(norms: list[Tensor]) -> Tensor:
    """One length per step from the lengths of its tensors; a step may have had more tensors than another."""
    if len({len(step) for step in norms}) == 1:
        return torch.stack(norms).norm(dim=1)
    return torch.stack([step.norm() for step in norms])


def _first_non_finite(norms: list[Tensor]) -> Tensor:
    """In the first step that has any: the place of the first tensor whose length is not finite, and of how many.

    The place is -1 if there is none.
    """
    wide = torch.nn.utils.rnn.pad_sequence(norms, batch_first=True)
    many = torch.tensor([len(step) for step in norms], device=wide.device)
    bad = ~torch.isfinite(wide)
    flat = bad.flatten().int().argmax()
    place = torch.where(bad.any(), flat % wide.shape[1], -torch.ones_like(flat))
    return torch.stack((place, many[flat // wide.shape[1]]))
