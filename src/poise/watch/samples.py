"""Detectors that read statistics and measures of the samples: diversity, saturation, labels, copies, a worse FID."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from poise.watch.advice import increase_diversity, lower_learning_rates
from poise.watch.base import GAN_FAMILIES, Detection, Detector, DetectorSettings
from poise.watch.formatting import RELATIVE_NOISE
from poise.watch.history import MIN_ROWS, MetricHistory, Window

LOWER_IS_BETTER, HIGHER_IS_BETTER = ("fid", "kid"), ("coverage", "high_quality")
"""The measures that `past_its_best` may read, in order of preference; it reads the first that was measured."""

FRACTION_SLACK = 1.2
"""Fractions vary more from one measurement to the next: they must be worse by this factor, too, for `past_its_best`."""

MAX_NEWNESS, MAX_TRAIN_RATIO, MIN_DIVERSITY = 0.9, 0.9, 0.7
"""Samples are memorised if they are nearer to training images than new images are, and than to held-out images, by
these factors, and if they are this diverse: similar samples are nearer to some images by chance."""


def collapse(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The diversity of the samples below a fraction of that of real samples, in pixels or in D's features.

    If the samples have never been diverse, it waits for twice the window.
    """
    for name, space in (("g/diversity", ""), ("g/feature_diversity", ", measured in D's features")):
        window = history.last(name, settings.window)
        if window is None or not is_fraction_below(window, settings.threshold):
            continue
        series = history.series[name]
        never_diverse = not series.accumulate(np.fmax, -math.inf)[-1] >= settings.threshold
        if never_diverse and series.age < 2 * history.window_steps(name, settings.window):
            continue
        message = f"samples are {window.median:.0%} as diverse as real samples{space}"
        restart = "restart with another seed and a lower learning rate for G"
        return Detection(message, f"{increase_diversity(history)}; or {restart}", 0 if never_diverse else None)
    return None


def is_fraction_below(window: Window, bound: float) -> bool:
    """Whether all values of a window lie in [0, bound); negative values are not a fraction."""
    return float(window.means.min()) >= 0 and float(window.means.max()) < bound


