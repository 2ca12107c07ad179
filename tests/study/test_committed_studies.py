"""The studies in `benchmarks/studies`: their files are valid and fit together, so that anyone can continue them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.plan import read_plan

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
PLANS = sorted(STUDIES.glob("*/plan.toml"))
MEASURED = sorted(path.parent for path in STUDIES.glob("*/study.json"))


@pytest.mark.parametrize("folder", MEASURED, ids=lambda folder: folder.name)
def test_the_files_of_a_study_fit_together(folder: Path) -> None:
    study, results = StudyFolder(folder).read_study(), StudyFolder(folder).read_results()
    planned = {run for arm in study.arms for run in arm.runs.values()}
    assert results
    assert {result.run for result in results} <= planned
    expected = expand(read_plan(folder / "plan.toml"), folder).study
    assert [(arm.base, arm.name, arm.changes, list(arm.runs)) for arm in study.arms] == [
        (arm.base, arm.name, arm.changes, list(arm.runs)) for arm in expected.arms
    ]
    assert study.comparisons == expected.comparisons


def test_there_are_plans() -> None:
    assert {path.parent.name for path in PLANS} >= {"tips", "detection", "packing"}


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.parent.name)
def test_a_plan_can_be_expanded(plan: Path) -> None:
    study = expand(read_plan(plan), plan.parent).study
    assert study.arms
    assert {arm for one in study.comparisons for arm in (*one.treatment, *one.control)} <= {
        arm.name for arm in study.arms
    }


def test_the_note_on_the_default_recipe_has_the_table_of_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES.parent))
    default_recipe = import_module("default_recipe")
    note = (STUDIES.parents[1] / "docs" / "notes" / "default-recipe.md").read_text("utf-8")
    table, scores = default_recipe.table(STUDIES / "default").split("\n\n")
    assert table in note
    assert "relativistic, lazy R1 and R2, nearest: score 0.71, recall at worst +0.11" in scores
