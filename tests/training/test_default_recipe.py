"""`poise.choose_recipe`: the default recipe for scripts, equal to that of the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import poise as package
from poise.cli.default_recipe import choose_for
from poise.data.folder import FolderConfig
from poise.errors import DataError, RecipeError
from poise.recipe.choose import Limits
from poise.recipe.decode import decode
from poise.recipe.shipped import list_recipes, load_recipe
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
    assert "the data is read with data.mirror=true" in result.err


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
    with pytest.raises(RecipeError, match=r"data: a recipe is chosen for images only.*swiss_roll.*train ring --data"):
        choose_recipe("swiss_roll")
    with pytest.raises(
        RecipeError, match=r"one\.png, which is read as a density .*give a folder of them; .*train ring"
    ):
        choose_recipe(_one_image(tmp_path / "one.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="image files end in"):
        choose_recipe(tmp_path / "empty")
    with pytest.raises(RecipeError, match=r"data\.size"):
        choose_recipe(photos, steps=1, size=0)
    with pytest.raises(RecipeError, match=r"17 x 17 pixels can't be halved often enough .*set data\.size to 16 or 18"):
        choose_recipe(photos, steps=1, size=17)


def _one_image(path: Path) -> Path:
    Image.new("L", (8, 8), 90).save(path)
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "5 colour images of about 16 x 16: the recipe images with DiffAugment"),
        ({"follow_links": True}, "9 colour images of about 40 x 40: the recipe images with DiffAugment"),
        ({"channels": 1}, "5 greyscale images of about 16 x 16: the recipe images"),
    ],
)
def test_the_choice_is_made_for_the_images_that_the_options_lead_to(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    own, linked = (tmp_path / "own", 16, 5), (tmp_path / "elsewhere", 40, 4)
    for folder, side, count in (own, linked):
        folder.mkdir()
        for i in range(count):
            Image.new("RGB", (side, side), (i, 0, 0)).save(folder / f"{i}.png")
    (own[0] / "more").symlink_to(linked[0])
    if "follow_links" in options:
        for i in range(3):  # the larger images are the majority
            (own[0] / f"{i}.png").unlink()
        expected = expected.replace("9 ", "6 ")
    recipe, reasons = choose_recipe(own[0], steps=1, size=16, **options)
    assert reasons[0].partition(", which")[0] == expected
    assert {key: getattr(recipe.data, key) for key in options} == options
    changes = [f"data.{key}={str(value).lower()}" for key, value in options.items()]
    choice, left = choose_for(str(own[0]), Limits(size=16), [*changes, "batch=4"], device="cpu", precision="fp32")
    assert (choice.reasons[0], left) == (reasons[0], ["batch=4"])
    assert {key: choice.table["data"][key] for key in options} == options


@pytest.mark.parametrize("size", [16, [24, 16]])
def test_a_size_that_is_set_is_the_one_that_is_chosen_for(photos: Path, size: int | list[int]) -> None:
    choice, left = choose_for(str(photos), Limits(size=8), [f"data.size={size}"], device="cpu", precision="fp32")
    assert not left, "--set overrides --size"
    assert choice.reasons[1].startswith("16 x 16 pixels" if size == 16 else "16 x 24 pixels, as given")
    assert decode(choice.table).data == FolderConfig(path=str(photos), size=size)


@pytest.mark.parametrize("data", [recipe.data for recipe in list_recipes()])
def test_every_kind_that_a_recipe_is_made_for_gets_one_for_it(data: str) -> None:
    recipe, reasons = choose_recipe(data, steps=3)
    assert (recipe.data.tag(), recipe.steps) == (data, 3)
    assert recipe.name in reasons[0]


@pytest.mark.parametrize(
    ("data", "name", "steps"), [("stacked_digits", "stacked-digits", 20_000), ("ring", "ring", 16_000)]
)
def test_a_recipe_that_is_made_for_the_data_keeps_its_steps(data: str, name: str, steps: int) -> None:
    recipe, reasons = choose_recipe(data, batch=32)
    assert (recipe.name, recipe.steps, recipe.batch) == (name, steps, 32)
    assert reasons == [f"the recipe {name}, which is made for data of the kind {data}"]


def test_unknown_images_are_told_with_the_recipe_that_is_taken(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_recipe, "image_facts", lambda config: None)
    recipe, reasons = choose_recipe(photos, held_out=0.5)
    assert recipe == decode(load_recipe("dcgan") | {"data": recipe.data.model_dump(mode="json", exclude_none=True)})
    assert getattr(recipe.data, "held_out", None) == 0.5
    assert reasons == ["nothing is known of the images before they are loaded: the recipe dcgan, with its own settings"]


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
