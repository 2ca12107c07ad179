"""The step column of another trainer's log: it may be missing, restart with each epoch, or decrease after a resume.

A log whose steps decrease throughout has its newest line first. In others, steps that return to the beginning and end
where they ended before restart with each epoch; in all other cases a run was resumed or restarted, and later rows
replace earlier ones (`resumed_rows.py`). A log that is being written may end within a line.
"""

from __future__ import annotations

import math
from collections.abc import Set
from itertools import pairwise

from poise.watch.resumed_rows import Numbers, is_measured_only, never_increases, replace_rows
from poise.watch.text_tables import Flat


def is_newest_first(lines: list[Flat], column: str | None) -> bool:
    """Whether the steps, of which there are at least four, never increase from line to line."""
    if column is None:
        return False
    return never_increases([line[column] for line in lines if math.isfinite(line.get(column, math.nan))])


def ends_within_a_line(lines: list[Flat], column: str | None) -> bool:
    """Whether the last line was cut within its step, by the step itself: it is below that of the line before."""
    if column is None or len(lines) < 2 or is_newest_first(lines, column):
        return False
    return lines[-1].get(column, math.nan) < lines[-2].get(column, math.nan)


def fill_column(lines: list[Flat], column: str | None, selected_names: set[str]) -> None:
    """Give lines without a step the step of the line before, or of the first line that has one.

    A column in fewer than half as many lines as some metric is not the step of all lines, and is left alone.
    """
    given = sum(column in line and math.isfinite(line[column]) for line in lines) if column is not None else 0
    logged = max((sum(name in line for line in lines) for name in selected_names), default=0)
    if column is None or not given or given < 0.5 * logged:
        return
    current = next(line[column] for line in lines if column in line and math.isfinite(line[column]))
    for line in lines:
        value = line.get(column, math.nan)
        current = value if math.isfinite(value) else current
        line[column] = current


def join_lines(lines: list[Flat], column: str | None, metrics: Set[str]) -> list[Flat]:
    """Successive lines of the same step as one, if none of the metrics is in two of them.

    Players, or the parts of a loss, may be logged in separate lines.
    """
    joined: list[Flat] = []
    last = math.nan
    for line in lines:
        step = math.nan if column is None else line.get(column, math.nan)
        step = round(step) if math.isfinite(step) else math.nan
        if step == last and metrics.isdisjoint(line.keys() & joined[-1].keys()):
            joined[-1] = line | joined[-1]
        else:
            joined.append(line)
        last = step
    return joined


def order_by_step(
    lines: list[tuple[Flat, Numbers]], step: str | None, epoch: str | None, notes: list[str]
) -> list[tuple[int, Numbers]]:
    """The rows in the order of their steps.

    Lines are counted if there is no step column or if it restarts with each epoch and no column gives the epoch.

    Args:
        lines: each line of the log, and its metrics.
        step: the column of the step, if any.
        epoch: the column of the epoch, if any.
        notes: decisions are appended here.
    """
    logged = [math.nan if step is None else line.get(step, math.nan) for line, _ in lines]
    steps = [round(value) if math.isfinite(value) else count for count, value in enumerate(logged, 1)]
    rows = [numbers for _, numbers in lines]
    trained = [index for index, numbers in enumerate(rows) if not is_measured_only(numbers)] or list(range(len(rows)))
    during = [steps[index] for index in trained]
    restarts = [index for index, (before, after) in enumerate(pairwise(during), 1) if after < before]
    if restarts and not all(map(math.isfinite, logged)):
        notes.append(f"some lines have no {step}: lines are counted instead")
        return list(enumerate(rows, 1))
    if restarts and restarts_each_epoch(during, restarts):
        epochs = [math.nan if epoch is None else line.get(epoch, math.nan) for line, _ in lines]
        length = epoch_length(during, [epochs[index] for index in trained], restarts)
        if length is not None and all(map(math.isfinite, epochs)):
            notes.append(f"{step} restarts {len(restarts):,} times, and is continued across epochs by {epoch}")
            steps = [round((number - epochs[0]) * length) + at for number, at in zip(epochs, steps, strict=True)]
        elif restarts != [len(during) - 1]:
            notes.append(f"{step} restarts {len(restarts):,} times, as with each epoch: lines are counted instead")
            return list(enumerate(rows, 1))
    return replace_rows(list(zip(steps, rows, strict=True)), notes)


def restarts_each_epoch(steps: list[int], restarts: list[int]) -> bool:
    """Whether the steps restart with each epoch, rather than return with a resumed run.

    All epochs start and end at the same step. A resumed run returns to its last checkpoint and then continues past the
    step that it had reached; so does a restarted run. Three returns to the beginning are taken for epochs in any case.

    Args:
        steps: the logged steps.
        restarts: the indices at which the step decreases.
    """
    bounds = [0, *restarts, len(steps)]
    parts = [steps[a:b] for a, b in pairwise(bounds)]
    interval = max((part[1] - part[0] for part in parts if len(part) > 1), default=1)
    at_beginning = [part[0] <= steps[0] + interval for part in parts[1:]]
    continues_past = any(part[-1] > parts[0][-1] + interval for part in parts[1:])
    return (all(at_beginning) and not continues_past) or sum(at_beginning) >= 3


def epoch_length(steps: list[int], epochs: list[float], restarts: list[int]) -> int | None:
    """The number of steps per epoch, from steps within epochs; None if the epochs are unusable."""
    if not all(map(math.isfinite, epochs)) or _changes_at_few(epochs, restarts):
        return None
    interval = max((b - a for a, b in pairwise(steps) if b > a), default=1)
    return max(steps) - min(steps) + interval


def _changes_at_few(epochs: list[float], restarts: list[int]) -> bool:
    """Whether the epoch stays the same at half of the restarts or more, so that it is not the epoch of the steps.

    A run that was resumed within an epoch restarts there without a change.
    """
    return 2 * sum(epochs[index] == epochs[index - 1] for index in restarts) >= len(restarts)
