"""What each trick costs: the time of a step with it, over the time of the same step without. One table, some minutes.

    python benchmarks/tricks.py                # --only packing r1 for some, --quick to see that everything here runs

The players are the default recipe's (DCGAN at 32 x 32, width 32, batch 64) on random pictures with labels, without its
tricks, on one thread. For each trick two games stand side by side in one process; a round gives each a turn of some
steps, the second round the other way about, and a ratio is taken within a round. The table shows the median ratio over
rounds, the least and the greatest, and beside them the same game against itself, which is what the machine's noise
makes of one.

A trick is timed at its default settings, but for those that rest most of the time: they act as often as stated in
`BUSY`. A penalty needs a D without batch norm, and is compared with that D. At the end, D's move alone with R1 and R2
together, against the plain move of the same net; and the same with PyTorch's own second derivative of convolutions.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from _contestants import Poise
from poise.core.config import find_components
from poise.core.double_backward import Conv2d
from poise.core.types import MoveContext, Side
from poise.data.source import ImageDataset
from poise.engine.compute import ComputeSettings
from poise.engine.step import make_move
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.tricks.base import TrickConfig


class Size(NamedTuple):
    """How large the players and their pictures are."""

    width: int = 32
    side: int = 32
    batch: int = 64


FULL, QUICK = Size(), Size(width=2, side=8, batch=8)
FP32 = ComputeSettings(torch.device("cpu"), "fp32")
CLASSES = 10
BUSY: dict[str, dict[str, Any]] = {
    "past_selves": {"every": 8, "duration": 4},
    "mean_weights": {"every": 8},
    "adaptive_augment": {"start": 0.5},
    "top_k": {"fraction": 0.5},
}
"""Settings under which a trick is not at rest in the steps that are timed; a turn has whole rounds of `every`."""

NORMLESS = ("r1", "r2", "wgan_gp", "dragan")
CHEAP = (
    "instance_noise",
    "soft_labels",
    "noisy_labels",
    "experience_replay",
    "history",
    "image_pool",
    "averaged_weights",
    "mean_weights",
    "historical_averaging",
)
"""Those that should cost next to nothing (1.05 is the aim); they come first in the table."""

CODED = ("posterior_kl", "feature_reconstruction", "judged_reconstruction")
"""Those that read codes: both games have an encoder, which is idle in the one without."""


def recipe(
    size: Size, *tricks: dict[str, Any], norm: str = "batch", labelled: bool = False, coded: bool = False
) -> Recipe:
    """The default recipe's players without its tricks, and with these; if `coded`, with an encoder."""
    player = {"kind": "dcgan", "width": size.width}
    adam = {"kind": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}
    table: dict[str, Any] = {
        "steps": 1_000_000,
        "batch": size.batch,
        "data": {"kind": "digits", "size": size.side},
        "latent": {"kind": "gaussian", "dim": 100},
        "network": {"g": player, "d": {**player, "norm": norm}} | ({"e": player} if coded else {}),
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": adam, "d": adam},
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
    }
    return decode(table | ({"conditioning": {"g": {"kind": "concat"}}} if labelled else {}))


