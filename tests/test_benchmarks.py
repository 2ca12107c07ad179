"""Every line of the Makefile's targets runs; benchmarks run with `--quick`.

With `--quick`, a benchmark takes a few seconds: it runs the same code with small networks and few steps. Any other line
must call a known tool, and every benchmark must be run by a target.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise import cli
from poise.measure import classifier
from poise.study.engines import ENGINES
from study.tiny_studies import DirectExecutor

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
TARGET = re.compile(r"^([a-z$(][^:=\s]*):(?!=)")
SETUP = ("$(PYTHON)", "@$(PYTHON)", "@touch", "rm")
TOOLS = {"ruff": "ruff", "pyrefly": "pyrefly", "pytest": "pytest", "pip": "pip", "mkdocs": "mkdocs"}

SHORT = ["--steps", "1", "--set", "batch=4", "--set", "measure=none", "--set", "log.sheet=4"]
OTHERS = {
    "default": ["default_recipe.py measure"],
    "measures": ["measures.py speed"],
    "reconstruction": ["reconstruction.py speed"],
    "verdicts": ["verdicts.py control"],
}
"""Commands of benchmarks that no target runs."""

NEEDED = {"parity": ("POISE_STYLEGAN2", "POISE_BIGGAN")}
"""Targets that need a checkout of other authors' code, which one of these environment variables names."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Programs of which the target `server` needs one."""

SLOW_TARGETS = {"ranks", "server"}
"""Targets that start servers, browsers or several ranks, which other tests do in every test run."""

SLOW = ["modes.py stacked", "modes.py small"]
"""Commands that train a classifier of digits first."""


def targets() -> dict[str, list[str]]:
    """The lines of each target, without `$(BIN)/`."""
    result: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (ROOT / "Makefile").read_text("utf-8").splitlines():
        if match := TARGET.match(line):
            lines = result.setdefault(match[1], [])
        elif line.startswith("\t"):
            lines.append(line.strip().removeprefix("@$(BIN)/").removeprefix("$(BIN)/"))
    return result


def commands(target: str) -> list[list[str]]:
    """The benchmark commands of a target."""
    return [words[1:] for words in map(shlex.split, targets()[target]) if is_benchmark(words)]


def is_benchmark(words: list[str]) -> bool:
    return words[0] == "python" and words[1].startswith("benchmarks/")


WITH_BENCHMARKS = [name for name in targets() if commands(name)]


