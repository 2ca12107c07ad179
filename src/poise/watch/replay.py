"""The replay of a log: the alarms that the monitor would have raised."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from poise.core.config import did_you_mean
from poise.core.metrics_log import Stat
from poise.errors import RecipeError
from poise.watch.base import Alarm, Family
from poise.watch.logs import Log
from poise.watch.monitor import DETECTORS, Monitor, monitor_config

Rows = list[tuple[int, dict[str, Stat]]]


class Replay(NamedTuple):
    """The result of a replay.

    Attributes:
        alarms: the alarms, in order.
        inactive_detectors: the detectors for which the log has no metrics.
    """

    alarms: list[Alarm]
    inactive_detectors: list[str]


def replay(log: Log, family: Family | None = None) -> Replay:
    """Run the monitor over a log.

    After a roll-back a run goes on with a new monitor, which hears the rows up to there first and raises no alarm about
    windows that began before, see `Monitor.judge_from`; so does the replay.

    Args:
        log: the log, see `read_log`.
        family: the family of the losses; None for the log's own.

    Raises:
        RecipeError: the table `[monitor]` of the run is not valid.
    """
    config = monitor_config(log.monitor)
    family = family or log.family
    rows = log.rows
    if family == "wasserstein":
        rows = [(step, _add_wasserstein_estimate(numbers)) for step, numbers in rows]
    monitors = [Monitor(config, family, log.length) for _ in (0, *log.returns)]
    spans = pairwise((-1, *log.returns, math.inf))
    alarms = [alarm for monitor, span in zip(monitors, spans, strict=True) for alarm in _judge(monitor, rows, *span)]
    return Replay(alarms + monitors[-1].flush(), monitors[-1].inactive_detectors())


def _judge(monitor: Monitor, rows: Rows, start: float, end: float) -> list[Alarm]:
    """The alarms of a run from the roll-back to the step `start`, or from its beginning (-1), until that to `end`."""
    monitor.judge_from(max(0, int(start)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about steps and names are for the author of a training loop
        heard = [monitor.hear(step, numbers) for step, numbers in rows if step <= end]
    return [alarm for alarms in heard for alarm in alarms if alarm.step > start]


def parse_settings(items: Iterable[str], option: str, kind: type[int] | type[float]) -> dict[str, float]:
    """The settings of detectors, `d_at_zero=0.01`, as in the tables of `[monitor]`.

    Raises:
        RecipeError: there is no such detector, or the value is not a number of that kind.
    """
    settings: dict[str, float] = {}
    for item in items:
        name, _, text = (part.strip() for part in item.partition("="))
        if name not in DETECTORS:
            cure = did_you_mean(name, list(DETECTORS))
            raise RecipeError("no such detector", where=option, found=f"'{name}'", cure=cure)
        try:
            settings[name] = kind(text)
        except ValueError:
            settings[name] = math.nan
        if not math.isfinite(settings[name]) or (kind is int and settings[name] < 1):
            what = "a whole number of steps above 0" if kind is int else "a number"
            raise RecipeError(f"must be {name}={what}", where=option, found=f"'{item}'")
    return settings


def change_settings(log: Log, settings: Mapping[str, Mapping[str, float]]) -> Log:
    """The log with other thresholds and windows, by `threshold` or `window` and the detector."""
    changed = dict(log.monitor)
    for table, values in settings.items():
        given = changed.get(table, {})
        if values and isinstance(given, Mapping):
            changed[table] = {**given, **values}
    return log._replace(monitor=changed)


def _add_wasserstein_estimate(numbers: dict[str, Stat]) -> dict[str, Stat]:
    """Add the estimate of the distance, which is minus the critic's loss; other trainers log the loss alone."""
    loss = numbers.get("d/adversarial")
    if loss is None or "d/wasserstein" in numbers:
        return numbers
    return {**numbers, "d/wasserstein": Stat(-loss.mean, loss.std, -loss.max, -loss.min)}
