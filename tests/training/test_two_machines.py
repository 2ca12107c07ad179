"""A run on two machines, which torchrun connects: network namespaces of this machine, as root."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from training.test_ranks import POISE, WITHOUT_NOISE, run, state_of, stats, wait_for_rows, weights, write_recipe
from training.two_machines import TwoMachines, why_not

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "several-ranks.md"
SECONDS = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are two machines"),
]


def launch_words() -> list[str]:
    """The command that starts the ranks of a machine, as the docs have it, with one rank on each."""
    line = re.search(r"^(torchrun --nnodes 2 .*?) -m poise train", PAGE.read_text("utf-8"), re.M)
    assert line is not None
    words = shlex.split(line[1])
    words[words.index("--nproc-per-node") + 1] = "1"
    return [sys.executable, "-m", "torch.distributed.run", *words[1:]]


LAUNCH = launch_words()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[TwoMachines]:
    with TwoMachines(tmp_path) as connected:
        yield connected


def on_both(machines: TwoMachines, *commands: Sequence[str], **environment: str) -> list[subprocess.Popen[bytes]]:
    """Start the ranks of both machines, with the same command or with one for each."""
    each = commands if len(commands) == 2 else [*commands, *commands]
    return [machines.start(machine, [*LAUNCH, *words], **environment) for machine, words in enumerate(each)]


def outcomes(machines: TwoMachines, processes: Sequence[subprocess.Popen[bytes]]) -> tuple[list[int], list[str]]:
    """The exit codes of torchrun, once it has ended on both machines, and what was printed."""
    codes = [process.wait(SECONDS) for process in processes]
    return codes, [machines.text(process) for process in processes]


def wait_for(machines: TwoMachines, process: subprocess.Popen[bytes], words: str, seconds: float) -> None:
    """Wait until a process has printed something.

    Raises:
        AssertionError: it has not in this time.
    """
    end = time.monotonic() + seconds
    while words not in machines.text(process):
        assert time.monotonic() < end, machines.text(process)
        time.sleep(0.1)


def test_rows_are_those_of_one_machine(machines: TwoMachines, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml")
    train = [*POISE, "train", str(recipe), "--out"]
    codes, texts = outcomes(machines, on_both(machines, [*train, str(tmp_path / "two")]))
    assert codes == [0, 0], texts
    assert run([*train, str(tmp_path / "one")])[0] == [0, 0]
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    assert stats(tmp_path / "two") == stats(tmp_path / "one")
    recipe = write_recipe(tmp_path / "without-noise.toml", "ring", *WITHOUT_NOISE)
    script = str(Path(__file__).with_name("double_precision_run.py"))
    assert outcomes(machines, on_both(machines, [script, str(recipe), str(tmp_path / "double"), "1"]))[0] == [0, 0]
    assert run([script, str(recipe), str(tmp_path / "alone"), "1"], 1)[0] == [0]
    for double, alone in zip(stats(tmp_path / "double"), stats(tmp_path / "alone"), strict=True):
        for name, stat in alone.items():
            assert double[name] == pytest.approx(stat, rel=1e-5, abs=1e-9), name


def test_the_death_of_a_machine_ends_the_other_and_the_run_is_resumed(machines: TwoMachines, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=1500"), tmp_path / "run"
    assert run([*POISE, "train", str(recipe), "--out", str(tmp_path / "whole")])[0] == [0, 0]
    command = [*POISE, "train", str(recipe), "--out", str(out)]
    for dies in (1, 0):
        processes = on_both(machines, command)
        before = (out / "rows.jsonl").read_bytes().count(b"\n") if out.exists() else 0
        wait_for_rows(out, before + 3, [])
        processes[dies].kill()
        began = time.monotonic()
        processes[1 - dies].wait(SECONDS)
        assert time.monotonic() - began < 15
        text = machines.text(processes[1 - dies])
        assert "the connection to another rank is lost" in text
        assert state_of(out) == ("stopped" if dies == 1 else "running")
        if dies == 1:  # otherwise torchrun may notice first that its own meeting point is gone
            assert "(exitcode: 75)" in text
        command = [*POISE, "train", "--resume", "--out", str(out)]
    codes, texts = outcomes(machines, on_both(machines, command))
    assert codes == [0, 0], texts
    assert weights(out) == weights(tmp_path / "whole")
    assert stats(out) == stats(tmp_path / "whole")


def test_a_cable_that_is_pulled_ends_the_ranks_after_the_timeout(machines: TwoMachines, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=100000"), tmp_path / "run"
    processes = on_both(machines, [*POISE, "train", str(recipe), "--out", str(out)], POISE_RANK_TIMEOUT="5")
    wait_for_rows(out, 2, [])
    machines.cut()
    for process in processes:
        wait_for(machines, process, "the connection to another rank is lost", 12)
    processes[0].wait(SECONDS)
    assert "(exitcode: 75)" in machines.text(processes[0])


def test_a_run_folder_that_is_not_shared(machines: TwoMachines, tmp_path: Path) -> None:
    recipe, runs = write_recipe(tmp_path / "recipe.toml"), tmp_path / "runs"
    runs.mkdir()

    def train(*more: str) -> list[str]:
        words = [*LAUNCH, *POISE, "train", *more, "--out", str(runs / "ring")]
        processes = [machines.start(0, words), machines.start(1, words, own=[runs])]
        codes, texts = outcomes(machines, processes)
        assert codes == [1, 1], texts
        return texts

    texts = train(str(recipe))
    assert "the ranks don't see the same run folder, found another one on node1" in texts[1]
    assert "(exitcode: 2)" in texts[0]
    assert [path.name for path in (runs / "ring").iterdir()] == ["run.lock"]
    assert run([*POISE, "train", str(recipe), "--out", str(runs / "ring")], 1)[0] == [0]
    texts = train("--resume", "--steps", "80")
    assert "no run to resume; start it without --resume, or choose an --out on a file system that" in texts[1]
    assert "(exitcode: 4)" in texts[0]


def test_another_recipe(machines: TwoMachines, tmp_path: Path) -> None:
    recipes = [write_recipe(tmp_path / f"{seed}.toml", "ring", f"seed={seed}") for seed in (0, 1)]
    commands = [[*POISE, "train", str(recipe), "--out", str(tmp_path / "run")] for recipe in recipes]
    codes, texts = outcomes(machines, on_both(machines, *commands))
    assert codes == [1, 1]
    assert "poise: rank 1 on node1: has another recipe than rank 0, found seed 1 instead of 0; give" in texts[0]
    assert "poise: " not in texts[1]
    assert all("(exitcode: 2)" in text for text in texts)
