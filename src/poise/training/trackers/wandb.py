"""Weights & Biases (`log.to = ["wandb"]`, `pip install 'poise[wandb]'`).

The environment decides the rest: WANDB_MODE=offline writes to `RUN/wandb` only, WANDB_PROJECT and WANDB_ENTITY say
where the run belongs. The step of a row is the metric `step`, which all others are plotted against: the library's own
step can't go back, as it must when a run is rolled back. What was logged after that step stays in the tracker.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar

from PIL import Image

from poise.training.trackers.base import PROJECT, TrackedRun, Tracker, known_id, new_id, remember_id


class WandbTracker(Tracker):
    """Logs a run to Weights & Biases."""

    title: ClassVar[str] = "Weights & Biases"
    package: ClassVar[str] = "wandb"

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, run: TrackedRun, since: int) -> None:
        """See `Tracker.open`. A run that is rolled back continues as it is."""
        if self._run is not None:
            return
        run_id = known_id(run.path, "wandb") or new_id()
        library = self.library()
        self._run = library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            name=run.path.name,
            dir=str(run.path),
            config=run.config,
            resume="allow",
            settings=library.Settings(console="off", silent=True),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        remember_id(run.path, "wandb", run_id)

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.add_scalars`."""
        if self._run is not None:
            self._run.log({**numbers, "step": step})

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """See `Tracker.add_image`."""
        if self._run is not None:
            self._run.log({name: self.library().Image(Image.open(BytesIO(png))), "step": step})

    def close(self, state: str) -> None:
        """See `Tracker.close`."""
        if self._run is not None:
            self._run.finish(exit_code=0 if state == "done" else 1)
