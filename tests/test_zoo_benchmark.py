"""`benchmarks/zoo.py`: its plans, and the one for a folder of one's own images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from poise.recipe.shipped import recipe_names
from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.plan import read_plan

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import zoo

    return zoo


@pytest.mark.parametrize("name", ["zoo", "zoo-colour"])
def test_the_bases_of_a_plan_are_named_like_their_recipes(zoo: Any, name: str) -> None:
    plan = read_plan(zoo.study_folder(name) / "plan.toml")
    assert {base: one.recipe for base, one in plan.base.items()} == {base: base for base in plan.base}
    assert set(plan.base) <= set(recipe_names())


def test_the_plan_in_colour_on_a_folder_of_images(zoo: Any, photos: Path, tmp_path: Path) -> None:
    plan = (zoo.study_folder("zoo-colour") / "plan.toml").read_text("utf-8")
    path = tmp_path / "plan.toml"
    path.write_text(zoo.plan_on(photos, plan), "utf-8")
    changed = read_plan(path)
    assert changed.base == read_plan(zoo.study_folder("zoo-colour") / "plan.toml").base
    recipes = expand(changed, tmp_path).recipes.values()
    assert {(one.data.kind, one.data.path, one.data.size) for one in recipes} == {("folder", str(photos), 32)}


def test_the_page_has_the_table_of_the_committed_results(zoo: Any) -> None:
    page = (BENCHMARKS.parent / "docs" / "zoo.md").read_text("utf-8")
    assert zoo.table(zoo.study_folder("zoo")) in page


def test_a_new_study_continues_the_committed_one(zoo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed, out = BENCHMARKS / "studies" / "zoo-gan", tmp_path / "runs" / "zoo"
    zoo.start_from(committed, out)
    assert {path.name for path in out.iterdir()} == {"plan.toml", "study.json", "results.jsonl"}
    assert "continues the results" in capsys.readouterr().err
    (out / "results.jsonl").write_text("")
    zoo.start_from(committed, out)
    assert (out / "results.jsonl").read_text() == "", "a study that has begun is left as it is"


def test_recipes_that_have_changed_are_trained_anew(zoo: Any, tmp_path: Path) -> None:
    """Other than in a study that is resumed by `poise study`, which keeps its recipes."""
    zoo.start_from(BENCHMARKS / "studies" / "zoo-dragan", tmp_path / "zoo")
    folder = StudyFolder(tmp_path / "zoo")
    plan, kept = read_plan(folder.plan), folder.read_study()
    zoo.forget_recipes(folder)
    runs = [expand(plan, folder.path, before=study).recipes.keys() for study in (kept, folder.read_study())]
    assert runs[0] == {result.run for result in folder.read_results()}
    assert runs[0].isdisjoint(runs[1])


@pytest.mark.parametrize("name", ["zoo", "zoo-colour"])
def test_a_short_plan_keeps_the_data_and_two_recipes(zoo: Any, name: str, tmp_path: Path) -> None:
    whole = (zoo.study_folder(name) / "plan.toml").read_text("utf-8")
    path = tmp_path / "plan.toml"
    path.write_text(zoo.shorten(whole), "utf-8")
    short, long = read_plan(path), read_plan(zoo.study_folder(name) / "plan.toml")
    assert (short.data, short.budget, list(short.base)) == (long.data, None, list(long.base)[:2])
    assert {recipe.steps for recipe in expand(short, tmp_path).recipes.values()} == {2}


def test_what_is_missing_is_an_error_and_no_traceback(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["table"], ["publish"]):
        monkeypatch.setattr(sys, "argv", ["zoo.py", *words, "--out", str(tmp_path / "nowhere")])
        with pytest.raises(SystemExit) as left:
            zoo.main()
        assert left.value.code in (2, 3)
        assert "nowhere" in capsys.readouterr().err


def test_images_of_ones_own_are_for_the_plan_in_colour(
    zoo: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.py", "train", "--data", "photos"])
    with pytest.raises(SystemExit):
        zoo.main()
    assert "--data needs --colour" in capsys.readouterr().err
