"""`poise check`: what it prints, its JSON, its exit codes; and that it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.lookup import data_table
from poise.recipe.shipped import recipe_names
from poise.training import precheck as checking
from poise.training.state import TrainState

SIZED = ["--set", "data.size=8", "--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "batch=8"]
KEYS = {"field", "message", "tip", "cure"}

Poise = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own, in which there is nothing after any test here."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    yield
    assert list(place.iterdir()) == []


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), np.uint8)


def npz(file: Path, images: np.ndarray) -> Path:
    np.savez(file, images=images)
    return file


def sound(tmp_path: Path) -> Path:
    return npz(tmp_path / "sound.npz", noise(120))


def parse_output(result: Any) -> dict[str, Any]:
    """The JSON, and nothing but it, on stdout."""
    found = json.loads(result.out)
    for one in found["refusals"] + found["warnings"]:
        assert set(one) == KEYS
    return found


# ---- a table ---------------------------------------------------------------------------------------------


def test_valid_recipe(poise: Poise, tmp_path: Path, small: list[str]) -> None:
    result = poise("check", "ring", "--steps", 7200, *small)
    assert result.code == 0
    lines = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    assert "G " in lines["players"]
    assert "parameters" in lines["players"]
    assert "ms per step, without periodic evaluation" in lines["time"]
    assert "MB at peak" in lines["memory"]
    assert "MB per checkpoint" in lines["memory"]
    assert result.out.splitlines()[-1] == "ring: no problems found"
    assert "warning" not in result.out
    assert "warm-up" not in lines
    assert result.err == ""


def test_warnings_are_printed_and_exit_code_is_0(poise: Poise, small: list[str]) -> None:
    result = poise("check", "ring", "--no-data", *small, "--set", 'network.g.output="tanh"')
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("warning")]
    assert line.startswith("warning  network.g.output: a tanh's output is at most 1")
    assert result.out.rstrip().endswith('set it to "linear" (T01)')
    assert "no problems found" not in result.out


def test_brackets_are_not_markup(poise: Poise, small: list[str]) -> None:
    """A finding may hold a list: it is printed as it is."""
    result = poise("check", "ring", "--no-data", *small, "--set", 'conditioning.d={kind="projection"}')
    assert result.code == 2
    assert 'add conditioning.g = {kind = "concat"}' in " ".join(result.out.split())


def test_errors_are_printed_and_exit_code_is_2(poise: Poise, small: list[str]) -> None:
    result = poise("check", "ring", *small, "--set", 'objective={kind="energy"}')
    assert result.code == 2
    assert result.out.startswith("error    objective: 'energy' needs an energy")
    assert result.last.startswith("poise: objective: 'energy' needs an energy")
    assert "players" not in result.out
    assert "no problems found" not in result.out


# ---- JSON ------------------------------------------------------------------------------------------------


def test_as_json(poise: Poise, small: list[str]) -> None:
    result = poise("check", "ring", "--json", "--steps", 1000, *small)
    assert result.code == 0
    found = parse_output(result)
    assert (found["refusals"], found["warnings"]) == ([], [])
    cost = found["estimate"]
    assert min(cost["seconds_per_step"], cost["megabytes"], cost["save_megabytes"]) > 0
    assert cost["seconds"] > 1000 * cost["seconds_per_step"]
    assert set(cost["parameters"]) == {"g", "d"}


def test_an_error_about_a_run_is_a_refusal_too(poise: Poise, tmp_path: Path) -> None:
    result = poise("check", "dcgan", "--json", "--set", f'init.from="{tmp_path}"')
    assert result.code == 4
    (refusal,) = json.loads(result.out)["refusals"]
    assert "not a run folder: it has no run.json" in refusal.values()


def test_refusals_and_warnings_as_json(poise: Poise, small: list[str]) -> None:
    changes = ["--set", 'objective={kind="energy"}', "--set", 'network.g.output="tanh"']
    result = poise("check", "ring", "--json", *small, *changes)
    assert result.code == 2
    found = parse_output(result)
    assert [one["field"] for one in found["refusals"]] == ["objective"]
    assert found["refusals"][0]["tip"] == "T08b"
    assert [one["field"] for one in found["warnings"]] == ["network.g.output"]


@pytest.mark.parametrize(
    ("words", "where", "word"),
    [
        (["ring", "--set", "batch=0"], "batch", "greater than or equal to 1"),
        (["ring", "--set", "bach=3"], "bach", "unknown key 'bach'"),
        (["rign"], "RECIPE", "no shipped recipe of that name, found 'rign'"),
        (["nowhere.toml"], "nowhere.toml", "no such recipe file"),
        (["ring", "--set", 'monitor.policy.colapse="off"'], "monitor", "no such detector 'colapse'"),
        (["ring", "--set", "batch"], "batch", ""),
    ],
    ids=["a bad value", "an unknown key", "no such recipe", "no such file", "no such detector", "no change at all"],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_unreadable_recipe_exits_with_2(poise: Poise, words: list[str], where: str, word: str, as_json: bool) -> None:
    result = poise("check", *words, *(["--json"] if as_json else []))
    assert result.code == 2
    assert result.last.startswith("poise: ")
    if not as_json:
        assert result.out == ""
        return
    found = parse_output(result)
    assert found["warnings"] == []
    (one,) = found["refusals"]
    assert where in one["field"]
    assert word.lower() in one["message"].lower()
    assert one["tip"] == ""


def test_invalid_toml(poise: Poise, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("steps = = 3\n")
    result = poise("check", file, "--json")
    assert result.code == 2
    (one,) = parse_output(result)["refusals"]
    assert "bad.toml" in one["field"]


# ---- data ------------------------------------------------------------------------------------------------


def test_missing_data_exits_with_3(poise: Poise, tmp_path: Path) -> None:
    poise("check", "dcgan", "--data", tmp_path / "nothing.npz").assert_error(3, "--data", "no such data")
    change = f'data={{kind="npz", path="{tmp_path / "gone.npz"}", size=8}}'
    poise("check", "dcgan", "--set", change).assert_error(3, "gone.npz")


def test_no_data_option_loads_no_data(poise: Poise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = f'data={{kind="npz", path="{tmp_path / "gone.npz"}", size=8}}'
    result = poise("check", "dcgan", "--no-data", "--set", change, "--json")
    assert result.code == 0
    assert "estimate" not in parse_output(result)

    def refuse(*_: object) -> None:
        raise AssertionError("it built the players")

    monkeypatch.setattr(TrainState, "__init__", refuse)
    for name in recipe_names():
        result = poise("check", name, "--no-data", "--json")
        assert result.code == 0, name
        assert parse_output(result)["refusals"] == []


def test_data_option(poise: Poise, tmp_path: Path) -> None:
    """The size of the recipe's own table is kept."""
    result = poise("check", "dcgan", "--data", sound(tmp_path), *SIZED, "--json")
    assert result.code == 0
    found = parse_output(result)
    assert found["warnings"] == []
    assert found["estimate"]["seconds"] > 0


