"""The time that recipes need on this machine, measured by a few steps: for `--dry-run` and for budgets in seconds."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.training.listener import NullListener
from poise.utils.files import write_json

TIMED_STEPS = 12
UNTIMED_STEPS = 4
"""The first steps are slower, because memory is allocated."""

Train = Callable[..., Any]


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
    """Records the time of each step; on a CPU that of the process, which does not depend on other load."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_step(self, step: int) -> None:
        """Record the time."""
        self.times.append(self.clock())


def measure_timing(recipe: Recipe, train: Train, *, device: str = "cpu") -> Timing:
    """Train a recipe for a few steps and evaluate it once.

    Args:
        recipe: the recipe; its number of steps does not matter.
        train: `poise.training.train.train` with everything but the recipe, the folder and the listener.
        device: the device of training.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    table = recipe.canonical() | {"steps": TIMED_STEPS}
    table["log"] = table["log"] | {"samples": TIMED_STEPS, "saves": TIMED_STEPS}
    if "measure" in table:
        table["measure"] = table["measure"] | {"every": TIMED_STEPS}
    listener, start = _StepClock(clock), clock()
    with tempfile.TemporaryDirectory() as folder:
        train(decode(table), Path(folder) / "run", listener=listener)
    times = listener.times
    step = median(b - a for a, b in zip(times[UNTIMED_STEPS:-2], times[UNTIMED_STEPS + 1 : -1], strict=True))
    return Timing(max(0.0, times[0] - start - step), step, max(0.0, times[-1] - times[-2] - step))


class TimingFile:
    """The time per step of each recipe, measured once and kept, so that a resumed study has the same budgets.

    Args:
        path: the file, `timing.json`, which need not exist.
        train: see `measure_timing`.
        device: see `measure_timing`.
    """

    def __init__(self, path: Path, train: Train, *, device: str = "cpu") -> None:
        self.path, self.train, self.device = path, train, device
        self.seconds: dict[str, float] = {}
        with suppress(OSError, ValueError):
            self.seconds = dict(json.loads(path.read_bytes()))

    def step_seconds(self, recipe: Recipe) -> float:
        """The seconds of a step of this recipe."""
        key = recipe.model_copy(update={"steps": 1, "seed": 0}).hash
        if key not in self.seconds:
            self.seconds[key] = measure_timing(recipe, self.train, device=self.device).step
        return self.seconds[key]

    def save(self) -> None:
        """Write the file, if anything was measured.

        Raises:
            DiskError: it can't be written.
        """
        if self.seconds:
            write_json(self.path, self.seconds)
