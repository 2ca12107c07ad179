"""The cost of each trick: the time of a step with it, divided by the time of the same step without it.

    python benchmarks/tricks.py                # --only packing r1 selects tricks, --quick runs everything for a moment

It prints one table and takes a few minutes. The networks are those of the default recipe (DCGAN at 32 x 32, width 32,
batch 64), on random images with labels, without the recipe's tricks, on one thread. For each trick two games run
alternately in one process, in reverse order in every other round, and the ratio is taken within a round. The table
shows the median ratio over rounds, the minimum and the maximum. Its first line compares the same game with itself,
which shows the noise of the machine.

A trick has its default settings, except for tricks that act rarely: they act as often as stated in `ACTIVE_SETTINGS`. A
penalty needs a D without batch norm, and is compared with the same D. The last lines compare D's move with R1 and R2
with the plain move of the same network, and again with PyTorch's own second derivative of convolutions.
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

from _training_loops import Poise
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
    """The size of the networks and of the images."""

    width: int = 32
    side: int = 32
    batch: int = 64


FULL, QUICK = Size(), Size(width=2, side=8, batch=8)
FP32 = ComputeSettings(torch.device("cpu"), "fp32")
CLASSES = 10
ACTIVE_SETTINGS: dict[str, dict[str, Any]] = {
    "past_selves": {"every": 8, "duration": 4},
    "mean_weights": {"every": 8},
    "adaptive_augment": {"start": 0.5},
    "top_k": {"fraction": 0.5},
}
"""Settings with which a trick is active in the timed steps; their number is at least `every`."""

NEEDS_NORMLESS_D = ("r1", "r2", "wgan_gp", "dragan")
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
"""Tricks with almost no cost (the goal is a ratio of 1.05); they come first in the table."""

NEEDS_ENCODER = ("posterior_kl", "feature_reconstruction", "judged_reconstruction")
"""Tricks that use latent codes: both games have an encoder, which is unused in the one without the trick."""


def recipe(
    size: Size, *tricks: dict[str, Any], norm: str = "batch", labelled: bool = False, encoder: bool = False
) -> Recipe:
    """The networks of the default recipe with these tricks; if `encoder`, with an encoder."""
    network = {"kind": "dcgan", "width": size.width}
    adam = {"kind": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}
    table: dict[str, Any] = {
        "steps": 1_000_000,
        "batch": size.batch,
        "data": {"kind": "digits", "size": size.side},
        "latent": {"kind": "gaussian", "dim": 100},
        "network": {"g": network, "d": {**network, "norm": norm}} | ({"e": network} if encoder else {}),
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": adam, "d": adam},
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
    }
    return decode(table | ({"conditioning": {"g": {"kind": "concat"}}} if labelled else {}))


def source(size: Size) -> ImageDataset:
    """Random images with labels; their content does not affect the time."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1024, size.side, size.side, 1), dtype=np.uint8)
    return ImageDataset(images, np.arange(1024) % CLASSES, tuple("0123456789"))


class Pair(NamedTuple):
    """Functions that train for a number of steps without and with a trick."""

    without: Callable[[int], None]
    with_trick: Callable[[int], None]


def pair(size: Size, kind: str) -> Pair:
    """Two games that differ in one trick."""
    norm, labelled = "none" if kind in NEEDS_NORMLESS_D else "batch", kind == "auxiliary_classifier"
    trick = {"kind": kind, **ACTIVE_SETTINGS.get(kind, {})}
    encoder = kind in NEEDS_ENCODER
    recipes = [recipe(size, *tricks, norm=norm, labelled=labelled, encoder=encoder) for tricks in ([], [trick])]
    return Pair(*(Poise(each, source(size), FP32).run for each in recipes))


