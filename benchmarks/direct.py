"""Direct comparisons on 2-D toys, each with and without one trick, over paired seeds. Minutes on one core.

    python benchmarks/direct.py packing --seeds 5
    python benchmarks/direct.py noise --seeds 5

packing  The small players of the released Unrolled GAN demo, also those of GDPP: G and D with two hidden layers of 128,
         tanh, z of 256, batch 512, Adam with beta1 0.5, rates 1e-3 for G and 1e-4 for D; a grid of 25 Gaussians, sigma
         0.05. D judges one point at a time, or two. Printed: modes found and share of good samples after the run, by
         the published rule: 2,500 samples, a sample is good within 3 sigma of the nearest mode, a mode is found if a
         good sample is nearest to it. 5,000 steps; the published runs have 25,000 (`--steps 25000`).
noise    The minimax game on the ring, whose support is thin, D moving three times for each move of G: with
         instance noise of 0.5 that fades out over the run, and without. Printed at a tenth, at half and at the end of
         the run: D's accuracy, the length of G's gradient, modes. The claim of its sources is about the beginning: D
         can't tell the piles apart for sure, and G's gradient is there.
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


def table(data: str, seed: int, steps: int, tricks: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A run of the small players."""
    player = {"kind": "mlp", "width": 128, "depth": 2, "activation": "tanh"}
    return {
        "name": "direct",
        "seed": seed,
        "steps": steps,
        "batch": 512,
        "data": {"kind": data},
        "latent": {"kind": "gaussian", "dim": 256},
        "network": {"g": player, "d": player},
        "objective": {"kind": "non_saturating"},
        "optimizer": {
            "g": {"kind": "adam", "lr": 1e-3, "betas": [0.5, 0.999]},
            "d": {"kind": "adam", "lr": 1e-4, "betas": [0.5, 0.999]},
        },
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
        "log": {"rows": max(1, steps // 100), "samples": steps, "saves": max(1, steps // 10), "keep": 1000},
    } | changes


class Told(NamedTuple):
    """What is kept of a run whose folder is gone."""

    points: Tensor
    rows: list[dict[str, Any]]


def trained(told: dict[str, Any]) -> Told:
    """The run's samples at the end, and its rows."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(decode(told), Path(folder) / "run")
        return Told(run.sample(SAMPLES, seed=1), run.rows)


def judged(run: Told, data: PlaneConfig) -> Modes:
    """Modes and share of good samples at the end."""
    known = data.mode_centres()
    assert known is not None
    return count_modes(run.points, *known)


def packing(seeds: int, steps: int) -> None:
    """See the module."""
    print(f"grid of 25, {seeds} seeds, {steps:,} steps")
    for m in (1, 2):
        tricks = [{"kind": "packing", "samples": m}] if m > 1 else []
        told = [judged(trained(table("grid", seed, steps, tricks)), GridConfig()) for seed in range(seeds)]
        modes = [one.found for one in told]
        good = mean(one.good for one in told)
        name = f"packing {m}" if m > 1 else "none"
        print(f"{name:<10} modes {mean(modes):5.1f} on average {modes}, good {100 * good:5.1f} %", flush=True)


def noise(seeds: int, steps: int) -> None:
    """See the module."""
    fading = {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.5, "end": 0.0}}
    for name, tricks in (("none", []), ("noise", [fading])):
        runs = []
        for seed in range(seeds):
            changes = {"objective": {"kind": "minimax"}, "tempo": {"kind": "ratio", "d": 3}}
            told = table("ring", seed, steps, tricks, **changes)
            told["optimizer"]["d"]["lr"] = 1e-3
            runs.append(trained(told))
        for share in (0.1, 0.5, 1.0):
            upto = [[row for row in run.rows if row["step"] <= share * steps][-5:] for run in runs]
            accuracy, norm = (
                median(row["stats"][key]["mean"] for rows in upto for row in rows)
                for key in ("d/accuracy", "g/grad_norm")
            )
            print(f"{name:<6} at {share:4.0%} of the run: D right {accuracy:6.1%}, G's gradient {norm:.4f}", flush=True)
        modes = [judged(run, RingConfig()).found for run in runs]
        print(f"{name:<6} modes at the end: {modes}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Direct comparisons on 2-D toys.")
    parser.add_argument("what", choices=("packing", "noise"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="5,000 for packing, 2,000 for noise")
    parser.add_argument("--quick", action="store_true", help="one seed, twenty steps: not a measurement")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.steps = 1, 20
    torch.set_num_threads(1)
    if asked.what == "packing":
        packing(asked.seeds, asked.steps or 5_000)
    else:
        noise(asked.seeds, asked.steps or 2_000)


if __name__ == "__main__":
    main()
