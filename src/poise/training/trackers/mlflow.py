"""MLflow (`log.to = ["mlflow"]`, `pip install 'poise[mlflow]'`).

The environment decides where: MLFLOW_TRACKING_URI, a server or a local database (sqlite:///mlflow.db unless it is
set), and MLFLOW_EXPERIMENT_NAME. Numbers are sent by a thread of the library. MLflow keeps every value of a metric, so
a run that is rolled back has two for the steps that were repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar

from PIL import Image

from poise.recipe.toml import dotted_fields
from poise.training.trackers.base import PROJECT, TrackedRun, Tracker, known_id, remember_id

MAX_PARAM = 6000
"""The longest value of a parameter that MLflow accepts."""

STATES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker(Tracker):
    """Logs a run to MLflow, through a client of its own, so that a run that the user has opened is left alone."""

    title: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"

    def __init__(self) -> None:
        self._client: Any = None
        self._id = ""

    def open(self, run: TrackedRun, since: int) -> None:
        """See `Tracker.open`. A run that is rolled back continues as it is."""
        if self._client is not None:
            return
        client = self.library().MlflowClient()
        run_id = known_id(run.path, "mlflow")
        if run_id:
            client.update_run(run_id, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
            run_id = client.create_run(experiment_id, run_name=run.path.name).info.run_id
            for key, value in dotted_fields(run.config).items():
                client.log_param(run_id, key, str(value)[:MAX_PARAM])
            remember_id(run.path, "mlflow", run_id)
        self._client, self._id = client, run_id

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.add_scalars`."""
        if self._client is not None:
            now = round(1000 * time.time())
            metrics = [self.library().entities.Metric(name, value, now, step) for name, value in numbers.items()]
            self._client.log_batch(self._id, metrics, synchronous=False)

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """See `Tracker.add_image`."""
        if self._client is not None:
            self._client.log_image(self._id, Image.open(BytesIO(png)), key=name, step=step, synchronous=False)

    def close(self, state: str) -> None:
        """See `Tracker.close`."""
        if self._client is not None:
            self.library().flush_async_logging()
            self._client.set_terminated(self._id, STATES[state])
