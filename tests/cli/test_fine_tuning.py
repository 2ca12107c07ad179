"""`train --init-from`, `--init-players` and `--freeze`: what they do to the recipe, what is printed, and errors."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise import api
from poise.cli.fine_tuning_arguments import frozen_layers
from poise.errors import RecipeError
from poise.runs.run import Run


def recipe(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text("utf-8"))


def test_without_a_recipe_that_of_the_run_is_the_start(
    poise: Callable, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ring_run.parent)
    result = poise("train", "--init-from", "run", "--out", tmp_path / "fine", "--steps", 4, "--set", "batch=8")
    assert result.code == 0, result.err
    assert "recipe: that of run, with the changes given" in result.err
    assert f"initial weights: {ring_run.resolve()}, step 8" in result.err
    assert "from its averaged weights" in result.err
    old, new = recipe(ring_run), recipe(tmp_path / "fine")
    init = new.pop("init")
    assert new == old | {"steps": 4, "batch": 8}
    assert {key: init[key] for key in ("from", "weights", "players")} == {
        "from": str(ring_run.resolve()),
        "weights": "newest",
        "players": ["g", "d"],
    }
    assert len(init["sha256"]) == 64


def test_the_init_table_of_the_run_itself_is_not_kept(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert poise("train", "--init-from", ring_run, "--init-players", "g", "--out", first, "--steps", 2).code == 0
    assert recipe(first)["init"]["players"] == ["g"]
    assert poise("train", "--init-from", first, "--out", second, "--steps", 2).code == 0
    init = recipe(second)["init"]
    assert (init["from"], init["players"]) == (str(first.resolve()), ["g", "d"])
    assert init["sha256"] != recipe(first)["init"]["sha256"]


def test_a_recipe_of_another_network_with_the_weights_of_a_run(
    poise: Callable, ring_run: Path, tmp_path: Path, small: list[str]
) -> None:
    deeper = ["--set", "network.g.depth=4"]
    out = tmp_path / "run"
    result = poise("train", "ring", *small, *deeper, "--init-from", ring_run, "--out", out, "--steps", 2)
    assert result.code == 0, result.err
    assert "recipe: that of" not in result.err
    assert "keeps its initial values: that run has no such tensor" in result.err
    assert "D: 9 of 9 tensors" in result.err


def test_other_images_are_read_with_the_shape_of_those_of_the_run(
    poise: Callable, digits_run: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    words = ["--data", tmp_path / "images", "--steps", 2]
    result = poise("train", "--init-from", digits_run, *words, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    run = Run(tmp_path / "run")
    assert run.info["data"]["kind"] == "folder"
    assert run.shape == Run(digits_run).shape == (1, 32, 32)
    assert result.err.count("(100% of the values)") == 2
    colour = poise("train", "--init-from", digits_run, *words, "--set", "data.channels=3", "--out", tmp_path / "colour")
    assert colour.code == 0, colour.err
    assert Run(tmp_path / "colour").shape == (3, 32, 32)
    assert "D: trunk.0.weight keeps its initial values" in colour.err
    same = api.train(out=tmp_path / "same", steps=2, init_from=digits_run, data=tmp_path / "images", progress=False)
    assert same.shape == (1, 32, 32)


def test_freeze_adds_the_trick(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = poise("train", "--init-from", ring_run, "--freeze", "d:2", "--freeze", "g:1", "--out", out, "--steps", 3)
    assert result.code == 0, result.err
    assert recipe(out)["tricks"] == [*recipe(ring_run)["tricks"], {"kind": "frozen_layers", "d": 2, "g": 1}]
    frozen = [line.strip() for line in result.err.splitlines() if "frozen: " in line]
    assert [line.partition(" of ")[2] for line in frozen] == ["D's parameters", "G's parameters"]
    old, new = (Run(path).checkpoint.tensors for path in (ring_run, out))
    first = [name for name in old if name.startswith(("game/d.net.trunk.1.", "game/d.net.trunk.3."))]
    assert len(first) == 4
    assert all(old[name].equal(new[name]) for name in first)
    assert not old["game/d.net.score.weight"].equal(new["game/d.net.score.weight"])
    again = poise("train", out / "recipe.toml", "--freeze", "d:1", "--out", tmp_path / "again", "--steps", 2)
    assert again.code == 0, again.err
    kinds = [trick for trick in recipe(tmp_path / "again")["tricks"] if trick["kind"] == "frozen_layers"]
    assert kinds == [{"kind": "frozen_layers", "d": 1, "g": 0}]


def test_frozen_layers_without_a_start_are_noted(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    note = "D's frozen layers keep random weights"
    for number, (words, said) in enumerate(
        [([], True), (["--init-from", ring_run], False), (["--init-from", ring_run, "--init-players", "g"], True)]
    ):
        out = tmp_path / f"run-{number}"
        table = ring_run / "recipe.toml"
        result = poise("train", table, *words, "--freeze", "d:1", "--out", out, "--steps", 1)
        assert result.code == 0, result.err
        assert (note in result.err) == said


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        (["d:3"], {"d": 3, "g": 0}),
        (["d:3,g:1"], {"d": 3, "g": 1}),
        (["d:3", "g:2"], {"d": 3, "g": 2}),
        (["d:3", "d:1"], {"d": 1, "g": 0}),
        (["g: 2", "d:0"], None),
    ],
    ids=str,
)
def test_values_of_freeze(values: list[str], counts: dict[str, int] | None) -> None:
    if counts is None:
        with pytest.raises(RecipeError, match="--freeze: is not valid, found 'g: 2'; give a player"):
            frozen_layers(values)
    else:
        assert frozen_layers(values) == counts


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--freeze", "3"], 2, ["--freeze", "'3'", "d:3"]),
        (["--freeze", "e:3"], 2, ["--freeze", "'e:3'"]),
        (["--freeze", "d:-1"], 2, ["--freeze", "'d:-1'"]),
        (["--freeze", "d:4"], 2, ["tricks.frozen_layers.d", "D has 4 layers", "use at most 3"]),
        (["--init-players", "d,e"], 2, ["--init-players", "'d,e'"]),
    ],
    ids=str,
)
def test_invalid_values_are_errors(
    poise: Callable, ring_run: Path, tmp_path: Path, words: list[str], code: int, parts: list[str]
) -> None:
    result = poise("train", "--init-from", ring_run, *words, "--out", tmp_path / "run", "--steps", 2)
    result.assert_error(code, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("table", ["init = 3", "tricks = 3", "tricks = [3]", "[init]\nfrom = 3"], ids=str)
def test_an_invalid_table_is_an_error_of_the_recipe(
    poise: Callable, ring_run: Path, tmp_path: Path, table: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(table)
    words = ["--freeze", "d:1", *(["--init-players", "g"] if "init" in table else [])]
    poise("train", file, *words, "--out", tmp_path / "run").assert_error(2)


def test_a_folder_that_is_no_run_is_an_error(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    result = poise("train", "--init-from", tmp_path, "--out", tmp_path / "run")
    result.assert_error(4, f"--init-from {tmp_path}", "not a run folder")
    result = poise("train", "--init-from", tmp_path / "none", "--out", tmp_path / "run")
    result.assert_error(4, "not a run folder: it does not exist")
    result = poise("train", "ring", "--init-from", tmp_path / "none", "--out", tmp_path / "run")
    result.assert_error(4, "not a run folder")
    result = poise("train", "--init-from", ring_run / "recipe.toml", "--out", tmp_path / "run")
    result.assert_error(4, "not a run folder: it is a file", f"give the folder of the run, {ring_run}")
    result = poise("train", "ring", "--init-players", "g", "--out", tmp_path / "run")
    result.assert_error(2, "--init-players", "give it with --init-from")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_needs_the_other_run_no_more(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    """Its path may be given anew, but not another choice of players."""
    base = Path(shutil.copytree(ring_run, tmp_path / "base"))
    out = tmp_path / "fine"
    assert poise("train", "--init-from", base, "--out", out, "--steps", 3).code == 0
    base.rename(tmp_path / "moved")
    before = recipe(out)["init"]
    result = poise("train", "--resume", "--out", out, "--steps", 4)
    assert result.code == 0, result.err
    assert "initial weights" not in result.err
    assert recipe(out)["init"] == before
    result = poise("train", "--resume", "--out", out, "--init-from", tmp_path / "moved", "--steps", 5)
    assert result.code == 0, result.err
    assert recipe(out)["init"] == before | {"from": str((tmp_path / "moved").resolve())}
    result = poise("train", "--resume", "--out", out, "--init-players", "g", "--steps", 6)
    result.assert_error(2, "init.players")


def test_a_resumed_run_keeps_its_origin(poise: Callable, ring_run: Path, tmp_path: Path, small: list[str]) -> None:
    """Another run, or none, is refused as a new path of the run that it started from."""
    out, other = tmp_path / "fine", tmp_path / "other"
    assert poise("train", "--init-from", ring_run, "--out", out, "--steps", 3).code == 0
    assert poise("train", "ring", *small, "--out", other, "--steps", 1).code == 0
    before = (out / "recipe.toml").read_text("utf-8")
    for wrong in (other, tmp_path / "nowhere"):
        result = poise("train", "--resume", "--out", out, "--init-from", wrong, "--steps", 4)
        result.assert_error(2, f"--init-from {wrong}", "does not have the weights that this run started from", "leave")
        assert (out / "recipe.toml").read_text("utf-8") == before


CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, latent, shape):
        super().__init__()
        self.layer = nn.Linear(latent, shape[0])

    def forward(self, z):
        return {factor} * self.layer(z)
"""


