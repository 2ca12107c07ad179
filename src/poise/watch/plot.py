"""The curves of a log, with its alarms and the level at which D can't tell real from fake.

Both players' losses; of a game for one what rebuilding missed, and the KL of its codes where it has one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poise.utils.files import write_bytes
from poise.utils.plotting import as_png, new_figure
from poise.utils.printing import printable
from poise.watch.base import EVEN, Alarm, Family
from poise.watch.logs import Log

COLOURS = {"note": "#8a8f98", "warning": "#e69f00", "failure": "#c0392b"}
PLAYERS = (("d/adversarial", "D's loss", "#2b6cb0"), ("g/adversarial", "G's loss", "#d9622b"))
PARTS = (("g/reconstruction", "rebuilding", "#d9622b"), ("g/kl", "KL", "#2f855a"))
BEYOND = 6.0
"""Even levels above which a curve is drawn on a scale of its own kind (symmetric logarithm)."""


def plot(log: Log, alarms: list[Alarm], path: Path, family: Family | None = None, title: str = "") -> None:
    """Write a picture: losses by step, a vertical line for each alarm with its name, the even level dashed.

    Args:
        log: what was heard.
        alarms: what was raised.
        path: a .png.
        family: of the objective; where it has an even level, that is marked.
        title: over the picture.

    Raises:
        DiskError: it can't be written.
    """
    figure = new_figure(9, 4.2, dpi=120, layout="constrained")
    axes = figure.subplots()
    even = None if family == "rebuilding" else EVEN.get(family or log.family or "logistic")
    highest = lowest = 0.0
    alone = not any(name in numbers for _, numbers in log.rows for name, _, _ in PLAYERS)
    for name, who, colour in PARTS if alone else PLAYERS:
        heard = [(step, numbers[name]) for step, numbers in log.rows if name in numbers]
        if not heard:
            continue
        steps, means = np.array([float(step) for step, _ in heard]), np.array([stat.mean for _, stat in heard])
        low, high = (np.array([getattr(stat, end) for _, stat in heard]) for end in ("min", "max"))
        axes.plot(steps, means, color=colour, linewidth=1.4, label=who)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        lowest = min(lowest, float(np.min(low[np.isfinite(low)], initial=0.0)))
        highest = max(highest, float(np.nanmax(np.abs(means[np.isfinite(means)]), initial=0.0)))
    if even is not None and (family or log.family) is not None:
        word = "log 2" if even == EVEN["logistic"] else f"{even:g}"
        axes.axhline(even, color="black", linestyle="--", linewidth=0.8, label=f"even: {word}")
    if even is not None and highest > BEYOND * even:
        axes.set_yscale("symlog", linthresh=even)
    if lowest == 0:
        axes.set_ylim(bottom=0)
    end = float(max(log.rows[-1][0], *(alarm.step for alarm in alarms), 1))
    _mark(axes, alarms, end)
    axes.set(xlabel="step", ylabel="cost" if alone else "adversarial loss", xlim=(0, end))
    axes.set_title(printable(title).replace("$", r"\$"), loc="left", fontsize=10)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8)
    write_bytes(path, as_png(figure))


def _mark(axes: object, alarms: list[Alarm], length: float) -> None:
    """A line for each alarm; names that would lie on one another are set lower and lower."""
    taken: list[tuple[int, int]] = []
    for alarm in alarms:
        near = {place for step, place in taken if abs(step - alarm.step) < 0.04 * max(length, 1)}
        place = next(p for p in range(len(taken) + 1) if p not in near)
        taken.append((alarm.step, place))
        colour = COLOURS[alarm.level]
        axes.axvline(float(alarm.step), color=colour, linewidth=1.0)  # type: ignore[attr-defined]
        axes.annotate(  # type: ignore[attr-defined]
            alarm.detector,
            (float(alarm.step), 0.98 - 0.07 * place),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            color=colour,
            fontsize=7,
            va="top",
        )