def copies(tmp_path: Path) -> Path:
    return npz(tmp_path / "p.npz", np.concatenate([noise(60), noise(60)]))


def one_colour(tmp_path: Path) -> Path:
    return npz(tmp_path / "p.npz", np.arange(120, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2))


def few(tmp_path: Path) -> Path:
    return npz(tmp_path / "p.npz", noise(7))


def folders(tmp_path: Path, count: int) -> Path:
    place = tmp_path / "pictures"
    for number, image in enumerate(noise(12)):
        sub = place / f"kind{number % count:02d}"
        sub.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(sub / f"{number}.png")
    return place


def folder_each(tmp_path: Path) -> Path:
    return folders(tmp_path, 12)


@pytest.mark.parametrize(
    ("data", "field", "tip", "word"),
    [
        (copies, "data", "M02", "copies of others"),
        (one_colour, "data", "T01", "of a single colour"),
        (few, "batch", "M02", "contains some images twice"),
        (folder_each, "data", "T13", "probably not classes"),
    ],
)
def test_suspicious_images(
    data: Callable[[Path], Path], field: str, tip: str, word: str, poise: Poise, tmp_path: Path
) -> None:
    result = poise("check", "dcgan", "--data", data(tmp_path), *SIZED, "--json")
    assert result.code == 0
    (one,) = [one for one in parse_output(result)["warnings"] if (one["field"], one["tip"]) == (field, tip)]
    assert word in one["message"]
    assert one["cure"]


