"""A plot of the losses in a log, with its alarms and D's loss at equilibrium.

It shows the losses of both players; for training without a discriminator, the reconstruction error and the KL term; of
a log without losses, a measure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poise.utils.files import write_bytes
from poise.utils.plotting import as_png, new_figure
from poise.utils.printing import printable
from poise.watch.base import EQUILIBRIUM_LOSS, Alarm, Family
from poise.watch.logs import Log

COLOURS = {"note": "#8a8f98", "warning": "#e69f00", "failure": "#c0392b"}
PLAYER_CURVES = (("d/adversarial", "D's loss", "#2b6cb0"), ("g/adversarial", "G's loss", "#d9622b"))
RECONSTRUCTION_CURVES = (("g/reconstruction", "reconstruction", "#d9622b"), ("g/kl", "KL", "#2f855a"))
MEASURE_CURVES = (("measure/fid", "FID", "#2b6cb0"), ("measure/kid", "KID", "#2b6cb0"))
MAX_LINEAR = 6.0
"""Losses above this multiple of the equilibrium loss are plotted on a symmetric logarithmic scale."""


def plot(log: Log, alarms: list[Alarm], path: Path, family: Family | None = None, title: str = "") -> None:
    """Plot the losses by step, each alarm as a vertical line with its name, and the equilibrium loss as a dashed line.

    If there are no losses, it plots a measure.

    Args:
        log: the log.
        alarms: the alarms raised on it.
        path: the .png to write.
        family: the family of the losses, if it is not the log's own.
        title: the title.

    Raises:
        DiskError: the file can't be written.
    """
    figure = new_figure(9, 4.2, dpi=120, layout="constrained")
    axes = figure.subplots()
    curves, axis_label = choose_curves(log)
    has_losses = axis_label.endswith("loss")
    equilibrium = EQUILIBRIUM_LOSS.get(family or log.family or "logistic")
    if family == "reconstruction" or not has_losses:
        equilibrium = None
    highest = lowest = 0.0
    for name, label, colour in curves:
        rows = [(step, numbers[name]) for step, numbers in log.rows if name in numbers]
        steps, means = np.array([float(step) for step, _ in rows]), np.array([stat.mean for _, stat in rows])
        low, high = (np.array([getattr(stat, bound) for _, stat in rows]) for bound in ("min", "max"))
        axes.plot(steps, means, color=colour, linewidth=1.4, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        lowest = min(lowest, float(np.min(low[np.isfinite(low)], initial=0.0)))
        highest = max(highest, float(np.nanmax(np.abs(means[np.isfinite(means)]), initial=0.0)))
    if equilibrium is not None and (family or log.family) is not None:
        level = "log 2" if equilibrium == EQUILIBRIUM_LOSS["logistic"] else f"{equilibrium:g}"
        axes.axhline(equilibrium, color="black", linestyle="--", linewidth=0.8, label=f"equilibrium: {level}")
    if equilibrium is not None and highest > MAX_LINEAR * equilibrium:
        axes.set_yscale("symlog", linthresh=equilibrium)
    if lowest == 0:
        axes.set_ylim(bottom=0)
    end = float(max(log.rows[-1][0], *(alarm.step for alarm in alarms), 1))
    _plot_alarms(axes, alarms, end)
    axes.set(xlabel="step", ylabel=axis_label, xlim=(0, end))
    axes.set_title(printable(title).replace("$", r"\$"), loc="left", fontsize=10)
    if curves:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8)
    write_bytes(path, as_png(figure))


def choose_curves(log: Log) -> tuple[list[tuple[str, str, str]], str]:
    """The metrics to be drawn, each with its label and colour, and the label of their axis.

    These are the losses of the players, or else those of a reconstruction, or else one measure, as measures have
    different units: FID, KID, or the first in the log.
    """
    names = dict.fromkeys(name for _, numbers in log.rows for name in numbers)
    for curves, label in ((PLAYER_CURVES, "adversarial loss"), (RECONSTRUCTION_CURVES, "loss")):
        if found := [curve for curve in curves if curve[0] in names]:
            return found, label
    others = ((name, name.partition("/")[2], "#2b6cb0") for name in names if name.startswith("measure/"))
    measure = next((curve for curve in (*MEASURE_CURVES, *others) if curve[0] in names), None)
    return ([measure], measure[1]) if measure is not None else ([], "loss")


def _plot_alarms(axes: object, alarms: list[Alarm], length: float) -> None:
    """Draw a vertical line for each alarm; names that would overlap go on separate lines of text."""
    slots: list[tuple[int, int]] = []
    for alarm in alarms:
        taken = {slot for step, slot in slots if abs(step - alarm.step) < 0.04 * max(length, 1)}
        slot = next(free for free in range(len(slots) + 1) if free not in taken)
        slots.append((alarm.step, slot))
        colour = COLOURS[alarm.level]
        axes.axvline(float(alarm.step), color=colour, linewidth=1.0)  # type: ignore[attr-defined]
        axes.annotate(  # type: ignore[attr-defined]
            alarm.detector,
            (float(alarm.step), 0.98 - 0.07 * slot),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            color=colour,
            fontsize=7,
            va="top",
        )