def source(size: Size) -> ImageDataset:
    """Random pictures: what they show costs nothing."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (1024, size.side, size.side, 1), dtype=np.uint8)
    return ImageDataset(pictures, np.arange(1024) % CLASSES, tuple("0123456789"))


class Pair(NamedTuple):
    """The step without and with."""

    name: str
    without: Callable[[int], None]
    with_it: Callable[[int], None]


def pair(size: Size, kind: str) -> Pair:
    """Two games that differ in one trick."""
    norm, labelled = "none" if kind in NORMLESS else "batch", kind == "auxiliary_classifier"
    trick = {"kind": kind, **BUSY.get(kind, {})}
    coded = kind in CODED
    games = [recipe(size, *some, norm=norm, labelled=labelled, coded=coded) for some in ([], [trick])]
    without, with_it = (Poise(told, source(size), FP32).run for told in games)
    return Pair(kind, without, with_it)


def d_moves(size: Size, told: Recipe, *, pytorchs: bool = False) -> Callable[[int], None]:
    """D's moves alone; with PyTorch's own second derivative of convolutions if wished."""
    game = Poise(told, source(size), FP32)
    for module in game.game.d.modules():
        if pytorchs and isinstance(module, Conv2d):
            module.__class__ = nn.Conv2d

    def run(moves: int) -> None:
        for _ in range(moves):
            context = MoveContext(game.done, told.steps, told.batch, game.streams).for_move(Side.D, 0)
            make_move(game.game, game.batches, context, game.metrics)
            game.done += 1
        game.metrics.reduce()

    return run


def ratios(told: Pair, rounds: int, steps: int) -> list[float]:
    """Time with over time without, one for each round; the first round warms up and isn't counted."""
    found: list[float] = []
    for lap in range(-1, rounds):
        seconds: dict[Callable[[int], None], float] = {}
        for run in (told.without, told.with_it) if lap % 2 else (told.with_it, told.without):
            began = time.perf_counter()
            run(steps)
            seconds[run] = time.perf_counter() - began
        if lap >= 0:
            found.append(seconds[told.with_it] / seconds[told.without])
    return found


def line(name: str, found: list[float], note: str = "") -> str:
    """One line of the table."""
    return f"{name:<26} {median(found):5.2f}   {min(found):5.2f} to {max(found):5.2f}   {note}".rstrip()


def notes(kind: str) -> str:
    """What a ratio holds for."""
    said = [f"{field} = {value}" for field, value in BUSY.get(kind, {}).items()]
    said += ["D without norm in both"] if kind in NORMLESS else []
    return ", ".join(said)


def chosen(only: Iterable[str]) -> list[str]:
    """The kinds to time: the cheap ones first."""
    every = find_components(TrickConfig, "poise.tricks")
    unknown = [kind for kind in only if kind not in every]
    if unknown:
        sys.exit(f"no trick is called {unknown[0]}")
    return sorted(only or every, key=lambda kind: (kind not in CHEAP, kind))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What each trick costs.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn")
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="these tricks alone")
    parser.add_argument("--penalties", action="store_true", help="the last two lines, whatever else is timed")
    parser.add_argument("--quick", action="store_true", help="a round of one step, thin networks: not a measurement")
    asked = parser.parse_args()
    rounds, steps, size = (1, 1, QUICK) if asked.quick else (asked.rounds, asked.steps, FULL)
    if min(rounds, steps) < 1:
        parser.error("--rounds and --steps must be at least 1")
    torch.set_num_threads(1)
    print(f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, 1 thread, torch {torch.__version__}")
    print(f"DCGAN {size.side} x {size.side}, width {size.width}, batch {size.batch}", end="; ")
    print(f"rounds: {rounds}, steps in a turn: {steps}\n")
    print(f"{'trick':<26} {'ratio':>5}   least and most")
    alone = recipe(size)
    itself = Pair("itself", *(Poise(alone, source(size), FP32).run for _ in range(2)))
    print(line("(the step against itself)", ratios(itself, rounds, steps)), flush=True)
    for kind in chosen(asked.only):
        turn = steps if asked.quick else max(steps, BUSY.get(kind, {}).get("every", 1))
        print(line(kind, ratios(pair(size, kind), rounds, turn), notes(kind)), flush=True)
    if not asked.only or asked.penalties:
        both = recipe(size, {"kind": "r1"}, {"kind": "r2"}, norm="none")
        for note in ("", "PyTorch's own second derivative"):
            penalised = d_moves(size, both, pytorchs=bool(note))
            found = ratios(Pair("", d_moves(size, recipe(size, norm="none")), penalised), rounds, 2 * steps)
            print(line("D's move, R1 and R2", found, note or "D's move alone, D without norm in both"), flush=True)


if __name__ == "__main__":
    main()
