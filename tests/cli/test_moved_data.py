"""Runs whose data was moved: --data gives the new location, and the fingerprint shows whether the data is the same."""

from __future__ import annotations

import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.runs.run import Run

THIN = ["--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "batch=8", "--set", "log.sheet=4"]
SMALL = [*THIN, "--set", "data.size=8", "--set", "data.held_out=0.4", "--set", 'data.background="black"', "--steps", 2]


def draw(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for n in range(15):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{n}.png")


@pytest.fixture(scope="module")
def trained(poise: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("here")
    draw(home / "pics")
    result = poise("train", "gan", "--data", home / "pics", *SMALL, "--out", home / "run", "--set", "measure=none")
    assert result.code == 0, result.err
    return home


@pytest.fixture
def there(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, on a machine on which its pictures never lay where the recipe says."""
    place = Path(shutil.copytree(trained, tmp_path / "there"))
    recipe = place / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(trained), "/never/there"))
    monkeypatch.chdir(place)
    return place


def test_error_names_the_data_option(poise: Callable, there: Path) -> None:
    for words in (("train", "--resume", "--out", "run", "--steps", 4), ("measure", "run", "--measures", "fid")):
        poise(*words).assert_error(3, "/never/there", "--data")


@pytest.mark.parametrize("how", ["data", "set", "recipe"])
def test_run_resumes_with_moved_images(poise: Callable, there: Path, how: str) -> None:
    """And the new place is written into its recipe, where the next command finds it."""
    words = {"data": ["--data", "pics"], "set": ["--set", 'data.path="pics"'], "recipe": []}[how]
    if how == "recipe":
        recipe = there / "run" / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("/never/there/pics", str(there / "pics")))
    result = poise("train", "--resume", "--out", "run", "--steps", 4, *words)
    assert result.code == 0, result.err
    outcome = [line for line in result.err.splitlines() if "the data is now read from" in line]
    assert len(outcome) == (how != "recipe")
    data = tomllib.loads((there / "run" / "recipe.toml").read_text())["data"]
    assert data["path"].endswith("pics")
    assert (data["background"], data["held_out"], data["size"]) == ("black", 0.4, 8)
    again = poise("train", "--resume", "--out", "run", "--steps", 6)
    assert again.code == 0
    assert "the data is now read from" not in again.err
    assert json.loads((there / "run" / "run.json").read_text())["step"] == 6


def test_zip_of_the_folder_is_the_same_data(poise: Callable, there: Path) -> None:
    with zipfile.ZipFile("pics.zip", "w") as archive:
        for path in sorted(Path("pics").rglob("*.png")):
            archive.write(path, path.relative_to("pics"))
    result = poise("train", "--resume", "--out", "run", "--steps", 4, "--data", "pics.zip")
    assert result.code == 0, result.err
    assert tomllib.loads((there / "run" / "recipe.toml").read_text())["data"]["kind"] == "zip"


def test_other_images_are_refused_with_both_fingerprints(poise: Callable, there: Path) -> None:
    draw(there / "others", seed=1)
    was = Run("run").info["data"]["fingerprint"]
    before = (there / "run" / "recipe.toml").read_text()
    cures = ("these are other images", "give its new path with --data", "start a new run, with --init-from")
    for words in (("train", "--resume", "--out", "run", "--steps", 4), ("measure", "run", "--measures", "fid")):
        poise(*words, "--data", "others").assert_error(3, "not what this run was trained on", "others", was, *cures)
    assert (there / "run" / "recipe.toml").read_text() == before


@pytest.mark.parametrize("change", ["data.size=16", "data.channels=1"])
def test_preprocessing_is_kept(poise: Callable, there: Path, change: str) -> None:
    result = poise("train", "--resume", "--out", "run", "--steps", 4, "--data", "pics", "--set", change)
    result.assert_error(2, change.partition("=")[0])


def test_named_data_set_is_not_a_new_location(poise: Callable, there: Path) -> None:
    result = poise("train", "--resume", "--out", "run", "--steps", 4, "--data", "ring")
    assert result.code in (2, 3)
    assert "Traceback" not in result.err


def test_measures_with_moved_images(poise: Callable, trained: Path, there: Path) -> None:
    words = ("--measures", "fid,kid", "--json", "--features", "pixels")
    here = poise("measure", trained / "run", *words)
    moved = poise("measure", "run", *words, "--data", "pics")
    assert here.code == moved.code == 0, moved.err
    assert json.loads(here.out) == json.loads(moved.out)
