"""The trackers by the names that they have in a recipe (`log.to`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from poise.training.trackers.mlflow import MlflowTracker
from poise.training.trackers.tensorboard import TensorBoardTracker
from poise.training.trackers.trackio import TrackioTracker
from poise.training.trackers.wandb import WandbTracker

if TYPE_CHECKING:
    from poise.recipe.model import TrackerName
    from poise.training.trackers.base import Tracker

TRACKERS: dict[TrackerName, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Check that the libraries of these trackers are installed, before anything is written.

    Raises:
        RecipeError: one is not installed.
    """
    for name in names:
        TRACKERS[name].check_installed()
