"""How many modes the shipped recipes find, by the published protocols, over seeds, beside the published rows.

    python benchmarks/modes.py ring
    python benchmarks/modes.py grid
    python benchmarks/modes.py stacked --data-root data
    python benchmarks/modes.py small --data-root data --steps 20000

ring, grid  The recipes of these names: 2,500 samples, a sample is good within 3 sigma of the nearest mode, a mode is
            found if a good sample belongs to it, reverse KL over the good samples' modes. One thread to a seed.
stacked     `stacked-digits` on the complete MNIST: 26,000 samples, each channel read by a classifier trained on MNIST,
            a mode is found if one sample has its number, KL of the modes from the uniform law.
small       `stacked-digits-small`, the published players with a D of a quarter of G, plain, with packing, and with the
            pairs and penalties of `stacked-digits`: 25,600 samples; the published runs have 500,000 steps.

Everything is by the measures that `poise measure` takes, with latents that training never saw. Training time is told in
seconds of one core, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

from poise.measure.catalogue import select_measures
from poise.recipe.decode import decode
from poise.recipe.shipped import load_recipe
from poise.recipe.toml import set_value
from poise.runs.evaluate import measure_run
from poise.training.train import train

PUBLISHED = {
    "ring": (
        "GAN, small players (VEEGAN's table 1)         1.0 modes  99.3 % good",
        "VEEGAN                                        8.0 modes  52.9 % good",
        "GDPP-GAN, small players                       8.0 modes  71.7 % good",
        "GAN, PacGAN's players (PacGAN's table 1)      6.3 modes  98.2 % good  reverse KL 0.45",
        "PacGAN2                                       7.9 modes  95.6 % good  reverse KL 0.07",
    ),
    "grid": (
        "GAN, small players (VEEGAN's table 1)         3.3 modes   0.5 % good",
        "VEEGAN                                       24.6 modes  40.0 % good",
        "GDPP-GAN, small players                      24.8 modes  68.5 % good",
        "GAN, PacGAN's players (PacGAN's table 1)     17.3 modes  94.8 % good  reverse KL 0.70",
        "PacGAN4                                      24.8 modes  93.6 % good  reverse KL 0.04",
    ),
    "stacked": (
        "DCGAN (VEEGAN's table 2)                       99 modes  KL 3.40",
        "DCGAN (PacGAN's table 2)                     78.9 modes  KL 4.50",
        "PacDCGAN2                                    1000 modes  KL 0.06",
        "R3GAN, 20.7 million weights a player         1000 modes  KL 0.029",
        "real MNIST, 26,000 samples                   1000 modes  KL 0.0236",
    ),
    "small": (
        "DCGAN (PacGAN's table 3, 500,000 steps)      78.5 modes  KL 5.21",
        "Unrolled, 10 steps                          327.2 modes  KL 4.66",
        "PacDCGAN2                                   484.5 modes  KL 2.61",
        "PacDCGAN4                                   667.4 modes  KL 1.81",
    ),
}
RECIPES = {"ring": "ring", "grid": "grid", "stacked": "stacked-digits", "small": "stacked-digits-small"}
FULL = ('data.digits="MNIST"',)
PAIRS = 'objective={kind="relativistic"}'
PENALTIES = 'tricks=[{kind="r1",gamma=1.0},{kind="r2",gamma=1.0}]'
ARMS: dict[str, dict[str, tuple[str, ...]]] = {
    "ring": {"the recipe": ()},
    "grid": {"the recipe": ()},
    "stacked": {"the recipe": FULL},
    "small": {
        "plain": FULL,
        "packing 2": (*FULL, 'tricks=[{kind="packing",samples=2}]'),
        "pairs, R1, R2": (*FULL, PAIRS, PENALTIES, "optimizer.g.betas=[0.0,0.99]", "optimizer.d.betas=[0.0,0.99]"),
    },
}


class Job(NamedTuple):
    """One run to make and measure."""

    what: str
    arm: str
    seed: int
    steps: int | None
    threads: int
    root: Path
    quick: bool = False


class Found(NamedTuple):
    """What it came to."""

    modes: float
    good: float | None
    kl: float
    seconds: float


def found(job: Job) -> Found:
    """Train, then measure."""
    torch.set_num_threads(job.threads)
    table = load_recipe(RECIPES[job.what])
    for change in ARMS[job.what][job.arm]:
        if not (job.quick and change in FULL):  # the complete MNIST is no matter of seconds
            set_value(table, change)
    table["seed"] = job.seed
    table.pop("measure", None)
    if job.steps:
        table["steps"] = job.steps
    n = 250 if job.quick else {"small": 25_600, "stacked": 26_000}.get(job.what, 2_500)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = train(decode(table), Path(folder) / "run", data_root=job.root)
        seconds = time.process_time() - began
        told = measure_run(run, select_measures("modes,high_quality,reverse_kl"), n=n, data_root=job.root)[0].results
    good = told["high_quality"].value.value if "high_quality" in told else None
    kl = told["reverse_kl"].value.value if "reverse_kl" in told else float("inf")
    return Found(told["modes"].value.value, good, kl, seconds)


def words(one: Found) -> str:
    """A line's end."""
    good = "" if one.good is None else f"{100 * one.good:6.2f} % good  "
    return f"{one.modes:7.1f} modes  {good}KL {one.kl:.4f}  {one.seconds:5.0f} core-s"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Modes found over seeds, beside the published rows.")
    parser.add_argument("what", choices=tuple(RECIPES))
    parser.add_argument("--seeds", type=int, help="10 on the toys, 3 else")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--workers", type=int, default=1, help="runs at once")
    parser.add_argument("--threads", type=int, help="threads to a run: 1 on the toys, 2 else")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where the complete MNIST lies")
    parser.add_argument("--quick", action="store_true", help="one seed, twenty steps, in this process: no measurement")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.steps = 1, 20
    toy = asked.what in ("ring", "grid")
    seeds, threads = asked.seeds or (10 if toy else 3), asked.threads or (1 if toy else 2)
    print(f"{RECIPES[asked.what]}, {seeds} seeds, {threads} thread(s) to a run, {asked.workers} at once\n")
    for row in PUBLISHED[asked.what]:
        print(f"published  {row}")
    for arm in ARMS[asked.what]:
        jobs = [
            Job(asked.what, arm, seed, asked.steps, threads, asked.data_root, asked.quick)
            for seed in range(asked.first, asked.first + seeds)
        ]
        told: list[Found] = []
        with nullcontext() if asked.quick else ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
            for job, one in zip(jobs, (pool.map if pool else map)(found, jobs), strict=True):
                told.append(one)
                print(f"ours       {arm:<14} seed {job.seed:<3} {words(one)}", flush=True)
        goods = [one.good for one in told if one.good is not None]
        middle = Found(
            mean(one.modes for one in told),
            mean(goods) if goods else None,
            mean(one.kl for one in told),
            mean(one.seconds for one in told),
        )
        worst = Found(
            min(one.modes for one in told),
            min(goods) if goods else None,
            max(one.kl for one in told),
            max(one.seconds for one in told),
        )
        print(
            f"ours       {arm:<14} mean     {words(middle)}\nours       {arm:<14} worst    {words(worst)}", flush=True
        )


if __name__ == "__main__":
    main()
