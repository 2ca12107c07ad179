"""Two golden runs: the rows are what they were, to the bit on the machine kind that recorded them, nearly elsewhere.

Other kernels round otherwise, and training multiplies the difference step by step. How fast is recorded with the rows:
the same run is made again, several times, from initial weights that are off by about a rounding error of float32, and
`spread` is how far each quantity then moves, row by row. Elsewhere only the first `FIRST` rows are compared, with

    TIMES x spread + FLOOR x (1 + |value|), and a few samples or pixels for what counts them and so moves by jumps,

since a kernel rounds in every operation and the disturbance is made once. The multiple is that large because it costs
nothing: a rate that is 1 % off is farther away by far, and so is found.

A change that is meant to change them is recorded by `python tests/training/test_golden.py`, and its commit says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch

from poise.engine.game import Game
from poise.errors import Stopped
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.runs.run import Run
from poise.training import state
from poise.training.listener import NullListener
from poise.training.train import train

GOLDEN = Path(__file__).parents[1] / "golden"
CHANGES = {
    "ring": ["optimizer.g.lr=2e-4", "optimizer.d.lr=2e-4", "network.d.fourier_features.scale=1.0"],
    "dcgan": [
        *("data.size=16", "network.g.width=8", "network.d.width=8"),
        *("batch=16", "optimizer.g.lr=4e-4", "optimizer.d.lr=4e-4"),
    ],
}
STEPS, FIRST = 20, 6
DISTURBED, TRIES = 5e-7, 6
TIMES, FLOOR = 10.0, 2e-6
JUMPS = {"d/accuracy": 1.0, "d/real_accuracy": 2.0, "d/fake_accuracy": 2.0, "g/shades": 0.1}
"""What counts, and by how much it may jump, times the batch: two samples of a pile (for the accuracy of both, of 2 B),
and a few of the pixels whose grey levels `shades` counts."""

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
Rows = list[dict[str, float]]


class StopAfterFirst(NullListener):
    """Stops a run after its first rows."""

    def on_step(self, step: int) -> None:
        if step == FIRST - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def rows(name: str, *changes: str, disturb: int | None = None, first: bool = False) -> Rows:
    """The row of each step, on one thread, or of the `first` ones.

    With `disturb`, from weights with random rounding errors of that seed.
    """
    recipe = load_table(name)
    log = [f"steps={STEPS}", "log.rows=1", f"log.samples={STEPS}", f"log.saves={STEPS}", "log.sheet=4", "measure=none"]
    for change in [*CHANGES[name], *log, *changes]:
        set_value(recipe, change)
    build = state.build_game if disturb is None else disturbing(state.build_game, disturb)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as folder, patch.object(state, "build_game", build):
            out, listener = Path(folder) / "run", StopAfterFirst() if first else NullListener()
            with pytest.raises(Stopped) if first else nullcontext():
                train(decode(recipe), out, device="cpu", precision="fp32", listener=listener)
            result = Run(out).rows
    finally:
        torch.set_num_threads(threads)
    return [{k: v["mean"] for k, v in row["stats"].items() if not k.startswith("time/")} for row in result]


def disturbing(build: Callable[..., Game], seed: int) -> Callable[..., Game]:
    """`build_game`, with each initial weight changed by about a rounding error."""

    def built(*given: Any) -> Game:
        game, noise = build(*given), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for player in game.players.values():
                for weight in player.weights:
                    weight.mul_(1 + DISTURBED * torch.randn(weight.shape, generator=noise))
        return game

    return built


def spread(name: str) -> Rows:
    """The largest change of each quantity in the first rows over several disturbances."""
    still = rows(name, first=True)
    moved = [rows(name, disturb=seed, first=True) for seed in range(TRIES)]
    return [{key: max(abs(one[at][key] - row[key]) for one in moved) for key in row} for at, row in enumerate(still)]


def kind_of_machine() -> dict[str, str]:
    """What exact reproducibility depends on: torch, threads and the instruction sets of the kernels."""
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    sets = " ".join(sorted(name for name, has in abilities.items() if has is True))
    return {
        "torch": torch.__version__.split("+")[0],
        "threads": "1",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": hashlib.sha256(sets.encode()).hexdigest()[:16],
        "limits": " ".join(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ),
    }


@cache
def recorded(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@cache
def seen(name: str) -> Rows:
    return rows(name)


class Worst(NamedTuple):
    """The quantity with the largest deviation relative to its tolerance."""

    ratio: float
    where: str


def worst(name: str, now: Rows) -> Worst:
    """The largest ratio of a deviation to its tolerance in the first rows."""
    golden, found = recorded(name), Worst(0.0, "nowhere")
    batch = decode(changed(name)).batch
    for at in range(FIRST):
        then, moves = golden["rows"][at], golden["spread"][at]
        assert now[at].keys() == then.keys()
        for key, value in then.items():
            allowed = TIMES * moves[key] + FLOOR * (1 + abs(value)) + JUMPS.get(key, 0.0) / batch
            ratio = abs(now[at][key] - value) / allowed
            if not ratio <= found.ratio:  # a nan is the worst
                found = Worst(ratio, f"{key} of row {at + 1}: {now[at][key]:.8g}, recorded {value:.8g}")
    return found


def changed(name: str) -> dict[str, Any]:
    """The table of the recipe at the size of this test."""
    recipe = load_table(name)
    for change in CHANGES[name]:
        set_value(recipe, change)
    return recipe


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_golden(name: str, record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    now = seen(name)
    assert len(now) == STEPS
    exact, found = recorded(name)["machine"] == kind_of_machine(), worst(name, now)
    checked = "20 rows, to the bit"
    if not exact:
        nearest = f"nearest to its tolerance: {found.ratio:.2f} of it, {found.where}"
        checked = f"the first {FIRST} rows, nearly, on another torch or CPU than recorded; {nearest}"
    record_property("checked", checked)
    with capsys.disabled():
        print(f"golden {name}: checked {checked}")
    assert found.ratio <= 1, found.where
    if exact:
        assert now == recorded(name)["rows"]


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_the_skip_on_other_machines_names_the_checks(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(recorded(name)["machine"], "instructions", "another")
    result: list[tuple[str, str]] = []
    test_golden(name, lambda *outcome: result.append(outcome), capsys)
    assert f"the first {FIRST} rows, nearly" in result[0][1]


@pytest.mark.parametrize("side", ["g", "d"])
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_learning_rate_that_is_one_percent_off_is_found_on_other_machines(name: str, side: str) -> None:
    rate = changed(name)["optimizer"][side]["lr"]
    start = rate["start"] if isinstance(rate, dict) else rate
    path = f"optimizer.{side}.lr" + (".start" if isinstance(rate, dict) else "")
    assert worst(name, rows(name, f"{path}={1.01 * start!r}", first=True)).ratio > 3


def test_the_recorded_spread_is_plausible() -> None:
    """No recorded spread is missing, absurdly wide or 0."""
    for name in CHANGES:
        golden = recorded(name)
        assert len(golden["spread"]) == FIRST
        for row, moves in zip(golden["rows"], golden["spread"], strict=False):
            assert moves.keys() == row.keys()
            for key, move in moves.items():
                assert move <= 0.02 * max(1.0, abs(row[key])), f"{key} of {name} moves too far to be compared"
        assert any(move > 0 for moves in golden["spread"] for move in moves.values())


KERNELS = [
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
]
RUN = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import test_golden
print(json.dumps({name: test_golden.rows(name, first=True) for name in test_golden.CHANGES}))
"""


@pytest.mark.parametrize(
    "limits", [KERNELS[0], *(pytest.param(limits, marks=pytest.mark.slow) for limits in KERNELS[1:])]
)
def test_other_kernels_are_within_the_tolerance(limits: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """As on a CPU without AVX-512 or AVX: the kernels that PyTorch and oneDNN may choose are restricted."""
    result = [sys.executable, "-c", RUN, str(Path(__file__).parent)]
    done = subprocess.run(result, env={**os.environ, **limits}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for name, now in json.loads(done.stdout.splitlines()[-1]).items():
        found = worst(name, now)
        with capsys.disabled():
            print(f"golden {name} with {limits}: {found.ratio:.3f} of the tolerance, {found.where}")
        assert found.ratio <= 1, found.where


if __name__ == "__main__":
    for name in CHANGES:
        written = {"machine": kind_of_machine(), "rows": rows(name), "spread": spread(name)}
        (GOLDEN / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
