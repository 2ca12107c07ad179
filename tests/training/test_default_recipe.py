"""`poise.choose_recipe`: the default recipe for scripts, equal to that of the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import poise as package
from poise.errors import DataError, RecipeError
from poise.training import default_recipe
from poise.training.default_recipe import choose_recipe, training_seconds
from poise.training.step_time import StepTime


def test_it_is_the_recipe_of_the_command(photos: Path, poise: Callable, tmp_path: Path) -> None:
    recipe, reasons = package.choose_recipe(photos, steps=1, batch=4, mirror=True)
    words = ["--data", photos, "--steps", 1, "--batch", 4, "--mirror", "--set", "log.sheet=4"]
    result = poise("train", *words, "--set", "measure=none", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    trained = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
    expected = recipe.canonical()
    expected["log"]["sheet"] = 4
    del expected["measure"]
    assert trained == expected
    assert all(reason in result.err for reason in reasons)
    assert len(reasons) == 3
    assert "changed afterwards: data.mirror=true" in result.err


def test_the_time_gives_the_number_of_steps(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_recipe, "time_recipe", lambda recipe, **options: StepTime(0.5))
    assert [choose_recipe(photos, time=time).recipe.steps for time in ("30m", 1800, None)] == [3240, 3240, 6480]
    assert choose_recipe(photos, time="30m").reasons[-1] == "3,240 steps of 500 ms, about 30 min"


def test_steps_are_timed_on_the_data(photos: Path) -> None:
    """Narrow networks can't be asked for, so this is the one slow choice; it takes about a second."""
    recipe, reasons = choose_recipe(photos, time="5s", batch=4)
    assert f"{recipe.steps:,} steps of" in reasons[-1]


def test_what_can_not_be_chosen_for_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="time: can't be combined with steps; leave one of them out"):
        choose_recipe(photos, time="1m", steps=3)
    with pytest.raises(DataError, match=r"data: no such data.*'nowhere'"):
        choose_recipe("nowhere")
    with pytest.raises(DataError, match=r"data: no recipe can be chosen for this data.*'ring'.*by name"):
        choose_recipe("ring")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="image files end in"):
        choose_recipe(tmp_path / "empty")
    with pytest.raises(RecipeError, match=r"data\.size"):
        choose_recipe(photos, steps=1, size=0)
    with pytest.raises(RecipeError, match=r"17 x 17 pixels can't be halved often enough .*set data\.size to 16 or 18"):
        choose_recipe(photos, steps=1, size=17)


def test_a_name_that_is_also_a_folder_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert choose_recipe("digits", steps=1).recipe.name == "images"
    assert capsys.readouterr().err.count("is taken as the name of a data set") == 1


@pytest.mark.parametrize("wrong", ["soon", "", 0, -1.0, float("nan"), float("inf")])
def test_a_time_is_positive(wrong: str | float) -> None:
    with pytest.raises(RecipeError, match=r"time: not a duration.*30m"):
        training_seconds(wrong, "time")
