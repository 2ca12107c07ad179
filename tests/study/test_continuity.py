"""A study that is continued keeps its bases and its runs when poise or the place of the data changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_execute import Study, done
from test_expand import PACKING, RING, plan_of, tip
from tiny_studies import DirectExecutor, QuietView, lines_of, write_plan

from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import Table, to_toml
from poise.study import continuity, execute
from poise.study import prepare as preparing
from poise.study.execute import run_study
from poise.study.expand import Expansion, expand
from poise.study.folder import StudyFolder
from poise.study.plan import Plan, read_plan
from poise.study.timing import Timing
from poise.utils.system import system

R1 = tip("r1", 'tricks+=[{kind="r1"}]')

Update = Callable[[pytest.MonkeyPatch], None]


def other_hashes(patch: pytest.MonkeyPatch) -> None:
    """A component or the log has got a field: all hashes change, and no run does."""
    patch.setattr(Recipe, "hash", property(lambda self: hashlib.sha256(self.to_toml().encode()).hexdigest()[:12]))


def another_shipped_recipe(patch: pytest.MonkeyPatch) -> None:
    """The shipped recipes have another batch."""
    shipped = continuity.load_recipe

    def load(recipe: str, where: str) -> Table:
        return shipped(recipe, where) | ({} if recipe.endswith(".toml") else {"batch": 999})

    patch.setattr(continuity, "load_recipe", load)


def both(patch: pytest.MonkeyPatch) -> None:
    """Both of these."""
    other_hashes(patch)
    another_shipped_recipe(patch)


UPDATES = [other_hashes, another_shipped_recipe, both]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def runs_of(expansion: Expansion) -> dict[tuple[str, str], dict[str, str]]:
    return {(arm.base, arm.name): arm.runs for arm in expansion.study.arms}


@pytest.mark.parametrize("update", UPDATES)
def test_only_new_seeds_are_trained_after_an_update_of_poise(study: Study, update: Update) -> None:
    before = study.run()
    batch = StudyFolder(study.out).read_study().bases[0].recipe["batch"]
    update(study.patch)
    write_plan(study.plan, seeds=3)
    new = study.run(resume=True)
    assert len(new) == 2
    assert {job.table["batch"] for job in study.engine.submitted} == {batch}
    assert sorted(line["run"] for line in lines_of(study.out)) == sorted([*before, *new])
    assert study.run(resume=True) == []
    notes = expand(read_plan(study.plan), study.out, before=StudyFolder(study.out).read_study()).notes
    said = "ring: this version of poise makes another recipe of it than when the study began, which the study keeps"
    assert notes == ([] if update is other_hashes else [said])


@pytest.mark.parametrize(
    ("keys", "base"),
    [
        ({}, {"set": ['data={kind="npz", path="PLACE"}']}),
        ({}, {"set": ['data.kind="npz"', 'data.path="PLACE"']}),
        ({"data": {"points": {"kind": "npz", "path": "PLACE"}}}, {}),
        ({}, {"recipe": "mine.toml"}),
    ],
    ids=["a table", "a field", "a data set of the plan", "a recipe file"],
)
@pytest.mark.parametrize("update", [None, *UPDATES])
def test_data_that_has_moved_is_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: Update | None, keys: dict[str, Any], base: dict[str, Any]
) -> None:
    def at(place: str) -> Plan:
        (tmp_path / "mine.toml").write_text(to_toml(load_table("dcgan") | {"data": {"kind": "npz", "path": place}}))
        table = json.loads(json.dumps({"recipe": "dcgan", "measures": ["fid"], **base}).replace("PLACE", place))
        return plan_of(R1, base={"b": table}, **json.loads(json.dumps(keys).replace("PLACE", place)))

    first = expand(at("old.npz"), tmp_path)
    if update is not None:
        update(monkeypatch)
    moved = expand(at("new.npz"), tmp_path, before=first.study)
    assert runs_of(moved) == runs_of(first)
    assert {recipe.canonical()["data"]["path"] for recipe in moved.recipes.values()} == {"new.npz"}
    assert {recipe.batch for recipe in moved.recipes.values()} == {recipe.batch for recipe in first.recipes.values()}
    assert moved.study.bases[0].recipe == first.study.bases[0].recipe, "the recipe of the beginning is kept"


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, {"base", "packing"}),
        ({"seeds": [1, 7]}, {"base", "packing"}),
        ({"limit": 9}, {"base", "packing"}),
        ({"tip": [tip("packing", PACKING.replace("2", "3"))]}, {"base"}),
        ({"tip": [tip("other", PACKING)]}, {"base"}),
        ({"tip": [tip(budget_factor=2)]}, {"base"}),
        ({"budget": {"images": 5000}}, set()),
        ({"evaluations": 9}, set()),
        ({"base": {"ring": RING | {"measures": ["modes", "coverage"]}}}, set()),
        ({"base": {"ring": RING | {"set": [*RING["set"], "log.rows=9"]}}}, set()),
        ({"base": {"ring": RING | {"recipe": "grid"}}}, set()),
        ({"base": {"ring": RING | {"failure": {"modes": 3}}}}, {"base", "packing"}),
        ({"base": {"circle": RING}}, set()),
    ],
)
def test_only_an_arm_that_is_the_same_keeps_its_runs(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], kept: set[str]
) -> None:
    table: dict[str, Any] = {"base": {"ring": RING}, "tip": [tip()]}

    def plan(**keys: Any) -> Plan:
        whole = table | keys
        return plan_of(*whole.pop("tip"), **whole)

    first = expand(plan(), Path())
    both(monkeypatch)
    second = expand(plan(**change), Path(), before=first.study)
    known = {run for arm in first.study.arms for run in arm.runs.values()}
    for (_, name), runs in runs_of(second).items():
        old = {runs[seed] for seed in runs.keys() & {"0", "1"}}
        assert (old <= known) == (name in kept)
        new = runs.keys() - {"0", "1"} if name in kept else runs.keys()
        assert {runs[seed] for seed in new} == {second.recipes[runs[seed]].hash for seed in new}
    again = expand(plan(**change), Path(), before=second.study)
    assert (again.study, again.recipes) == (second.study, second.recipes)


def test_bases_that_share_runs_share_them_after_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    first = expand(plan_of(tip(), base={"ring": RING}), Path())
    other_hashes(monkeypatch)
    second = expand(plan_of(tip(), base={"also": RING, "ring": RING}), Path(), before=first.study)
    assert second.recipes.keys() == first.recipes.keys()


def test_a_study_of_an_earlier_version_keeps_the_runs_whose_hashes_are_the_same() -> None:
    first = expand(plan_of(tip()), Path()).study
    bases = tuple(base.model_copy(update={"recipe": {}, "definition": ""}) for base in first.bases)
    earlier = first.model_copy(update={"format": 1, "bases": bases, "evaluations": None})
    assert expand(plan_of(tip()), Path(), before=earlier).study == first


def test_results_of_no_run_of_the_plan_are_told(study: Study) -> None:
    study.run()
    text = study.plan.read_text()
    study.plan.write_text(text.replace("samples=2", "samples=4"))
    assert len(study.run(resume=True)) == 2
    assert "2 results in this folder belong to no run of this plan; they are kept and not used" in study.view.messages
    assert len(lines_of(study.out)) == 6
    study.plan.write_text(text.replace("images = 20000", "images = 30000"))
    before = {path: path.read_bytes() for path in study.out.rglob("*") if path.is_file()}
    with pytest.raises(
        RecipeError, match=r"--out .*: no result in this folder belongs .*, found 6 results; start a new"
    ):
        study.run(resume=True)
    assert {path: path.read_bytes() for path in study.out.rglob("*") if path.is_file()} == before


def test_a_budget_in_seconds_is_not_measured_again_after_an_update(study: Study) -> None:
    study.plan.write_text(study.plan.read_text().replace("images = 20000", "seconds = 3"))
    durations = iter([0.25, 0.5])
    study.patch.setattr(preparing, "measure_timing", lambda *_, **__: Timing(1.0, next(durations), 1.0))
    assert len(study.run()) == 4
    both(study.patch)
    assert study.run(resume=True) == []


class Killed(BaseException):
    """Stands for the death of the process."""


def killed_after(number: int, study: Study) -> bool:
    """Whether the study was killed after so many writes, before its first run."""
    done_writes = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal done_writes
        source.replace(target)
        done_writes += 1
        if done_writes > number:
            raise Killed

    with study.patch.context() as patch:
        patch.setattr(system, "replace", replace)
        try:
            study.run(lambda job: (_ for _ in ()).throw(Killed), resume=study.out.exists())
        except Killed:
            return done_writes > number
    return False


@pytest.mark.parametrize("base", ["ring", "recipes/mine.toml"])
@pytest.mark.parametrize("begun", [False, True], ids=["started", "extended"])
def test_a_study_that_is_killed_between_two_writes_can_be_continued(study: Study, base: str, begun: bool) -> None:
    text = study.plan.read_text().replace('recipe = "ring"', f'recipe = "{base}"')
    (study.plan.parent / "recipes").mkdir()
    (study.plan.parent / "recipes" / "mine.toml").write_text(to_toml(load_table("ring")))
    for writes in range(9):
        study.plan.write_text(text)
        study.out = study.plan.parent / f"study-{writes}"
        before = study.run() if begun else []
        study.plan.write_text(text.replace("seeds = 2", "seeds = 3"))
        if not killed_after(writes, study):
            break
        assert len(study.run(resume=True)) == 6 - len(before)
        assert StudyFolder(study.out).plan.read_text() == study.plan.read_text()
    assert writes == (3 if "mine" in base else 2)


def test_a_recipe_file_does_not_replace_the_plan(study: Study) -> None:
    plan = study.plan.rename(study.plan.with_name("mine.toml"))
    plan.write_text(plan.read_text().replace('recipe = "ring"', 'recipe = "./plan.toml"'))
    study.plan.write_text(to_toml(load_table("ring")))
    study.plan = plan
    with pytest.raises(RecipeError, match=r"mine.toml: ring: recipe: a recipe file can't have the name .*; rename"):
        study.run()
    assert not study.out.exists()


def changed_name(study: Study, out: Path) -> None:
    """A study of another name has been started there."""
    other = study.plan.with_name("other.toml")
    other.write_text(study.plan.read_text().replace('"tiny"', '"other"'))
    run_study(other, out, DirectExecutor, listener=QuietView())


def same_plan(study: Study, out: Path) -> None:
    """The same study has been started there."""
    run_study(study.plan, out, DirectExecutor, listener=QuietView())


@pytest.mark.parametrize("meanwhile", [changed_name, same_plan])
def test_a_study_that_another_process_has_started_meanwhile(
    study: Study, meanwhile: Callable[[Study, Path], None]
) -> None:
    prepare = execute.prepare

    def slow(*given: Any) -> Expansion:
        study.patch.setattr(execute, "prepare", prepare)
        meanwhile(study, study.out)
        return prepare(*given)

    study.patch.setattr(execute, "run_job", done)
    study.patch.setattr(execute, "prepare", slow)
    with pytest.raises(RecipeError, match="the folder is not empty, found a study"):
        run_study(study.plan, study.out, DirectExecutor, listener=QuietView())
    assert len(lines_of(study.out)) == 4


def test_a_study_that_another_process_has_extended_meanwhile(study: Study) -> None:
    study.run()
    prepare = execute.prepare

    def slow(*given: Any) -> Expansion:
        study.patch.setattr(execute, "prepare", prepare)
        write_plan(study.plan, seeds=3)
        study.run(resume=True)
        return prepare(*given)

    study.patch.setattr(execute, "prepare", slow)
    with pytest.raises(RecipeError, match="another process has started this study with another plan meanwhile; repeat"):
        study.run(resume=True)
    assert len(lines_of(study.out)) == 6
