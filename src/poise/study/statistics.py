"""The statistics of a study: effects with intervals, tests, failure rates and the size of effect that can be detected.

All functions are pure. Resampling starts from a fixed seed in each call, so the same input gives the same output, bit
for bit. `docs/studies.md` says what each is for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from poise.study.effects import ALPHA, Estimate

LEVEL = 0.95
"""The level of all intervals."""

POWER = 0.8
"""The power at which an effect counts as detectable."""

RESAMPLES = 9_999
SEED = 20_260_101


def interquartile_mean(values: ArrayLike, axis: int = -1) -> Any:
    """The mean of the middle half: without the smallest and the largest quarter, each rounded down to whole values.

    Args:
        values: numbers of any shape, not empty along `axis`. With fewer than 4 of them it is their mean.
        axis: the axis of the seeds, which the result lacks.

    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
    """
    return stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def iqm_difference(treatment: ArrayLike, control: ArrayLike) -> Estimate:
    """The difference of the interquartile means, treatment minus control, with a bootstrap interval over the pairs.

    The interval is the BCa interval at 95 % of 9,999 resamples of the pairs. Where BCa is undefined, because nearly all
    resamples agree, it is the percentile interval; where all pairs have the same difference, it is that difference.

    Args:
        treatment: values with the tip, shape (n,), n >= 2, finite.
        control: values without it, shape (n,), in the same order of seeds.

    Raises:
        ValueError: if the shapes are different, or there are fewer than two pairs.

    Source: Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    return _difference(treatment, control, interquartile_mean)


def median_difference(treatment: ArrayLike, control: ArrayLike) -> Estimate:
    """The difference of the medians, treatment minus control, with an interval as that of `iqm_difference`."""
    return _difference(treatment, control, lambda values, axis: np.median(values, axis=axis))


def permutation_p(treatment: ArrayLike, control: ArrayLike) -> float:
    """The two-sided p-value of the difference of the interquartile means under swaps within the pairs.

    If the tip does nothing, the two runs of a pair are exchangeable. For up to 13 pairs, all 2^n ways to swap them are
    computed, which makes the test exact; otherwise 9,999 random ways, and the observed one counts as another of them.
    The p-value is twice the smaller of the one-sided ones, at most 1; it is 1 if no pair differs.

    Args:
        treatment: values with the tip, shape (n,), n >= 2, finite.
        control: values without it, shape (n,), in the same order of seeds.

    Raises:
        ValueError: if the shapes are different, or there are fewer than two pairs.
    """
    first, second = _pairs(treatment, control)
    if np.array_equal(first, second):
        return 1.0
    result = stats.permutation_test(
        (first, second),
        _statistic(interquartile_mean),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return min(1.0, float(result.pvalue))


@cache
def failure_rate(failed: int, runs: int) -> Estimate:
    """The share of the runs that failed, with the Clopper-Pearson interval at 95 %.

    Args:
        failed: the number of failed runs, from 0 to `runs`.
        runs: the number of runs, at least 1.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934.
    """
    interval = stats.binomtest(failed, runs).proportion_ci(confidence_level=LEVEL, method="exact")
    return Estimate(failed / runs, float(interval.low), float(interval.high))


@cache
def more_failures_p(failed: int, control_failed: int, runs: int) -> float:
    """The one-sided p-value of Boschloo's exact test that runs fail more often with the tip than without it.

    With the sides exchanged, it is that of runs that fail less often with the tip.

    Args:
        failed: the number of failed runs with the tip, of `runs`.
        control_failed: the number of failed runs without it, of `runs`.
        runs: the number of runs on each side, at least 1.

    Returns:
        A value in (0, 1]; 1 if no run failed or all did, where there is nothing to compare.

    Source: Boschloo, "Raised conditional level of significance for the 2 x 2 table", Statistica Neerlandica 1970.
    """
    if failed + control_failed in (0, 2 * runs):
        return 1.0
    table = [[failed, control_failed], [runs - failed, runs - control_failed]]
    return min(1.0, float(stats.boschloo_exact(table, alternative="greater").pvalue))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family, adjusted by the method of Benjamini and Hochberg; may be empty.

    If all tests with a value of at most 0.05 are rejected, the expected share of false rejections among them is at most
    5 %, for tests that are independent or positively dependent, as those are that share a control.

    Source: Benjamini and Hochberg, JRSS B 1995; Benjamini and Yekutieli, Annals of Statistics 2001.
    """
    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []


def detectable_effect(treatment: ArrayLike, control: ArrayLike) -> float | None:
    """The smallest effect that a study of this size detects with a power of 80 %, in the unit of the measure.

    It is delta = lambda s / sqrt(n) with s the standard deviation of the n differences. lambda is the noncentrality at
    which the two-sided paired t test at 5 % has this power: P(T > t) = 0.8 for T of a noncentral t distribution with
    n - 1 degrees of freedom and the quantile t at 97.5 % of the central one. The t test stands in for the permutation
    test, whose power has no closed form; the adjustment for the other tips is not included and makes the effect larger.

    Args:
        treatment: values with the tip, shape (n,), n >= 2, finite.
        control: values without it, shape (n,), in the same order of seeds.

    Returns:
        The effect, positive, or None if all differences are equal, which says nothing about their spread.

    Raises:
        ValueError: if the shapes are different, or there are fewer than two pairs.
    """
    first, second = _pairs(treatment, control)
    difference = first - second
    if np.ptp(difference) == 0:
        return None
    return noncentrality(len(difference)) * float(np.std(difference, ddof=1)) / float(np.sqrt(len(difference)))


@cache
def noncentrality(n: int) -> float:
    """The noncentrality at which the two-sided paired t test at 5 % with `n` >= 2 pairs has a power of 80 %."""
    freedom = n - 1
    critical = float(stats.t.isf(ALPHA / 2, freedom))

    def excess(shift: float) -> float:
        # the opposite tail is below 1e-5 at this power, and scipy's value for two pairs is not a number
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    root: Any = brentq(excess, 0.0, 1.5 * critical + 1.0)
    return float(root)


def _pairs(treatment: ArrayLike, control: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(treatment, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(f"needs two or more pairs, found shapes {first.shape} and {second.shape}")
    return first, second


def _statistic(location: Callable[..., Any]) -> Callable[..., Any]:
    def difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> Any:
        return location(first, axis=axis) - location(second, axis=axis)

    return difference


def _difference(treatment: ArrayLike, control: ArrayLike, location: Callable[..., Any]) -> Estimate:
    first, second = _pairs(treatment, control)
    statistic = _statistic(location)
    effect = float(statistic(first, second))
    if np.ptp(first - second) == 0:
        return Estimate(effect, effect, effect)
    options: dict[str, Any] = {"paired": True, "vectorized": True, "confidence_level": LEVEL}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy warns where BCa is undefined; that case is handled below
        rng = np.random.default_rng(SEED)
        result = stats.bootstrap((first, second), statistic, n_resamples=RESAMPLES, method="BCa", rng=rng, **options)
        if not np.all(np.isfinite(result.confidence_interval)):
            result = stats.bootstrap(
                (first, second), statistic, n_resamples=0, method="percentile", bootstrap_result=result, **options
            )
    return Estimate(effect, float(result.confidence_interval.low), float(result.confidence_interval.high))
