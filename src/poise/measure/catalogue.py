"""All measures by name, and the result of evaluating a set of samples with some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

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
    translation,
)
from poise.measure.base import (
    MISSING_REASONS,
    WITHOUT_SAMPLES,
    Floor,
    Measure,
    MeasuredValue,
    Requirement,
    TooFewRows,
)
from poise.measure.context import EvalContext
from poise.utils.printing import agree, count_noun

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
        diversity.CLASS_DIVERSITY,
        classifier_scores.INCEPTION_SCORE,
        classifier_scores.CLASS_CONFIDENCE,
        classifier_scores.CLASS_BALANCE,
        classifier_scores.GAN_TEST,
        memorization.COPYING,
        memorization.AUTHENTICITY,
        modes.MODES,
        modes.HIGH_QUALITY,
        modes.REVERSE_KL,
        modes.MODE_STD_ERROR,
        probes.GAN_TRAIN,
        probes.D_PROBE,
        duality_gap.DUALITY_GAP,
        spectrum.HIGH_FREQUENCIES,
        reconstruction.RECONSTRUCTION,
        reconstruction.PCA_RECONSTRUCTION,
        reconstruction.ELBO,
        reconstruction.ELBO_RECONSTRUCTION,
        reconstruction.ELBO_KL,
        translation.L1,
        translation.PSNR,
        translation.SSIM,
        translation.CYCLE_ERROR,
        translation.CLASS_AGREEMENT,
    )
}


class MeasureResult(NamedTuple):
    """The value of one measure.

    Attributes:
        value: the value.
        floor: the floor; None if there is none.
        n: the number of samples, if it differs from `EvaluationResult.n`.
        baseline: the value of the untranslated images, see `Measure.has_baseline`; None if there is none.
    """

    value: MeasuredValue
    floor: Floor | None
    n: int | None = None
    baseline: float | None = None


class EvaluationResult(NamedTuple):
    """The result of an evaluation.

    Attributes:
        n: the number of samples, and of the real samples that they were compared with.
        features: the name of the features.
        results: measured values by name, in the order of the catalogue.
        skipped: for each measure that could not be computed, the reason.
        notes: remarks on the result, such as a different n of some measures.
    """

    n: int
    features: str
    results: dict[str, MeasureResult]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object that `measure --json` and `compare --json` print."""
        measures = {}
        for name, (measured, floor, n, baseline) in self.results.items():
            floors = {"floor": None} if floor is None else {"floor": floor.value, "floor_std": floor.std}
            optional = {"stderr": measured.stderr, "n": n, "baseline": baseline}
            known = {key: value for key, value in optional.items() if value is not None}
            measures[name] = {"value": measured.value, **floors, **known}
        result = {"n": self.n, "features": self.features, "measures": measures, "skipped": self.skipped}
        return result | ({"notes": list(self.notes)} if self.notes else {})


def select_measures(selection: str | Sequence[str] | None) -> list[Measure]:
    """The measures named in a list or a comma-separated string; all but the slow ones by default, all for "all".

    Raises:
        RecipeError: there is no measure of that name; suggests the most similar name.
    """
    if selection is None:
        return [measure for measure in MEASURES.values() if not measure.slow]
    names = [name.strip() for name in selection.split(",")] if isinstance(selection, str) else list(selection)
    if names == ["all"]:
        return list(MEASURES.values())
    for name in names:
        if name not in MEASURES:
            cure = did_you_mean(name, list(MEASURES))
            raise RecipeError("no such measure", where="--measures", found=f"'{name}'", cure=cure)
    return [measure for name, measure in MEASURES.items() if name in names]


def compute_or_reason(measure: Measure, context: EvalContext, available: set[Requirement]) -> MeasuredValue | str:
    """The value of a measure, or the reason why it cannot be computed.

    Samples may be anything, as those of a generator that has diverged: numbers that a measure can't work with are a
    reason, too.
    """
    missing = measure.requires - available
    if missing:
        return next(reason for requirement, reason in MISSING_REASONS.items() if requirement in missing)
    if context.refusal and not measure.requires & WITHOUT_SAMPLES:
        return context.refusal
    try:
        measured = measure.compute(context)
    except TooFewRows as error:
        for samples, noun in ((context.real, "real sample to compare with"), (context.fake, "sample")):
            if (n := len(samples)) < error.least:
                return f"there {agree(n, 'is', 'are')} only {count_noun(n, noun)}, and it needs at least {error.least}"
        return str(error)
    except ValueError as error:
        return str(error)
    except (ArithmeticError, torch.linalg.LinAlgError) as error:
        return f"its numbers are too large or not finite ({type(error).__name__})"
    return measured if math.isfinite(measured.value) else f"its value is {measured.value}"
