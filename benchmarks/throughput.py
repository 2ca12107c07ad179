"""The training speed of poise and of hand-written loops. It prints one table and takes a few minutes:

    python benchmarks/throughput.py            # --verify checks equality only, --quick runs everything for a moment

DCGAN-64 (3 x 64 x 64, width 64, batch 64) and a small MLP on the ring (R1 and averaged weights, batch 256), where the
overhead of a trainer shows most, are trained by

    plain           the loop of most tutorials
    hand-written    the fastest loop we can write that computes the same, and nothing else
    poise           poise's own step, with all metrics

The loops run in one process, alternately, so that other load on the machine affects all of them. Ratios are taken
within a round; the table shows the median over rounds, the minimum and the maximum. The recipes are defined here, as
shipped recipes may change and the hand-written loop must compute the same. Before anything is timed, poise and the
hand-written loop take three steps with the same initial weights and random numbers, and must arrive at the same
weights. The ring runs on one thread, as its layers are too small for more. Peak memory and the time to the first step
are those of the default run, `poise train --steps 60`, in a separate process.
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

from _training_loops import (
    MODES,
    RING_LATENT,
    RING_WIDTH,
    SIGMA,
    HandWritten,
    Networks,
    Plain,
    Poise,
    TrainingLoop,
    dcgan,
    difference,
    image_samplers,
    mlp,
    random_images,
    ring_samplers,
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

class FirstStep(NullListener):
    def on_step(self, step):
        if step == 1:
            self.seconds = time.monotonic() - float(sys.argv[1])

first = FirstStep()
train(decode({**load_table(DEFAULT), **json.loads(sys.argv[3])}), sys.argv[2], listener=first)
status = Path("/proc/self/status")  # getrusage would include the parent process
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
if status.exists():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
print(first.seconds, peak)
"""


class Size(NamedTuple):
    """The sizes of the benchmark: those of the published table, or minimal ones."""

    width: int = 64
    batch: int = 64
    images: int = 1024
    ring_steps: int = 50
    default: dict[str, Any] = {"steps": 60}  # noqa: RUF012 - never mutated


FULL = Size()
QUICK = Size(width=4, batch=4, images=16, ring_steps=2, default={"steps": 1, "batch": 4, "measure": None})


class Line(NamedTuple):
    """One line of the table."""

    model: str
    loop: str
    rate: str = ""
    step: str = ""
    plain: str = ""
    hand: str = ""
    note: str = ""


HEADER = Line("model", "loop", "images/s", "ms/step", "speed / plain", "step time / hand-written (range)", "note")


def image_recipe(size: Size) -> Recipe:
    """DCGAN-64 without tricks; the data source of the recipe is not used."""
    network = {"kind": "dcgan", "width": size.width}
    adam = {"kind": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}
    return decode(
        {
            "steps": 1_000_000,
            "batch": size.batch,
            "data": {"kind": "digits", "size": 64},
            "latent": {"kind": "gaussian", "dim": 100},
            "network": {"g": network, "d": network},
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": adam, "d": adam},
            "tempo": {"kind": "ratio"},
        }
    )


def ring_recipe() -> Recipe:
    """Small networks on eight Gaussians, with R1 and averaged weights."""
    network = {"kind": "mlp", "width": RING_WIDTH, "depth": 2}
    adam = {"kind": "adam", "lr": 1e-3, "betas": [0.5, 0.999]}
    tricks = [{"kind": "r1", "gamma": 0.1}, {"kind": "averaged_weights", "half_life": 20000.0}]
    return decode(
        {
            "steps": 1_000_000,
            "batch": 256,
            "data": {"kind": "ring", "modes": MODES, "sigma": SIGMA},
            "latent": {"kind": "gaussian", "dim": RING_LATENT},
            "network": {"g": network, "d": network},
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": adam, "d": adam},
            "tempo": {"kind": "ratio"},
            "tricks": tricks,
        }
    )


def hand_written_images(recipe: Recipe, size: Size, *, bf16: bool = False) -> HandWritten:
    """The hand-written loop for DCGAN-64."""
    samplers = image_samplers(random_images(size.images), recipe.batch)
    return HandWritten(dcgan(size.width, fast=True), samplers, recipe, bf16=bf16)


def hand_written_ring(recipe: Recipe) -> HandWritten:
    """The hand-written loop for the ring."""
    return HandWritten(mlp(), ring_samplers(recipe.batch), recipe)


def verify(size: Size) -> None:
    """Exit with an error unless poise and the hand-written loops compute the same."""
    small, ring = image_recipe(size._replace(batch=min(size.batch, 16))), ring_recipe()
    loops = {
        "DCGAN-64": (Poise(small, random_images(size.images), FP32), hand_written_images(small, size)),
        "ring": (Poise(ring, ring.data.load().train, FP32), hand_written_ring(ring)),
    }
    for name, (poise, hand) in loops.items():
        relative = difference(poise, hand, VERIFIED_STEPS)
        print(f"{name}: relative difference of poise and hand-written after {VERIFIED_STEPS} steps: {relative:.1g}")
        if not relative <= TOLERANCE:
            sys.exit(f"the difference is larger than {TOLERANCE:.0e}: the loops no longer compute the same")