def test_code_of_the_other_run_is_that_of_its_copies(
    poise: Callable, tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the file has changed since or is missing, the start is the G of the other run, here after a step."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "net.py"
    file.write_text(CODE.format(factor=1))
    g = ["--set", 'network.g={kind="python", file="net.py", name="Net"}', "--trust-code", "--set", "tricks=[]"]
    assert poise("train", "ring", *small, *g, "--out", "base", "--steps", 1).code == 0
    words = ["train", "--init-from", "base", "--trust-code", "--steps", 1]

    def tuned(name: str) -> tuple[str, Run]:
        result = poise(*words, "--out", name)
        assert result.code == 0, result.err
        return result.err, Run(name, trust_code=True)

    base = Run("base", trust_code=True).sample(64)
    said, run = tuned("same")
    assert "copy" not in said
    assert recipe(Path("same"))["network"]["g"]["file"] == "net.py"
    assert torch.cosine_similarity(run.sample(64), base).mean() > 0.9
    for name in ("changed", "missing"):
        file.write_text(CODE.format(factor=-1)) if name == "changed" else file.unlink()
        said, run = tuned(name)
        assert "code: base/code/net.py, the copy of the run that the weights come from" in said
        assert torch.cosine_similarity(run.sample(64), base).mean() > 0.9


def test_frozen_layers_that_take_no_weights_are_noted(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    """Such as those of another width, though D starts from a run."""
    wider = ["--set", "network.d.width=24", "--freeze", "d:1"]
    for words, said in ((wider, True), (wider[2:], False)):
        result = poise("train", "--init-from", ring_run, *words, "--out", tmp_path / f"run-{said}", "--steps", 1)
        assert result.code == 0, result.err
        assert ("warning: D's frozen layers keep random weights: trunk." in result.err) == said


@pytest.fixture(scope="module")
def vae_run(poise: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE, which has no D."""
    out = tmp_path_factory.mktemp("vae") / "run"
    words = [
        "--set",
        "data.size=8",
        "--set",
        "network.g.width=4",
        "--set",
        "network.e.width=4",
        "--set",
        "measure=none",
    ]
    assert poise("train", "vae", *words, "--out", out, "--steps", 1).code == 0
    return out


def test_layers_of_a_generator_without_a_discriminator_are_frozen(
    poise: Callable, vae_run: Path, tmp_path: Path
) -> None:
    result = poise("train", "--init-from", vae_run, "--freeze", "g:1", "--out", tmp_path / "run", "--steps", 1)
    assert result.code == 0, result.err
    assert "of G's parameters" in result.err
    result = poise("train", "--init-from", vae_run, "--freeze", "d:1", "--out", tmp_path / "other", "--steps", 1)
    result.assert_error(2, "'frozen_layers' acts on D or its output")


def test_a_player_that_only_one_of_the_runs_has_is_named(poise: Callable, vae_run: Path, tmp_path: Path) -> None:
    words = ["--init-from", vae_run, "--init-players", "d", "--out", tmp_path / "run", "--steps", 1]
    poise("train", *words).assert_error(2, "init.players", "this recipe has no D", "leave --init-players out")
    poise("train", "ring", *words).assert_error(2, "init.players", "that run has no D", "leave --init-players out")


def test_check_refuses_what_train_refuses(poise: Callable, ring_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "fine"
    assert poise("train", "--init-from", ring_run, "--out", out, "--steps", 3).code == 0
    words = ["check", out / "recipe.toml", "--json"]
    assert f"initial weights: {ring_run.resolve()}, step 8" in json.loads(poise(*words).out)["notes"]
    sha = "ab" * 32
    result = poise(*words, "--set", f'init.sha256="{sha}"')
    assert result.code == 2
    assert [finding["field"] for finding in json.loads(result.out)["refusals"]] == ["init.sha256"]
    result = poise("check", out / "recipe.toml", "--set", 'init.from="nowhere"')
    result.assert_error(4, "nowhere", "not a run folder")


def test_the_library_has_the_same_arguments(ring_run: Path, tmp_path: Path) -> None:
    run = api.train(out=tmp_path / "run", steps=2, init_from=ring_run, init_players="d", freeze="d:1", progress=False)
    table = recipe(run.path)
    assert table["init"]["players"] == ["d"]
    assert table["tricks"][-1] == {"kind": "frozen_layers", "d": 1, "g": 0}
    same = api.train(run.recipe, tmp_path / "same", progress=False)
    assert same.sample(4).equal(run.sample(4))
