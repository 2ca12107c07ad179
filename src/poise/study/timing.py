"""The time that recipes need on this machine, measured by a few steps: for estimates and for budgets in seconds."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.errors import CheckpointError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.training.listener import NullListener
from poise.training.step_time import mean_step_seconds, periods
from poise.utils.files import write_json
from poise.utils.threads import num_threads

TIMED_STEPS = 6
"""The least number of steps that are timed."""

UNTIMED_STEPS = 5
"""The first steps are slower, because memory is allocated."""


class Timing(NamedTuple):
    """The duration of the parts of a run, in seconds.

    Attributes:
        start: loading the data and building the networks.
        step: one training step.
        end: one evaluation, with a checkpoint and a sample grid.
    """

    start: float
    step: float
    end: float

    def run(self, steps: int, evaluations: int) -> float:
        """The estimated duration of a run."""
        return self.start + steps * self.step + evaluations * self.end


class _StepClock(NullListener):
    """Records the time after each step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_step(self, step: int) -> None:
        """Record the time."""
        self.times.append(self.clock())


def measure_timing(
    recipe: Recipe, train: Callable[..., Any], device: torch.device, clock: Callable[[], float] | None = None
) -> Timing:
    """Train a recipe for a few steps with one thread, as the workers of a study do, and evaluate it once.

    Args:
        recipe: the recipe; its number of steps does not matter.
        train: `poise.training.train.train` with everything but the recipe, the folder and the listener.
        device: the device of training.
        clock: returns the time in seconds. The default is the CPU time of this process, which does not depend on other
            load, or on another device the real time.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    clock = clock or (time.process_time if device.type == "cpu" else lambda: _synchronised_time(device))
    every = periods(recipe)
    steps = UNTIMED_STEPS + max(TIMED_STEPS, *every, 1) + 1  # the evaluation follows the last one
    table = recipe.canonical() | {"steps": steps}
    table["log"] = table["log"] | {"samples": steps, "saves": steps}
    if "head_start" in table["tempo"]:
        table["tempo"] = table["tempo"] | {"head_start": 0}  # in all other steps G moves too
    if "measure" in table:
        table["measure"] = table["measure"] | {"every": steps}
    listener, start = _StepClock(clock), clock()
    with tempfile.TemporaryDirectory() as folder, num_threads(1):
        train(decode(table), Path(folder) / "run", listener=listener)
    times = listener.times
    step = mean_step_seconds({k: times[k] - times[k - 1] for k in range(UNTIMED_STEPS, steps - 1)}, every)
    return Timing(max(0.0, times[0] - start - step), step, max(0.0, times[-1] - times[-2] - step))


def _synchronised_time(device: torch.device) -> float:
    """The time when the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class TimingFile:
    """The seconds per step of recipes, measured once and kept, so that a resumed study has the same budgets.

    Args:
        path: the file, `timing.json`, which need not exist yet.
        measure: measures the seconds per step of a recipe.

    Raises:
        CheckpointError: the file is damaged or can't be read.
    """

    def __init__(self, path: Path, measure: Callable[[Recipe], float]) -> None:
        self._path, self._measure = path, measure
        self._known = _read(path)
        self._new = False

    def step_seconds(self, recipe: Recipe, key: str) -> float:
        """The seconds per step of a recipe; its name, steps, seed and measures do not matter.

        They are kept under the key of the arm, which stays the same when poise changes and with it the hash of the
        recipe, and under that hash, so that arms with the same recipe have the same time.

        Args:
            recipe: the recipe.
            key: what its arm is called, see `timing_key`.
        """
        timed = recipe.model_copy(update={"steps": 1, "seed": 0, "measure": None, "name": "timed"})
        seconds = self._known.get(key) or self._known.get(timed.hash) or self._measure(timed)
        for name in (key, timed.hash):
            self._new |= name not in self._known
            self._known.setdefault(name, seconds)
        return seconds

    def save(self) -> None:
        """Write new times to the file, whose folder must exist.

        Raises:
            DiskError: the file can't be written.
        """
        if self._new:
            write_json(self._path, self._known)
            self._new = False


def _read(path: Path) -> dict[str, float]:
    """The times in a file; none if there is no file.

    Raises:
        CheckpointError: the file is damaged or can't be read.
    """
    try:
        known = json.loads(path.read_bytes())
        if not isinstance(known, dict) or not all(_is_time(value) for value in known.values()):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, RecursionError):
        cure = "remove it to measure the times again; runs with another number of steps are then trained again"
        raise CheckpointError("is damaged", where=str(path), cure=cure) from None
    return known


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0
