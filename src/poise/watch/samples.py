"""Signs in the samples and in what is measured of them: variety, saturation, labels, copies, a best that is past."""

from __future__ import annotations

import math

from poise.watch.base import GAMES, Detector, Look
from poise.watch.heard import Heard

LESS, MORE = ("fid", "kid"), ("coverage", "high_quality")
"""Measures by which a best is told, the first that is there: less is better, more is better."""


def collapse(heard: Heard, look: Look) -> str | None:
    """Samples much more alike than reals, by pixels or by D's features; twice as patient if they never differed yet."""
    for name, by in (("g/diversity", "pixels"), ("g/feature_diversity", "D's features")):
        window = heard.last(name, look.window)
        if window is None or window.means.max() >= look.threshold:
            continue
        series = heard.series[name]
        never = series.between(-1, heard.step).means.max() < look.threshold
        if never and series.age < 2 * heard.span(look.window, series):
            continue
        return f"samples differ {window.median:.0%} as much as real ones do, by {by}"
    return None


def saturated(heard: Heard, look: Look) -> str | None:
    """Nearly every pixel at the end of its range, where real pictures have shades."""
    window = heard.last("g/shades", look.window)
    if window is None or window.means.max() >= look.threshold:
        return None
    return f"samples have {window.median:.1%} of the shades between black and white that real ones have"


def labels_ignored(heard: Heard, look: Look) -> str | None:
    """The same z with another label gives the same sample."""
    window = heard.last("g/label_effect", look.window)
    if window is None or window.means.max() >= look.threshold:
        return None
    return f"another label moves a sample {window.median:.0%} as far as another z does"


def labels_wrong(heard: Heard, look: Look) -> str | None:
    """A classifier of real pictures seldom finds the class that was asked for."""
    window = heard.last("measure/gan_test", look.window, stale=True)
    if window is None or window.means.max() >= look.threshold:
        return None
    return f"{window.median:.0%} of the samples are of the class that was asked for, since step {window.steps[0]:,}"


def classes_missing(heard: Heard, look: Look) -> str | None:
    """A classifier of real pictures finds the samples' classes unevenly filled."""
    window = heard.last("measure/class_balance", look.window, stale=True)
    if window is None or window.means.max() >= look.threshold:
        return None
    return (
        f"class balance has been {window.median:.2f} since step {window.steps[0]:,}: some classes are rare or missing"
    )


def past_its_best(heard: Heard, look: Look) -> str | None:
    """The first of the measures that tell a best, worse than its own best for two measurings running."""
    name = next((name for name in (*LESS, *MORE) if f"measure/{name}" in heard.series), None)
    series = heard.series.get(f"measure/{name}")
    if name is None or series is None or len(series.stats) < 3:
        return None
    values = [stat.mean if name in LESS else 1 / max(stat.mean, 1e-9) for stat in series.stats]
    values = [math.inf if math.isnan(value) else value for value in values]
    place = min(range(len(values)), key=values.__getitem__)
    floors = heard.series.get(f"floor/{name}")
    floor = floors.stats[-1].mean if floors is not None and floors.stats else 0.0
    slack = floor if name in LESS and math.isfinite(floor) else 0.0
    bound = values[place] + (look.threshold - 1) * abs(values[place]) + slack
    if place >= len(values) - 2 or min(values[-2:]) <= bound:
        return None
    told = f"{name} is {series.stats[-1].mean:.4g}, and was {series.stats[place].mean:.4g}"
    return f"{told} at step {series.steps[place]:,}: the best is past"


def memorising(heard: Heard, look: Look) -> str | None:
    """Samples much nearer to training pictures than other real pictures are."""
    window = heard.last("g/newness", look.window)
    if window is None or window.median >= look.threshold:
        return None
    return f"samples lie {window.median:.0%} as far from training pictures as held-out ones do: they are copies"


DETECTORS = (
    Detector(
        name="collapse",
        meaning="mean distance between samples, in pixels or in D's features, below this share of that between reals",
        threshold=0.5,
        window=300,
        policy="keep",
        look=collapse,
        advice="let D see several samples at once, --set 'tricks+=[{kind=\"packing\", samples=2}]', or start again "
        "with another seed and a lower rate for G",
        tip="T16",
        reads=("g/diversity", "g/feature_diversity"),
        families=GAMES,
    ),
    Detector(
        name="saturated",
        meaning="share of pixels away from black and white, below this share of that in real pictures",
        threshold=0.2,
        window=300,
        policy="warn",
        look=saturated,
        advice="lower G's rate, --set optimizer.g.lr=1e-4; and see that G's output and the data have one range "
        "(poise check)",
        tip="T01",
        reads=("g/shades",),
    ),
    Detector(
        name="labels_ignored",
        meaning="how far another label moves a sample, in shares of what another z does, below this",
        threshold=0.1,
        window=1000,
        policy="warn",
        look=labels_ignored,
        advice="ask D about the label: --set 'conditioning.d={kind=\"projection\"}', or give that a higher rate in G",
        tip="T13",
        reads=("g/label_effect",),
        families=GAMES,
    ),
    Detector(
        name="labels_wrong",
        meaning="share of samples that a classifier of real pictures finds to be of the class asked for, below this",
        threshold=0.3,
        window=1000,
        policy="warn",
        look=labels_wrong,
        advice="ask D about the label: --set 'conditioning.d={kind=\"projection\"}'",
        tip="T13",
        reads=("measure/gan_test",),
        families=GAMES,
    ),
    Detector(
        name="classes_missing",
        meaning="class balance, by a classifier of real pictures, below this for a window of four measurings or more",
        threshold=0.4,
        window=1000,
        policy="warn",
        look=classes_missing,
        advice="let D see several samples at once, --set 'tricks+=[{kind=\"packing\", samples=2}]', or use the labels",
        tip="T16",
        reads=("measure/class_balance",),
        families=GAMES,
    ),
    Detector(
        name="past_its_best",
        meaning="a measure this many times as bad as at its best, twice running",
        threshold=1.8,
        window=1,
        policy="keep",
        look=past_its_best,
        advice="take the best weights (poise sample RUN --best); averaged weights and rates that fall hold it longer: "
        "--set 'tricks+=[{kind=\"averaged_weights\"}]'",
        tip="T21",
        reads=tuple(f"measure/{name}" for name in (*LESS, *MORE)),
        families=GAMES,
    ),
    Detector(
        name="memorising",
        meaning="distance of samples to the nearest training picture, in shares of held-out pictures', below this",
        threshold=0.9,
        window=500,
        policy="warn",
        look=memorising,
        advice="more pictures, or moved ones: --set 'tricks+=[{kind=\"diff_augment\"}]'",
        tip="M02",
        reads=("g/newness",),
        families=GAMES,
    ),
)
