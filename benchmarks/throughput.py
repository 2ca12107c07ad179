"""How fast poise trains, beside loops written by hand. One command, one table, a few minutes:

    python benchmarks/throughput.py            # --verify for the check alone, --quick to see that everything here runs

DCGAN-64 (3 x 64 x 64, width 64, batch 64) and a small MLP on the ring (with R1 and averaged weights, batch
256, where what a trainer itself costs shows most) are trained by

    plain           the loop of most tutorials
    hand-written    the fastest loop we can write with the same mathematics, and nothing else
    poise           its own step, with all readings taken and rows worked out

in one process and in turn, so that a busy machine is busy for all of them; each ratio is taken within a
round, and the table shows the median over rounds (and the least and greatest). What is trained is written down here and
not in a shipped recipe, which may change: the hand-written loop is the same mathematics. Before anything is timed,
poise and the hand-written loop take three steps from the same weights on the same random numbers and must
arrive at the same place. The ring runs on one thread: its layers are too small to share. Peak memory and the
time to the first step are those of the default run, `poise train --steps 60`, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from _contestants import (
    MODES,
    RING_LATENT,
    RING_WIDTH,
    SIGMA,
    Contestant,
    HandWritten,
    Nets,
    Plain,
    Poise,
    dcgan,
    difference,
    mlp,
    picture_draws,
    random_pictures,
    ring_draws,
)
from poise.engine.compute import ComputeSettings, choose_compute, native_bf16
from poise.recipe.decode import decode
from poise.recipe.model import Recipe

CPU = torch.device("cpu")
FP32, BF16 = ComputeSettings(CPU, "fp32"), ComputeSettings(CPU, "bf16")
VERIFIED_STEPS, TOLERANCE = 3, 1e-5
DEFAULT_RUN = """
import json, resource, sys, time
from pathlib import Path
import poise.cli.progress_view
from poise.recipe.decode import decode
from poise.recipe.shipped import DEFAULT, load_table
from poise.training.train import train
from poise.training.listener import NullListener

class First(NullListener):
    def on_step(self, step):
        if step == 1:
            self.seconds = time.monotonic() - float(sys.argv[1])