def run_command(words: Sequence[str], *, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run`, but `python -m poise ...` is run in this process, which has imported torch already."""
    if list(words[:3]) != [sys.executable, "-m", "poise"]:
        return run_process(words, check=check, **options)
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        cli.main(words[3:])
    done = subprocess.CompletedProcess(words, int(left.value.code or 0), out.getvalue(), err.getvalue())
    if check:
        done.check_returncode()
    return done


run_process = subprocess.run


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a benchmark with these arguments and `--quick`, in an empty folder, and what it starts in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(subprocess, "run", run_command)
    monkeypatch.setitem(ENGINES, "local", lambda workers: DirectExecutor())
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (640, 640))
    threads = torch.get_num_threads()

    def run(script: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--quick"])
        runpy.run_path(str(ROOT / script), run_name="__main__")

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "target", [pytest.param(one, marks=pytest.mark.slow if one in SLOW_TARGETS else []) for one in WITH_BENCHMARKS]
)
def test_every_line_of_a_target_runs(target: str, quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    needed = NEEDED.get(target, ())
    if needed and not any(map(os.environ.get, needed)):
        pytest.skip(f"needs {' or '.join(needed)}")
    if target == "server" and not any(map(shutil.which, BROWSERS)):
        pytest.skip("Chromium is not installed")
    for script, *words in commands(target):
        quick(script, *words)
        output = capsys.readouterr()
        assert (output.out + output.err).strip(), f"{script} {' '.join(words)} prints nothing"


@pytest.mark.parametrize("line", [line for lines in OTHERS.values() for line in lines])
def test_commands_that_no_target_runs(line: str, quick: Any) -> None:
    script, *words = shlex.split(line)
    quick(f"benchmarks/{script}", *words)


@pytest.mark.slow
@pytest.mark.parametrize("line", SLOW)
def test_slow_commands_run(line: str, quick: Any) -> None:
    script, *words = shlex.split(line)
    quick(f"benchmarks/{script}", *words)


def test_every_benchmark_is_run_by_a_target() -> None:
    run = {Path(words[0]).name for target in WITH_BENCHMARKS for words in commands(target)}
    assert run == {path.name for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_")}


@pytest.mark.parametrize("target", sorted(targets()))
def test_every_other_line_calls_an_installed_tool(target: str, poise: Any, tmp_path: Path) -> None:
    for line in targets()[target]:
        words = shlex.split(line)
        if is_benchmark(words) or words[0] in SETUP:
            continue
        if words[0] == "poise":
            result = poise(*words[1:], "--out", tmp_path / "run", *SHORT)
            assert result.code == 0, result.err
            continue
        if words[0] == "npm":
            assert words[1] == "--prefix"
            assert (ROOT / words[2] / "package.json").is_file(), line
            continue
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), line
            continue
        tool = words[2] if words[:2] == ["python", "-m"] else words[0]
        assert find_spec(TOOLS[tool]) is not None, line


def test_make_slow_runs_tests() -> None:
    marked = [
        path.name for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.slow" in path.read_text("utf-8")
    ]
    assert set(marked) - {Path(__file__).name}
    assert any("-m slow" in line for line in targets()["slow"])


def test_peers_train_on_colour_images(quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(60):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            image.save(tmp_path / "images" / name / f"{number}.png")
    words = ["--cifar", str(tmp_path / "images"), "--systems", "poise,torchgan,studiogan-sngan"]
    quick("benchmarks/time_to_quality.py", "cifar10", *words, "--sheets", str(tmp_path / "sheets"))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| poise", "| torchgan", "| studiogan-sngan"]
    assert all("not within" in row for row in rows[2:])
    with Image.open(tmp_path / "sheets" / "cifar10-torchgan-0.png") as sheet:
        assert sheet.mode == "RGB"


def test_the_time_to_a_target_and_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = import_module("time_to_quality")
    curve = [(10.0, 1, 30.0), (11.0, 2, 9.0), (12.0, 3, 11.0), (13.0, 4, 9.5), (14.0, 5, 8.0)]
    assert module.time_to_target(curve, 10.0) == 13.0
    assert module.time_to_target(curve[:4], 10.0) is None

    def line(system: str, seed: int, seconds: float | None) -> dict[str, Any]:
        fixed = {"settings": "", "limit": 60, "trained": 61.2, "images_per_second": 50.0, "parameters": [2000, 1000]}
        return {"data": "digits", "system": system, "seed": seed, "seconds": seconds, "curve": curve, **fixed}

    results = [line("poise", 0, 20.0), line("poise", 1, 30.0), line("poise", 2, None)]
    results += [line("torchgan", 0, 60.0), line("dcgan-tutorial", 0, None)]
    rows = [row.split(" | ") for row in module.table(results, "digits").splitlines()[2:]]
    assert [row[0] for row in rows] == ["| poise", "| dcgan-tutorial", "| torchgan"]
    assert [row[2:5] for row in rows] == [
        ["3", "30 [20, not met]", "0.50"],
        ["1", "not within 61 s (best FID 8.0)", ""],
        ["1", "60", "1.00"],
    ]
    known = [module.is_known(results, "digits", *of) for of in (("poise", 0, 99), ("poise", 2, 60), ("poise", 2, 61))]
    assert known == [True, True, False]


def test_emoji_are_distinct_and_over_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "assets", tmp_path / "emoji.npz"
    folder.mkdir()
    red, half = Image.new("RGBA", (32, 32), (255, 0, 0, 255)), Image.new("RGBA", (32, 32))
    half.paste((0, 0, 255, 255), (0, 0, 16, 32))
    for name, image in (("1f600", half), ("1f44b", red), ("1f44c", red), ("1f44b-1f3fd", half.rotate(90))):
        image.save(folder / f"{name}.webp", lossless=True, exact=True)
    monkeypatch.setattr(sys, "argv", ["emoji.py", str(folder), str(out), "--size", "8"])
    runpy.run_path(str(BENCHMARKS / "studies" / "emoji.py"), run_name="__main__")
    images = np.load(out)["images"]
    assert images.shape == (2, 8, 8, 3)  # without the variant of the skin tone and the repetition
    assert (images[0] == (255, 0, 0)).all()
    assert (images[1][:, 0] == (0, 0, 255)).all()
    assert (images[1][:, -1] == 255).all()
