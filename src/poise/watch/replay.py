"""A log heard from the beginning: the alarms that a monitor would have raised."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from poise.core.metrics_log import Stat
from poise.errors import RecipeError
from poise.watch.base import Alarm, Family
from poise.watch.logs import Log
from poise.watch.monitor import Monitor, MonitorConfig


class Replay(NamedTuple):
    """What came of a log.

    Attributes:
        alarms: in order.
        inactive_detectors: the detectors for which the log has no numbers.
    """

    alarms: list[Alarm]
    inactive_detectors: list[str]


def replay(log: Log, family: Family | None = None) -> Replay:
    """Hear a log from beginning to end.

    Args:
        log: see `read_log`.
        family: of the objective, where the log does not know it or is wrong about it.

    Raises:
        RecipeError: the run's own `[monitor]` can't be read.
    """
    try:
        how = MonitorConfig.model_validate(log.monitor)
    except ValidationError as error:
        first = error.errors()[0]
        told = first.get("ctx", {})
        where = ".".join(str(part) for part in ("monitor", *first["loc"], told.get("key")) if part)
        raise RecipeError(first["msg"], where=where, cure=str(told.get("cure", ""))) from None
    told = family or log.family
    monitor = Monitor(how, told, log.length)
    alarms: list[Alarm] = []
    for step, numbers in log.rows:
        alarms += monitor.hear(step, _with_estimate(numbers) if told == "wasserstein" else numbers)
    return Replay(alarms + monitor.flush(), monitor.inactive_detectors())


def _with_estimate(numbers: dict[str, Stat]) -> dict[str, Stat]:
    """A critic's loss is minus its estimate of the distance; other trainers log the loss alone."""
    loss = numbers.get("d/adversarial")
    if loss is None or "d/wasserstein" in numbers:
        return numbers
    return {**numbers, "d/wasserstein": Stat(-loss.mean, loss.std, -loss.max, -loss.min)}
