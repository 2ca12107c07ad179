"""Metrics of the training steps, which stay on the device until a row is logged and then move in one transfer.

The step only appends detached tensors to lists. Batch means, accuracies and norms are computed for a whole logging
interval at once, when the row is written.
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
from poise.core.ranks import Ranks
from poise.core.types import to_float64

Series = npt.NDArray[np.float64]

MAX_PENDING = 64
"""The number of steps after which pending tensors are reduced."""


def statistics(series: Series) -> Stat:
    """Mean, population standard deviation (divided by n), minimum and maximum of one metric over an interval."""
    if not np.isfinite(series).all():
        with np.errstate(invalid="ignore"):
            mean = float(series.sum())  # nan or inf, whichever it is
        return Stat(mean, math.nan, float(series.min()), float(series.max()))
    return Stat(float(series.mean()), float(series.std()), float(series.min()), float(series.max()))


class NonFiniteGradient(NamedTuple):
    """The index of the first gradient with a non-finite norm among the gradients of a move, and the number of these."""

    index: int
    count: int


class StepMetrics:
    """Collects the metrics of the steps since the last logged row.

    Args:
        decision_threshold: the score above which D classifies a sample as real, for its accuracy. None if only
            differences of scores have a meaning: then D is right about a pair if the real sample has the higher score.
    """

    def __init__(self, decision_threshold: float | None = 0.0) -> None:
        self._decision_threshold = decision_threshold
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[Tensor]] = defaultdict(list)
        self._scores: list[tuple[Tensor, Tensor]] = []
        self._series: dict[str, list[Tensor]] = defaultdict(list)
        self._first_non_finite: dict[str, list[Tensor]] = defaultdict(list)
        self._num_averaged: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar, 0-dim, as it is now: a buffer that changes later is copied."""
        self._values[name].append(value.detach().clone() if value.is_leaf else value.detach())

    def add_norms(self, name: str, tensors: list[Tensor]) -> Tensor:
        """Add the Euclidean norm of all tensors together, and return the norm of each, 1-dim."""
        norms = torch.stack(torch._foreach_norm(tensors)) if tensors else torch.zeros(1)
        if tensors:
            self._norms[name].append(norms)
        return norms

    def add_scores(self, real: Tensor, fake: Tensor) -> None:
        """Add D's scores of the real and the fake samples, B or B x P each; a row counts every patch."""
        self._scores.append((real.detach().flatten(), fake.detach().flatten()))
        if len(self._scores) >= MAX_PENDING:
            self._reduce_pending()

    def _reduce_pending(self) -> None:
        """Reduce what is pending to one value per step and name, on the device.

        This happens every 64 steps at the latest, because thousands of small tensors between the large ones of a step
        would fragment the allocator's memory.
        """
        for name, values in self._values.items():
            self._series[name].append(torch.stack(values))
        for name, norms in self._norms.items():
            self._series[name].append(_total_norms(norms))
            self._first_non_finite[name].append(_first_non_finite(norms))
        if self._scores:
            real, fake = (torch.stack(scores) for scores in zip(*self._scores, strict=True))
            metrics = {"d/real_score": real.mean(1), "d/fake_score": fake.mean(1)} | self._accuracy(real, fake)
            for name, series in metrics.items():
                self._series[name].append(series)
        self._values.clear()
        self._norms.clear()
        self._scores.clear()

    def _accuracy(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if self._decision_threshold is None:
            return {"d/accuracy": (real > fake).float().mean(1)}
        on_real = (real > self._decision_threshold).float().mean(1)
        on_fake = (fake < self._decision_threshold).float().mean(1)
        return {"d/real_accuracy": on_real, "d/fake_accuracy": on_fake, "d/accuracy": (on_real + on_fake) / 2}

    def reduce(self) -> dict[str, Stat]:
        """The statistics of the interval, in one transfer from the device; all metrics are dropped afterwards."""
        pending = self.state_dict()
        self._series.clear()
        self._num_averaged.clear()
        self._first_non_finite.clear()
        if not pending:
            return {}
        numbers = torch.cat([to_float64(series) for series in pending.values()]).cpu().double().numpy()
        ends = np.cumsum([len(series) for series in pending.values()])[:-1]
        return {name: statistics(series) for name, series in sorted(zip(pending, np.split(numbers, ends), strict=True))}

    def average(self, ranks: Ranks) -> None:
        """Replace the pending values, which each rank has of its part of the batch, by their means over the ranks."""
        if ranks.size == 1:
            return
        pending = self.state_dict()
        new = {name: series[self._num_averaged.get(name, 0) :] for name, series in sorted(pending.items())}
        ranks.average(list(new.values()))
        self._series = defaultdict(list, {name: [series] for name, series in pending.items()})
        self._num_averaged = {name: len(series) for name, series in pending.items()}

    def first_non_finite(self, name: str) -> NonFiniteGradient | None:
        """The first tensor of `add_norms` with a non-finite norm since the last row, or None."""
        self._reduce_pending()
        found = (NonFiniteGradient(*part.tolist()) for part in self._first_non_finite.get(name, []))
        return next((gradient for gradient in found if gradient.index >= 0), None)

    def all_finite(self) -> bool:
        """Whether all pending values are finite. Waits for the device."""
        pending = self.state_dict().values()
        return not pending or bool(torch.isfinite(torch.cat([to_float64(series) for series in pending])).all())

    def state_dict(self) -> dict[str, Tensor]:
        """The pending values, one per step and name, for a row or for a checkpoint within an interval."""
        self._reduce_pending()
        return {name: torch.cat(parts) for name, parts in self._series.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore pending values."""
        self._num_averaged = {name: len(series) for name, series in state.items()}
        self._series = defaultdict(list, {name: [series] for name, series in state.items()})


def _total_norms(norms: list[Tensor]) -> Tensor:
    """One norm per step from the norms of its tensors; the number of tensors may differ between steps."""
    if len({len(step) for step in norms}) == 1:
        return torch.stack(norms).norm(dim=1)
    return torch.stack([step.norm() for step in norms])


def _first_non_finite(norms: list[Tensor]) -> Tensor:
    """The first non-finite norm: its index in its step (-1 if there is none), and the step's number of norms."""
    padded = torch.nn.utils.rnn.pad_sequence(norms, batch_first=True)
    counts = torch.tensor([len(step) for step in norms], device=padded.device)
    non_finite = ~torch.isfinite(padded)
    flat = non_finite.flatten().int().argmax()
    index = torch.where(non_finite.any(), flat % padded.shape[1], -torch.ones_like(flat))
    step = (flat // padded.shape[1])[None]  # as an index of `[]`, a 0-dim tensor would be read by the host
    return torch.stack((index, counts.index_select(0, step)[0]))
