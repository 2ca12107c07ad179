"""The engines that train the runs of a study, by name."""

from __future__ import annotations

from collections.abc import Callable

from poise.study.execute import Executor
from poise.study.local import LocalExecutor


def executor_of(engine: str, workers: int) -> Callable[[], Executor]:
    """A function that makes the engine.

    Args:
        engine: "local".
        workers: the number of runs at the same time.
    """
    return lambda: LocalExecutor(workers)
