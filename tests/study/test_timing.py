"""The time of a step, measured with a clock of the test, and how it is kept for a budget in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from poise.errors import CheckpointError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_recipe
from poise.study import prepare as preparing
from poise.study.budget import Load, TooManyRuns, estimate_seconds, format_hours
from poise.study.execute import run_study
from poise.study.plan import Plan
from poise.study.prepare import Options, prepare, timing_file
from poise.study.timing import TIMED_STEPS, UNTIMED_STEPS, Timing, TimingFile, measure_timing
from study.test_expand import plan_of, tip
from study.tiny_studies import DirectExecutor, QuietView, write_plan

PLAN = Path("plan.toml")


def recipe(**fields: Any) -> Recipe:
    return decode(load_recipe("ring") | {"steps": 100} | fields)


class Clock:
    """A clock that training sets forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def train(self, recipe: Recipe, folder: Path, *, listener: Any) -> None:
        """Two seconds to start; steps of 1 s, the first two of 5 s; an evaluation of 7 s after the last."""
        assert recipe.steps == UNTIMED_STEPS + TIMED_STEPS + 1
        assert torch.get_num_threads() == 1
        self.now += 2.0
        for step in range(1, recipe.steps + 1):
            self.now += 5.0 if step <= 2 else 1.0
            self.now += 7.0 if step == recipe.steps else 0.0
            listener.on_step(step)


def test_parts_of_a_run() -> None:
    clock = Clock()
    timing = measure_timing(recipe(), clock.train, torch.device("cpu"), clock)
    assert timing == Timing(start=6.0, step=1.0, end=7.0)  # the first step is 4 s longer than others
    assert timing.run(steps=100, evaluations=2) == 6.0 + 100.0 + 14.0


@pytest.mark.parametrize("every", [2, 4, 16])
def test_lazy_terms_count_as_often_as_they_act(every: int) -> None:
    """A budget in seconds would otherwise give such an arm more time than its base."""
    lazy, clock = recipe(tricks=[{"kind": "r1", "every": every}]), Clock()

    def train(recipe: Recipe, folder: Path, *, listener: Any) -> None:
        for step in range(recipe.steps):
            clock.now += 3.0 if step % every == 0 else 1.0
            clock.now += 7.0 if step == recipe.steps - 1 else 0.0
            listener.on_step(step + 1)

    timing = measure_timing(lazy, train, torch.device("cpu"), clock)
    assert timing.step == pytest.approx(1 + 2 / every)


def test_a_real_recipe_takes_time() -> None:
    timing = preparing.time_recipe(recipe().model_copy(update={"measure": None}), plan_of(tip()), Options())
    assert 0 < timing.step < 1
    assert timing.start > 0


def test_times_are_measured_once_and_kept(tmp_path: Path) -> None:
    asked: list[Recipe] = []

    def measure(recipe: Recipe) -> float:
        asked.append(recipe)
        return 0.25 * len(asked)

    times = TimingFile(tmp_path / "timing.json", measure)
    assert times.step_seconds(recipe(), "x") == 0.25
    assert times.step_seconds(recipe(seed=3, steps=7, name="other"), "the same") == 0.25
    assert times.step_seconds(recipe(batch=8), "y") == 0.5
    assert not (tmp_path / "timing.json").exists()
    times.save()
    again = TimingFile(tmp_path / "timing.json", measure)
    assert (again.step_seconds(recipe(), "z"), again.step_seconds(recipe(batch=8), "w"), len(asked)) == (0.25, 0.5, 2)
    assert again.step_seconds(recipe(batch=9), "y") == 0.5, "the same arm, whose recipe poise has changed"


