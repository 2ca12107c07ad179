"""Data of two domains on the command line: trained on, moved and resumed; checked; and refused without a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.lookup import data_table
from poise.recipe.shipped import load_table
from poise.runs.run import Run

RECIPE = """
name = "{kind}"
steps = 2
batch = 4
data = {{ kind = "{kind}", path = "nowhere", size = 8 }}
latent = {{ kind = "source" }}
objective = {{ kind = "least_squares" }}
optimizer = {{ g = {{ kind = "adam" }}, d = {{ kind = "adam" }} }}
tempo = {{ kind = "ratio" }}
log = {{ rows = 1, samples = 2, saves = 2, sheet = 4, to = [] }}
[network]
direction = "{direction}"
g = {{ kind = "translator", width = 2, blocks = 1, downsamplings = 1 }}
d = {{ kind = "patch", width = 2, layers = 1 }}
"""
DIRECTIONS = {"pairs": "a_to_b", "domains": "both_ways"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `set` with the images of a and b, 12 of each, and a recipe for each kind."""
    random = np.random.default_rng(0)
    for domain in "ab":
        (tmp_path / "set" / domain).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"set/{domain}/{i}.png")
    for kind, direction in DIRECTIONS.items():
        (tmp_path / f"{kind}.toml").write_text(RECIPE.format(kind=kind, direction=direction))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_a_run_resumes_where_its_data_was_moved_and_not_with_other_data(
    kind: str, poise: Callable, place: Path
) -> None:
    resume = ("train", "--resume", "--out", "run", "--steps", 4)
    result = poise("train", f"{kind}.toml", "--data", "set", "--out", "run")
    assert result.code == 0, result.err
    shown = "11 pairs" if kind == "pairs" else "11 images and 11 images"
    assert f"{kind}: {shown}, 3+3x8x8" in result.out + result.err
    assert json.loads((place / "run/run.json").read_text())["data"]["parts"] == [3, 3]
    (place / "set").rename(place / "moved")
    poise(*resume).assert_error(3, "no such file or folder", "give its new path with --data")
    result = poise(*resume, "--data", "moved")
    assert result.code == 0, result.err
    assert (Run("run").recipe.data.tag(), Run("run").checkpoint.step) == (kind, 4)
    (place / "moved/b/0.png").write_bytes((place / "moved/b/1.png").read_bytes())
    poise(*resume[:-1], 6).assert_error(3, "the data is not what this run was trained on")


@pytest.mark.parametrize(
    "words", [("sample", "run", "--npz", "x.npz"), ("push", "run", "./model", "--no-onnx")], ids=str
)
def test_a_generator_that_starts_from_data_finds_it_where_it_was_moved(
    poise: Callable, place: Path, words: tuple[str, ...]
) -> None:
    assert poise("train", "pairs.toml", "--data", "set", "--out", "run").code == 0
    (place / "set").rename(place / "moved")
    poise(*words).assert_error(3, "no such file or folder", "give its new path with --data")
    result = poise(*words, "--data", "moved")
    assert result.code == 0, result.err


