"""How long a step takes: terms that act in every n-th step only count as often as they act."""

from __future__ import annotations

import pytest

from contracts.tiny import recipe
from poise.engine.compute import choose_compute
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.training.state import TrainState
from poise.training.step_time import (
    MAX_PERIOD,
    TIMED_STEPS,
    StepTime,
    mean_step_seconds,
    num_timed,
    periods,
    time_steps,
)


def test_the_periods_are_those_of_lazy_terms() -> None:
    lazy = recipe("pictures", {"kind": "r1", "every": 16}, {"kind": "path_length", "every": 4})
    assert periods(lazy) == (4, 16)
    assert periods(decode(load_table("images"))) == (2,)
    assert periods(recipe("points", {"kind": "r1", "every": 2 * MAX_PERIOD}, {"kind": "packing"})) == ()
    assert num_timed(recipe("points")) == TIMED_STEPS
    assert num_timed(lazy) == 16


def test_the_mean_is_that_of_a_period() -> None:
    """Steps of 1 s, 3 s more in every fourth and 8 s more in every sixteenth."""
    times = {step: 1 + 3 * (step % 4 == 0) + 8 * (step % 16 == 0) for step in range(1, 17)}
    assert mean_step_seconds(times, (4, 16)) == pytest.approx(1 + 3 / 4 + 8 / 16)
    assert mean_step_seconds(times | {7: 100.0}, (4, 16)) == pytest.approx(1 + 3 / 4 + 8 / 16), "one disturbed step"
    assert mean_step_seconds({1: 2.0, 2: 4.0, 3: 3.0}, ()) == 3.0
    assert mean_step_seconds({1: 2.0}, (4,)) == 2.0, "a step in which the term acts was not timed"


def test_many_periods_without_a_common_factor_are_not_counted_to_their_end() -> None:
    """The steps until all of them meet again would be some 10^12."""
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
    assert mean_step_seconds({step: 1.0 + (step % 31 == 0) for step in range(1, 33)}, primes) == pytest.approx(1, 0.2)


def test_a_state_is_timed_over_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy, now = recipe("points", {"kind": "r1", "every": 8}, steps=100), [0.0]
    state = TrainState(lazy, choose_compute("cpu", "fp32", lazy), lazy.data.load())
    stepped = state.step

    def step() -> None:
        now[0] += 9.0 if state.steps_done % 8 == 0 else 1.0
        stepped()

    monkeypatch.setattr(state, "step", step)
    assert time_steps(state, lambda: now[0]) == StepTime(pytest.approx(2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("head_start", [0, 1, 3, 1000])
def test_steps_of_a_head_start_are_timed_apart(head_start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each move takes a second; in a step there are one of D and six of G, but in a head start D moves alone."""
    tempo = {"kind": "ratio", "g": 6, "head_start": head_start}
    late, now = recipe("points", steps=2000, tempo=tempo), [0.0]
    state = TrainState(late, choose_compute("cpu", "fp32", late), late.data.load())
    stepped = state.step

    def step() -> None:
        now[0] += 1.0 if state.steps_done < head_start else 7.0
        stepped()

    monkeypatch.setattr(state, "step", step)
    expected = StepTime(7.0, head_start, 1.0) if head_start else StepTime(7.0)
    assert time_steps(state, lambda: now[0]) == expected
    assert state.steps_done <= head_start + TIMED_STEPS + 1


def test_a_run_with_a_head_start_has_as_many_steps_as_fit() -> None:
    time = StepTime(0.5, 100, 0.1)
    assert [time.of_run(steps) for steps in (10, 100, 120)] == pytest.approx([1.0, 10.0, 20.0])
    assert [time.steps_within(seconds) for seconds in (0.01, 1.0, 9.9, 10.0, 20.0)] == [1, 10, 99, 100, 120]
    assert StepTime(0.5).steps_within(10.0) == 20
    assert StepTime(0.5).steps_within(0.1) == 1
