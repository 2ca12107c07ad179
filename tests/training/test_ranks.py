"""Runs on two ranks, as processes connected by gloo: their rows, signals, deaths and errors."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import Any

import pytest

from contracts.ranks import free_port, rank_environment
from poise.cli import main
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value, to_toml
from poise.runs import checkpoint, checkpoint_folder

CHANGES = ("steps=60", "log.rows=5", "log.saves=10", "log.samples=60", "log.sheet=16", "log.to=[]", "batch=32")
WITHOUT_NOISE = (
    "optimizer.g.lr=1e-4",
    "optimizer.d.lr=1e-4",
    'tricks=[{kind="r1", gamma=0.1}, {kind="r2", gamma=0.1}]',
)
"""Changes of `ring` that leave out noise, of which each part of a batch draws its own."""
POISE = ("-m", "poise")


def write_recipe(path: Path, name: str = "ring", *changes: str) -> Path:
    """A file with a shipped recipe and changes."""
    table = load_table(name)
    table.pop("measure", None)
    for change in (*CHANGES, *changes):
        set_value(table, change)
    path.write_text(to_toml(table), "utf-8")
    return path


class Forked:
    """A rank as a fork of this process, in which torch is imported already; with the methods of `Popen`."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.stderr = TemporaryFile()  # noqa: SIM115 - `communicate` closes it
        self.process = get_context("fork").Process(target=self._play, args=(arguments, environment), daemon=True)
        self.process.start()

    def _play(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """In the fork: what `python ARGUMENTS` does."""
        os.environ.update(environment)
        for number, file in ((1, os.open(os.devnull, os.O_WRONLY)), (2, self.stderr.fileno())):
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if tuple(arguments[:2]) == POISE:
            main(list(arguments[2:]))
        else:
            sys.argv = list(arguments)
            runpy.run_path(arguments[0], run_name="__main__")

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it is still running"
        with self.stderr:
            self.stderr.seek(0)
            return "", self.stderr.read().decode()


Process = Forked | subprocess.Popen[str]


def start(arguments: Sequence[str], size: int = 2, *, fresh: bool = False, **more: str) -> Sequence[Process]:
    """Start a process per rank: a fork of this one or, if `fresh`, a new interpreter."""
    return start_each([arguments] * size, fresh=fresh, **more)


def start_each(commands: Sequence[Sequence[str]], *, fresh: bool = False, **more: str) -> Sequence[Process]:
    """Start a rank with each of these arguments; see `start`."""
    port, size = free_port(), len(commands)
    started = [(one, rank_environment(rank, size, port, **more)) for rank, one in enumerate(commands)]
    if not fresh:
        return [Forked(arguments, environment) for arguments, environment in started]
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([sys.executable, *arguments], env=one, **streams) for arguments, one in started]


def ended(processes: Sequence[Process], seconds: float = 120) -> tuple[list[int | None], list[str]]:
    """The exit codes and what was written to stderr, once all ranks have ended."""
    texts = [process.communicate(timeout=seconds)[1] for process in processes]
    return [process.returncode for process in processes], texts


def run(
    arguments: Sequence[str], size: int = 2, *, fresh: bool = False, **more: str
) -> tuple[list[int | None], list[str]]:
    """Run a process per rank to its end."""
    return ended(start(arguments, size, fresh=fresh, **more))


def wait_for_rows(out: Path, number: int, processes: Sequence[Process]) -> None:
    """Wait until a run has logged some rows."""
    rows = out / "rows.jsonl"
    while not rows.is_file() or rows.read_bytes().count(b"\n") < number:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.005)


def weights(out: Path) -> bytes:
    """The tensors of the newest checkpoint."""
    saved = checkpoint_folder.newest_valid(out / "saves")[0]
    assert saved is not None
    return (saved.path / checkpoint.TENSORS).read_bytes()


