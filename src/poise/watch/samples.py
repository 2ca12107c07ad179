"""Signs in the samples and in what is measured of them: variety, saturation, labels, copies, a best that is past."""

from __future__ import annotations

import math

from poise.watch.advice import increase_variety, lower_rates
from poise.watch.base import GAMES, Detection, Detector, DetectorSettings
from poise.watch.formatting import NOISE
from poise.watch.history import MetricHistory, Window

LESS, MORE = ("fid", "kid"), ("coverage", "high_quality")
"""Measures by which a best is told, the first that is there: less is better, more is better."""


NEAR, KNOWN, VARIED = 0.9, 0.9, 0.7
"""Samples are nearer to training pictures than new pictures are, and than to held-out ones, below these shares; and
that is not chance where they differ by this share of what real pictures do."""


def collapse(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """Samples much more alike than reals, by pixels or by D's features; twice as patient if they never differed yet."""
    for name, by in (("g/diversity", "pixels"), ("g/feature_diversity", "D's features")):
        window = heard.last(name, look.window)
        if window is None or not is_share(window, look.threshold):
            continue
        series = heard.series[name]
        never = not (series.between(-1, heard.step).means >= look.threshold).any()
        if never and series.age < 2 * heard.window_length(look.window, series):
            continue
        message = f"samples differ {window.median:.0%} as much as real ones do, by {by}"
        return Detection(message, f"{increase_variety(heard)}; or start again with another seed and a lower rate for G")
    return None


def is_share(window: Window, below: float) -> bool:
    """Whether all of a window lies between 0 and a bound: a share below 0 is none."""
    return float(window.means.min()) >= 0 and float(window.means.max()) < below


def saturated(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """Nearly every pixel at the end of its range, where real pictures have shades."""
    window = heard.last("g/shades", look.window)
    if window is None or not is_share(window, look.threshold):
        return None
    message = f"samples have {window.median:.1%} of the shades between black and white that real ones have"
    cure = "see that G's output and the data have one range (poise check)"
    return Detection(message, f"lower G's rate, {lower_rates(look.family, 'g')}; and {cure}")


def labels_ignored(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """The same z with another label gives the same sample."""
    window = heard.last("g/label_effect", look.window)
    if window is None or not is_share(window, look.threshold):
        return None
    return f"another label moves a sample {window.median:.0%} as far as another z does"


def labels_wrong(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """A classifier of real pictures seldom finds the class that was asked for."""
    window = heard.last("measure/gan_test", look.window, stale=True)
    if window is None or not is_share(window, look.threshold):
        return None
    return f"{window.median:.0%} of the samples are of the class that was asked for, since step {window.steps[0]:,}"


def classes_missing(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """A classifier of real pictures finds the samples' classes unevenly filled."""
    window = heard.last("measure/class_balance", look.window, stale=True)
    if window is None or not is_share(window, look.threshold):
        return None
    message = (
        f"class balance has been {window.median:.2f} since step {window.steps[0]:,}: some classes are rare or missing"
    )
    return Detection(
        message, increase_variety(heard) + ("" if "g/label_effect" in heard.series else "; or use the labels")
    )


def past_its_best(heard: MetricHistory, look: DetectorSettings) -> str | None:
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
    if name in LESS:  # a distance of next to nothing against the first ones: twice that is rounding noise
        bound += NOISE * max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if place >= len(values) - 2 or not math.isfinite(values[place]) or min(values[-2:]) <= bound:
        return None
    now = series.stats[-1].mean
    told = f"{name} is {f'{now:.4g}' if math.isfinite(now) else 'not finite'}, and was {series.stats[place].mean:.4g}"
    return f"{told} at step {series.steps[place]:,}: the best is past"


def memorising(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """Samples that are copies of single training pictures, or nearer to training pictures than to held-out ones.

    Nearness alone is neither: early blobs lie near to all pictures. So a log that has `g/newness` alone is passed over.
    """
    ratio = heard.last("g/nearest_ratio", look.window)
    if ratio is not None and 0 <= ratio.median < look.threshold:
        return (
            f"a quarter of the samples lie {ratio.median:.0%} as far from the nearest training picture as from the "
            "next, in shares of held-out pictures' own: they are copies"
        )
    newness, trained = heard.last("g/newness", look.window), heard.last("g/train_ratio", look.window)
    if newness is None or trained is None or not 0 <= newness.median < NEAR or not 0 <= trained.median < KNOWN:
        return None
    variety = heard.last("g/diversity", look.window)
    if variety is not None and variety.median < VARIED:
        return None  # samples all alike are near to some pictures by chance
    return f"samples lie {trained.median:.0%} as far from training pictures as from as many held-out ones: D knows them"


DETECTORS = (
    Detector(
        name="collapse",
        description=(
            "mean distance between samples, in pixels or in D's features, below this share of that between reals"
        ),
        threshold=0.5,
        window=300,
        policy="keep",
        detect=collapse,
        advice="let D see several samples at once, or start again with another seed and a lower rate for G",
        tip="T16",
        inputs=("g/diversity", "g/feature_diversity"),
        families=GAMES,
    ),
    Detector(
        name="saturated",
        description="share of pixels away from black and white, below this share of that in real pictures",
        threshold=0.2,
        window=300,
        policy="warn",
        detect=saturated,
        advice="lower G's rate; and see that G's output and the data have one range (poise check)",
        tip="T01",
        inputs=("g/shades",),
    ),
    Detector(
        name="labels_ignored",
        description="how far another label moves a sample, in shares of what another z does, below this",
        threshold=0.1,
        window=1000,
        policy="warn",
        detect=labels_ignored,
        advice="see that D is asked about the label: --set 'conditioning.d={kind=\"projection\"}'; if it is, give the "
        "label more room in G",
        tip="T13",
        inputs=("g/label_effect",),
        families=GAMES,
    ),
    Detector(
        name="labels_wrong",
        description=(
            "share of samples that a classifier of real pictures finds to be of the class asked for, below this"
        ),
        threshold=0.3,
        window=1000,
        policy="warn",
        detect=labels_wrong,
        advice="see that D is asked about the label: --set 'conditioning.d={kind=\"projection\"}'",
        tip="T13",
        inputs=("measure/gan_test",),
        families=GAMES,
    ),
    Detector(
        name="classes_missing",
        description=(
            "class balance, by a classifier of real pictures, below this for a window of four measurings or more"
        ),
        threshold=0.4,
        window=1000,
        policy="warn",
        detect=classes_missing,
        advice="let D see several samples at once, or use the labels",
        tip="T16",
        inputs=("measure/class_balance",),
        families=GAMES,
    ),
    Detector(
        name="past_its_best",
        description="a measure this many times as bad as at its best, twice running",
        threshold=1.8,
        window=1,
        policy="keep",
        detect=past_its_best,
        advice="take the best weights (poise sample RUN --best); averaged weights and rates that fall hold it longer: "
        "--set 'tricks+=[{kind=\"averaged_weights\"}]'",
        tip="T21",
        inputs=tuple(f"measure/{name}" for name in (*LESS, *MORE)),
        families=GAMES,
    ),
    Detector(
        name="memorising",
        description="distance of samples to the nearest training picture over that to the next, in shares of held-out "
        "pictures', below this; or samples nearer to training pictures than to held-out ones",
        threshold=0.7,
        window=500,
        policy="warn",
        detect=memorising,
        advice="more pictures, or moved ones: --set 'tricks+=[{kind=\"diff_augment\"}]'",
        tip="M02",
        inputs=("g/nearest_ratio", "g/train_ratio"),
        families=GAMES,
    ),
)