def d_moves(size: Size, recipe: Recipe, *, pytorch_conv: bool = False) -> Callable[[int], None]:
    """D's moves alone; if `pytorch_conv`, with PyTorch's own second derivative of convolutions."""
    loop = Poise(recipe, source(size), FP32)
    for module in loop.game.d.modules():
        if pytorch_conv and isinstance(module, Conv2d):
            module.__class__ = nn.Conv2d

    def run(moves: int) -> None:
        for _ in range(moves):
            context = MoveContext(loop.steps_done, recipe.steps, recipe.batch, loop.streams).for_move(Side.D, 0)
            make_move(loop.game, loop.batches, context, loop.metrics)
            loop.steps_done += 1
        loop.metrics.reduce()

    return run


def time_ratios(pair: Pair, rounds: int, steps: int) -> list[float]:
    """The time with the trick divided by the time without it, one value per round after a warm-up round."""
    ratios: list[float] = []
    for turn in range(-1, rounds):
        seconds: dict[Callable[[int], None], float] = {}
        for run in (pair.without, pair.with_trick) if turn % 2 else (pair.with_trick, pair.without):
            start = time.perf_counter()
            run(steps)
            seconds[run] = time.perf_counter() - start
        if turn >= 0:
            ratios.append(seconds[pair.with_trick] / seconds[pair.without])
    return ratios


def table_line(name: str, ratios: list[float], configuration: str = "") -> str:
    """One line of the table."""
    return f"{name:<26} {median(ratios):5.2f}   {min(ratios):5.2f} to {max(ratios):5.2f}   {configuration}".rstrip()


def configuration(kind: str) -> str:
    """The settings of the comparison that differ from the defaults."""
    settings = [f"{field} = {value}" for field, value in ACTIVE_SETTINGS.get(kind, {}).items()]
    settings += ["D without norm in both runs"] if kind in NEEDS_NORMLESS_D else []
    settings += ["with an encoder in both runs, unused without the trick"] if kind in NEEDS_ENCODER else []
    return ", ".join(settings)


def select_kinds(only: Iterable[str]) -> list[str]:
    """The kinds to time, cheap ones first; losses of translation need another G than this one."""
    known = find_components(TrickConfig, "poise.tricks")
    kinds = [kind for kind, entry in known.items() if not entry.directions]  # type: ignore[attr-defined]
    unknown = [kind for kind in only if kind not in kinds]
    if unknown:
        sys.exit(f"there is no trick '{unknown[0]}'")
    return sorted(only or kinds, key=lambda kind: (kind not in CHEAP, kind))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="The cost of each trick.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="time only these tricks")
    parser.add_argument(
        "--penalties", action="store_true", help="time R1 and R2 together (the last two lines) even with --only"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of one step with small networks; not a measurement"
    )
    args = parser.parse_args()
    rounds, steps, size = (1, 1, QUICK) if args.quick else (args.rounds, args.steps, FULL)
    if min(rounds, steps) < 1:
        parser.error("--rounds and --steps must be at least 1")
    torch.set_num_threads(1)
    print(f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, 1 thread, torch {torch.__version__}")
    print(f"DCGAN {size.side} x {size.side}, width {size.width}, batch {size.batch}", end="; ")
    print(f"rounds: {rounds}, steps per round: {steps}\n")
    print(f"{'trick':<26} {'ratio':>5}   {'range':<12}   configuration")
    plain = recipe(size)
    same = Pair(*(Poise(plain, source(size), FP32).run for _ in range(2)))
    print(table_line("none (the same step twice)", time_ratios(same, rounds, steps)), flush=True)
    for kind in select_kinds(args.only):
        kind_steps = steps if args.quick else max(steps, ACTIVE_SETTINGS.get(kind, {}).get("every", 1))
        print(table_line(kind, time_ratios(pair(size, kind), rounds, kind_steps), configuration(kind)), flush=True)
    if not args.only or args.penalties:
        both = recipe(size, {"kind": "r1"}, {"kind": "r2"}, norm="none")
        for note in ("", ", PyTorch's own second derivative"):
            penalised = d_moves(size, both, pytorch_conv=bool(note))
            ratios = time_ratios(Pair(d_moves(size, recipe(size, norm="none")), penalised), rounds, 2 * steps)
            print(table_line("r1 and r2, D's move only", ratios, f"D without norm in both runs{note}"), flush=True)


if __name__ == "__main__":
    main()