def test_a_folder_of_samples_or_translations_is_continued_when_the_data_has_moved(poise: Callable, place: Path) -> None:
    assert poise("train", "pairs.toml", "--data", "set", "--out", "run").code == 0
    assert poise("sample", "run", "--dir", "drawn", "--n", 2).code == 0
    record = json.loads((place / "drawn/samples.json").read_text())
    older = record | {"recipe": Run("run").recipe.hash}  # which had the paths in it
    (place / "set").rename(place / "moved")
    for known in (record, older):
        (place / "drawn/samples.json").write_text(json.dumps(known))
        result = poise("sample", "run", "--dir", "drawn", "--n", 3, "--data", "moved")
        assert result.code == 0, result.err
        assert "of them were there already" in result.err
    (place / "moved").rename(place / "set")
    (place / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(place / "photos/1.png")
    translate = ("translate", "run", "--data", "photos", "--out", "made")
    assert poise(*translate).code == 0
    assert poise("train", "--resume", "--out", "run", "--steps", 4).code == 0
    (place / "set").rename(place / "moved")
    poise(*translate).assert_error(2, "translations of another step", "2 instead of 4")
    poise("sample", "run", "--dir", "drawn", "--data", "moved").assert_error(2, "another step", "2 instead of 4")


def test_two_images_are_not_interpolated_or_searched_for_as_one(poise: Callable, place: Path) -> None:
    """A G of latents may generate images of both domains at once; `poise sample` shows both."""
    changes = ('data={kind="domains", path="set", size=8}', "batch=4", "network.g.width=4", "network.d.width=4")
    options = [word for change in changes for word in ("--set", change)]
    result = poise("train", "dcgan", *options, "--steps", 1, "--out", "run")
    assert result.code == 0, result.err
    for words in (("interpolate", "run"), ("interpolate", "run", "--through", 2, "--out", "a.gif")):
        poise(*words).assert_error(2, "run: a sample of this generator is two images", "poise sample run")
    poise("project", "run", "set/a/0.png").assert_error(2, "run: a sample of this generator is two images")
    assert poise("sample", "run", "--n", 4).code == 0


def test_two_paths_can_move_too(poise: Callable, place: Path) -> None:
    paths = ("--set", 'data={kind="domains", a="set/a", b="set/b", size=8}')
    result = poise("train", "domains.toml", *paths, "--out", "run")
    assert result.code == 0, result.err
    (place / "set").rename(place / "moved")
    resume = ("train", "--resume", "--out", "run", "--steps", 4)
    poise(*resume).assert_error(3, "data.a: no such", "new paths with --set data.a=PATH --set data.b=PATH")
    poise("sample", "run").assert_error(3, "data.a: no such", "give the new folder of both with --data")
    result = poise("sample", "run", "--data", "moved", "--npz", "x.npz")
    assert result.code == 0, result.err
    result = poise(*resume, "--set", 'data.a="moved/a"', "--set", 'data.b="moved/b"')
    assert result.code == 0, result.err
    poise("train", "domains.toml", "--data", "moved", "--out", "moved/a/run").assert_error(2, "training images")


@pytest.mark.parametrize(("data", "recipe"), [("set", "pix2pix"), ("domains:set", "cyclegan")])
def test_a_recipe_is_chosen_and_what_was_recognised_is_said(
    data: str, recipe: str, poise: Callable, place: Path
) -> None:
    small = ("--set", "network.g.width=2", "--set", "network.d.width=2", "--set", "measure=none", "--size", 16)
    result = poise("train", "--data", data, "--steps", 2, *small, "--out", "run")
    assert result.code == 0, result.err
    run = Run("run")
    assert (run.recipe.name, run.recipe.data.tag(), run.parts) == (recipe, run.recipe.data.two_domains, (3, 3))
    what = "12 pairs" if recipe == "pix2pix" else "two domains"
    assert f"{what} of images of about 8 x 8: the recipe {recipe}" in result.err + result.out
    note = "it is read as pairs; for another kind give --data domains:set or --data folder:set"
    assert (note in result.err) == (data == "set")


def test_a_recipe_for_digits_in_two_domains_gets_the_users_files_as_its_own_kind(poise: Callable, place: Path) -> None:
    for recipe, kind in (("pix2pix", "pairs"), ("simgan", "domains")):
        result = poise("check", recipe, "--data", "set", "--no-data", "--json")
        assert result.code == 0, result.err
        table = {"kind": kind, "path": str(place / "set")}
        assert data_table("set", load_table(recipe)["data"]).items() >= table.items()


def test_sources_that_are_trained_on_or_occur_again_are_noted_wherever_samples_are_seen(
    poise: Callable, place: Path
) -> None:
    again, known = "start from 1 held-out image: the same ones occur again", "no images are held out: where samples are"
    result = poise("train", "pairs.toml", "--data", "set", "--out", "run")
    assert known not in result.out + result.err
    assert f"note: 6 samples {again}" in poise("sample", "run", "--n", 6, "--npz", "x.npz").err
    assert again not in poise("sample", "run", "--n", 1).err
    compared = poise("compare", "run", "set/b", "--measures", "fid", "--features", "pixels")
    assert f"a run: 6 samples {again}" in " ".join((compared.out + compared.err).split())
    checked = poise("check", "pairs.toml", "--data", "set", "--set", "data.held_out=0")
    assert known in checked.out + checked.err


def test_check_names_the_domain(poise: Callable, place: Path) -> None:
    for i in range(8):
        Image.new("RGB", (8, 8), (i // 2, 0, 0)).save(place / f"set/b/{i}.png")
    result = poise("check", "domains.toml", "--data", "set", "--json")
    report = json.loads(result.out)
    assert any(warning["message"].startswith("b: ") for warning in report["warnings"])
    assert not any(warning["message"].startswith("a: ") for warning in report["warnings"])
    assert any(note.startswith("a: 11 images and 1 held out, b: ") for note in report["notes"])


def test_two_domains_are_not_compared_as_one_set(poise: Callable, place: Path) -> None:
    """The sub-folders of a folder are classes there, whatever they are called."""
    assert poise("compare", "set", "set", "--measures", "fid", "--features", "pixels", "--size", 4).code == 0
    poise("compare", "pairs:set", "set").assert_error(3, "FAKE", "two domains", "such as its folder b")
