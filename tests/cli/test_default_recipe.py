"""`poise train --data DIR` without a recipe, and the options --time, --size and --batch."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.cli.default_recipe import check_time
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_recipe
from poise.training import default_recipe
from poise.training.default_recipe import train_for, train_for_steps
from poise.training.step_time import StepTime

THIN = ["--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "log.sheet=4", "--set", "measure=none"]


def recipe_of(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text())


def test_a_recipe_is_chosen_and_explained(poise: Callable, photos: Path, tmp_path: Path) -> None:
    result = poise("train", "--data", photos, "--steps", 1, "--out", tmp_path / "run", *THIN)
    assert result.code == 0, result.err
    recipe = recipe_of(tmp_path / "run")
    assert (recipe["name"], recipe["data"]["size"], recipe["batch"]) == ("images", 16, 8)
    assert "20 colour images of about 30 x 20: the recipe images with DiffAugment" in result.err
    assert "16 x 16 pixels, the power of two that suits a median side of 20, in batches of 8" in result.err


def test_a_recipe_that_is_named_is_not_changed(poise: Callable, photos: Path, tmp_path: Path) -> None:
    result = poise(
        "train", "dcgan", "--data", photos, "--steps", 1, "--out", tmp_path / "run", *THIN, "--set", "batch=4"
    )
    assert result.code == 0, result.err
    assert recipe_of(tmp_path / "run")["name"] == "dcgan"
    assert "colour images of about" not in result.err


def test_size_and_batch_are_options(poise: Callable, photos: Path, tmp_path: Path) -> None:
    options = ["--size", 8, "--batch", 4, "--steps", 1]
    for recipe in ([], ["lsgan"]):
        out = tmp_path / "-".join(["run", *recipe])
        result = poise("train", *recipe, "--data", photos, *options, "--out", out, *THIN)
        assert result.code == 0, result.err
        assert (recipe_of(out)["data"]["size"], recipe_of(out)["batch"]) == (8, 4)


def test_a_size_needs_images(poise: Callable, tmp_path: Path) -> None:
    result = poise("train", "ring", "--size", 8, "--out", tmp_path / "run")
    assert result.code == 2
    assert "--size" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", [["--steps", 3], ["--resume"], ["--set steps", "--set", "steps=3"]])
def test_a_time_excludes_a_number_of_steps(poise: Callable, tmp_path: Path, other: list[Any]) -> None:
    named = other.pop(0) if len(other) == 3 else other[0]
    result = poise("train", "--time", "5s", *other, "--out", tmp_path / "run")
    assert result.code == 2
    assert f"can't be combined with {named}" in result.err


def test_a_time_is_a_duration() -> None:
    assert check_time(None) is None
    assert check_time("1h30m") == 5400
    with pytest.raises(RecipeError, match=r"--time.*'soon'.*30m"):
        check_time("soon")


def test_a_time_becomes_a_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_recipe, "time_recipe", lambda recipe, **options: StepTime(0.5))
    recipe, sentence = train_for(decode(load_recipe("dcgan")), 800)
    assert recipe.steps == 1440
    assert (recipe.log.samples, recipe.log.saves) == (180, 180)
    assert recipe.measure is not None
    assert recipe.measure.every == 180
    assert sentence.startswith("1,440 steps of 500 ms, about 13 min")
    assert train_for(decode(load_recipe("dcgan")), 0.1)[0].steps == 1


def test_a_time_leaves_intervals_that_are_set_as_they_are(poise: Callable, tmp_path: Path) -> None:
    words = (
        "train",
        "ring",
        "--time",
        "1s",
        "--set",
        "log.saves=20",
        "--set",
        "measure.every=100",
        "--set",
        "measure.n=10",
    )
    result = poise(*words, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    recipe = recipe_of(tmp_path / "run")
    assert (recipe["log"]["saves"], recipe["measure"]["every"]) == (20, 100)
    assert recipe["log"]["samples"] == max(1, round(recipe["steps"] / 8))
    assert train_for_steps(decode(load_recipe("ring")), 80, {"log"}).log == decode(load_recipe("ring")).log


def test_steps_are_timed_on_the_data_of_the_recipe(poise: Callable, tmp_path: Path) -> None:
    result = poise("train", "ring", "--time", "1s", "--out", tmp_path / "run", "--set", "measure=none")
    assert result.code == 0, result.err
    recipe = recipe_of(tmp_path / "run")
    assert recipe["steps"] >= 1
    assert f"{recipe['steps']:,} steps of" in result.err
    assert "; --time or --steps change it" in result.err


def test_the_check_is_of_the_recipe_that_would_be_chosen(poise: Callable, photos: Path) -> None:
    result = poise("check", "--data", photos, "--json", *THIN)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert "the recipe images" in report["notes"][0]
    assert report["estimate"]["seconds"] == 3600
    assert poise("check", "--data", photos, "--json", "--steps", 7, *THIN).code == 0


def test_the_check_takes_the_options_of_training(poise: Callable, photos: Path) -> None:
    words = ("--size", 16, "--batch", 4, "--mirror", "--time", "10m")
    result = poise("check", "--data", photos, "--json", *words, *THIN)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert "16 x 16 pixels, as given, in batches of 4" in report["notes"][1]
    assert "data.mirror=true" in " ".join(report["notes"])
    assert report["estimate"]["seconds"] == 600
    assert json.loads(poise("check", "ring", "--time", "10m", "--json").out)["estimate"]["seconds"] == 600
    poise("check", "ring", "--time", "10m", "--steps", 3).assert_error(2, "--time", "can't be combined")


def test_an_impossible_size_is_refused_before_steps_are_timed(poise: Callable, photos: Path, tmp_path: Path) -> None:
    result = poise("train", "--data", photos, "--size", 41, "--out", tmp_path / "run", *THIN)
    assert result.code == 2
    assert "data.size" in result.err
    assert "steps of" not in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [(), ("--time", "1m"), ("ring", "--time", "1m")])
def test_the_run_folder_is_checked_before_steps_are_timed(
    poise: Callable, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Loading a large folder and timing steps take minutes."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("words")
    for name in ("default_choice", "train_for"):
        monkeypatch.setattr(default_recipe, name, lambda *given, **more: pytest.fail("the steps were timed"))
    data = () if "ring" in options else ("--data", photos)
    poise("train", *options, *data, "--out", tmp_path / "run").assert_error(2, "--out", "the folder is not empty")
