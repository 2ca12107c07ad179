"""The exercises of docs/how-to/learning-gans.md, played as the playground plays them, over several seeds.

    python benchmarks/playground.py --seeds 5

Each exercise is a pair of games on the ring from one seed that differ in one choice. After every 500 steps the modes
found and the share of good points are printed, those within 3 sigma of a mode, and at the end the step of the first
alarm `collapse`. In the exercise `confident` D alone makes 40 moves, then G one: printed is the norm of G's gradient in
it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from poise.core.types import Side
from poise.playground.commands import Start
from poise.playground.games import Games, open_games
from poise.playground.options import DEFAULT_GAME
from poise.runs.folder import RunFolder

Choices = dict[str, Any]

EXERCISES: dict[str, tuple[Choices, Choices]] = {
    "penalty": ({}, {"penalty": "r1"}),
    "packing": ({}, {"tricks": ["packing"]}),
    "fast G": ({}, {"lr_g": 0.005}),
    "critic": (
        {"objective": "wasserstein", "d_moves": 5},
        {"objective": "wasserstein", "d_moves": 5, "penalty": "wgan_gp"},
    ),
    "latent": ({"penalty": "r1"}, {"penalty": "r1", "latent_dim": 1}),
}
CONFIDENT = ({"lr_d": 0.01}, {"lr_d": 0.01, "objective": "minimax"})


def make_start(pair: tuple[Choices, Choices], seed: int) -> Start:
    """The start of two games."""
    return Start.model_validate({"games": [DEFAULT_GAME | choices for choices in pair], "seed": seed})


def folders(games: Games) -> list[RunFolder]:
    """The run folders of the games."""
    return [game.trainer.folder for game in games.open]


def describe(folder: RunFolder) -> str:
    """The modes and the share of good points at each measurement, and the first collapse."""
    lines = [line["measures"] for line in folder.read_measures()]
    measured = ", ".join(f"{line['modes']:.0f} ({line['high_quality']:.0%})" for line in lines)
    collapse = next((alarm["step"] for alarm in folder.read_alarms() if alarm["detector"] == "collapse"), None)
    return measured + (f"; collapse at {collapse}" if collapse else "")


def play(name: str, seed: int, steps: int) -> None:
    """Play an exercise and print what came of it."""
    with tempfile.TemporaryDirectory() as root:
        with open_games(make_start(EXERCISES[name], seed), Path(root)) as games:
            for _ in range(steps):
                games.step()
            found = folders(games)
        for folder, choices in zip(found, EXERCISES[name], strict=True):
            print(f"{name:<8} seed {seed}  {describe(folder)}  {choices}", flush=True)


def confident(seed: int, moves: int) -> None:
    """Let D alone make moves, then G one, and print the norm of G's gradient."""
    with tempfile.TemporaryDirectory() as root, open_games(make_start(CONFIDENT, seed), Path(root)) as games:
        for _ in range(moves):
            games.step(Side.D)
        games.step(Side.G, log_now=True)
        norms = [folder.read_rows()[-1]["stats"]["g/grad_norm"]["mean"] for folder in folders(games)]
        print(f"confident seed {seed}  non-saturating {norms[0]:.3g}, minimax {norms[1]:.3g}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="The exercises of the playground.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=[*EXERCISES, "confident"], help="one exercise; default: all of them")
    parser.add_argument("--quick", action="store_true", help="one seed, five steps; not a measurement")
    args = parser.parse_args()
    seeds, steps, moves = (1, 5, 3) if args.quick else (args.seeds, 2_000, 40)
    torch.set_num_threads(1)
    for name in [args.only] if args.only else [*EXERCISES, "confident"]:
        for seed in range(seeds):
            if name == "confident":
                confident(seed, moves)
            else:
                play(name, seed, steps)


if __name__ == "__main__":
    main()