def stats(out: Path) -> list[dict[str, dict[str, float]]]:
    """The statistics of each row, without times."""
    rows = [json.loads(line)["stats"] for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    return [{name: stat for name, stat in row.items() if not name.startswith("time/")} for row in rows]


def state_of(out: Path) -> Any:
    """The state of a run, from `run.json`."""
    return json.loads((out / "run.json").read_bytes())["state"]


@pytest.mark.slow
def test_rows_do_not_depend_on_how_batches_are_divided(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", "ring", *WITHOUT_NOISE)
    script = str(Path(__file__).with_name("double_precision_run.py"))
    runs: list[list[dict[str, dict[str, float]]]] = []
    for size, accumulate in ((1, 1), (2, 1), (1, 4), (2, 2)):
        out = tmp_path / f"{size}-{accumulate}"
        codes, texts = run([script, str(recipe), str(out), str(accumulate)], size)
        assert codes == [0] * size, texts
        runs.append(stats(out))
    whole, *divided = runs
    assert len(whole) == 12
    for rows in divided:
        for first, second in zip(whole, rows, strict=True):
            assert first.keys() == second.keys()
            for name, stat in first.items():
                assert second[name] == pytest.approx(stat, rel=1e-5, abs=1e-9), name


def test_a_signal_to_one_rank_stops_all_of_them_and_they_resume_exactly(tmp_path: Path) -> None:
    recipe, out, whole = write_recipe(tmp_path / "recipe.toml"), tmp_path / "run", tmp_path / "whole"
    assert run([*POISE, "train", str(recipe), "--out", str(whole)])[0] == [0, 0]
    processes = start([*POISE, "train", str(recipe), "--out", str(out)])
    wait_for_rows(out, 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, texts = ended(processes)
    assert codes == [75, 75]
    assert "stopped by a signal to another rank after step" in texts[0]
    assert texts[1] == ""
    assert state_of(out) == "stopped"
    assert run([*POISE, "train", "--resume", "--out", str(out)])[0] == [0, 0]
    assert weights(out) == weights(whole)
    assert stats(out) == stats(whole)


def killed_once(recipe: Path, out: Path, rank: int, seconds: float, *, fresh: bool = False) -> list[int | None]:
    """Kill a rank some time after the second row, or after the run was resumed; the exit codes of all ranks."""
    resumed = (out / "recipe.toml").is_file()
    command = ["--resume"] if resumed else [str(recipe)]
    processes = start([*POISE, "train", *command, "--out", str(out)], fresh=fresh)
    if resumed:
        before = (out / "rows.jsonl").read_bytes()
        while (out / "rows.jsonl").read_bytes() == before and processes[rank].poll() is None:
            time.sleep(0.005)
    else:
        wait_for_rows(out, 2, processes)
    time.sleep(seconds)
    processes[rank].kill()
    return ended(processes, 60)[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(rank: int, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=100000"), tmp_path / "run"
    codes = killed_once(recipe, out, rank, 0.0)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 75
    assert state_of(out) == ("running" if rank == 0 else "stopped")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills(tmp_path: Path) -> None:
    recipe, out, whole = write_recipe(tmp_path / "r.toml", "ring", "steps=3000"), tmp_path / "run", tmp_path / "whole"
    assert run([*POISE, "train", str(recipe), "--out", str(whole)])[0] == [0, 0]
    draws, kills = Random(0), 0
    while kills < 50:
        rank = draws.randrange(2)
        codes = killed_once(recipe, out, rank, draws.random() * draws.choice((0.02, 0.3)), fresh=True)
        if codes == [0, 0]:
            break  # it came to its end in spite of everything
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 75
        kills += 1
    assert run([*POISE, "train", "--resume", "--out", str(out)])[0] == [0, 0]
    assert weights(out) == weights(whole)
    assert stats(out) == stats(whole)
    assert kills >= 10


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=100000"), tmp_path / "run"
    processes = start([*POISE, "train", str(recipe), "--out", str(out)], fresh=True, POISE_RANK_TIMEOUT="5")
    wait_for_rows(out, 2, processes)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        _, text = processes[0].communicate(timeout=30)
        assert time.monotonic() - began < 15
        assert processes[0].returncode == 75
        assert "the connection to another rank is lost" in text
    finally:
        processes[1].kill()
        processes[1].communicate()


@pytest.mark.slow
def test_the_reason_of_an_error_is_given_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", "ring", "batch=33")
    codes, texts = run([*POISE, "train", str(recipe), "--out", str(tmp_path / "run")], fresh=True)
    assert codes == [2, 2]
    assert texts[0].splitlines()[-1] == "poise: batch: must be a multiple of 2 on 2 ranks, found 33; set it to 32"
    assert texts[1] == ""
    assert not (tmp_path / "run").exists()


def test_other_commands_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in rank_environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as left:
        main(["sample", "runs/ring"])
    assert left.value.code == 2
    assert "poise sample runs in one process, only poise train in several" in capsys.readouterr().err


def test_an_error_before_the_ranks_are_connected_ends_all_of_them_and_is_given_once(tmp_path: Path) -> None:
    codes, texts = run([*POISE, "train", "ring", "--time", "1m"])
    assert codes == [2, 2]
    assert "the time of a step on several ranks is not measured" in texts[0]
    assert texts[1] == ""
    recipe, out = write_recipe(tmp_path / "recipe.toml"), str(tmp_path / "run")
    names = (str(recipe), str(tmp_path / "missing.toml"))
    codes, texts = ended(start_each([[*POISE, "train", name, "--out", out] for name in names]))
    assert codes == [2, 2]
    assert "poise: " not in texts[0]
    assert "poise: rank 1: " in texts[1]
    assert "missing.toml: no such recipe file" in texts[1]
    assert not (tmp_path / "run").exists()


def test_an_error_of_rank_0_has_its_exit_code_on_all_ranks(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml"), tmp_path / "run"
    (tmp_path / "run").write_text("a file in the place of the run folder")
    codes, texts = run([*POISE, "train", str(recipe), "--out", str(out)])
    assert codes[0] == codes[1] != 0
    assert "rank 0" not in texts[0]


def test_all_ranks_return_to_the_same_checkpoint(tmp_path: Path) -> None:
    """A gradient of any length is a sign here, so the run was never sound and begins again, without its checkpoints."""
    changes = ('monitor.policy={gradient_long="roll_back"}', "monitor.threshold={gradient_long=0.0}")
    window = "monitor.window={gradient_long=10}"
    recipe = write_recipe(tmp_path / "recipe.toml", "ring", *changes, window, "monitor.roll_backs=1", "log.saves=5")
    codes, texts = run([*POISE, "train", str(recipe), "--out", str(tmp_path / "run")])
    assert codes == [5, 5]
    assert "back to step 0 (roll-back 1 of 1)" in texts[0]
    assert "read different checkpoints" not in "".join(texts)


def test_restarts_need_a_run_folder(tmp_path: Path) -> None:
    """A restarted run would begin anew in another default folder."""
    codes, texts = run([*POISE, "train", str(write_recipe(tmp_path / "r.toml"))], TORCHELASTIC_MAX_RESTARTS="3")
    assert codes == [2, 2]
    expected = "poise: --out: is needed to continue a run that torchrun restarts; give the run folder, for example"
    assert expected in texts[0]
    assert texts[1] == ""


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_was_killed(tmp_path: Path) -> None:
    recipe, out, whole = write_recipe(tmp_path / "r.toml", "ring", "steps=600"), tmp_path / "run", tmp_path / "whole"
    assert run([*POISE, "train", str(recipe), "--out", str(whole)])[0] == [0, 0]
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "2",
        "--monitor-interval",
        "0.1",
    ]
    command = [sys.executable, *launch, *POISE, "train", str(recipe), "--out", str(out)]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_rows(out, 10, [launcher])
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    subprocess.run(["kill", "-KILL", children[-1]], check=True)
    launcher.communicate(timeout=120)
    assert launcher.returncode == 0
    assert weights(out) == weights(whole)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_to_wait_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml")
    codes, texts = run([*POISE, "train", str(recipe), "--out", str(tmp_path / "run")], POISE_RANK_TIMEOUT=text)
    assert codes == [2, 2]
    assert all(f"POISE_RANK_TIMEOUT: is not a time to wait for a rank, found '{text}'" in one for one in texts)
    assert not any("Traceback" in one for one in texts)
