"""Direct comparisons on 2-D toys, with and without one trick, over paired seeds. They take minutes on one core.

    python benchmarks/direct.py packing --seeds 5
    python benchmarks/direct.py noise --seeds 5

packing  The small networks of the released Unrolled GAN demo, which GDPP uses too: G and D with two hidden layers of
         128, tanh, z of 256 dimensions, batch 512, Adam with beta1 0.5, learning rates 1e-3 for G and 1e-4 for D, on a
         grid of 25 Gaussians with sigma 0.05. D sees one point at a time, or two. Printed are the modes found and the
         share of good samples after the run, by the published rule: of 2,500 samples, those within 3 sigma of the
         nearest mode are good, and a mode is found if it is the nearest one to a good sample. The runs have 5,000
         steps, the published ones 25,000 (`--steps 25000`).
noise    The minimax objective on the ring, a distribution with a thin support, with three moves of D for each of G, and
         with or without instance noise that decreases from 0.5 to 0. Printed are D's accuracy and the norm of G's
         gradient at 10 %, at 50 % and at the end of the run, and the modes at the end. The claim of the papers concerns
         the beginning: with the noise, D cannot separate real from fake points with certainty, and G has a gradient.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.data.toys import GridConfig, PlaneConfig, RingConfig
from poise.measure.context import Modes
from poise.measure.modes import count_modes
from poise.recipe.decode import decode
from poise.training.train import train

SAMPLES = 2500


def make_recipe(data: str, seed: int, steps: int, tricks: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The recipe of a run with the small networks."""
    network = {"kind": "mlp", "width": 128, "depth": 2, "activation": "tanh"}
    return {
        "name": "direct",
        "seed": seed,
        "steps": steps,
        "batch": 512,
        "data": {"kind": data},
        "latent": {"kind": "gaussian", "dim": 256},
        "network": {"g": network, "d": network},
        "objective": {"kind": "non_saturating"},
        "optimizer": {
            "g": {"kind": "adam", "lr": 1e-3, "betas": [0.5, 0.999]},
            "d": {"kind": "adam", "lr": 1e-4, "betas": [0.5, 0.999]},
        },
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
        "log": {"rows": max(1, steps // 100), "samples": steps, "saves": max(1, steps // 10), "keep": 1000},
    } | changes


class Outcome(NamedTuple):
    """The results of a run, whose folder is deleted."""

    samples: Tensor
    rows: list[dict[str, Any]]


def train_recipe(recipe: dict[str, Any]) -> Outcome:
    """Train a recipe and return samples of the final weights and the logged rows."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(decode(recipe), Path(folder) / "run")
        return Outcome(run.sample(SAMPLES, seed=1), run.rows)


def find_modes(outcome: Outcome, data: PlaneConfig) -> Modes:
    """The modes found and the share of good samples."""
    centres = data.mode_centres()
    assert centres is not None
    return count_modes(outcome.samples, *centres)


def packing(seeds: int, steps: int) -> None:
    """See the module."""
    print(f"grid of 25, {seeds} seeds, {steps:,} steps")
    for m in (1, 2):
        tricks = [{"kind": "packing", "samples": m}] if m > 1 else []
        found = [
            find_modes(train_recipe(make_recipe("grid", seed, steps, tricks)), GridConfig()) for seed in range(seeds)
        ]
        modes = [one.found for one in found]
        good = mean(one.high_quality for one in found)
        name = "two points" if m > 1 else "one point"
        print(
            f"D sees {name:<10}  modes found {modes}, mean {mean(modes):.1f}; good samples {100 * good:.1f} %",
            flush=True,
        )


def noise(seeds: int, steps: int) -> None:
    """See the module."""
    noise_trick = {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.5, "end": 0.0}}
    for name, tricks in (("none", []), ("noise", [noise_trick])):
        outcomes = []
        for seed in range(seeds):
            changes = {"objective": {"kind": "minimax"}, "tempo": {"kind": "ratio", "d": 3}}
            recipe = make_recipe("ring", seed, steps, tricks, **changes)
            recipe["optimizer"]["d"]["lr"] = 1e-3
            outcomes.append(train_recipe(recipe))
        for progress in (0.1, 0.5, 1.0):
            recent = [[row for row in run.rows if row["step"] <= progress * steps][-5:] for run in outcomes]
            accuracy, norm = (
                median(row["stats"][key]["mean"] for rows in recent for row in rows)
                for key in ("d/accuracy", "g/grad_norm")
            )
            print(
                f"{name:<6} at {progress:4.0%}: D's accuracy {accuracy:.1%}, norm of G's gradient {norm:.4f}",
                flush=True,
            )
        modes = [find_modes(run, RingConfig()).found for run in outcomes]
        print(f"{name:<6} modes at the end: {modes}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Direct comparisons on 2-D toys.")
    parser.add_argument("what", choices=("packing", "noise"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="default: 5,000 for packing, 2,000 for noise")
    parser.add_argument("--quick", action="store_true", help="one seed, ten steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.steps = 1, 10
    torch.set_num_threads(1)
    if args.what == "packing":
        packing(args.seeds, args.steps or 5_000)
    else:
        noise(args.seeds, args.steps or 2_000)


if __name__ == "__main__":
    main()
