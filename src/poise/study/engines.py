"""The engines that train the runs of a study, by name."""

from __future__ import annotations

from collections.abc import Callable

from poise.study.executor import Executor
from poise.study.local import LocalExecutor
from poise.study.ray_engine import RayExecutor

ENGINES: dict[str, Callable[[int], Executor]] = {"local": LocalExecutor, "ray": RayExecutor}
"""Makes the engine of each name, from the number of runs at the same time."""


def executor_of(engine: str, workers: int) -> Callable[[], Executor]:
    """A function that makes the engine.

    Args:
        engine: a key of `ENGINES`.
        workers: the number of runs at the same time.
    """
    return lambda: ENGINES[engine](workers)
