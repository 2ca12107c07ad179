"""What a resumed run has written again: one rule for tables, text, JSON lines, TensorBoard and files per metric.

A run returns where the step decreases. From there on each value replaces the values of the same metric that were
written before the return, for the same step or a later one. So a FID that is written late, for an earlier step, leaves
the losses as they are. A decrease that only the last row has is no return, as nothing has been written after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

from poise.core.metrics_log import Stat
from poise.watch.text_tables import MIN_ROWS

Numbers = dict[str, Stat]
T = TypeVar("T")


def is_measured_only(numbers: Iterable[str]) -> bool:
    """Whether all of these metrics are measures of the samples, such as FID, which may be computed much later."""
    return all(name.startswith("measure/") for name in numbers)


def replace_rows(rows: list[tuple[int, Numbers]], notes: list[str]) -> list[tuple[int, Numbers]]:
    """The rows by step, without the values that a resumed run has written again.

    Args:
        rows: the step and the metrics of each row, in the order in which they were written.
        notes: how many rows were replaced is appended here.
    """
    passes = [0]  # how often the run had returned before each row
    for index, ((before, _), (after, _)) in enumerate(pairwise(rows), 1):
        passes.append(passes[-1] + (after < before and index < len(rows) - 1))
    kept: dict[str, list[int]] = {}  # the rows whose values of a metric are current
    for index, (step, numbers) in enumerate(rows):
        for name in numbers:
            current = kept.setdefault(name, [])
            while current and passes[current[-1]] < passes[index] and rows[current[-1]][0] >= step:
                current.pop()
            current.append(index)
    is_kept = {name: set(indices) for name, indices in kept.items()}
    left = [
        {name: stat for name, stat in numbers.items() if index in is_kept[name]}
        for index, (_, numbers) in enumerate(rows)
    ]
    replaced = sum(len(now) < len(before) for now, (_, before) in zip(left, rows, strict=True))
    if replaced:
        notes.append(f"{replaced:,} rows were written again, as by a resumed run: the later ones replace them")
    steps = [step for step, _ in rows]
    return sorted(((step, now) for step, now in zip(steps, left, strict=True) if now), key=lambda row: row[0])


def join_curves(values: Iterable[tuple[str, float, T]]) -> list[tuple[float, dict[str, T]]]:
    """One row per step from the curves of single metrics, in the order in which a run that logs them all writes rows.

    The curves may be one after another. Where one returns to an earlier step, the rows after the return are rows of
    their own, which `replace_rows` then treats as those of a table. If a curve has a step twice, the later value
    counts.

    Args:
        values: the name, the step and the value of each point; those of one name in the order in which they were
            written.
    """
    curves: dict[str, list[tuple[float, T]]] = {}
    for name, step, value in values:
        curves.setdefault(name, []).append((step, value))
    rows: dict[tuple[int, float], dict[str, T]] = {}
    for name, points in curves.items():
        steps = [step for step, _ in points]
        passes, newest_first = 0, never_increases(steps)
        for before, (step, value) in zip([steps[0], *steps], points, strict=False):
            passes += step < before and not newest_first
            rows.setdefault((passes, step), {})[name] = value
    return [(step, rows[number, step]) for number, step in sorted(rows)]


def never_increases(steps: list[float]) -> bool:
    """Whether these are the steps of a log whose newest line comes first; at least four of them differ."""
    return len(set(steps)) >= MIN_ROWS and all(after <= before for before, after in pairwise(steps))
