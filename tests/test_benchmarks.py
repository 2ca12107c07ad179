"""No benchmark and no target of the Makefile rots: each line of a target is run here, short, as it stands there.

A benchmark has a form of a few seconds, `--quick`, which goes through the same code with small networks and few steps.
A line that is no benchmark is a known tool; any other fails, and so does a benchmark that no target runs.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
TARGET = re.compile(r"^([a-z$(][^:=\s]*):(?!=)")
SETUP = ("$(PYTHON)", "@$(PYTHON)", "@touch", "rm")
TOOLS = {"ruff": "ruff", "pyrefly": "pyrefly", "pytest": "pytest", "pip": "pip", "mkdocs": "mkdocs"}

SHORT = ["--steps", "1", "--set", "batch=4", "--set", "measure=none", "--set", "log.sheet=4"]
OTHERS = {
    "measures": ["measures.py speed"],
    "reconstruction": ["reconstruction.py speed"],
}
"""Ways of calling a benchmark that no target has."""

LONGER = ["modes.py stacked", "modes.py small"]
"""They train a classifier of digits before they count modes by it."""


def targets() -> dict[str, list[str]]:
    """The lines of each target, `$(BIN)/` taken off."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (ROOT / "Makefile").read_text("utf-8").splitlines():
        if match := TARGET.match(line):
            lines = found.setdefault(match[1], [])
        elif line.startswith("\t"):
            lines.append(line.strip().removeprefix("@$(BIN)/").removeprefix("$(BIN)/"))
    return found


def commands(target: str) -> list[list[str]]:
    """The benchmarks that a target runs."""
    return [words[1:] for words in map(shlex.split, targets()[target]) if is_benchmark(words)]


def is_benchmark(words: list[str]) -> bool:
    return words[0] == "python" and words[1].startswith("benchmarks/")


WITH_BENCHMARKS = [name for name in targets() if commands(name)]


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a benchmark's script with these words and --quick, in an empty folder of the caller's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()

    def run(script: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, *words, "--quick"])
        runpy.run_path(str(ROOT / script), run_name="__main__")

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("target", WITH_BENCHMARKS)
def test_every_line_of_a_target_runs(target: str, quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for script, *words in commands(target):
        quick(script, *words)
        said = capsys.readouterr()
        assert (said.out + said.err).strip(), f"{script} {' '.join(words)} prints nothing"


@pytest.mark.parametrize("line", [line for lines in OTHERS.values() for line in lines])
def test_ways_that_no_target_has_run(line: str, quick: Any) -> None:
    script, *words = shlex.split(line)
    quick(f"benchmarks/{script}", *words)


@pytest.mark.slow
@pytest.mark.parametrize("line", LONGER)
def test_longer_ways_run(line: str, quick: Any) -> None:
    script, *words = shlex.split(line)
    quick(f"benchmarks/{script}", *words)


def test_every_benchmark_is_run_by_a_target() -> None:
    run = {Path(words[0]).name for target in WITH_BENCHMARKS for words in commands(target)}
    assert run == {path.name for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_")}


@pytest.mark.parametrize("target", sorted(targets()))
def test_every_other_line_is_a_tool_that_is_there(target: str, poise: Any, tmp_path: Path) -> None:
    for line in targets()[target]:
        words = shlex.split(line)
        if is_benchmark(words) or words[0] in SETUP:
            continue
        if words[0] == "poise":
            said = poise(*words[1:], "--out", tmp_path / "run", *SHORT)
            assert said.code == 0, said.err
            continue
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), line
            continue
        tool = words[2] if words[:2] == ["python", "-m"] else words[0]
        assert find_spec(TOOLS[tool]) is not None, line


def test_make_slow_has_something_to_run() -> None:
    marked = [
        path.name for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.slow" in path.read_text("utf-8")
    ]
    assert set(marked) - {Path(__file__).name}
    assert any("-m slow" in line for line in targets()["slow"])