def image_loops(native: bool, size: Size) -> dict[str, TrainingLoop]:
    """The loops that train DCGAN-64."""
    recipe, source = image_recipe(size), random_images(size.images)
    d, g = dcgan(size.width, fast=False)
    plain = Networks(nn.Sequential(d, nn.Sigmoid()), g)
    loops: dict[str, TrainingLoop] = {
        "plain": Plain(plain, nn.BCELoss(), image_samplers(source, recipe.batch), recipe),
        "hand-written": hand_written_images(recipe, size),
        "poise fp32": Poise(recipe, source, FP32),
        "poise auto": Poise(recipe, source, choose_compute("cpu", "auto", recipe)),
    }
    if native:
        return {**loops, "hand-written bf16": hand_written_images(recipe, size, bf16=True)}
    return {**loops, "poise bf16 (forced)": Poise(recipe, source, BF16)}


def ring_loops() -> dict[str, TrainingLoop]:
    """The loops that train on the ring."""
    recipe = ring_recipe()
    return {
        "plain": Plain(mlp(), nn.BCEWithLogitsLoss(), ring_samplers(recipe.batch), recipe),
        "hand-written": hand_written_ring(recipe),
        "poise": Poise(recipe, recipe.data.load().train, FP32),
    }


def time_loops(loops: dict[str, TrainingLoop], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step by loop, one value per round; every other round runs the loops in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(-1, rounds):  # the first one is a warm-up
        for name in list(loops)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            loops[name].run(max(1, steps // 2) if turn < 0 else steps)
            if turn >= 0:
                seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def table_lines(model: str, batch: int, seconds: dict[str, list[float]], notes: dict[str, str]) -> list[Line]:
    """The lines of the table for a model."""

    def ratios(a: str, b: str) -> list[float]:
        return [x / y for x, y in zip(seconds[a], seconds[b], strict=True)]

    lines = []
    for name, times in seconds.items():
        hand = ratios(name, "hand-written")
        ratio = "1" if name == "hand-written" else f"{median(hand):.2f} ({min(hand):.2f} to {max(hand):.2f})"
        speed = "1" if name == "plain" else f"{median(ratios('plain', name)):.2f}"
        rate, step = f"{batch / median(times):,.0f}", f"{1000 * median(times):.2f}"
        lines.append(Line(model, name, rate, step, speed, ratio, notes.get(name, "")))
    return lines


def default_run(size: Size) -> list[Line]:
    """Peak memory and time to the first step of `poise train --steps 60`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", DEFAULT_RUN, str(time.monotonic()), str(Path(folder) / "run")]
        command.append(json.dumps(size.default))
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    seconds, peak = map(float, output)
    return [
        Line("default run", "time to the first step", note=f"{seconds:.1f} s from the start of the process"),
        Line("default run", "peak memory", note=f"{peak:,.0f} MiB"),
    ]


def print_table(rows: Sequence[Line]) -> None:
    """Print the table as plain text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row.note]).rstrip())


def environment(native: bool, threads: int) -> str:
    """The hardware, the load and the versions that the results depend on."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = " (busy: only ratios with --threads 1 are reliable)" if load > cores / 2 else ""
    return (
        f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {'' if native else 'no '}native bf16, "
        f"cores: {cores}, threads: {threads}, load at the start: {load:.1f}{busy}\n"
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="The training speed of poise and of hand-written loops.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; each loop runs once in each of them")
    parser.add_argument("--steps", type=int, default=4, help=f"steps per round (ring: {FULL.ring_steps} times as many)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for DCGAN-64")
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one step with small networks; not a measurement"
    )
    parser.add_argument(
        "--verify", action="store_true", help="only check that poise and the hand-written loops compute the same"
    )
    args = parser.parse_args()
    rounds, steps = (2, 1) if args.quick else (args.rounds, args.steps)
    size = QUICK if args.quick else FULL
    if min(rounds, steps, args.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1")
    native = native_bf16(CPU)
    header = environment(native, args.threads)
    torch.set_num_threads(args.threads)
    verify(size)
    if args.verify:
        return
    notes = {"plain": "generates one fake batch per step instead of two"}
    notes["poise auto"] = (
        "bf16" if native else "fp32, as there is no native bf16; any difference from 'poise fp32' is noise"
    )
    notes["poise bf16 (forced)"] = "emulated; the reason why auto chooses fp32"
    lines = table_lines("DCGAN-64", size.batch, time_loops(image_loops(native, size), rounds, steps), notes)
    torch.set_num_threads(1)
    seconds = time_loops(ring_loops(), rounds, size.ring_steps * steps)
    lines += table_lines("ring, 1 thread", ring_recipe().batch, seconds, notes)
    print(f"\n{header}\nrounds: {rounds}, steps per round: {steps} (ring: {size.ring_steps * steps})\n")
    print_table([HEADER, *lines, *default_run(size)])


if __name__ == "__main__":
    main()