@pytest.mark.parametrize("content", ["{", "[]", '{"a": "1"}', '{"a": 0.0}', '{"a": -1.0}', '{"a": NaN}'])
def test_damaged_times_are_not_measured_again_silently(tmp_path: Path, content: str) -> None:
    (tmp_path / "timing.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"timing.json: is damaged; remove it"):
        TimingFile(tmp_path / "timing.json", lambda recipe: 1.0)


def test_times_that_can_not_be_read_are_not_called_damaged(tmp_path: Path) -> None:
    """A file in place of a folder on the way is an error of whoever writes there."""
    (tmp_path / "file").write_text("mine")
    times = TimingFile(tmp_path / "file" / "timing.json", lambda recipe: 1.0)
    assert times.step_seconds(decode(load_recipe("ring")), "x") == 1.0
    (tmp_path / "timing.json").mkdir()
    with pytest.raises(CheckpointError, match=r"timing.json: can't be read: Is a directory"):
        TimingFile(tmp_path / "timing.json", lambda recipe: 1.0)


@pytest.fixture
def seconds_plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A budget of 10 s, on a machine whose steps take 0.1 s, and 0.2 s with packing; each measurement is 1 % slower."""
    count = [0]

    def time_recipe(recipe: Recipe, plan: Plan, options: Options) -> Timing:
        count[0] += 1
        return Timing(1.0, (0.1 + 0.1 * len(recipe.tricks)) * 1.01 ** (count[0] - 1), 2.0)

    monkeypatch.setattr(preparing, "time_recipe", time_recipe)
    return plan_of(tip(), budget={"seconds": 10.0})


def test_budget_in_seconds(seconds_plan: Plan, tmp_path: Path) -> None:
    times = timing_file(seconds_plan, tmp_path / "timing.json", Options())
    expansion = prepare(seconds_plan, PLAN, times, Options())
    assert [arm.steps for arm in expansion.study.arms] == [100, round(10 / (0.2 * 1.01))]
    times.save()
    resumed = timing_file(seconds_plan, tmp_path / "timing.json", Options())
    assert prepare(seconds_plan, PLAN, resumed, Options()) == expansion
    anew = timing_file(seconds_plan, tmp_path / "other.json", Options())
    assert prepare(seconds_plan, PLAN, anew, Options()) != expansion


@pytest.mark.parametrize("factor", [0.5, 1.4])
def test_an_arm_may_differ_in_its_budget_of_seconds_alone(seconds_plan: Plan, tmp_path: Path, factor: float) -> None:
    longer = plan_of({"name": "longer", "set": [], "budget_factor": factor}, budget={"seconds": 10.0})
    times = timing_file(longer, tmp_path / "timing.json", Options())
    expansion = prepare(longer, PLAN, times, Options())
    assert [arm.steps for arm in expansion.study.arms] == [100, 100 * factor]
    assert set(expansion.origins) == {("ring", "base"), ("ring", "longer")}


def test_nothing_is_timed_before_the_plan_is_valid(seconds_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "time_recipe", lambda *given: pytest.fail("timed"))
    plan = seconds_plan.model_copy(update={"limit": 3})
    with pytest.raises(TooManyRuns, match=r"found 4, which would take about 0.011 core-hours;"):
        prepare(plan, PLAN, timing_file(plan, Path("none.json"), Options()), Options())


def test_a_refusal_says_how_long_it_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "time_recipe", lambda *given: Timing(1.0, 0.5, 2.0))
    plan = plan_of(tip(), limit=3, seeds=1000, evaluations=2, budget={"images": 10_000})
    with pytest.raises(TooManyRuns, match=r"more than 3 runs, found 2,000, which would take about 31 core-hours;"):
        prepare(plan, PLAN, timing_file(plan, Path("none.json"), Options()), Options())


def test_estimate() -> None:
    base, five, timed = recipe(), recipe(steps=20, tempo={"kind": "ratio", "d": 5}), list[Recipe]()

    def timing(recipe: Recipe) -> Timing:
        timed.append(recipe)
        return Timing(1.0, 0.5, 2.0)

    loads = [Load(base, base, 3), Load(base, five, 2), Load(recipe(batch=7), base, 0)]
    assert estimate_seconds(loads, timing, evaluations=4) == 3 * (1 + 50 + 8) + 2 * (1 + 20 * 3 * 0.5 + 8)
    assert timed == [base]
    assert [format_hours(hours * 3600) for hours in (0.00002, 0.0036, 0.01234, 3.21, 12.3, 12345)] == [
        "0.001 core-hours",
        "0.004 core-hours",
        "0.012 core-hours",
        "3.2 core-hours",
        "12 core-hours",
        "12,345 core-hours",
    ]


def test_a_study_that_is_resumed_keeps_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, out = write_plan(tmp_path / "plan.toml", seeds=1), tmp_path / "out"
    plan.write_text(plan.read_text().replace("images = 20000", "seconds = 0.02"))
    run_study(plan, out, DirectExecutor, listener=QuietView())
    study = (out / "study.json").read_bytes()
    monkeypatch.setattr(preparing, "time_recipe", lambda *given: pytest.fail("timed again"))
    results = run_study(plan, out, DirectExecutor, resume=True, listener=QuietView())
    assert ([one.state for one in results], (out / "study.json").read_bytes()) == (["done"] * 2, study)