def saturated(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """Nearly all pixels of the samples are black or white, unlike those of real images."""
    window = history.last("g/shades", settings.window)
    if window is None or not is_fraction_below(window, settings.threshold):
        return None
    message = f"the share of pixels that are neither black nor white is {window.median:.1%} of that in real images"
    rates = lower_learning_rates(settings.family, "g")
    check = "check that G's output and the data have the same range (poise check)"
    return Detection(message, f"lower G's learning rate, {rates}; and {check}")


def labels_ignored(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """The label hardly changes a sample."""
    window = history.last("g/label_effect", settings.window)
    if window is None or not is_fraction_below(window, settings.threshold):
        return None
    return f"another label changes a sample {window.median:.0%} as much as another z does"


def labels_wrong(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """A classifier trained on real images seldom predicts the class that G was conditioned on."""
    window = history.last("measure/gan_test", settings.window, stale=True)
    if window is None or not is_fraction_below(window, settings.threshold):
        return None
    return f"{window.median:.0%} of the samples have been of the requested class since step {window.steps[0]:,}"


def classes_missing(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """A classifier trained on real images finds the samples' classes out of balance."""
    window = history.last("measure/class_balance", settings.window, stale=True)
    if window is None or not is_fraction_below(window, settings.threshold):
        return None
    since = f"since step {window.steps[0]:,}"
    message = f"class balance has been {window.median:.2f} {since}: some classes are rare or missing"
    labels = "" if "g/label_effect" in history.series else "; or use the labels"
    return Detection(message, increase_diversity(history) + labels)


def past_its_best(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The first available measure is much worse than its best value, in the last two measurements.

    The bound for FID and KID is raised by the real-vs-real floor, that for fractions by `FRACTION_SLACK`.
    """
    name = next((name for name in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER) if f"measure/{name}" in history.series), None)
    series = history.series.get(f"measure/{name}")
    if name is None or series is None or len(series.stats) < 3:
        return None
    lower = name in LOWER_IS_BETTER
    best = series.accumulate(_follow if lower else _follow_higher, Best())[-1]
    floors = history.series.get(f"floor/{name}")
    floor = floors.stats[-1].mean if floors is not None and floors.stats else 0.0
    slack = floor if lower and math.isfinite(floor) else 0.0
    threshold = settings.threshold if lower else FRACTION_SLACK * settings.threshold
    bound = best.cost + (threshold - 1) * abs(best.cost) + slack
    if lower:  # if the best is close to 0, multiples of it are rounding noise
        bound += RELATIVE_NOISE * best.largest
    if best.index >= best.count - 2 or not math.isfinite(best.cost) or min(best.last_two) <= bound:
        return None
    newest, since = series.stats[-1].mean, series.steps[best.index]
    current = f"{newest:.4g}" if math.isfinite(newest) else "not finite"
    message = f"{name} is {current}; its best was {series.stats[best.index].mean:.4g} at step {since:,}"
    return Detection(message, since=since)


class Best(NamedTuple):
    """The best value of a measure so far, by costs that are lower for better values.

    Attributes:
        cost: its cost.
        index: the index of its row.
        count: the number of rows.
        last_two: the costs of the last two rows.
        largest: the largest finite absolute value of the costs.
    """

    cost: float = math.inf
    index: int = 0
    count: int = 0
    last_two: tuple[float, float] = (math.inf, math.inf)
    largest: float = 0.0


def _follow_higher(best: Best, value: float) -> Best:
    return _follow(best, 1 / max(value, 1e-9))


def _follow(best: Best, cost: float) -> Best:
    """The best after another row, whose cost is infinite if it is NaN."""
    cost = math.inf if math.isnan(cost) else cost
    lowest, index = (cost, best.count) if cost < best.cost else (best.cost, best.index)
    largest = max(best.largest, abs(cost)) if math.isfinite(cost) else best.largest
    return Best(lowest, index, best.count + 1, (best.last_two[1], cost), largest)


def memorising(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """Samples that are copies of single training images, or nearer to training images than to held-out ones.

    A small `g/newness` alone is not enough, because the blurred samples of early training are near to all images.
    """
    nearest = history.last("g/nearest_ratio", settings.window)
    if nearest is not None and 0 <= nearest.median < settings.threshold:
        return (
            "a quarter of the samples are copies: their distance to the nearest training image over that to the second "
            f"nearest is {nearest.median:.0%} of that of held-out images (lower quartiles)"
        )
    newness, train_ratio = (history.last(f"g/{name}", settings.window) for name in ("newness", "train_ratio"))
    if newness is None or train_ratio is None:
        return None
    if not 0 <= newness.median < MAX_NEWNESS or not 0 <= train_ratio.median < MAX_TRAIN_RATIO:
        return None
    diversity = history.last("g/diversity", settings.window)
    if diversity is not None and diversity.median < MIN_DIVERSITY:
        return None  # similar samples are near to some images by chance
    return (
        f"the distance of samples to training images is {train_ratio.median:.0%} of that to an equal number of "
        "held-out images: the training set is memorised"
    )


DETECTORS = (
    Detector(
        name="collapse",
        description=(
            "mean distance between samples, in pixels or in D's features, below this fraction of that between real "
            "samples"
        ),
        threshold=0.5,
        window=300,
        values=MIN_ROWS,
        policy="keep",
        detect=collapse,
        advice="let D see several samples at once, or restart with another seed and a lower learning rate for G",
        tip="T16",
        inputs=("g/diversity", "g/feature_diversity"),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="saturated",
        description=(
            "the fraction of pixels that are neither black nor white, divided by the same fraction in real images, is "
            "below this"
        ),
        threshold=0.2,
        window=300,
        values=MIN_ROWS,
        policy="warn",
        detect=saturated,
        advice="lower G's learning rate; and check that G's output and the data have the same range (poise check)",
        tip="T01",
        inputs=("g/shades",),
    ),
    Detector(
        name="labels_ignored",
        description="the change of a sample under another label, below this fraction of its change under another z",
        threshold=0.1,
        window=1000,
        values=MIN_ROWS,
        policy="warn",
        detect=labels_ignored,
        advice="condition D on the label: --set 'conditioning.d={kind=\"projection\"}'; if it already is, strengthen "
        "the conditioning of G",
        tip="T13",
        inputs=("g/label_effect",),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="labels_wrong",
        description=(
            "share of samples that a classifier trained on real images assigns to the requested class, below this"
        ),
        threshold=0.3,
        window=1000,
        values=MIN_ROWS,
        policy="warn",
        detect=labels_wrong,
        advice="condition D on the label: --set 'conditioning.d={kind=\"projection\"}'",
        tip="T13",
        inputs=("measure/gan_test",),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="classes_missing",
        description=(
            "class balance, by a classifier trained on real images, below this for a window of at least four "
            "measurements"
        ),
        threshold=0.4,
        window=1000,
        values=MIN_ROWS,
        policy="warn",
        detect=classes_missing,
        advice="let D see several samples at once, or use the labels",
        tip="T16",
        inputs=("measure/class_balance",),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="past_its_best",
        description=(
            "a measure is worse than its best value by more than this factor (coverage and high_quality: 1.2 times "
            "this factor), twice in a row"
        ),
        threshold=1.5,
        window=1,
        values=MIN_ROWS,
        policy="keep",
        detect=past_its_best,
        advice="use the best weights (poise sample RUN --best); averaged weights and a decaying learning rate keep the "
        "quality longer: --set 'tricks+=[{kind=\"averaged_weights\"}]'",
        tip="T21",
        inputs=tuple(f"measure/{name}" for name in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER)),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="memorising",
        description="distance of samples to the nearest training image over that to the second nearest, below this "
        "fraction of that of held-out images; or samples nearer to training images than to held-out ones",
        threshold=0.7,
        window=500,
        values=MIN_ROWS,
        policy="warn",
        detect=memorising,
        advice="train on more images, or augment D's input: --set 'tricks+=[{kind=\"diff_augment\"}]'",
        tip="M02",
        inputs=("g/nearest_ratio", "g/train_ratio"),
        families=GAN_FAMILIES,
    ),
)
