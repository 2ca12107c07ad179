"""Dials against formulas written out plainly."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poise.core.random_streams import RandomStreams
from poise.core.schedules import Cosine, Linear, Staircase, ValueRange, bounds, current_value
from poise.core.types import MoveContext

STEPS = 1000
DICE = RandomStreams(0)


def at(step: int, steps: int = STEPS) -> MoveContext:
    return MoveContext(step, steps, batch_size=8, streams=DICE)


def test_a_number_is_a_constant() -> None:
    assert [current_value(0.3, at(step)) for step in (0, 500, 999)] == [0.3, 0.3, 0.3]
    assert bounds(0.3) == (0.3,)


@pytest.mark.parametrize("step", [0, 1, 10, 333, 500, 999])
def test_linear(step: int) -> None:
    dial = Linear(start=0.1, end=0.02)
    assert current_value(dial, at(step)) == pytest.approx(0.1 - 0.08 * step / 1000, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 10, 333, 500, 999])
def test_cosine(step: int) -> None:
    dial = Cosine(start=2e-4, end=1e-5)
    expected = 1e-5 + (2e-4 - 1e-5) * (1 + math.cos(math.pi * step / 1000)) / 2
    assert current_value(dial, at(step)) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_half_way_in_the_middle_and_flat_at_both_ends() -> None:
    dial = Cosine(start=1.0, end=0.0)
    assert current_value(dial, at(500)) == pytest.approx(0.5, abs=1e-12)
    assert 1 - current_value(dial, at(10)) < 3e-4
    assert current_value(dial, at(990)) < 3e-4


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.0), (0.0, 0.1), (1 / 3, 0.7), (2e-4, 2e-4), (1e300, -1e-300)])
def test_ends_are_exact_and_hold(kind: type[Linear | Cosine], start: float, end: float) -> None:
    dial = kind(start=start, end=end, after=0.2, until=0.6)
    assert [current_value(dial, at(step)) for step in (0, 100, 200)] == [start] * 3
    assert [current_value(dial, at(step)) for step in (600, 601, 999, 1000, 5000)] == [end] * 5
    assert bounds(dial) == (start, end)


@pytest.mark.parametrize(
    ("step", "share"), [(200, 0.0), (201, 1 / 400), (300, 0.25), (400, 0.5), (500, 0.75), (600, 1.0)]
)
def test_ramp_between_after_and_until(step: int, share: float) -> None:
    window = {"start": 1.0, "end": 3.0, "after": 0.2, "until": 0.6}
    assert current_value(Linear(**window), at(step)) == pytest.approx(1 + 2 * share, rel=1e-12)
    eased = (1 - math.cos(math.pi * share)) / 2
    assert current_value(Cosine(**window), at(step)) == pytest.approx(1 + 2 * eased, rel=1e-12)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_steps_do_not_ask_how_long_the_run_is(kind: type[Linear | Cosine]) -> None:
    dial = kind(start=1.0, end=0.0, after=100, until=300, over="steps")
    for steps in (150, 1000, 10**9):
        found = [current_value(dial, at(step, steps)) for step in (0, 100, 200, 300, 10**6)]
        assert found == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-12)


def test_progress_asks_only_for_the_share() -> None:
    dial = Linear(start=1.0, end=0.0)
    assert current_value(dial, at(50, 100)) == current_value(dial, at(5000, 10_000)) == 0.5


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (249, 1.0), (250, 0.1), (499, 0.1), (500, 0.01), (1000, 0.01), (9999, 0.01)]
)
def test_stairs_over_progress(step: int, expected: float) -> None:
    assert current_value(Staircase(values=(1.0, 0.1, 0.01), at=(0.25, 0.5)), at(step)) == expected


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (1999, 1.0), (2000, 0.1), (2001, 0.1), (10**9, 0.1)])
def test_stairs_over_steps(step: int, expected: float) -> None:
    dial = Staircase(values=(1.0, 0.1), at=(2000,), over="steps")
    for steps in (10, 10**9):
        assert current_value(dial, at(step, steps)) == expected
    assert bounds(dial) == (1.0, 0.1)


numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, numbers, st.integers(0, 2 * STEPS))
def test_a_ramp_never_leaves_its_ends(start: float, end: float, step: int) -> None:
    """Up to rounding: one unit in the last place of the wider end."""
    low, high = min(start, end), max(start, end)
    slack = math.ulp(max(abs(low), abs(high)))
    for dial in (Linear(start=start, end=end), Cosine(start=start, end=end)):
        assert low - slack <= current_value(dial, at(step)) <= high + slack


@given(st.floats(0, 1e6), st.integers(0, 2 * STEPS))
def test_a_ramp_down_to_nothing_never_falls_below(start: float, step: int) -> None:
    """No slack: a negative sigma or rate would be an error in the middle of a run."""
    for dial in (Linear(start=start, end=0.0), Cosine(start=start, end=0.0)):
        assert current_value(dial, at(step)) >= 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": 0.5, "until": 0.5},
        {"after": 0.6, "until": 0.5},
        {"after": -0.1},
        {"until": 1.5},
        {"until": 0.0},
        {"until": math.inf, "over": "steps"},
        {"over": "steps"},
        {"over": "steps", "after": 5},
        {"over": "epochs"},
    ],
)
@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_ramps_that_make_no_sense(kind: type[Linear | Cosine], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(start=1.0, end=0.0, **wrong)


@pytest.mark.parametrize(
    ("values", "times"),
    [((1.0,), ()), ((1.0, 2.0), (0.1, 0.2)), ((1.0, 2.0, 3.0), (0.2, 0.1)), ((1.0, 2.0, 3.0), (0.2, 0.2))],
)
def test_stairs_that_make_no_sense(values: tuple[float, ...], times: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Staircase(values=values, at=times)


def test_a_range_looks_at_every_value() -> None:
    check = ValueRange(0, 1)
    fine = [0.0, 1.0, Linear(start=0.0, end=1.0), Staircase(values=(0.0, 1.0, 0.5), at=(0.1, 0.2))]
    assert [check(dial) for dial in fine] == fine
    beyond = [
        -0.1,
        1.1,
        Linear(start=0.5, end=1.1),
        Cosine(start=-0.1, end=0.5),
        Staircase(values=(0, 2, 1), at=(0.1, 0.2)),
    ]
    for dial in beyond:
        with pytest.raises(ValueError, match="at least 0 and at most 1"):
            check(dial)
