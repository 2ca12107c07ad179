"""How long a step of a recipe takes on this machine, from a few real steps."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np

from poise.data.config import loading_memory
from poise.data.source import DataSplits, ImageDataset
from poise.engine.compute import choose_compute
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe
from poise.training.state import TrainState
from poise.user_code.loading import allow_user_code

TIMED_STEPS, MAX_SECONDS = 5, 20.0
"""The number of steps that are timed after the first, and the time after which no further one is started."""


def step_seconds(state: TrainState) -> float:
    """The median time of a step in seconds. The first step is not counted, unless it alone takes `MAX_SECONDS`.

    These steps train the state.
    """
    began = time.perf_counter()
    times = [_seconds_of_step(state)]
    while len(times) <= TIMED_STEPS and time.perf_counter() - began < MAX_SECONDS:
        times.append(_seconds_of_step(state))
    return median(times[1:] or times)


def row_seconds(state: TrainState) -> float:
    """The time that the diagnostics of a logged row take, in seconds."""
    start = time.perf_counter()
    state.diagnostics.before_step()
    state.diagnostics.compute()
    return time.perf_counter() - start


def _seconds_of_step(state: TrainState) -> float:
    start = time.perf_counter()
    state.step()
    state.step_metrics.reduce()  # waits for the device
    return time.perf_counter() - start


def recipe_step_seconds(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int = 1,
    trust_code: bool = False,
) -> float:
    """The median time of a step of a recipe on its data, in seconds.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    allow_user_code(recipe, trust_code)
    compute = choose_compute(device, precision, recipe, accumulate)
    check_compatibility(recipe).raise_first()
    with loading_memory(recipe.data):
        data = recipe.data.load(data_root)
    check_compatibility(recipe, data.train.shape, len(data.train.classes), data.train.parts).raise_first()
    return step_seconds(TrainState(recipe, compute, data))


def step_seconds_at(
    recipe: Recipe,
    shape: tuple[int, int, int],
    parts: tuple[int, ...] = (),
    *,
    device: str = "auto",
    precision: str = "auto",
) -> float:
    """The median time of a step of a recipe on noise of `shape`, H x W x C, in seconds. No data is read.

    Args:
        recipe: the recipe.
        shape: the shape of a sample.
        parts: the number of channels of each domain in it, if there are two.
        device: the device.
        precision: as for training.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2 * recipe.batch, *shape), np.uint8)
    compute = choose_compute(device, precision, recipe)
    return step_seconds(TrainState(recipe, compute, DataSplits(ImageDataset(noise, parts=parts))))
