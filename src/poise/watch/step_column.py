"""The steps of another trainer's log: where they are missing, begin anew each epoch, or go back with a resumed run.

The rule: steps that go back to the beginning and end where they ended before are those of an epoch; anything else was
written again by a run that was resumed or begun again, and the later rows count.
"""

from __future__ import annotations

import math
from itertools import pairwise

from poise.core.metrics_log import Stat
from poise.watch.text_tables import Flat

Numbers = dict[str, Stat]


def by_step(
    kept: list[tuple[Flat, Numbers]], step: str | None, epoch: str | None, notes: list[str]
) -> list[tuple[int, Numbers]]:
    """Rows in order of their steps; where there are none, or they begin anew each epoch, lines are counted."""
    told = [math.nan if step is None else line.get(step, math.nan) for line, _ in kept]
    steps = [round(at) if math.isfinite(at) else place for place, at in enumerate(told, 1)]
    rows = [numbers for _, numbers in kept]
    falls = [place for place, (one, other) in enumerate(pairwise(steps), 1) if other < one]
    if falls and not all(map(math.isfinite, told)):
        notes.append(f"some lines have no {step}: lines are counted instead")
        return list(enumerate(rows, 1))
    if falls and each_epoch(steps, falls):
        epochs = [math.nan if epoch is None else line.get(epoch, math.nan) for line, _ in kept]
        joined = joined_steps(steps, epochs, falls)
        if joined is None:
            notes.append(f"{step} starts anew {len(falls):,} times, as in each epoch: lines are counted instead")
            return list(enumerate(rows, 1))
        notes.append(f"{step} starts anew {len(falls):,} times, and is counted on from epoch to epoch by {epoch}")
        steps = joined
    return _rewritten(list(zip(steps, rows, strict=True)), notes)


def each_epoch(steps: list[int], falls: list[int]) -> bool:
    """Whether steps that fall at these places are counted anew each epoch, and not written again by a resumed run.

    An epoch begins at the beginning, and ends where the others do. A run that was resumed goes back to its last save
    and then beyond where it was; one that was begun again goes beyond too. Three returns to the beginning are epochs.
    """
    bounds = [0, *falls, len(steps)]
    parts = [steps[a:b] for a, b in pairwise(bounds)]
    apart = max((part[1] - part[0] for part in parts if len(part) > 1), default=1)
    back = [part[0] <= steps[0] + apart for part in parts[1:]]
    beyond = any(part[-1] > parts[0][-1] + apart for part in parts[1:])
    return (all(back) and not beyond) or sum(back) >= 3


def joined_steps(steps: list[int], epochs: list[float], falls: list[int]) -> list[int] | None:
    """Steps within epochs as steps of the run: epoch x steps of an epoch + step. None where epochs don't tell."""
    if not all(map(math.isfinite, epochs)) or any(epochs[place] == epochs[place - 1] for place in falls):
        return None
    apart = max((b - a for a, b in pairwise(steps) if b > a), default=1)
    length = max(steps) - min(steps) + apart
    return [round((epoch - epochs[0]) * length) + at for epoch, at in zip(epochs, steps, strict=True)]


def _rewritten(rows: list[tuple[int, Numbers]], notes: list[str]) -> list[tuple[int, Numbers]]:
    """What was written again takes the place of the old rows: a resumed run goes back to its last save."""
    told: list[tuple[int, Numbers]] = []
    for at, numbers in rows:
        if told and told[-1][0] > at:
            while told and told[-1][0] >= at:
                told.pop()
        told.append((at, numbers))
    if dropped := len(rows) - len(told):
        notes.append(f"{dropped:,} rows were written again, as by a resumed run: the later ones count")
    return told
