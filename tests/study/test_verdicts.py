"""The verdict rules of docs/studies.md, on results made by hand and on simulated studies."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest
from simulated import FID, MODES, comparison, diverged, done, family, results_of, study_of

from poise.study import statistics, verdicts
from poise.study.effects import Effect, Verdict
from poise.study.records import RunResult, Study, StudyMeasure
from poise.study.verdicts import agreement_of, analyse, judge

SPREAD = np.array([0.0, 0.4, -0.3, 0.8, -0.6, 0.1, -0.9, 0.5, 0.3, -0.2])
OTHER = np.roll(SPREAD, 3)


def one(study: Study, results: list[RunResult]) -> Effect:
    """The only effect of a study with one comparison and one measure."""
    (effect,) = analyse(study, results)
    return effect


def two_arms(treatment: np.ndarray, control: np.ndarray, measure: StudyMeasure = FID) -> Effect:
    study = study_of({"base": len(control), "tip": len(treatment)}, measures=(measure,))
    return one(study, results_of(study, {"base": list(control), "tip": list(treatment)}, measure.name))


def test_a_large_effect_is_seen_with_its_size_and_direction() -> None:
    effect = two_arms(15 + SPREAD, 20 + OTHER)
    assert effect.verdict == "helps"
    assert effect.effect == pytest.approx(-5.0)
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < -5.0 < effect.high < -4.0
    assert effect.relative is not None
    assert effect.relative == pytest.approx(tuple(x / effect.control_iqm for x in (-5.0, effect.low, effect.high)))
    assert effect.seeds == 10
    # two of the 2^10 ways to swap: one pair has the lowest FID of the tip and the highest of the base
    assert effect.p == effect.p_adjusted == pytest.approx(4 / 2**10)
    assert effect.median_effect is not None
    assert effect.median_effect.value == pytest.approx(effect.treatment_median - effect.control_median)


def test_there_is_no_percentage_where_the_interval_includes_a_decrease_by_more_than_all() -> None:
    sparse = np.array([0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 5.0, 6.0, 7.0])
    effect = two_arms(np.zeros(10), sparse, FID.model_copy(update={"better": "more", "failure": None}))
    assert effect.low is not None
    assert effect.control_iqm is not None
    assert effect.low < -effect.control_iqm
    assert effect.relative is None
    assert effect.change.startswith("-")
    assert "%" not in effect.change


def test_swapping_the_sides_negates_the_effect_and_its_verdict() -> None:
    helps, harms = two_arms(15 + SPREAD, 20 + OTHER), two_arms(20 + OTHER, 15 + SPREAD)
    assert (helps.verdict, harms.verdict) == ("helps", "harms")
    assert (harms.effect, harms.low, harms.high) == pytest.approx((-helps.effect, -helps.high, -helps.low))
    assert harms.p == helps.p
    assert harms.detectable == pytest.approx(helps.detectable)


def test_the_direction_of_the_measure_decides_what_helps() -> None:
    more = two_arms(15 + SPREAD, 20 + OTHER, FID.model_copy(update={"better": "more", "failure": None}))
    less = two_arms(15 + SPREAD, 20 + OTHER)
    assert (more.verdict, less.verdict) == ("harms", "helps")
    assert (more.effect, more.low, more.high, more.p) == (less.effect, less.low, less.high, less.p)


def test_equal_runs_show_no_effect() -> None:
    effect = two_arms(np.full(10, 25.0), np.full(10, 25.0), MODES)
    assert effect.verdict == "no effect seen"
    assert (effect.effect, effect.low, effect.high, effect.p) == (0.0, 0.0, 0.0, 1.0)
    assert effect.detectable is None
    assert effect.text == "no effect seen, difference 0 %, 10 seeds, digits"


@pytest.mark.parametrize("seeds", [0, 1, 2, 5])
def test_fewer_than_six_pairs_are_too_few(seeds: int) -> None:
    effect = two_arms(15 + SPREAD[:seeds], 20 + OTHER[:seeds])
    assert effect.verdict == "too few seeds"
    assert effect.seeds == seeds
    assert effect.p is effect.p_adjusted is effect.p_failures is effect.detectable is None
    assert (effect.low is None) == (effect.effect is None) == (seeds < 2)


def test_six_pairs_are_enough_for_a_large_effect() -> None:
    assert two_arms(15 + SPREAD[:6], 20 + OTHER[:6]).verdict == "helps"


def test_a_failed_run_gets_the_worst_value_of_its_base() -> None:
    study = study_of({"base": 6, "tip": 6, "other": 6})
    values = {"base": 20 + SPREAD[:6], "tip": 20 + OTHER[:6], "other": 20 + SPREAD[:6]}
    values["tip"][2] = np.nan
    values["other"][4] = 55.0
    results = results_of(study, values)
    outcomes = verdicts.outcomes_of(study, study.bases[0], {result.run: result for result in results})
    pairs = verdicts.pairs_of(study, study.comparisons[0], "fid", outcomes)
    assert pairs.treatment[2] == 55.0
    assert pairs.failed == (False, False, True, False, False, False)
    assert not any(pairs.control_failed)


def test_the_worst_value_of_a_measure_of_which_more_is_better_is_the_smallest() -> None:
    study = study_of({"base": 6, "tip": 6}, measures=(MODES,))
    values = {"base": [25.0, 24, 25, 25, 12, 25], "tip": [25.0, np.nan, 25, 25, 25, 25]}
    outcomes = verdicts.outcomes_of(
        study, study.bases[0], {result.run: result for result in results_of(study, values, "modes")}
    )
    assert outcomes["digits/tip/1"].values == {"modes": 12.0}


def test_a_value_that_could_not_be_computed_is_the_worst_but_the_run_has_not_failed() -> None:
    study = study_of({"base": 6, "tip": 6}, measures=(FID, MODES))
    runs = [run for arm in study.arms for run in arm.runs.values()]
    results = [done(run, fid=20.0 + number, modes=20.0 - number) for number, run in enumerate(runs)]
    results[3] = done(runs[3], modes=20.0)
    outcomes = verdicts.outcomes_of(study, study.bases[0], {result.run: result for result in results})
    assert outcomes[runs[3]] == ({"fid": 31.0, "modes": 20.0}, False, {"fid"})


def test_a_run_beyond_the_limit_of_any_measure_has_failed_for_all() -> None:
    study = study_of({"base": 6, "tip": 6}, measures=(FID, MODES))
    results = [
        done(run, fid=70.0 if arm.name == "tip" and seed in "012" else 20.0, modes=25.0)
        for arm in study.arms
        for seed, run in arm.runs.items()
    ]
    fid, modes = analyse(study, results)
    assert (fid.measure, modes.measure) == ("fid", "modes")
    assert (fid.failures, modes.failures, modes.control_failures) == (3, 3, 0)
    assert modes.failure_rate is not None
    assert modes.failure_rate.value == 0.5


def test_more_failures_are_unstable_unless_the_measure_shows_the_harm() -> None:
    """Four runs collapse: the middle half of FID hardly moves, and modes, whose limit is exceeded, tell."""
    limit = MODES.model_copy(update={"failure": 10.0})
    study = study_of({"base": 10, "tip": 10}, measures=(FID, limit))

    def results(fid_of_tip: float) -> list[RunResult]:
        return [
            done(
                run,
                fid=(fid_of_tip if arm.name == "tip" else 20.0) + (SPREAD if arm.name == "tip" else OTHER)[int(seed)],
                modes=5.0 if arm.name == "tip" and int(seed) < 4 else 25.0,
            )
            for arm in study.arms
            for seed, run in arm.runs.items()
        ]

    assert [effect.verdict for effect in analyse(study, results(20.0))] == ["unstable", "unstable"]
    # a better FID does not make up for runs that collapse
    assert analyse(study, results(15.0))[0].verdict == "unstable"
    assert analyse(study, results(25.0))[0].verdict == "harms"


def failing(control: int, tip: int, seeds: int = 12, gain: float = 0.0) -> Effect:
    """The effect of a tip if so many runs without and with it diverge, and the others find 25 modes, or fewer."""
    values = {"base": np.full(seeds, 25.0), "tip": 25.0 - gain * np.arange(1, seeds + 1)}
    values["base"][:control] = values["tip"][:tip] = np.nan
    study = study_of({"base": seeds, "tip": seeds}, measures=(MODES,))
    return one(study, results_of(study, values, "modes"))


@pytest.mark.parametrize(
    ("control", "tip", "text"),
    [
        (9, 0, "helps, 9 of 12 runs fail without it, 0 of 12 with it, 12 seeds, digits"),
        (0, 9, "unstable, 9 runs fail with it and 0 without it, 12 seeds, digits"),
        (12, 0, "helps, 12 of 12 runs fail without it, 0 of 12 with it, 12 seeds, digits"),
        (0, 12, "unstable, 12 runs fail with it and 0 without it, 12 seeds, digits"),
        (12, 12, "no effect seen (all runs fail), 12 seeds, digits"),
        (9, 7, "no effect seen (5 of 12 runs have a value with it, 3 without it), 12 seeds, digits"),
        (6, 0, "helps, 6 of 12 runs fail without it, 0 of 12 with it, 12 seeds, digits"),
        (2, 1, "no effect seen, difference 0 %, 12 seeds, digits"),
    ],
)
def test_fewer_failures_help_as_more_failures_are_unstable(control: int, tip: int, text: str) -> None:
    effect = failing(control, tip)
    assert effect.text == text
    assert (effect.seeds, effect.control_failures, effect.failures) == (12, control, tip)
    assert (effect.control_values, effect.values) == (12 - control, 12 - tip)
    other = failing(tip, control)
    assert (other.p_failures, other.p_failures_adjusted) == (effect.p_fewer_failures, effect.p_fewer_failures_adjusted)


@pytest.mark.parametrize("seeds", [2, 5, 12])
@pytest.mark.parametrize(("control", "tip"), [(1.0, 0.0), (0.0, 1.0), (0.75, 0.0), (0.0, 0.75), (0.75, 0.75)])
def test_no_size_is_given_that_rests_on_imputed_values(control: float, tip: float, seeds: int) -> None:
    effect = failing(round(control * seeds), round(tip * seeds), seeds, gain=0.5)
    assert (
        effect.effect is effect.low is effect.relative is effect.median_effect is effect.p is effect.detectable is None
    )
    for failed, mean, middle in (
        (control, effect.control_iqm, effect.control_median),
        (tip, effect.treatment_iqm, effect.treatment_median),
    ):
        assert (mean is None, middle is None) == (failed > 0.5, failed > 0.5)
    assert (effect.verdict == "too few seeds") == (seeds < 6)


def test_a_better_measure_says_how_much_better_it_is_even_if_fewer_runs_fail() -> None:
    control = 20 + OTHER
    control[:4] = np.nan
    effect = two_arms(15 + SPREAD, control)
    assert effect.verdict == "helps"
    assert effect.text.startswith("helps -2")
    assert not effect.decided_by_failures


def test_a_measure_that_no_run_has_has_no_pairs_unless_all_runs_failed() -> None:
    study = study_of({"base": 6, "tip": 6}, measures=(FID, MODES))
    runs = [run for arm in study.arms for run in arm.runs.values()]
    assert [effect.seeds for effect in analyse(study, [done(run, fid=1.0) for run in runs])] == [6, 0]
    assert [effect.seeds for effect in analyse(study, [diverged(run) for run in runs])] == [6, 6]
    assert analyse(study, [diverged(run) for run in runs[:3]])[0].seeds == 0


def test_failures_are_adjusted_for_the_other_tips() -> None:
    """Four of ten runs against none have a p-value of 0.02, too much for one among five tips."""
    tips = [f"tip {number}" for number in range(5)]
    study = study_of(dict.fromkeys(["base", *tips], 10))
    values = {name: 20 + np.roll(SPREAD, number) for number, name in enumerate(["base", *tips])}
    values["tip 0"][:4] = np.nan
    effects = analyse(study, results_of(study, values))
    assert effects[0].p_failures == pytest.approx(0.0211, abs=1e-4)
    assert effects[0].p_failures_adjusted == pytest.approx(5 * effects[0].p_failures)
    assert {effect.verdict for effect in effects} == {"no effect seen"}


def test_families_are_those_of_one_base_and_one_measure_with_enough_seeds() -> None:
    study = study_of({"base": 10, "good": 10, "bad": 10, "few": 5}, measures=(FID, MODES))
    rng = np.random.default_rng(0)
    results = [
        done(run, fid=20.0 + (arm.name == "bad") + rng.normal(), modes=20.0 + rng.normal())
        for arm in study.arms
        for run in arm.runs.values()
    ]
    effects = analyse(study, results)
    assert [(effect.name, effect.measure) for effect in effects] == [
        (name, measure) for name in ("good", "bad", "few") for measure in ("fid", "modes")
    ]
    for measure in ("fid", "modes"):
        good, bad, few = (effect for effect in effects if effect.measure == measure)
        assert few.p_adjusted is None
        low, high = sorted([good, bad], key=lambda effect: effect.p)
        assert high.p_adjusted == pytest.approx(high.p)
        assert low.p_adjusted == pytest.approx(min(2 * low.p, high.p))


def test_missing_runs_leave_out_their_pairs() -> None:
    study = study_of({"base": 10, "tip": 8})
    results = results_of(study, {"base": 20 + OTHER, "tip": 15 + SPREAD[:8]})
    unfinished = [result for result in results if result.run not in ("digits/base/3", "digits/tip/5")]
    effect = one(study, unfinished)
    assert effect.seeds == 6
    keep = [0, 1, 2, 4, 6, 7]
    assert effect.effect == two_arms(15 + SPREAD[keep], 20 + OTHER[keep]).effect
    assert one(study, []).verdict == "too few seeds"


def test_a_factorial_comparison_takes_the_mean_over_arms_for_each_seed() -> None:
    arms = dict.fromkeys(["adam low", "adam high", "sgd low", "sgd high"], 10)
    comparisons = [comparison("sgd", ["sgd low", "sgd high"], ["adam low", "adam high"])]
    study = study_of(arms, comparisons)
    values = {"adam low": 20 + SPREAD, "adam high": 30 + OTHER, "sgd low": 21 + OTHER, "sgd high": 33 - SPREAD}
    values["sgd low"] = values["sgd low"].copy()
    effect = one(study, results_of(study, values))
    expected = two_arms(27 + (OTHER - SPREAD) / 2, 25 + (OTHER + SPREAD) / 2)
    assert (effect.effect, effect.low, effect.high) == pytest.approx((expected.effect, expected.low, expected.high))
    values["sgd low"][0] = values["sgd high"][0] = values["sgd high"][1] = np.nan
    failing = one(study, results_of(study, values))
    assert (failing.failures, failing.control_failures, failing.seeds) == (2, 0, 10)


def test_the_order_of_the_results_changes_nothing() -> None:
    study, results = family(0, [-2.0, 0.0, 1.0], failing=0.1)
    shuffled = random.Random(0).sample(results, len(results))
    assert analyse(study, shuffled) == analyse(study, results)
    assert analyse(study, results) == analyse(study, results)


def test_seeds_are_paired_by_number_not_by_text() -> None:
    study, results = family(1, [0.0], seeds=12)
    outcomes = verdicts.outcomes_of(study, study.bases[0], {result.run: result for result in results})
    pairs = verdicts.pairs_of(study, study.comparisons[0], "fid", outcomes)
    assert pairs.seeds == tuple(str(seed) for seed in range(12))


def test_few_tips_without_an_effect_get_a_verdict_among_tips_that_have_one() -> None:
    effects = [-5.0, -5.0] + [0.0] * 6
    found = [[effect.verdict for effect in analyse(*family(seed, effects))] for seed in range(3)]
    assert sum(verdict == "helps" for study in found for verdict in study[:2]) >= 5  # of 6
    assert sum(verdict != "no effect seen" for study in found for verdict in study[2:]) <= 1  # of 18


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0.0, 0.2])
@pytest.mark.parametrize("real", [0, 5])
def test_false_verdicts_in_a_family_of_35_tips_are_rare(real: int, failing: float) -> None:
    """Without intervals, which take most of the time and can only turn a verdict into none."""
    repetitions, nulls, shares = 200, [], []
    for seed in range(repetitions):
        study, results = family(seed, [-3.0] * real + [0.0] * (35 - real), failing=failing)
        outcomes = verdicts.outcomes_of(study, study.bases[0], {result.run: result for result in results})
        pairs = [verdicts.pairs_of(study, compared, "fid", outcomes) for compared in study.comparisons]
        first = verdicts.estimate(study.comparisons[0], FID, pairs[0])
        effects = [
            first._replace(
                low=1.0,
                high=1.0,
                p=statistics.permutation_p(pair.treatment, pair.control),
                p_failures=statistics.more_failures_p(sum(pair.failed), sum(pair.control_failed), 10),
                p_fewer_failures=statistics.more_failures_p(sum(pair.control_failed), sum(pair.failed), 10),
            )
            for pair in pairs
        ]
        judged = [effect.verdict != "no effect seen" for effect in judge(effects)]
        nulls.append(np.mean(judged[real:]))
        shares.append(sum(judged[real:]) / max(1, sum(judged)))
    assert np.mean(nulls) <= 0.02
    # 5 %, and three standard errors of a share over the repetitions
    assert np.mean(shares) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


@pytest.mark.parametrize(("seeds", "verdict"), [(10, "no effect seen"), (11, "helps")])
def test_a_single_effect_among_35_tips_needs_eleven_seeds(seeds: int, verdict: str) -> None:
    """With ten, the smallest p-value is 2 / 2^10, which 35 tips adjust to 0.07."""
    control = np.arange(seeds) / 10
    names = ["base", "tip", *(f"nothing {number}" for number in range(34))]
    study = study_of(dict.fromkeys(names, seeds))
    values = dict.fromkeys(names, 20 + control) | {"tip": 10 + control}
    effect = analyse(study, results_of(study, values))[0]
    assert effect.p == pytest.approx(2 / 2**seeds)
    assert effect.verdict == verdict


@pytest.mark.parametrize(
    ("verdict", "expected", "agreement"),
    [
        ("helps", "helps", "agrees"),
        ("helps", "harms", "disagrees"),
        ("helps", "no effect seen", "disagrees"),
        ("no effect seen", "no effect seen", "agrees"),
        ("no effect seen", "helps", "open"),
        ("unstable", "harms", "agrees"),
        ("unstable", "helps", "disagrees"),
        ("too few seeds", "helps", "open"),
        ("harms", "", "open"),
    ],
)
def test_agreement_with_the_literature(verdict: Verdict, expected: object, agreement: str) -> None:
    assert agreement_of(verdict, expected) == agreement  # pyrefly: ignore[bad-argument-type]


def test_every_verdict_can_be_reached() -> None:
    study, results = family(0, [-5.0, 5.0, 0.0, 0.0, -5.0, -5.0])
    broken = {f"digits/tip 3/{seed}" for seed in range(0, 10, 2)} | {"digits/tip 3/1", "digits/tip 3/3"}
    absent = {f"digits/tip 4/{seed}" for seed in range(5)}
    results = [diverged(r.run) if r.run in broken else r for r in results if r.run not in absent]
    found = {effect.verdict for effect in analyse(study, results)}
    assert found >= {"helps", "harms", "no effect seen", "too few seeds"}
    effect = analyse(study, results)[2]
    failing = judge([effect._replace(p=1.0, p_failures=0.01)])[0]
    assert found | {failing.verdict} == set(get_args(Verdict))
