"""An effect: what a study says about one tip on one base and one measure, as a line of text and as JSON. No numpy."""

from __future__ import annotations

from math import floor, log10
from typing import Any, Literal, NamedTuple

from poise.study.records import Better, Expected

Verdict = Literal["helps", "harms", "unstable", "no effect seen", "too few seeds"]
Agreement = Literal["agrees", "disagrees", "open"]

ALPHA = 0.05
"""The level of all tests."""


class Estimate(NamedTuple):
    """A value and its interval at 95 %."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """The value and both ends of the interval times a positive factor."""
        return Estimate(*(factor * number for number in self))


class Effect(NamedTuple):
    """The effect of a tip on one measure of one base. Differences are always treatment minus control.

    What cannot be computed is None: intervals with fewer than 2 pairs, p-values with fewer than 6. So is what would
    mostly rest on the values that stand for missing ones: the mean and the median of a side of which fewer than half of
    the seeds have a value, and then the effect with all that follows from it.

    Attributes:
        base: the name of the base.
        tip: the id of the tip; may be empty.
        name: what is compared.
        measure: the name of the measure.
        better: whether less or more of the measure is better.
        seeds: the number of pairs.
        treatment_iqm: the interquartile mean of the runs with the tip.
        control_iqm: the same of the runs without it.
        treatment_median: the median of the runs with the tip.
        control_median: the same of the runs without it.
        effect: the difference of the interquartile means, in the unit of the measure.
        low: the lower end of its interval.
        high: the upper end of its interval.
        relative: effect and interval as fractions of `control_iqm`; None where it is 0 or a value is negative.
        median_effect: the difference of the medians with its interval.
        p: the p-value of the paired permutation test.
        p_adjusted: the same, adjusted for the other tips on this base and measure.
        failures: the number of seeds whose run with the tip failed.
        control_failures: the number of seeds whose run without it failed.
        values: the number of seeds with a value with the tip; for the others the worst value of the base stands.
        control_values: the number of seeds with a value without it.
        failure_rate: their share, with its interval.
        control_failure_rate: the same without the tip.
        p_failures: the one-sided p-value that more runs fail with the tip.
        p_failures_adjusted: the same, adjusted for the other tips on this base.
        p_fewer_failures: the one-sided p-value that fewer runs fail with the tip.
        p_fewer_failures_adjusted: the same, adjusted for the other tips on this base.
        detectable: the smallest effect that would have been seen in four of five such studies, positive.
        verdict: helps, harms, unstable, no effect seen or too few seeds.
        expected: what the literature says; may be empty.
        agreement: whether the verdict agrees with it.
    """

    base: str
    tip: str
    name: str
    measure: str
    better: Better
    seeds: int
    treatment_iqm: float | None
    control_iqm: float | None
    treatment_median: float | None
    control_median: float | None
    effect: float | None
    low: float | None
    high: float | None
    relative: Estimate | None
    median_effect: Estimate | None
    p: float | None
    p_adjusted: float | None
    failures: int
    control_failures: int
    values: int
    control_values: int
    failure_rate: Estimate | None
    control_failure_rate: Estimate | None
    p_failures: float | None
    p_failures_adjusted: float | None
    p_fewer_failures: float | None
    p_fewer_failures_adjusted: float | None
    detectable: float | None
    verdict: Verdict
    expected: Expected
    agreement: Agreement

    @property
    def text(self) -> str:
        """The effect in one line, for example "helps +12 % [4, 19], 10 seeds, digits".

        The sign is that of the change of the measure. Where no percentage makes sense, the change is in the unit of the
        measure and followed by the name of the measure.
        """
        return ", ".join([self._verdict_text(), f"{self.seeds} seed{'' if self.seeds == 1 else 's'}", self.base])

    @property
    def change(self) -> str:
        """The effect with its sign and unit, for example "+12 %"; empty if there is none."""
        return self._formatted_change()[0]

    @property
    def interval(self) -> str:
        """The interval of `change`, for example "[4, 19]"; empty if there is none."""
        return self._formatted_change()[1]

    def _formatted_change(self) -> tuple[str, str]:
        change = self.relative.scaled(100.0) if self.relative else self._absolute()
        if change is None:
            return "", ""
        value, low, high = _formatted(change)
        return f"{value} %" if self.relative else value, f"[{low}, {high}]"

    def _verdict_text(self) -> str:
        if self.verdict == "unstable":
            return f"unstable, {self.failures} runs fail with it and {self.control_failures} without it"
        if self.decided_by_failures:
            return f"{self.verdict}, {self._failures_text()}"
        change = self.relative.scaled(100.0) if self.relative else self._absolute()
        if change is None:
            return self.short_verdict
        unit = "%" if self.relative else self.measure
        value, low, high = _formatted(change)
        if self.verdict == "no effect seen":
            if change.low == change.high:
                return f"{self.verdict}, difference {value} {unit}"
            return f"{self.verdict}{self._reservation()}, changes beyond [{low}, {high}] {unit} excluded"
        return f"{self.verdict} {value} {unit} [{low}, {high}]"

    @property
    def direction(self) -> Literal["better", "worse", ""]:
        """Whether the measure is significantly better or worse with the tip; empty if neither was seen."""
        if self.low is None or self.high is None or not is_significant(self.p_adjusted):
            return ""
        changed: Better | None = "more" if self.low > 0 else "less" if self.high < 0 else None
        return "" if changed is None else "better" if changed == self.better else "worse"

    @property
    def decided_by_failures(self) -> bool:
        """Whether a tip helps because fewer runs fail with it, and not because the measure is better."""
        return self.verdict == "helps" and self.direction != "better"

    def _failures_text(self) -> str:
        without, with_it = (f"{failed} of {self.seeds}" for failed in (self.control_failures, self.failures))
        return f"{without} runs fail without it, {with_it} with it"

    def _reservation(self) -> str:
        """Why no effect was seen although the interval does not contain zero, or there is none; empty otherwise."""
        if self.verdict == "no effect seen" and self.effect is None:
            if self.failures == self.control_failures == self.seeds:
                return " (all runs fail)"
            return f" ({self.values} of {self.seeds} runs have a value with it, {self.control_values} without it)"
        outside = self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
        return f" (adjusted p {self.p_adjusted:.2g})" if outside and self.p_adjusted is not None else ""

    @property
    def short_verdict(self) -> str:
        """The verdict, with what is particular about it: why no effect was seen, or that failures decide."""
        if self.decided_by_failures:
            return f"{self.verdict} ({self._failures_text()})"
        return f"{self.verdict}{self._reservation() if self.verdict == 'no effect seen' else ''}"

    def _absolute(self) -> Estimate | None:
        if self.effect is None or self.low is None or self.high is None:
            return None
        return Estimate(self.effect, self.low, self.high)


def is_significant(p: float | None, level: float = ALPHA) -> bool:
    """Whether an adjusted p-value is at most the level; None is that of a test which was not made."""
    return p is not None and p <= level


def as_json(effect: Effect) -> dict[str, Any]:
    """The effect for `poise report --json`: first the keys that scripts rely on, then all others.

    `data` is the name of the base, and an estimate is a list of value, low and high.
    """
    fields = {key: list(value) if isinstance(value, Estimate) else value for key, value in effect._asdict().items()}
    fields["data"] = fields.pop("base")
    first = ("tip", "data", "measure", "effect", "low", "high", "seeds", "failures", "verdict")
    return {key: fields[key] for key in first} | fields


def _formatted(change: Estimate) -> list[str]:
    """Value with sign, low, high, all with as many decimals as give the largest one two digits."""
    largest = max(abs(number) for number in change)
    decimals = max(0, 1 - floor(log10(largest))) if largest > 0 else 0
    numbers = [f"{round(number, decimals) + 0.0:.{decimals}f}" for number in change]
    return [numbers[0] if change.value <= 0 else f"+{numbers[0]}", *numbers[1:]]
