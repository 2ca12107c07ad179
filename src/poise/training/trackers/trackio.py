"""Trackio (`log.to = ["trackio"]`, `pip install 'poise[trackio]'`): a local tracker, whose page is `trackio show`.

The environment decides the rest: TRACKIO_DIR is the folder of its database. What was logged after a step to which a run
is rolled back stays in the tracker.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar

from PIL import Image

from poise.training.trackers.base import PROJECT, TrackedRun, Tracker, known_id, new_id, remember_id


class TrackioTracker(Tracker):
    """Logs a run to Trackio, under the name of its folder and the beginning of an id, as names need not be unique."""

    title: ClassVar[str] = "Trackio"
    package: ClassVar[str] = "trackio"

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, run: TrackedRun, since: int) -> None:
        """See `Tracker.open`. A run that is rolled back continues as it is."""
        if self._run is not None:
            return
        name = known_id(run.path, "trackio") or f"{run.path.name}-{new_id()[:6]}"
        self._run = self.library().init(project=PROJECT, name=name, config=run.config, resume="allow")
        remember_id(run.path, "trackio", name)

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.add_scalars`."""
        if self._run is not None:
            self._run.log(dict(numbers), step=step)

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """See `Tracker.add_image`."""
        if self._run is not None:
            self._run.log({name: self.library().Image(Image.open(BytesIO(png)))}, step=step)

    def close(self, state: str) -> None:
        """See `Tracker.close`."""
        if self._run is not None:
            self._run.finish()
