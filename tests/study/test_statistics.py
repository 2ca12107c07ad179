"""The statistics of a study: known values, brute force, and their properties on simulated pairs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from poise.study import statistics

ALIKE = np.full(10, 25.0)


def pairs(seed: int, n: int = 10, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of normal values with a correlation of 0.5 and a variance of 1."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n)
    first, second = ((shared + rng.normal(size=n)) / np.sqrt(2) for _ in range(2))
    return first + shift, second


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0, 1.0, 100.0, 3.0], 4.0),
        ([1.0, 2.0, 6.0], 3.0),
        ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 1000.0], 35.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 60.0], 3.5),
    ],
)
def test_interquartile_mean_drops_a_quarter_at_each_end(values: list[float], expected: float) -> None:
    assert statistics.interquartile_mean(values) == expected


def test_a_run_that_went_wrong_hardly_moves_the_effect() -> None:
    treatment, control = pairs(0, shift=2.0)
    wrong = treatment.copy()
    wrong[3] = -1000.0
    assert statistics.iqm_difference(wrong, control).value == pytest.approx(
        statistics.iqm_difference(treatment, control).value, abs=0.5
    )


@pytest.mark.parametrize("difference", [statistics.iqm_difference, statistics.median_difference])
def test_swapping_the_sides_negates_effect_and_interval(difference: object) -> None:
    assert callable(difference)
    for seed in range(5):
        treatment, control = pairs(seed, shift=0.5)
        value, low, high = difference(treatment, control)
        assert difference(control, treatment) == pytest.approx((-value, -high, -low), abs=1e-12)


@pytest.mark.parametrize("difference", [statistics.iqm_difference, statistics.median_difference])
def test_degenerate_pairs_give_the_point_or_a_percentile_interval_without_a_warning(difference: object) -> None:
    assert callable(difference)
    assert difference(ALIKE, ALIKE) == (0.0, 0.0, 0.0)
    assert difference(ALIKE + 2, ALIKE) == (2.0, 2.0, 2.0)
    one_off = ALIKE.copy()
    one_off[0] = 24.0
    value, low, high = difference(one_off, ALIKE)
    assert low <= value <= high <= 0.0
    assert low > -1.0


def test_two_pairs_are_enough_for_an_interval_and_one_is_not() -> None:
    value, low, high = statistics.iqm_difference([3.0, 5.0], [1.0, 1.0])
    assert value == 3.0
    assert low <= 3.0 <= high
    with pytest.raises(ValueError, match="two or more pairs"):
        statistics.iqm_difference([3.0], [1.0])
    with pytest.raises(ValueError, match="two or more pairs"):
        statistics.permutation_p([3.0, 5.0], [1.0, 1.0, 1.0])


def coverage(n: int, repetitions: int) -> float:
    """The share of intervals that contain the true difference, which is 0.7."""
    intervals = [statistics.iqm_difference(*pairs(seed, n, shift=0.7)) for seed in range(repetitions)]
    return float(np.mean([interval.low <= 0.7 <= interval.high for interval in intervals]))


def test_intervals_of_ten_pairs_nearly_keep_their_level() -> None:
    assert 0.85 <= coverage(10, 60) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("n", "low", "high"), [(6, 0.85, 0.9), (10, 0.895, 0.94), (20, 0.92, 0.965)])
def test_coverage_is_as_documented(n: int, low: float, high: float) -> None:
    assert low <= coverage(n, 1000) <= high


def brute_force(treatment: np.ndarray, control: np.ndarray) -> float:
    """Twice the smaller one-sided share of all swaps that give a difference at least as large, in plain Python."""

    def middle(values: list[float]) -> float:
        cut = len(values) // 4
        kept = sorted(values)[cut : len(values) - cut]
        return sum(kept) / len(kept)

    differences = []
    for swaps in product([False, True], repeat=len(treatment)):
        both = [(c, t) if swap else (t, c) for swap, t, c in zip(swaps, treatment, control, strict=True)]
        differences.append(middle([t for t, _ in both]) - middle([c for _, c in both]))
    observed = differences[0]
    shares = [np.mean([sign * (d - observed) >= -1e-12 for d in differences]) for sign in (1, -1)]
    return min(1.0, 2 * float(min(shares)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [4, 7])
def test_p_equals_the_enumeration_of_all_swaps(n: int, seed: int) -> None:
    treatment, control = pairs(seed, n, shift=0.5 * seed)
    assert statistics.permutation_p(treatment, control) == pytest.approx(brute_force(treatment, control), abs=1e-12)


def test_p_equals_the_enumeration_where_values_tie() -> None:
    treatment, control = np.array([25.0, 25, 24, 25, 23, 25]), np.array([25.0, 24, 24, 22, 21, 20])
    assert statistics.permutation_p(treatment, control) == pytest.approx(brute_force(treatment, control))


def test_p_of_pairs_that_all_tie_is_one() -> None:
    assert statistics.permutation_p(ALIKE, ALIKE) == 1.0
    different = np.arange(10.0)
    assert statistics.permutation_p(different, different) == 1.0


def test_smallest_p_is_that_of_all_pairs_on_one_side() -> None:
    control = np.arange(10.0)
    assert statistics.permutation_p(control + 100, control) == pytest.approx(2 / 2**10)
    assert statistics.permutation_p(control[:6] + 100, control[:6]) == pytest.approx(2 / 2**6)
    assert statistics.permutation_p(control[:5] + 100, control[:5]) > 0.05


@pytest.mark.parametrize("n", [6, 10, 20])
def test_p_is_symmetric(n: int) -> None:
    treatment, control = pairs(n, n, shift=0.5)
    assert statistics.permutation_p(treatment, control) == statistics.permutation_p(control, treatment)


def test_p_is_at_most_a_level_in_at_most_that_share_of_null_effects() -> None:
    p = np.array([statistics.permutation_p(*pairs(seed, 7)) for seed in range(150)])
    for level in (0.05, 0.2, 0.5):
        # three standard errors of a share over 150 repetitions
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / 150)


def test_failure_rates_have_the_interval_of_clopper_and_pearson() -> None:
    assert statistics.failure_rate(0, 10) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 10)))
    assert statistics.failure_rate(10, 10) == pytest.approx((1.0, 0.025 ** (1 / 10), 1.0))
    low, high = stats.beta.ppf(0.025, 3, 8), stats.beta.ppf(0.975, 4, 7)
    assert statistics.failure_rate(3, 10) == pytest.approx((0.3, low, high))


def test_more_failures_are_significant_and_fewer_are_not() -> None:
    assert statistics.more_failures_p(4, 0, 10) == pytest.approx(0.0211, abs=1e-4)
    assert statistics.more_failures_p(3, 0, 10) > 0.05
    assert statistics.more_failures_p(0, 4, 10) > 0.9
    assert statistics.more_failures_p(0, 0, 10) == statistics.more_failures_p(10, 10, 10) == 1.0


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_equal_failure_rates_differ_significantly_in_at_most_one_of_twenty_studies(rate: float) -> None:
    """The exact level, over all tables of 6 runs on each side."""
    share = stats.binom.pmf(range(7), 6, rate)
    rejected = [(a, b) for a, b in product(range(7), repeat=2) if statistics.more_failures_p(a, b, 6) <= 0.05]
    assert rejected
    assert sum(share[a] * share[b] for a, b in rejected) <= 0.05


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    assert statistics.adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert statistics.adjusted([0.02]) == [0.02]
    assert statistics.adjusted([]) == []


@pytest.mark.parametrize("n", [6, 10, 30])
def test_a_paired_t_test_finds_the_detectable_effect_in_four_of_five_studies(n: int) -> None:
    rng = np.random.default_rng(n)
    # the detectable effect for a standard deviation of 1
    effect = statistics.noncentrality(n) / np.sqrt(n)
    p = stats.ttest_1samp(rng.normal(effect, 1.0, size=(4000, n)), 0.0, axis=1).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.02)


def test_detectable_effect_scales_with_the_spread_and_shrinks_with_the_seeds() -> None:
    treatment, control = pairs(1, 40)
    whole = statistics.detectable_effect(treatment, control)
    assert whole is not None
    assert statistics.detectable_effect(10 * treatment, 10 * control) == pytest.approx(10 * whole)
    assert statistics.detectable_effect(control, treatment) == whole
    few = statistics.detectable_effect(treatment[:10], control[:10])
    assert few is not None
    assert few > whole
    assert statistics.detectable_effect(ALIKE, ALIKE) is None


def test_the_permutation_test_finds_the_detectable_effect_about_as_often() -> None:
    """The t test stands in for it; the interquartile mean loses a little power on normal values."""
    effect = statistics.noncentrality(8) / np.sqrt(8)  # the differences have a standard deviation of 1
    p = [statistics.permutation_p(*pairs(seed, 8, shift=effect)) for seed in range(100)]
    assert 0.6 <= np.mean(np.array(p) <= 0.05) <= 0.9


def test_same_input_gives_same_output_whatever_ran_before() -> None:
    treatment, control = pairs(3, 20, shift=0.4)

    def everything() -> tuple[object, ...]:
        return (
            statistics.iqm_difference(treatment, control),
            statistics.median_difference(treatment, control),
            statistics.permutation_p(treatment, control),
            statistics.detectable_effect(treatment, control),
            statistics.more_failures_p.__wrapped__(3, 1, 10),
        )

    first = everything()
    np.random.default_rng().normal(size=100)
    np.random.seed(7)
    statistics.iqm_difference(*pairs(5))
    assert everything() == first
