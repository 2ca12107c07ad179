"""`benchmarks/detection.py`: the plans of its studies, when a run failed, and the rates with their intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from poise.core.metrics_log import Row, Stat, row_to_json
from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.plan import read_plan
from poise.study.records import Arm, RunResult, State, Study, StudyBase, StudyMeasure
from poise.watch.logs import Log

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STUDY, LATE = BENCHMARKS / "studies" / "detection", BENCHMARKS / "studies" / "detection-late"
LIMITS = (StudyMeasure(name="fid", better="less"), StudyMeasure(name="coverage", better="more", failure=0.2))


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _detection_rates

    return _detection_rates


def result(coverage: Sequence[float], fid: Sequence[float] = (), state: State = "done") -> RunResult:
    """A run that was measured every 100 steps."""
    curves = {
        name: [(100 * (i + 1), v) for i, v in enumerate(values)]
        for name, values in (("coverage", coverage), ("fid", fid))
        if values
    }
    values = {name: curve[-1][1] for name, curve in curves.items()} if state == "done" else {}
    return RunResult(run="r", state=state, step=100 * len(coverage), images=0, values=values, curves=curves)


def run(rates: Any, configuration: str, seed: int, *, failure: str, d_loss: float) -> Any:
    """A run of 1,000 steps with a constant loss of D, whose failure is shown at step 600."""
    rows = []
    for step in range(25, 1001, 25):
        row = {"d/adversarial": Stat.of(d_loss), "g/adversarial": Stat.of(1.0 + step % 2 / 10)}
        rows.append((step, {name: stat._replace(max=stat.mean + 1e-3) for name, stat in row.items()}))
    log = Log(rows, len(rows), 1000, "logistic", {})
    return rates.Run(configuration, seed, result([0.5]), log, failure, 600)


def outcomes(rates: Any, runs: Sequence[Any]) -> list[Any]:
    return [rates.find_outcome("early", run) for run in runs]


def test_the_late_plan_has_twelve_ways_to_fail_and_measures_each_hundredth() -> None:
    plan = read_plan(LATE / "plan.toml")
    assert sum(tip.expected == "harms" for tip in plan.tip) == 12
    expansion = expand(plan, LATE)
    assert len(expansion.recipes) == 9 * 20
    assert not expansion.notes
    for recipe in expansion.recipes.values():
        assert recipe.measure
        assert 100 * recipe.measure.every == 100 * recipe.log.rows == recipe.steps
        assert recipe.monitor.policy == {"not_finite": "stop"}


def test_the_plan_has_nineteen_configurations_with_nine_seeds_each() -> None:
    expansion = expand(read_plan(STUDY / "plan.toml"), STUDY)
    assert len(expansion.study.arms) == 19
    assert len(expansion.recipes) == 171
    assert not expansion.notes
    every = {recipe.steps: recipe.measure.every for recipe in expansion.recipes.values() if recipe.measure}
    assert every == {1000: 67, 1500: 100, 2000: 134}
    for recipe in expansion.recipes.values():
        assert recipe.log.rows == 25
        assert recipe.monitor.policy == {"not_finite": "stop"}


@pytest.mark.parametrize(
    ("run", "failure"),
    [
        (result([0.1, 0.3]), ""),
        (result([0.3, 0.1]), "coverage 0.10"),
        (result([0.3, 0.3], state="diverged"), "diverged"),
        (result([0.3, 0.3], fid=[10.0, 14.9]), ""),
        (result([0.3, 0.3], fid=[10.0, 15.1]), "fid 15.1, at best 10.0"),
    ],
)
def test_a_run_fails_by_its_end(rates: Any, run: RunResult, failure: str) -> None:
    assert rates.find_failure(run, LIMITS) == failure


def test_a_failure_is_shown_by_the_first_measurement_after_the_last_healthy_one(rates: Any) -> None:
    assert rates.find_shown_at(result([0.1, 0.3, 0.1, 0.1]), LIMITS, 100) == 300
    assert rates.find_shown_at(result([0.3, 0.3, 0.3], fid=[10, 16, 17]), LIMITS, 100) == 200
    never_healthy = result([0.1, 0.1, 0.1, 0.1])
    assert rates.find_shown_at(never_healthy, LIMITS, 250) == 300, "a healthy run is within the limits from step 250 on"
    assert rates.find_shown_at(result([0.3, 0.3], state="diverged"), LIMITS, 100) == 200


def test_rates_have_clopper_pearson_intervals_and_leads(rates: Any) -> None:
    lost = [run(rates, "lost", seed, failure="coverage 0.00", d_loss=0.001) for seed in range(3)]
    missed = run(rates, "missed", 0, failure="coverage 0.10", d_loss=0.7)
    healthy = [run(rates, "healthy", seed, failure="", d_loss=0.7) for seed in range(5)]
    table = rates.evaluate(outcomes(rates, [*lost, missed, *healthy]), "title")
    found = table["detectors"]["d_at_zero"]
    # 1 - 0.025^(1/4) and so on: scipy.stats.binomtest(3, 4) and (0, 5), Clopper-Pearson
    assert found["recall"] == pytest.approx(
        {"count": 3, "of": 4, "share": 0.75, "low": 0.19412, "high": 0.99369}, abs=1e-5
    )
    assert found["false_alarms"] == pytest.approx(
        {"count": 0, "of": 5, "share": 0.0, "low": 0.0, "high": 0.52182}, abs=1e-5
    )
    assert found["lead"]["min"] == found["lead"]["max"] == found["lead"]["median"] > 0
    assert table["any"]["recall"]["count"] == 3
    assert table["configurations"]["lost"]["recall"]["of"] == 3
    assert table["missed"] == ["missed, seed 0: coverage 0.10"]
    assert table["false_alarms"] == []
    assert json.loads(json.dumps(table)) == table


def test_an_alarm_is_in_time_before_the_best_fid_has_doubled(rates: Any) -> None:
    fids = [30.0, 70.0, 10.0, 15.0, 19.9, 20.0, 50.0]
    assert rates.find_doubled_at(result([0.3] * 7, fid=fids)) == 600, "the best is 10, at step 300"
    assert rates.find_doubled_at(result([0.3] * 3, fid=[10.0, 11.0, 12.0])) is None
    lost = [
        run(rates, "lost", seed, failure="fid", d_loss=0.001)._replace(doubled_at=doubled_at)
        for seed, doubled_at in enumerate((200, 900, None))
    ]
    found = rates.evaluate(outcomes(rates, lost), "title")["any"]["in_time"]
    assert found["count"] == 2, "the alarm comes at step 300"


def test_a_run_without_its_measures(rates: Any) -> None:
    whole = run(rates, "lost", 0, failure="fid", d_loss=0.7)
    measured = [(1000, {"measure/fid": Stat.of(9.0), "floor/fid": Stat.of(1.0)})]
    bare = rates.without_measures(whole._replace(log=whole.log._replace(rows=whole.log.rows + measured)))
    assert bare.log.rows == whole.log.rows


def test_notes_are_no_alarms(rates: Any) -> None:
    one = rates.find_outcome("early", run(rates, "sound", 0, failure="", d_loss=0.7))
    assert one.alarms == {}
    noted = one._replace(alarms={"g_falling": 300}, without_measures={"d_shifted": 400})
    assert (noted.first, noted.bare().first) == (None, 400)
    assert rates.evaluate([noted], "title")["any"]["false_alarms"]["count"] == 0
    assert rates.evaluate([noted], "title")["detectors"]["g_falling"]["false_alarms"]["count"] == 1
    assert rates.evaluate([noted.bare()], "title")["false_alarms"] == ["sound, seed 0: d_shifted at step 400"]


def test_the_tables_are_made_of_the_files_of_a_study(
    rates: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import detection

    folder = StudyFolder(tmp_path / "study" / "early")
    arms = [
        Arm(base="dcgan", name=name, steps=1000, images=0, runs={"12": f"{name}0", "13": f"{name}1"})
        for name in ("base", "lost")
    ]
    bases = (StudyBase(name="dcgan", measures=LIMITS),)
    folder.path.mkdir(parents=True)
    folder.write_study(Study(name="detection", bases=bases, arms=tuple(arms), comparisons=()))
    for name, coverage, loss in (("base0", 0.6, 0.7), ("base1", 0.6, 0.7), ("lost0", 0.1, 0.001)):
        folder.append_result(result([coverage] * 10).model_copy(update={"run": name}))
        write_run(folder.runs / name, loss)
    path = tmp_path / "outcomes.jsonl"
    rates.write_outcomes(detection.replay_runs(folder.path.parent), path)
    found = rates.read_outcomes(path)
    detection.print_tables(found)
    output = capsys.readouterr()
    assert "| lost | 1 | 1 | coverage 0.10 |" in output.out
    assert "| **any, without notes** |  | 1 of 1 (100 % [3, 100]) | 0 of 2 (0 % [0, 84]) |" in output.out
    assert output.err == "early: left out: 1 run: not finished\nleft out: late, which has not been trained\n"
    assert [(one.configuration, one.seed, one.failure) for one in found] == [
        ("dcgan", 12, ""),
        ("dcgan", 13, ""),
        ("lost", 12, "coverage 0.10"),
    ]
    assert found[2].shown_at == 100
    assert "d_at_zero" in found[2].alarms
    assert found[2].alarms == found[2].without_measures
    assert (
        detection.summary(found).splitlines()[-1].startswith("| **any, without notes** | 1 of 1 (100 % [3, 100]) |  |")
    )


def write_run(folder: Path, d_loss: float) -> None:
    """The files of a run with a constant loss of D that the monitor reads."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('steps = 1000\n[objective]\nkind = "non_saturating"\n')
    (folder / "measures.jsonl").touch()
    stats = {"d/adversarial": Stat(d_loss, 0.0, d_loss, d_loss + 1e-3)}
    lines = [json.dumps(row_to_json(Row(step, step, 1.0, stats))) for step in range(25, 1001, 25)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def test_the_documentation_has_the_rates_of_the_committed_runs(rates: Any) -> None:
    import detection

    text = (BENCHMARKS.parent / "docs" / "watching.md").read_text("utf-8")
    assert detection.summary(rates.read_outcomes(detection.OUTCOMES)) in text
