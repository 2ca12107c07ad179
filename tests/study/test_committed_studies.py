"""The studies in `benchmarks/studies`: their files are valid and fit together, and which of them can be continued."""

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

OF_EARLIER_RECIPES = {
    *("default", "tips", "zoo-batch", "zoo-began", "zoo-began-norm", "zoo-ebgan", "zoo-gan", "zoo-length"),
    *("zoo-noise", "zoo-r3gan", "zoo-rates", "zoo-spectral"),
}
"""The studies that have not recorded the recipes of their bases, and whose plans describe other runs today."""

CHANGED_SINCE = ["packing", "zoo-dragan", "zoo-wgan-gp"]
"""Studies whose recipes, or their hashes, have changed since, and which keep those that they began with."""


@pytest.mark.parametrize("folder", MEASURED, ids=lambda folder: folder.name)
def test_the_files_of_a_study_fit_together(folder: Path) -> None:
    study, results = StudyFolder(folder).read_study(), StudyFolder(folder).read_results()
    planned = {run for arm in study.arms for run in arm.runs.values()}
    assert results
    assert {result.run for result in results} <= planned
    expansion = expand(read_plan(folder / "plan.toml"), folder, before=study)
    expected = expansion.study
    known = planned & set(expansion.recipes)
    assert known == (set() if folder.name in OF_EARLIER_RECIPES else planned)
    assert [(arm.base, arm.name, arm.changes, list(arm.runs)) for arm in study.arms] == [
        (arm.base, arm.name, arm.changes, list(arm.runs)) for arm in expected.arms
    ]
    assert study.comparisons == expected.comparisons


@pytest.mark.parametrize("name", CHANGED_SINCE)
def test_only_new_seeds_of_a_study_with_its_recipes_are_trained(name: str) -> None:
    folder, plan = StudyFolder(STUDIES / name), read_plan(STUDIES / name / "plan.toml")
    study, done = folder.read_study(), {result.run for result in folder.read_results()}
    assert done == expand(plan, folder.path, before=study).recipes.keys()
    longer = plan.model_copy(update={"seeds": (*plan.seeds, 999)})
    extended = expand(longer, folder.path, before=study).recipes
    assert {extended[run].seed for run in extended.keys() - done} == {999}
    assert done < extended.keys()


def test_the_studies_that_cant_be_continued_are_listed_for_readers() -> None:
    page = (STUDIES.parents[1] / "docs" / "studies.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in OF_EARLIER_RECIPES)


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
