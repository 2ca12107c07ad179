"""The time of a run continues where the last session ended; measuring does not count for its speed."""

from __future__ import annotations

import pytest

from poise.training.stopwatch import Stopwatch


class Clock:
    """A clock that is set by hand."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_time_of_earlier_sessions_counts_but_not_for_the_speed() -> None:
    clock = Clock()
    watch = Stopwatch(60.0, 100, clock)
    assert watch.seconds == 60
    clock.seconds += 5
    assert watch.seconds == 65
    assert watch.steps_per_second(110) == 2  # 10 steps in 5 s
    clock.seconds += 2
    assert watch.steps_per_second(120) == 5  # since the last call


def test_excluded_time_counts_as_training_time_but_not_for_the_speed() -> None:
    clock = Clock()
    watch = Stopwatch(0.0, 0, clock)
    clock.seconds += 30
    watch.exclude(20)
    assert (watch.steps_per_second(5), watch.seconds) == (0.5, 30)


def test_after_a_roll_back_the_speed_is_that_of_the_repeated_steps() -> None:
    clock = Clock()
    watch = Stopwatch(0.0, 0, clock)
    clock.seconds += 30
    watch.count_from(10)
    clock.seconds += 4
    assert (watch.steps_per_second(12), watch.seconds) == (0.5, 34)


def test_no_time_at_all_is_no_division_by_zero() -> None:
    assert Stopwatch(0.0, 0, Clock()).steps_per_second(1) == pytest.approx(1e9)
