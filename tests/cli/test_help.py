"""The help with an example for every command, `-h`, and shell completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from poise.cli import COMMANDS, app, completion
from poise.cli.examples import EXAMPLES
from poise.recipe.shipped import recipe_names
from poise.tips import catalogue
from poise.watch.base import ALL_FAMILIES

EVERY = [(command, example) for command, examples in EXAMPLES.items() for example in examples]


def test_every_command_has_an_example() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(poise: Callable, command: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    result = poise(*([command] if command else []), flag)
    assert result.code == 0
    for example in EXAMPLES.get(command, ()):
        assert example in result.out, result.out


def option_help(command: str, option: str) -> str:
    """What the help of a command says of an option."""
    group = typer.main.get_command(app)
    [found] = [p for p in group.commands[command].params if option in p.opts]  # type: ignore[attr-defined]
    return found.help or ""


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_the_help_of_watch_names_every_family_of_losses(family: str) -> None:
    assert family in option_help("watch", "--loss-family")


@pytest.mark.parametrize(
    ("command", "meaning"),
    [
        ("sample", "Only this class"),
        ("interpolate", "The class of all images"),
        ("translate", "The class to generate"),
        ("project", "The class of the projection"),
    ],
)
def test_the_help_says_what_a_label_does_in_each_command(command: str, meaning: str) -> None:
    assert option_help(command, "--label").startswith(meaning)


@pytest.mark.parametrize(("command", "example"), EVERY, ids=[example for _, example in EVERY])
def test_examples_are_valid_arguments(command: str, example: str) -> None:
    first, name, *words = shlex.split(example)
    assert (first, name) == ("poise", command)
    group = typer.main.get_command(app)
    result = group.commands[name].make_context(name, words)  # type: ignore[attr-defined]
    recipe = result.params.get("recipe")
    assert recipe is None or recipe in recipe_names()
    if command == "tips" and result.params["tip"]:
        assert catalogue.find(result.params["tip"])


def completed(*words: str) -> tuple[list[str], str]:
    """What bash is offered, and whether torch was imported for it."""
    heavy = "print('torch' in sys.modules, file=sys.stderr)"
    code = f"import sys\nfrom poise.cli import main\ntry:\n    main()\nfinally:\n    {heavy}"
    line = shlex.join(["poise", *words[:-1]]) + f" {words[-1]}"
    result = {"_POISE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | result
    )
    return done.stdout.split(), done.stderr.strip()


def test_completion_of_recipes_and_tips_imports_no_torch() -> None:
    assert completed("train", "hinge") == (["hinge-sngan"], "False")
    assert completed("tips", "soft") == (["soft-labels"], "False")
    assert completed("tips", "T07")[0][:1] == ["T07a"]
    assert completed("tips", "--recipe", "r3") == (["r3gan"], "False")


def test_completion_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.toml", "mine.txt", "pictures.zip", ".hidden.toml"):
        Path(name).touch()
    Path("many").mkdir()
    (tmp_path / "many" / "more.npz").touch()
    assert [word for word, _ in completion.recipes("mi")] == ["minimax-dcgan", "mine.toml"]
    assert [word for word, _ in completion.data("")] == ["digits", "many/", "pictures.zip"]
    assert [word for word, _ in completion.data("many/")] == ["many/more.npz"]
    assert [word for word, _ in completion.data(f"{tmp_path}/pic")] == [f"{tmp_path}/pictures.zip"]
    assert list(completion.data("nowhere/")) == []
