"""The time of a game, with a clock that the test sets."""

from __future__ import annotations

import pytest

from poise.playground.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_the_next_step_is_due_after_its_share_of_a_second() -> None:
    clock = Clock()
    pace = Pace(20, clock)
    assert pace.wait == 0
    pace.stepped()
    assert pace.wait == pytest.approx(0.05)
    clock.time += 0.04
    assert pace.wait == pytest.approx(0.01)


def test_a_late_step_does_not_make_the_next_ones_hurry() -> None:
    clock = Clock()
    pace = Pace(20, clock)
    clock.time += 3
    pace.stepped()
    pace.stepped()
    assert pace.wait == pytest.approx(0.05)


def test_a_pause_does_not_count_as_play_and_leaves_nothing_due() -> None:
    clock = Clock()
    pace = Pace(20, clock)
    clock.time += 2
    pace.pause()
    clock.time += 50
    pace.pause()
    assert pace.seconds == 2
    assert pace.seconds_paused == 50
    pace.resume()
    assert (pace.seconds, pace.seconds_paused, pace.wait) == (2, 0, 0)
    clock.time += 1
    pace.resume()
    assert pace.seconds == 3
