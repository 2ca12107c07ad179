"""All measures by name, and what is said of a set of samples by some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from poise.entries import nearest
from poise.errors import RecipeError
from poise.measure import (
    bins,
    classes,
    copying,
    duality,
    frechet,
    kernel,
    modes,
    neighbours,
    probes,
    rebuilding,
    spectrum,
    variety,
)
from poise.measure.base import WHY, Figure, Floor, Measure, Need
from poise.measure.sitting import Sitting

MEASURES = {
    measure.name: measure
    for measure in (
        frechet.FID,
        kernel.KID,
        neighbours.PRECISION,
        neighbours.RECALL,
        neighbours.DENSITY,
        neighbours.COVERAGE,
        bins.NDB,
        variety.VENDI,
        variety.DIVERSITY,
        classes.INCEPTION_SCORE,
        classes.CONFIDENCE,
        classes.BALANCE,
        classes.GAN_TEST,
        copying.COPYING,
        copying.AUTHENTICITY,
        modes.MODES,
        modes.HIGH_QUALITY,
        modes.REVERSE_KL,
        probes.GAN_TRAIN,
        probes.D_PROBE,
        duality.DUALITY_GAP,
        spectrum.HIGH_FREQUENCIES,
        rebuilding.RECONSTRUCTION,
        rebuilding.PCA,
        rebuilding.ELBO,
        rebuilding.NEGATIVE_LIKELIHOOD,
        rebuilding.KL,
    )
}


class Told(NamedTuple):
    """One measure's figure, its floor, and of how many samples both are, if not of as many as the others."""

    figure: Figure
    floor: Floor | None
    n: int | None = None


class Result(NamedTuple):
    """What was measured.

    Attributes:
        n: how many samples were compared, and held against as many real ones.
        features: the features by name.
        told: figures by name, in the catalogue's order.
        skipped: reasons by name.
        notes: what the reader should know: another n for some figures, resizing.
    """

    n: int
    features: str
    told: dict[str, Told]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As `measure --json` and `compare --json` print it."""
        measures = {}
        for name, (figure, floor, n) in self.told.items():
            floors = {"floor": None} if floor is None else {"floor": floor.value, "floor_std": floor.std}
            extra = {"stderr": figure.stderr, "n": n}
            known = {key: value for key, value in extra.items() if value is not None}
            measures[name] = {"value": figure.value, **floors, **known}
        told = {"n": self.n, "features": self.features, "measures": measures, "skipped": self.skipped}
        return told | ({"notes": list(self.notes)} if self.notes else {})


def chosen(words: str | Sequence[str] | None) -> list[Measure]:
    """The measures of a comma-separated list; all but the slow ones by default, all of them for `all`.

    Raises:
        RecipeError: one is not known; names the nearest.
    """
    if words is None:
        return [measure for measure in MEASURES.values() if not measure.slow]
    names = [word.strip() for word in words.split(",")] if isinstance(words, str) else list(words)
    if names == ["all"]:
        return list(MEASURES.values())
    for name in names:
        if name not in MEASURES:
            cure = nearest(name, list(MEASURES))
            raise RecipeError("no such measure", where="--measures", found=f"'{name}'", cure=cure)
    return [measure for name, measure in MEASURES.items() if name in names]


def taken(measure: Measure, sitting: Sitting, given: set[Need]) -> Figure | str:
    """The figure, or the reason why there is none."""
    missing = sorted(measure.needs - given)
    if missing:
        return WHY[missing[0]]
    try:
        figure = measure.of(sitting)
    except ValueError as error:
        return str(error)
    return figure if math.isfinite(figure.value) else f"it came out as {figure.value}"