first = First()
train(decode({**load_table(DEFAULT), **json.loads(sys.argv[3])}), sys.argv[2], listener=first)
status = Path("/proc/self/status")  # getrusage would count the process that started this one
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
if status.exists():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
print(first.seconds, peak)
"""


class Size(NamedTuple):
    """How large the race is: as in the published table, or as small as can be."""

    width: int = 64
    batch: int = 64
    pictures: int = 1024
    ring_steps: int = 50
    default: dict[str, Any] = {"steps": 60}  # noqa: RUF012 - never changed


FULL = Size()
QUICK = Size(width=4, batch=4, pictures=16, ring_steps=2, default={"steps": 1, "batch": 4, "measure": None})


class Line(NamedTuple):
    """One line of the table."""

    game: str
    loop: str
    rate: str = ""
    step: str = ""
    plain: str = ""
    hand: str = ""
    note: str = ""


HEAD = Line("game", "loop", "images/s", "ms/step", "speed / plain", "step time / hand-written", "note")


def pictures_recipe(size: Size) -> Recipe:
    """DCGAN-64 without tricks; its data is handed over directly."""
    player = {"kind": "dcgan", "width": size.width}
    adam = {"kind": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}
    return decode(
        {
            "steps": 1_000_000,
            "batch": size.batch,
            "data": {"kind": "digits", "size": 64},
            "latent": {"kind": "gaussian", "dim": 100},
            "network": {"g": player, "d": player},
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": adam, "d": adam},
            "tempo": {"kind": "ratio"},
        }
    )


def ring_recipe() -> Recipe:
    """Small players on eight Gaussians, with a penalty and averaged weights."""
    player = {"kind": "mlp", "width": RING_WIDTH, "depth": 2}
    adam = {"kind": "adam", "lr": 1e-3, "betas": [0.5, 0.999]}
    tricks = [{"kind": "r1", "gamma": 0.1}, {"kind": "averaged_weights", "half_life": 20000.0}]
    return decode(
        {
            "steps": 1_000_000,
            "batch": 256,
            "data": {"kind": "ring", "modes": MODES, "sigma": SIGMA},
            "latent": {"kind": "gaussian", "dim": RING_LATENT},
            "network": {"g": player, "d": player},
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": adam, "d": adam},
            "tempo": {"kind": "ratio"},
            "tricks": tricks,
        }
    )


def hand_pictures(recipe: Recipe, size: Size, *, bf16: bool = False) -> HandWritten:
    """The hand-written DCGAN-64."""
    draws = picture_draws(random_pictures(size.pictures), recipe.batch)
    return HandWritten(dcgan(size.width, fast=True), draws, recipe, bf16=bf16)


def hand_ring(recipe: Recipe) -> HandWritten:
    """The hand-written ring."""
    return HandWritten(mlp(), ring_draws(recipe.batch), recipe)


def verify(size: Size) -> None:
    """Poise and the hand-written loops do the same mathematics, or nothing is timed."""
    small, ring = pictures_recipe(size._replace(batch=min(size.batch, 16))), ring_recipe()
    games = {
        "DCGAN-64": (Poise(small, random_pictures(size.pictures), FP32), hand_pictures(small, size)),
        "ring": (Poise(ring, ring.data.load().train, FP32), hand_ring(ring)),
    }
    for name, (poise, hand) in games.items():
        apart = difference(poise, hand, VERIFIED_STEPS)
        print(f"{name}: after {VERIFIED_STEPS} steps poise and hand-written differ by {apart:.1g}, relative")
        if not apart <= TOLERANCE:
            sys.exit(f"they don't do the same mathematics (more than {TOLERANCE:.0e}): has a recipe changed?")


def pictures(native: bool, size: Size) -> dict[str, Contestant]:
    """Who trains DCGAN-64."""
    recipe, source = pictures_recipe(size), random_pictures(size.pictures)
    d, g = dcgan(size.width, fast=False)
    plain = Nets(nn.Sequential(d, nn.Sigmoid()), g)
    contestants: dict[str, Contestant] = {
        "plain": Plain(plain, nn.BCELoss(), picture_draws(source, recipe.batch), recipe),
        "hand-written": hand_pictures(recipe, size),
        "poise fp32": Poise(recipe, source, FP32),
        "poise auto": Poise(recipe, source, choose_compute("cpu", "auto", recipe)),
    }
    if native:
        return {**contestants, "hand-written bf16": hand_pictures(recipe, size, bf16=True)}
    return {**contestants, "poise bf16 (forced)": Poise(recipe, source, BF16)}


def ring() -> dict[str, Contestant]:
    """Who trains the ring."""
    recipe = ring_recipe()
    return {
        "plain": Plain(mlp(), nn.BCEWithLogitsLoss(), ring_draws(recipe.batch), recipe),
        "hand-written": hand_ring(recipe),
        "poise": Poise(recipe, recipe.data.load().train, FP32),
    }


def race(contestants: dict[str, Contestant], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step, a number for each round; a round takes them in turn, every other one backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for lap in range(-1, rounds):
        for name in list(contestants)[:: -1 if lap % 2 else 1]:
            began = time.perf_counter()
            contestants[name].run(max(1, steps // 2) if lap < 0 else steps)
            if lap >= 0:
                seconds[name].append((time.perf_counter() - began) / steps)
    return seconds


def lines(game: str, batch: int, seconds: dict[str, list[float]], notes: dict[str, str]) -> list[Line]:
    """What the table says about a game."""

    def over(a: str, b: str) -> list[float]:
        return [x / y for x, y in zip(seconds[a], seconds[b], strict=True)]

    told = []
    for name, times in seconds.items():
        hand = over(name, "hand-written")
        ratio = "1" if name == "hand-written" else f"{median(hand):.2f} ({min(hand):.2f} to {max(hand):.2f})"
        speed = "1" if name == "plain" else f"{median(over('plain', name)):.2f}"
        rate, step = f"{batch / median(times):,.0f}", f"{1000 * median(times):.2f}"
        told.append(Line(game, name, rate, step, speed, ratio, notes.get(name, "")))
    return told


def default_run(size: Size) -> list[Line]:
    """Peak memory and time to the first step of `poise train --steps 60`."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", DEFAULT_RUN, str(time.monotonic()), str(Path(folder) / "run")]
        words.append(json.dumps(size.default))
        told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    seconds, peak = map(float, told)
    return [
        Line("default run", "time to first step", note=f"{seconds:.1f} s from the start of the process"),
        Line("default run", "peak memory", note=f"{peak:,.0f} MiB"),
    ]


def show(rows: Sequence[Line]) -> None:
    """The table, as plain text."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row.note]).rstrip())


def facts(native: bool, threads: int) -> str:
    """What the numbers depend on."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = " (busy: wait, or trust ratios at --threads 1 only)" if load > cores / 2 else ""
    return (
        f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {'' if native else 'no '}native bf16, "
        f"cores: {cores}, threads: {threads}, load before the start: {load:.1f}{busy}\n"
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="How fast poise trains, beside loops written by hand.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; every contestant has one turn in each")
    parser.add_argument("--steps", type=int, default=4, help=f"steps in a turn (ring: {FULL.ring_steps} times as many)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for DCGAN-64")
    parser.add_argument("--quick", action="store_true", help="two rounds of one step, thin networks: not a measurement")
    parser.add_argument("--verify", action="store_true", help="only check that the mathematics is the same")
    asked = parser.parse_args()
    rounds, steps = (2, 1) if asked.quick else (asked.rounds, asked.steps)
    size = QUICK if asked.quick else FULL
    if min(rounds, steps, asked.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1")
    native = native_bf16(CPU)
    about = facts(native, asked.threads)
    torch.set_num_threads(asked.threads)
    verify(size)
    if asked.verify:
        return
    notes = {"plain": "makes its fakes once, not twice, in a step"}
    notes["poise auto"] = "bf16" if native else "fp32 again: no native bf16; off 'poise fp32' by noise alone"
    notes["poise bf16 (forced)"] = "emulated: this is why auto stays with fp32"
    told = [HEAD, *lines("DCGAN-64", size.batch, race(pictures(native, size), rounds, steps), notes)]
    torch.set_num_threads(1)
    laps = race(ring(), rounds, size.ring_steps * steps)
    told += lines("ring, 1 thread", ring_recipe().batch, laps, notes)
    print(f"\n{about}\nrounds: {rounds}, steps in a turn: {steps} (ring: {size.ring_steps * steps})\n")
    show(told + default_run(size))


if __name__ == "__main__":
    main()
