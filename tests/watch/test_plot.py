"""Tests of the plot of a log: it is a valid image, and shows the curves and the alarms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from poise.core.metrics_log import Stat
from poise.watch.base import Alarm, Family
from poise.watch.logs import Log
from poise.watch.plot import COLOURS, plot

D, G = "d/adversarial", "g/adversarial"
ALARM = Alarm(400, "d_at_zero", "warning", "seen", "do", "T11")


def log(losses: dict[str, list[float]], family: Family | None = None, length: int = 1000) -> Log:
    """Rows every 100 steps, whose values lie within 0.1 of the mean."""
    count = len(next(iter(losses.values())))
    stats = [{name: Stat(v[k], 0.1, v[k] - 0.1, v[k] + 0.1) for name, v in losses.items()} for k in range(count)]
    return Log([(100 * k, numbers) for k, numbers in enumerate(stats, 1)], len(stats), length, family, {})


USUAL = {D: [1.0, 0.8, 0.7, 0.75, 0.7], G: [0.9, 1.2, 1.0, 1.1, 1.0]}


def plot_pixels(path: Path, *args: Any, **named: Any) -> np.ndarray:
    found, alarms = args
    plot(found, alarms, path, **named)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def has(pixels: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return bool((np.abs(pixels - rgb).max(-1) <= 6).any())


def test_both_losses_are_plotted(tmp_path: Path) -> None:
    pixels = plot_pixels(tmp_path / "a.png", log(USUAL, "logistic"), [])
    assert pixels.shape == (504, 1080, 3)
    assert has(pixels, "#2b6cb0")
    assert has(pixels, "#d9622b")
    assert not has(plot_pixels(tmp_path / "g.png", log({G: USUAL[G]}), []), "#2b6cb0")
    assert not has(plot_pixels(tmp_path / "d.png", log({D: USUAL[D]}), []), "#d9622b")


def test_an_alarm_is_a_vertical_line(tmp_path: Path) -> None:
    without = plot_pixels(tmp_path / "without.png", log(USUAL), [])
    found = plot_pixels(tmp_path / "with.png", log(USUAL), [ALARM])
    changed = np.abs(found - without).max(-1) > 30
    assert 300 < changed.any(1).sum() < 504
    assert has(found, "#e69f00")
    assert not has(without, "#e69f00")


LOSSES: dict[str, dict[str, list[float]]] = {
    "not finite": {D: [1.0, math.nan, 0.5, math.inf, 0.7], G: [-math.inf, 1.0, 2.0, 1.0, math.nan]},
    "all not finite": {D: [math.nan, math.nan], G: [math.inf, math.inf]},
    "one row": {D: [0.7], G: [0.9]},
    "only G": {G: [0.7, 0.8, 0.9]},
    "only D": {D: [0.7, 0.8, 0.9]},
    "far up": {D: [0.7, 0.8, 1e6], G: [1.0, 2.0, 1e30]},
    "below 0": {D: [-5.0, -4.0, -1e5], G: [1.0, 2.0, 3.0]},
}


@pytest.mark.parametrize("what", LOSSES)
def test_unusual_losses_can_be_plotted(tmp_path: Path, what: str) -> None:
    assert plot_pixels(tmp_path / "a.png", log(LOSSES[what], "logistic"), [ALARM]).std() > 5


# ---- the content of the axes, without rendering ----------------------------------------------------------


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`axes(log, alarms, family)`: the axes of the plot, without rendering it."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **given: figures.append(figure))

    def plotted(found: Log, alarms: list[Alarm] | None = None, family: Family | None = None, title: str = "") -> Axes:
        plot(found, alarms or [], tmp_path / "a.png", family, title)
        return figures[-1].axes[0]

    return plotted


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]


def test_curves_and_labels(axes: Any) -> None:
    found = axes(log(USUAL, "logistic"), title="run")
    assert labels(found) == ["D's loss", "G's loss", "equilibrium: log 2"]
    d, g, equilibrium = found.lines
    assert d.get_xdata().tolist() == [100, 200, 300, 400, 500]
    assert (d.get_ydata().tolist(), g.get_ydata().tolist()) == (USUAL[D], USUAL[G])
    assert set(equilibrium.get_ydata()) == {math.log(2)}
    assert (found.get_title(loc="left"), found.get_xlabel(), found.get_ylabel()) == ("run", "step", "adversarial loss")
    assert (found.get_xlim(), found.get_ylim()[0]) == ((0, 500), 0)
    band = found.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.6, 1.1))


@pytest.mark.parametrize(
    ("measures", "label"),
    [
        ({"measure/fid": [90.0, 40.0], "measure/kid": [0.1, 0.05]}, "FID"),
        ({"measure/coverage": [0.2, 0.3], "measure/kid": [0.1, -0.001]}, "KID"),
        ({"measure/coverage": [0.2, 0.3]}, "coverage"),
    ],
)
@pytest.mark.parametrize("family", [None, "logistic"])
def test_a_log_without_losses_shows_a_measure(
    axes: Any, measures: dict[str, list[float]], label: str, family: Family | None
) -> None:
    found = axes(log(measures, family))
    assert (found.get_ylabel(), labels(found)) == (label, [label])
    (curve,) = found.lines
    drawn = {"FID": "measure/fid", "KID": "measure/kid"}.get(label, f"measure/{label}")
    assert curve.get_ydata().tolist() == measures[drawn]


@pytest.mark.parametrize(
    ("of_log", "requested", "label"),
    [
        ("hinge", None, "equilibrium: 1"),
        ("least_squares", None, "equilibrium: 0.125"),
        ("relativistic", None, "equilibrium: log 2"),
        (None, "hinge", "equilibrium: 1"),
        ("least_squares", "hinge", "equilibrium: 1"),
        ("wasserstein", None, None),
        ("logistic", "wasserstein", None),
        (None, None, None),
    ],
    ids=str,
)
def test_the_equilibrium_loss(axes: Any, of_log: Family | None, requested: Family | None, label: str | None) -> None:
    assert labels(axes(log(USUAL, of_log), family=requested)) == ["D's loss", "G's loss", *([label] if label else [])]


@pytest.mark.parametrize(
    ("highest", "family", "scale"),
    [
        (4.2, "logistic", "symlog"),
        (-4.2, "logistic", "symlog"),
        (4.1, "logistic", "linear"),
        (4.2, "hinge", "linear"),
        (6.1, "hinge", "symlog"),
        (4.2, None, "symlog"),
        (99.0, "wasserstein", "linear"),
        (math.inf, "logistic", "linear"),
    ],
    ids=str,
)
def test_the_scale(axes: Any, highest: float, family: Family | None, scale: str) -> None:
    assert axes(log({D: [0.5, highest], G: [0.5, 0.6]}, family)).get_yscale() == scale
    assert axes(log({D: [0.5, 0.6], G: [highest, 0.6]}, family)).get_yscale() == scale


@pytest.mark.parametrize(("level", "colour"), COLOURS.items(), ids=str)
def test_colours_of_the_levels(axes: Any, level: Any, colour: str) -> None:
    found = axes(log(USUAL), [ALARM._replace(level=level)])
    assert (found.lines[-1].get_color(), found.texts[-1].get_color()) == (colour, colour)
    assert len(set(COLOURS.values())) == 3


def test_names_do_not_overlap(axes: Any) -> None:
    at = [("a", 400), ("b", 439), ("c", 440), ("d", 478), ("e", 1000)]
    found = axes(log(USUAL), [ALARM._replace(detector=name, step=step) for name, step in at])
    assert [text.get_text() for text in found.texts] == ["a", "b", "c", "d", "e"]
    assert [round((0.98 - text.xy[1]) / 0.07) for text in found.texts] == [0, 1, 0, 2, 0]
    assert [line.get_xdata()[0] for line in found.lines[2:]] == [400, 439, 440, 478, 1000]
    assert found.get_xlim() == (0, 1000)


def test_dollars_in_the_title_are_not_mathematics(tmp_path: Path) -> None:
    plot_pixels(tmp_path / "a.png", log(USUAL), [], title=r"runs/$\x$")
