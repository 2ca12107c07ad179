"""How long a step of a recipe takes on this machine, from a few real steps."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import lcm
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from poise.data.config import loading_memory
from poise.data.source import DataSplits, ImageDataset
from poise.engine.compute import choose_compute
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe
from poise.training.state import TrainState
from poise.user_code.loading import allow_user_code

TIMED_STEPS, MAX_SECONDS = 5, 20.0
"""The least number of steps that are timed after the first, and the time after which no further one is started."""

MAX_PERIOD = 32
"""Terms that act more rarely are left out of account; the usual ones act in every 16th step at most."""

MAX_COUNTED = 20_000
"""In how many steps combinations of terms are counted, if their common period is longer."""


def periods(recipe: Recipe) -> tuple[int, ...]:
    """The periods, in steps, of the recipe's tricks that act in every n-th step only, as lazy penalties do."""
    every = {int(getattr(trick, "every", 1)) for trick in recipe.tricks}
    return tuple(sorted(n for n in every if 1 < n <= MAX_PERIOD))


def num_timed(recipe: Recipe) -> int:
    """The number of steps to time: a whole period, in which all terms act, but at least `TIMED_STEPS`."""
    return max(TIMED_STEPS, *periods(recipe), 1)


def mean_step_seconds(times: Mapping[int, float], every: Sequence[int]) -> float:
    """The mean time of a step in seconds, from the times of some steps.

    The median of the steps in which the same terms act, because single steps may be disturbed, and of these medians the
    mean, with the frequencies of such steps. Combinations of terms that did not occur are left out.

    Args:
        times: the time of each step by its number, from 0; at least one.
        every: the periods of the terms.
    """
    groups: dict[tuple[bool, ...], list[float]] = defaultdict(list)
    for step, seconds in times.items():
        groups[tuple(step % n == 0 for n in every)].append(seconds)
    kinds = Counter(tuple(step % n == 0 for n in every) for step in range(min(lcm(*every), MAX_COUNTED)))
    weights = {kind: kinds[kind] for kind in groups}
    return sum(weights[kind] * median(known) for kind, known in groups.items()) / sum(weights.values())


class StepTime(NamedTuple):
    """How long the steps of a run take.

    Attributes:
        seconds: the mean time of a step in which both players move, or the only one.
        head_start: the number of first steps in which D alone moves.
        head_start_seconds: the mean time of one of these; 0 if there are none.
    """

    seconds: float
    head_start: int = 0
    head_start_seconds: float = 0.0

    def of_run(self, steps: int) -> float:
        """The time of a run of this many steps, in seconds."""
        alone = min(steps, self.head_start)
        return alone * self.head_start_seconds + (steps - alone) * self.seconds

    def steps_within(self, seconds: float) -> int:
        """The number of steps that take this time, at least 1."""
        before = self.of_run(self.head_start)
        if seconds < before:
            return max(1, round(seconds / self.head_start_seconds))
        return max(1, self.head_start + round((seconds - before) / self.seconds))


def head_start(recipe: Recipe) -> int:
    """The number of first steps in which D alone moves; 0 for tempos without them."""
    return int(getattr(recipe.tempo, "head_start", 0))


def time_steps(state: TrainState, clock: Callable[[], float] | None = None) -> StepTime:
    """Time a few steps. The first one is not counted, unless it alone takes `MAX_SECONDS`.

    Steps after a head start are timed first, and then some of those within it.

    Args:
        state: the state of a run before its first step, which these steps train.
        clock: returns the time in seconds; by default the real time.
    """
    clock, alone = clock or time.perf_counter, head_start(state.recipe)
    state.steps_done, wanted = alone, 1 + num_timed(state.recipe)
    seconds = _mean_seconds(state, clock, wanted, untimed=1)
    if not alone:
        return StepTime(seconds)
    state.steps_done = 0
    return StepTime(seconds, alone, _mean_seconds(state, clock, min(alone, wanted), untimed=0))


def _mean_seconds(state: TrainState, clock: Callable[[], float], wanted: int, untimed: int) -> float:
    """The mean time of the next steps but the first `untimed` ones, of which one is counted if there are no others."""
    began, times = time.perf_counter(), dict[int, float]()
    while len(times) < wanted and (not times or time.perf_counter() - began < MAX_SECONDS):
        step = state.steps_done
        times[step] = _seconds_of_step(state, clock)
    later = dict(list(times.items())[untimed:])
    return mean_step_seconds(later or times, periods(state.recipe))


def row_seconds(state: TrainState) -> float:
    """The time that the diagnostics of a logged row take, in seconds."""
    start = time.perf_counter()
    state.diagnostics.before_step()
    state.diagnostics.compute()
    return time.perf_counter() - start


def _seconds_of_step(state: TrainState, clock: Callable[[], float]) -> float:
    start = clock()
    state.step()
    state.step_metrics.reduce()  # waits for the device
    return clock() - start


def time_recipe(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int = 1,
    trust_code: bool = False,
) -> StepTime:
    """Time a few steps of a recipe on its data; see `time_steps`.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    allow_user_code(recipe, trust_code)
    compute = choose_compute(device, precision, recipe, accumulate)
    check_compatibility(recipe).raise_first()
    with loading_memory(recipe.data):
        data = recipe.data.load(data_root)
    check_compatibility(recipe, data.train.shape, len(data.train.classes), data.train.parts).raise_first()
    return time_steps(TrainState(recipe, compute, data))


def step_seconds_at(
    recipe: Recipe,
    shape: tuple[int, int, int],
    parts: tuple[int, ...] = (),
    *,
    device: str = "auto",
    precision: str = "auto",
) -> float:
    """The mean time of a step in which both players move, on noise of `shape`, H x W x C, in seconds. No data is read.

    Args:
        recipe: the recipe.
        shape: the shape of a sample.
        parts: the number of channels of each domain in it, if there are two.
        device: the device.
        precision: as for training.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2 * recipe.batch, *shape), np.uint8)
    compute = choose_compute(device, precision, recipe)
    return time_steps(TrainState(recipe, compute, DataSplits(ImageDataset(noise, parts=parts)))).seconds
