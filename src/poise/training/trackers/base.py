"""The interface of experiment trackers, and the id under which a tracker knows a run."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from poise.errors import RecipeError
from poise.utils.files import write_json

PROJECT = "poise"
"""The project, or experiment, that runs belong to where a tracker requires one and the user has named none."""


class TrackedRun(NamedTuple):
    """What a tracker is told about a run.

    Attributes:
        path: the run folder, whose name is the name of the run.
        config: the recipe in its canonical form.
    """

    path: Path
    config: dict[str, Any]


class Tracker(ABC):
    """Logs one run. A subclass is named in a recipe by its key in `choose.TRACKERS`.

    Every method may raise any exception of the tracker's library. The recorder reports the first one, and training
    continues.

    Attributes:
        title: what the tracker is called in messages.
        package: the library to import; empty if poise depends on it.
    """

    title: ClassVar[str]
    package: ClassVar[str] = ""

    @abstractmethod
    def open(self, run: TrackedRun, since: int) -> None:
        """Start to log the run, or continue it after it has been resumed, or rolled back, to step `since`."""

    @abstractmethod
    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log numbers by name after `step` steps."""

    @abstractmethod
    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """Log an image.

        Args:
            step: the number of steps done.
            name: the name of the image.
            png: the image as a PNG file.
            shape: H x W x C.
        """

    @abstractmethod
    def close(self, state: str) -> None:
        """Send what has been logged. `state` is the run's: "done", "stopped" or "failed"."""

    @classmethod
    def check_installed(cls) -> None:
        """Check that the library is installed, without importing it.

        Raises:
            RecipeError: it is not.
        """
        if cls.package and find_spec(cls.package) is None:
            cure = f"pip install 'poise[{cls.package}]'"
            raise RecipeError(f"{cls.title} is not installed", where="log.to", found=cls.package, cure=cure)

    @classmethod
    def library(cls) -> Any:
        """The library, imported on first use, because it takes seconds."""
        return import_module(cls.package)


def known_id(path: Path, tracker: str) -> str:
    """The id of the run in `path` for a tracker; empty if the tracker does not know the run yet."""
    try:
        return str(json.loads((path / "trackers.json").read_text("utf-8")).get(tracker, ""))
    except (OSError, ValueError, AttributeError):
        return ""


def remember_id(path: Path, tracker: str, run_id: str) -> None:
    """Write the id to `trackers.json`, so that the tracker continues the same run when training is resumed.

    Raises:
        DiskError: the file can't be written.
    """
    file, ids = path / "trackers.json", {}
    with suppress(OSError, ValueError):
        ids = json.loads(file.read_text("utf-8"))
    write_json(file, (ids if isinstance(ids, dict) else {}) | {tracker: run_id})


def new_id() -> str:
    """A random id, 16 hex digits."""
    return uuid.uuid4().hex[:16]
