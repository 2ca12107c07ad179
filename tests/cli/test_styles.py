"""Escape sequences: none where the output is not a terminal, and no colours or bold text with NO_COLOR."""

from __future__ import annotations

import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from contracts import synthetic_study
from poise.cli import COMMANDS, main
from poise.utils.console import TerminalConsole

ESCAPE = "\x1b"
STYLE = re.compile(r"\x1b\[[0-9;:]*m")
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CLICOLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM")


class Terminal(StringIO):
    """What stdout and stderr are in a terminal."""

    def isatty(self) -> bool:
        return True


def run(stream: StringIO, *words: object) -> str:
    """What a command prints whose stdout and stderr are both `stream`."""
    with redirect_stdout(stream), redirect_stderr(stream), pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    output = stream.getvalue()
    assert output
    assert bool(left.value.code) == ("poise: " in output), output
    return output


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, ring_run: Path, digits_run: Path) -> dict[str, object]:
    """The paths that commands need, by the names that `WORDS` has for them."""
    folder = tmp_path_factory.mktemp("styles")
    study = synthetic_study.write(folder / "study")
    return {"RING": ring_run, "DIGITS": digits_run, "STUDY": study, "RUNS": ring_run.parent}


THIN = "--set network.g.width=4 --set network.d.width=4 --set batch=8 --set log.sheet=4 --set measure=none"
WORDS = {
    "recipes": ["recipes"],
    "tips": ["tips", "tips T16", "tips --recipe dcgan"],
    "check": [f"check ring --no-data {THIN}", "check dcgan --no-data --set objective.kind='\"hinge\"'"],
    "train": [f"train ring --steps 3 --out OUT {THIN}"],
    "runs": ["runs RUNS"],
    "sample": ["sample RING --n 4 --out OUT.png", "sample DIGITS --dir OUT --n 3"],
    "translate": ["translate DIGITS --data nowhere --out OUT"],
    "interpolate": [
        "interpolate RING --steps 3 --out OUT.png",
        "interpolate DIGITS --through 2 --seconds 1 --out OUT.gif",
    ],
    "project": ["project DIGITS nowhere.png --out OUT.png"],
    "measure": ["measure RING --n 20 --measures modes"],
    "compare": ["compare RING RING"],
    "export": ["export RING --format safetensors --out OUT.safetensors"],
    "push": ["push RING a/b/c --license mit"],
    "watch": ["watch RING"],
    "web": ["web RUNS --port 99999"],
    "align": ["align nowhere.vec nowhere.vec --out OUT"],
    "ladder": ["ladder --steps 1 --batch 1 --out OUT"],
    "study": ["study nowhere.toml"],
    "report": ["report STUDY"],
}
"""Commands with typical output; of those that take long, only an error."""

ALL = [words for lines in WORDS.values() for words in lines]
ALL += [f"{command} --help" for command in COMMANDS]
ALL += [f"{command} --no-such-option" for command in COMMANDS]
ALL += ["--help", "--version", "nosuchcommand", "train ring --set steps=none", ""]


def filled_in(words: str, inputs: dict[str, object], out: Path) -> list[object]:
    names = inputs | {"OUT": out / "new", **{f"OUT.{end}": out / f"new.{end}" for end in ("png", "gif", "safetensors")}}
    return [names.get(word, word.replace("'", "")) for word in words.split()]


def test_every_command_is_tested() -> None:
    assert set(WORDS) == set(COMMANDS)


@pytest.mark.parametrize("words", ALL)
def test_there_are_no_escape_sequences_without_a_terminal(
    words: str, inputs: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    output = run(StringIO(), *filled_in(words, inputs, tmp_path))
    assert ESCAPE not in output
    assert "\r" not in output


@pytest.mark.parametrize("words", ALL)
def test_there_are_no_colours_and_no_bold_text_with_no_color(
    words: str, inputs: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = run(Terminal(), *filled_in(words, inputs, tmp_path))
    assert not STYLE.findall(output)


@pytest.mark.parametrize(
    "words", ["recipes", "tips T16", "--help", "train --help", WORDS["train"][0], "compare RING RING"]
)
def test_a_terminal_has_styles(words: str, inputs: dict[str, object], tmp_path: Path) -> None:
    """So that the tests above can fail."""
    output = run(Terminal(), *filled_in(words, inputs, tmp_path))
    assert STYLE.search(output)


@pytest.mark.parametrize("value", ["", "1"])
def test_an_empty_no_color_is_as_good_as_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    stream = Terminal()
    TerminalConsole(file=stream).print("text", style="bold")
    assert bool(STYLE.search(stream.getvalue())) == (value == "")


def test_all_consoles_are_of_the_class_that_follows_the_rule() -> None:
    source = Path(main.__globals__["__file__"]).parents[1]
    makers = [path for path in source.rglob("*.py") if re.search(r"(?<!Terminal)Console\(", path.read_text("utf-8"))]
    assert makers == []