def test_one_folder_is_a_note(poise: Poise, tmp_path: Path) -> None:
    """Such pictures have no classes, and no recipe can take them for one."""
    result = poise("check", "dcgan", "--data", folders(tmp_path, 1), *SIZED)
    assert result.code == 0
    assert "note     all images are in one folder, kind00" in result.out


def test_notes_on_the_data_are_printed(poise: Poise, tmp_path: Path) -> None:
    result = poise("check", "dcgan", "--data", few(tmp_path), *SIZED)
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line.startswith("note     ")]
    assert poise("check", "dcgan", "--data", few(tmp_path), *SIZED, "--json").out.count('"notes"') == 1


def test_conditional_recipe_on_unlabelled_data(poise: Poise, tmp_path: Path) -> None:
    result = poise("check", "cgan", "--data", sound(tmp_path), *SIZED, "--json")
    assert result.code == 2
    assert [one["field"] for one in parse_output(result)["refusals"]] == ["conditioning"]


# ---- D alone ---------------------------------------------------------------------------------------------


FAR = ["--set", "data.radius=5.0", "--set", 'optimizer.d={kind="adam", lr=1e-2}']


def test_the_warm_up_passes(poise: Poise, small: list[str]) -> None:
    result = poise("check", "ring", "--warm-up", *small, *FAR)
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("warm-up")]
    assert "D alone learned to discriminate within" in line
    assert "T24" not in result.out
    assert "no problems found" in result.out


def test_warm_up_warns_of_a_frozen_d(poise: Poise, small: list[str]) -> None:
    result = poise("check", "ring", "--warm-up", "--json", *small, "--set", 'optimizer.d={kind="adam", lr=1e-12}')
    assert result.code == 0
    found = parse_output(result)
    (one,) = found["warnings"]
    assert (one["field"], one["tip"]) == ("network.d", "T24")
    assert found["warm_up"]["passed"] is False
    assert found["warm_up"]["words"] == one["message"]
    assert len(found["warm_up"]["losses"]) == 8


