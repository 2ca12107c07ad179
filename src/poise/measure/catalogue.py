"""All measures by name, and what is said of a set of samples by some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from poise.core.config import did_you_mean
from poise.errors import RecipeError
from poise.measure import (
    classifier_scores,
    diversity,
    duality_gap,
    fid,
    kid,
    memorization,
    modes,
    ndb,
    prdc,
    probes,
    reconstruction,
    spectrum,
)
from poise.measure.base import MISSING_REASONS, Floor, Measure, MeasuredValue, Requirement
from poise.measure.context import EvalContext

MEASURES = {
    measure.name: measure
    for measure in (
        fid.FID,
        kid.KID,
        prdc.PRECISION,
        prdc.RECALL,
        prdc.DENSITY,
        prdc.COVERAGE,
        ndb.NDB,
        diversity.VENDI,
        diversity.DIVERSITY,
        classifier_scores.INCEPTION_SCORE,
        classifier_scores.CONFIDENCE,
        classifier_scores.BALANCE,
        classifier_scores.GAN_TEST,
        memorization.COPYING,
        memorization.AUTHENTICITY,
        modes.MODES,
        modes.HIGH_QUALITY,
        modes.REVERSE_KL,
        probes.GAN_TRAIN,
        probes.D_PROBE,
        duality_gap.DUALITY_GAP,
        spectrum.HIGH_FREQUENCIES,
        reconstruction.RECONSTRUCTION,
        reconstruction.PCA,
        reconstruction.ELBO,
        reconstruction.NEGATIVE_LIKELIHOOD,
        reconstruction.KL,
    )
}


class MeasureResult(NamedTuple):
    """One measure's figure, its floor, and of how many samples both are, if not of as many as the others."""

    value: MeasuredValue
    floor: Floor | None
    n: int | None = None


class EvaluationResult(NamedTuple):
    """What was measured.

    Attributes:
        n: how many samples were compared, and held against as many real ones.
        features: the features by name.
        results: measured values by name, in the catalogue's order.
        skipped: reasons by name.
        notes: what the reader should know: another n for some figures, resizing.
    """

    n: int
    features: str
    results: dict[str, MeasureResult]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As `measure --json` and `compare --json` print it."""
        measures = {}
        for name, (figure, floor, n) in self.results.items():
            floors = {"floor": None} if floor is None else {"floor": floor.value, "floor_std": floor.std}
            extra = {"stderr": figure.stderr, "n": n}
            known = {key: value for key, value in extra.items() if value is not None}
            measures[name] = {"value": figure.value, **floors, **known}
        told = {"n": self.n, "features": self.features, "measures": measures, "skipped": self.skipped}
        return told | ({"notes": list(self.notes)} if self.notes else {})


def select_measures(words: str | Sequence[str] | None) -> list[Measure]:
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
            cure = did_you_mean(name, list(MEASURES))
            raise RecipeError("no such measure", where="--measures", found=f"'{name}'", cure=cure)
    return [measure for name, measure in MEASURES.items() if name in names]


def compute_or_reason(measure: Measure, context: EvalContext, given: set[Requirement]) -> MeasuredValue | str:
    """The figure, or the reason why there is none."""
    missing = sorted(measure.requires - given)
    if missing:
        return MISSING_REASONS[missing[0]]
    try:
        figure = measure.compute(context)
    except ValueError as error:
        return str(error)
    return figure if math.isfinite(figure.value) else f"it came out as {figure.value}"
