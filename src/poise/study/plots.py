"""The plots of a study's report: forest plots of the effects and learning curves with bands, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from poise.study.effects import Effect, Estimate, Verdict
from poise.study.summary import Band
from poise.utils.plotting import as_svg, new_figure
from poise.utils.printing import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[Verdict, tuple[str, str]] = {
    "helps": ("#00845a", "o"),
    "harms": ("#c2410c", "s"),
    "unstable": ("#b58900", "^"),
    "no effect seen": ("#6b7280", "D"),
    "too few seeds": ("#a8adb5", "x"),
}
"""Colour and marker of each verdict: told apart without colour, too."""

TREATMENT, CONTROL = "#d9622b", "#2b6cb0"
FONT = 8.5
MAX_LABEL = 34
SPREAD = 4.0
"""Intervals are cut off, with an arrow, at this multiple of the 80 % quantile of all interval ends."""

LOG_RATIO = 5.0
"""Positive curves whose largest value is more than this multiple of the smallest one get a logarithmic scale."""


def forest_plot(effects: Sequence[Effect]) -> bytes | None:
    """The effects on one measure of one base with their intervals, the best one at the top; None without any effect.

    On a relative scale, in per cent of the control, where all effects have one, otherwise in the unit of the measure.

    Args:
        effects: of the same base and measure.
    """
    relative = all(effect.relative for effect in effects if effect.effect is not None)
    found = [(effect, change) for effect in effects if (change := _change(effect, relative=relative)) is not None]
    if not found:
        return None
    first = found[0][0]
    found.sort(key=lambda item: item[1].value, reverse=first.better == "less")
    figure = new_figure(5.2, 0.85 + 0.21 * len(found), layout="constrained")
    axes = figure.subplots()
    limit = _limit([change for _, change in found])
    for row, (effect, change) in enumerate(found):
        _draw_interval(axes, row, change, limit, *STYLES[effect.verdict])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_xlim(-1.04 * limit, 1.04 * limit)
    axes.set_yticks(range(len(found)))
    axes.set_yticklabels([_short(effect.name) for effect, _ in found], fontsize=FONT, parse_math=False)
    axes.tick_params(axis="x", labelsize=FONT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#00000018", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    unit = "%" if relative else "absolute"
    label = f"change of {printable(first.measure)}, {unit} ({first.better} is better)"
    axes.set_xlabel(label, fontsize=FONT, parse_math=False)
    for verdict in dict.fromkeys(effect.verdict for effect, _ in reversed(found)):
        colour, marker = STYLES[verdict]
        axes.plot([], [], marker, color=colour, markersize=4.5, label=verdict)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=FONT, handletextpad=0.1)
    return as_svg(figure)


def curve_plot(treatment: Band | None, control: Band | None, measure: str, floor: float | None) -> bytes | None:
    """The learning curves of a measure with and without a tip: medians and, as bands, the quartiles over the seeds.

    Args:
        treatment: the curves with the tip.
        control: those without it.
        measure: the name of the measure.
        floor: its value for real samples, drawn as a dashed line if it is near the curves.

    Returns:
        The plot, or None if there is no curve.
    """
    bands = [
        (band, colour, label)
        for band, colour, label in ((control, CONTROL, "without"), (treatment, TREATMENT, "with"))
        if band is not None
    ]
    if not bands:
        return None
    figure = new_figure(3.3, 2.3)
    from matplotlib import ticker

    axes = figure.add_axes((0.17, 0.19, 0.8, 0.7))
    for band, colour, label in bands:
        axes.fill_between(band.images, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(band.images, band.median, color=colour, linewidth=1.4, label=label)
    ends = [value for band, _, _ in bands for value in (*band.low, *band.high)]
    lowest, highest = min(ends), max(ends)
    if lowest > 0 and highest > LOG_RATIO * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=6))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    if floor is not None and lowest - (highest - lowest) / 4 <= floor <= highest + (highest - lowest) / 4:
        axes.axhline(floor, color="black", linestyle="--", linewidth=0.7, label="real samples")
    axes.tick_params(labelsize=FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set_xlabel("thousand images", fontsize=FONT - 1)
    axes.set_title(printable(measure), fontsize=FONT - 1, loc="left", parse_math=False)
    axes.legend(frameon=False, fontsize=FONT - 1)
    return as_svg(figure)


def _change(effect: Effect, *, relative: bool) -> Estimate | None:
    if effect.effect is None or effect.low is None or effect.high is None:
        return None
    if relative and effect.relative is not None:
        return effect.relative.scaled(100.0)
    return Estimate(effect.effect, effect.low, effect.high)


def _limit(changes: Sequence[Estimate]) -> float:
    """The largest value on the axis: the largest interval end, unless that is far beyond most others."""
    ends = [max(abs(change.low), abs(change.high), abs(change.value)) for change in changes]
    return min(max(ends), SPREAD * float(np.quantile(ends, 0.8))) or 1.0


def _draw_interval(axes: Axes, row: int, change: Estimate, limit: float, colour: str, marker: str) -> None:
    low, value, high = (float(np.clip(number, -limit, limit)) for number in (change.low, change.value, change.high))
    axes.plot([low, high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot([value], [row], marker, color=colour, markersize=4.5)
    for end, cut, arrow in ((low, change.low < -limit, "<"), (high, change.high > limit, ">")):
        if cut:
            axes.plot([end], [row], arrow, color=colour, markersize=5, clip_on=False)


def _short(name: str) -> str:
    """A name as a label: escaped, and cut if it is long."""
    label = printable(name)
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"