# ---- words of the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {"with_data": True, "warm_up": False, "data_root": None, "trust_code": False}),
        (["--no-data"], {"with_data": False}),
        (["--warm-up"], {"warm_up": True}),
        (["--data-root", "/x"], {"data_root": Path("/x")}),
        (["--device", "cpu", "--precision", "fp32"], {"device": "cpu", "precision": "fp32"}),
        (["--trust-code"], {"trust_code": True}),
    ],
)
def test_options_are_passed_on(
    words: list[str], wanted: dict[str, Any], poise: Poise, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[tuple[Any, dict[str, Any]]] = []
    look = checking.check

    def listen(recipe: Any, **how: Any) -> Any:
        messages.append((recipe, how))
        return look(recipe, with_data=False)

    monkeypatch.setattr(checking, "check", listen)
    assert poise("check", "ring", "--steps", 77, "--set", "batch=33", *words).code == 0
    ((recipe, how),) = messages
    assert (recipe.name, recipe.steps, recipe.batch) == ("ring", 77, 33)
    assert {key: how[key] for key in wanted} == wanted


def test_a_warm_up_without_data_is_refused(poise: Poise) -> None:
    poise("check", "ring", "--no-data", "--warm-up").assert_error(2, "--warm-up", "can't be combined with --no-data")


def test_settings_of_the_monitor_that_cannot_act_are_noted(poise: Poise) -> None:
    table = 'monitor={policy={wasserstein_stuck="stop", d_at_zero="stop"}, threshold={not_finite=3.0, collapse=0.2}}'
    result = poise("check", "dcgan", "--no-data", "--set", table)
    assert result.code == 0
    notes = [line.removeprefix("note").strip() for line in " ".join(result.out.split()).split("note ")[1:]]
    assert [note.partition(" has no effect")[0] for note in notes] == [
        "monitor.policy.wasserstein_stuck",
        "monitor.threshold.not_finite",
    ]


def test_default_recipe(poise: Poise) -> None:
    result = poise("check", "--no-data")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "dcgan: no problems found"


def test_missing_device_exits_with_2(poise: Poise, small: list[str]) -> None:
    poise("check", "ring", *small, "--device", "cuda:99").assert_error(2, "--device")


def noisy(place: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(place / name)
    return place


@pytest.mark.parametrize("name", ["digits", "grid", "MNIST", "mnist", "stacked_digits"])
def test_folder_named_like_a_data_set_gives_a_note(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever data is named; the rule stays that the name goes first."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data_table(name, None).get("path") is None
    assert capsys.readouterr().err == ""
    Path(name).mkdir()
    for where in ("--data", "FAKE"):
        assert data_table(name, None, where).get("path") is None
        result = capsys.readouterr()
        assert f"{where} {name} is taken as the name of a data set" in result.err
        assert f"to use the folder of the same name, give ./{name}" in result.err
        assert (result.out, result.err.count("\n")) == ("", 1)
    assert data_table(f"./{name}", None)["path"] == str(Path(name).resolve())
    assert capsys.readouterr().err == ""


UNMEASURED = ["--set", "measure=none"]


@pytest.mark.parametrize(("recipe", "noted"), [("dcgan", True), ("cgan", False), ("acgan", False)])
def test_unused_classes_give_a_note(poise: Poise, tmp_path: Path, recipe: str, noted: bool) -> None:
    """At the start of a run as well; not of the data sets that come along."""
    place = noisy(tmp_path / "p", *(f"{kind}/{i}.png" for kind in "ab" for i in range(30)))
    words = "this recipe does not use the 2 classes"
    for result in (
        poise("check", recipe, "--data", place, *SIZED),
        poise("train", recipe, "--data", place, *SIZED, "--steps", 1, "--out", tmp_path / "run", *UNMEASURED),
    ):
        assert (words in " ".join((result.out + result.err).split())) is noted
        assert ("'cgan' would use them" in " ".join((result.out + result.err).split())) is noted
        assert "2 classes: a, b; 30 images each" in result.out + result.err


def test_warnings_about_the_data_in_both_commands(poise: Poise, tmp_path: Path) -> None:
    folders = [f"{part}/{kind}" for part in ("test", "train") for kind in "ab"]
    place = noisy(tmp_path / "p", *(f"{folder}/{i}.png" for folder in folders for i in range(9)))
    checked = parse_output(poise("check", "dcgan", "--data", place, *SIZED, "--json"))
    (warning,) = [one for one in checked["warnings"] if one["tip"] == "T13"]
    assert "look like splits" in warning["message"]
    assert f"--data {place / 'train'}" in warning["cure"]
    result = poise("train", "dcgan", "--data", place, *SIZED, "--steps", 1, "--out", tmp_path / "run")
    (line,) = [line for line in result.err.splitlines() if "look like splits" in line]
    assert line.startswith("  warning, data: ")
    assert f"--data {place / 'train'}" in line


def test_a_run_folder_is_not_a_recipe(poise: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    poise("check", tmp_path).assert_error(
        2, "a run folder is not a recipe", f"its recipe is {tmp_path / 'recipe.toml'}"
    )
