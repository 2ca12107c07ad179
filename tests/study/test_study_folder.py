"""The folder of a study: what can be started and resumed, and damaged files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from poise.errors import CheckpointError, RecipeError
from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.records import RunResult
from study.test_expand import plan_of, tip


def result(run: str, state: str = "done", **fields: object) -> RunResult:
    return RunResult.model_validate({"run": run, "state": state, "step": 3, "images": 30} | fields)


def test_a_new_folder(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "deep" / "study")
    folder.check(resume=False)
    assert not folder.path.parent.exists()
    with pytest.raises(CheckpointError, match="no study to resume; start it without --resume"):
        folder.check(resume=True)


def test_study_and_results_are_read_back(tmp_path: Path) -> None:
    folder, study = StudyFolder(tmp_path), expand(plan_of(tip()), Path()).study
    with folder.claim():
        folder.write_study(study)
        for one in (result("a", "crashed"), result("b", values={"fid": 2.0}, curves={"fid": [(3, 2.0)]}), result("a")):
            folder.append_result(one)
    assert folder.read_study() == study
    assert folder.read_results() == [result("a"), result("b", values={"fid": 2.0}, curves={"fid": [(3, 2.0)]})]
    folder.check(resume=True)
    with pytest.raises(RecipeError, match="is not empty, found a study; continue it with --resume"):
        folder.check(resume=False)


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("a plan")
    with pytest.raises(RecipeError, match=r"not empty, found other files; choose another --out$"):
        StudyFolder(tmp_path).check(resume=False)
    with pytest.raises(RecipeError, match="a study is a folder"):
        StudyFolder(tmp_path / "plan.toml").check(resume=False)


def test_a_study_that_was_killed_at_its_start_can_be_resumed(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with folder.claim():
        folder.plan.write_text("")
    folder.check(resume=True)
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="no study to resume"):
        folder.check(resume=True)


def test_two_studies_in_one_folder(tmp_path: Path) -> None:
    with StudyFolder(tmp_path).claim(), pytest.raises(RecipeError, match="--out"), StudyFolder(tmp_path).claim():
        pass


def test_damaged_files(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with pytest.raises(RecipeError, match="not a study"):
        folder.read_study()
    folder.study.write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match=r"study.json: is damaged: .*; poise study PLAN --resume"):
        folder.read_study()
    folder.append_result(result("a"))
    folder.append_result(result("b"))
    whole = folder.results.read_bytes()
    folder.results.write_bytes(whole[:-9])  # killed while it was written
    assert [one.run for one in folder.read_results()] == ["a"]
    folder.results.write_bytes(whole.replace(b'"done"', b'"dnoe"', 1))
    with pytest.raises(CheckpointError, match=r"results.jsonl"):
        folder.read_results()


def test_a_study_of_a_newer_version_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.study.write_text('{"format": 3, "name": "small", "kinds": {}}')
    newer = "study.json: was written by a newer version of poise, found format 3; update poise"
    with pytest.raises(CheckpointError, match=newer):
        folder.read_study()
    with pytest.raises(CheckpointError, match=newer):
        folder.check_same_study("small")


def test_a_study_is_outside_of_its_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    data = f'data={{kind="folder", path="{tmp_path / "photos"}"}}'
    recipes = list(expand(plan_of(tip("photos", data)), Path()).recipes.values())
    with pytest.raises(RecipeError, match=r"--out .*: a study can't be inside the folder of its training images"):
        StudyFolder(tmp_path / "photos" / "study").check_outside(recipes)
    StudyFolder(tmp_path / "study").check_outside(recipes)


def test_another_study_is_not_replaced(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.check_same_study("small")
    folder.write_study(expand(plan_of(tip()), Path()).study)
    folder.check_same_study("small")
    with pytest.raises(RecipeError, match="not the folder of 'other', found 'small'; choose another --out"):
        folder.check_same_study("other")
    folder.study.write_text("{")
    folder.check_same_study("other")


@pytest.mark.parametrize(
    ("table", "key", "change"),
    [
        ("comparisons", "treatment", ["gone"]),
        ("comparisons", "treatment", []),
        ("comparisons", "control", ["base", "base"]),
        ("comparisons", "base", "gone"),
        ("arms", "base", "gone"),
        ("arms", "runs", {"first": "abc"}),
        ("bases", "measures", []),
    ],
)
def test_names_without_what_they_name_are_damage(tmp_path: Path, table: str, key: str, change: object) -> None:
    folder = StudyFolder(tmp_path)
    study = expand(plan_of(tip()), Path()).study.model_dump(mode="json")
    study[table][0][key] = change
    folder.study.write_text(json.dumps(study))
    with pytest.raises(CheckpointError, match=r"study.json: is damaged: (arms|comparisons)"):
        folder.read_study()


def test_values_that_overflow_are_damage(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.results.write_text('{"run": "a", "state": "done", "step": 3, "images": 30, "values": {"fid": 1e200}}\n')
    with pytest.raises(CheckpointError, match="line 1 is damaged"):
        folder.read_results()


def test_reading_a_study_does_not_import_torch() -> None:
    script = "import sys, poise.study.folder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
