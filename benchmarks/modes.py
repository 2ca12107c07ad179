"""The modes that the shipped recipes find over several seeds, by the published protocols, beside published results.

    python benchmarks/modes.py ring
    python benchmarks/modes.py grid
    python benchmarks/modes.py stacked --data-root data
    python benchmarks/modes.py small --data-root data --steps 60000 --set optimizer.g.lr=5e-4 --set optimizer.d.lr=1e-3

ring, grid  The recipes of these names, with 2,500 samples. A sample is of high quality within 3 sigma of the nearest
            mode, and a mode is found if a high-quality sample belongs to it. The reverse KL is over the modes of the
            high-quality samples. Coverage, too, is that of 2,500 samples. In brackets is the reverse KL of 25,000
            samples, as that of 2,500 has a bias of (modes - 1) / 5,000. `width` is 1 plus or minus the measure
            `mode_std_error` of 25,000 samples: how far the standard deviation of a mode is from that of the data, in
            the mode where it differs most. Each run has one thread.
stacked     The recipe `stacked-digits` on the complete MNIST, with 26,000 samples. A classifier trained on MNIST reads
            the digit of each channel, and a mode is found if a sample has its number. The KL is that of the modes from
            the uniform distribution.
small       The recipe `stacked-digits-small`, the published networks with a D of a quarter of G's width, with 25,600
            samples: without tricks, with packing, and with the relativistic loss and penalties of `stacked-digits`. The
            published runs have 500,000 steps; with five times their rates, modes appear after 20,000 to 40,000.

The results are those of `poise measure`, with latents that were not used in training. The training time is in CPU
seconds, which do not depend on other load on the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
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
        "GAN, small networks (VEEGAN's table 1)        1.0 modes  99.3 % high quality",
        "VEEGAN                                        8.0 modes  52.9 % high quality",
        "GDPP-GAN, small networks                      8.0 modes  71.7 % high quality",
        "GAN, PacGAN's networks (PacGAN's table 1)     6.3 modes  98.2 % high quality  reverse KL 0.45",
        "PacGAN2                                       7.9 modes  95.6 % high quality  reverse KL 0.07",
    ),
    "grid": (
        "GAN, small networks (VEEGAN's table 1)        3.3 modes   0.5 % high quality",
        "VEEGAN                                       24.6 modes  40.0 % high quality",
        "GDPP-GAN, small networks                     24.8 modes  68.5 % high quality",
        "GAN, PacGAN's networks (PacGAN's table 1)    17.3 modes  94.8 % high quality  reverse KL 0.70",
        "PacGAN4                                      24.8 modes  93.6 % high quality  reverse KL 0.04",
    ),
    "stacked": (
        "DCGAN (VEEGAN's table 2)                       99 modes  KL 3.40",
        "DCGAN (PacGAN's table 2)                     78.9 modes  KL 4.50",
        "PacDCGAN2                                    1000 modes  KL 0.06",
        "R3GAN, 20.7 million weights per network      1000 modes  KL 0.029",
        "a perfect sampler of MNIST's digits          1000 modes  KL 0.024, standard deviation 0.001",
    ),
    "small": (
        "DCGAN (PacGAN's table 3, 500,000 steps)      78.5 modes  KL 5.21",
        "Unrolled, 10 steps                          327.2 modes  KL 4.66",
        "PacDCGAN2                                   484.5 modes  KL 2.61",
        "PacDCGAN4                                   667.4 modes  KL 1.81",
    ),
}
Summary = Callable[[Sequence[float]], float]
RECIPES = {"ring": "ring", "grid": "grid", "stacked": "stacked-digits", "small": "stacked-digits-small"}
TOYS = ("ring", "grid")
COMPLETE_MNIST = ('data.digits="MNIST"',)
RELATIVISTIC = 'objective={kind="relativistic"}'
PENALTIES = 'tricks=[{kind="r1",gamma=1.0},{kind="r2",gamma=1.0}]'
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "ring": {"the recipe": ()},
    "grid": {"the recipe": ()},
    "stacked": {"the recipe": COMPLETE_MNIST},
    "small": {
        "plain": COMPLETE_MNIST,
        "packing 2": (*COMPLETE_MNIST, 'tricks=[{kind="packing",samples=2}]'),
        "pairs, R1, R2": (
            *COMPLETE_MNIST,
            RELATIVISTIC,
            PENALTIES,
            "optimizer.g.betas=[0.0,0.99]",
            "optimizer.d.betas=[0.0,0.99]",
        ),
    },
}


class Job(NamedTuple):
    """One run to train and measure."""

    experiment: str
    variant: str
    seed: int
    steps: int | None
    threads: int
    root: Path
    changes: tuple[str, ...] = ()
    quick: bool = False


class Result(NamedTuple):
    """The results of one run."""

    modes: float
    high_quality: float | None
    kl: float
    seconds: float
    coverage: float | None = None
    std_error: float | None = None
    kl_of_many: float | None = None


def train_and_measure(job: Job) -> Result:
    """Train one run and measure it."""
    torch.set_num_threads(job.threads)
    table = load_recipe(RECIPES[job.experiment])
    for change in (*VARIANTS[job.experiment][job.variant], *job.changes):
        if not (job.quick and change in COMPLETE_MNIST):  # training on the complete MNIST takes too long
            set_value(table, change)
    table["seed"] = job.seed
    table.pop("measure", None)
    if job.steps:
        table["steps"] = job.steps
    n = 250 if job.quick else {"small": 25_600, "stacked": 26_000}.get(job.experiment, 2_500)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = train(decode(table), Path(folder) / "run", data_root=job.root)
        seconds = time.process_time() - start
        measures = select_measures("modes,high_quality,reverse_kl")
        if job.experiment in TOYS:
            measures += select_measures("coverage")
        found = measure_run(run, measures, n=n, data_root=job.root)[0].results
        many = {}
        if job.experiment in TOYS:
            many = measure_run(run, select_measures("reverse_kl,mode_std_error"), n=10 * n)[0].results
    values, of_many = ({name: one.value.value for name, one in results.items()} for results in (found, many))
    kl = values.get("reverse_kl", float("inf"))
    coverage, std_error = values.get("coverage"), of_many.get("mode_std_error")
    kl_of_many = of_many.get("reverse_kl")
    return Result(values["modes"], values.get("high_quality"), kl, seconds, coverage, std_error, kl_of_many)


def describe(result: Result) -> str:
    """The result in a line of the output."""
    quality = "" if result.high_quality is None else f"{100 * result.high_quality:6.2f} % high quality  "
    coverage = "" if result.coverage is None else f"coverage {result.coverage:.3f}  "
    width = "" if result.std_error is None else f"width 1 +- {result.std_error:.2f}  "
    kl = f"KL {result.kl:.4f}" + ("" if result.kl_of_many is None else f" ({result.kl_of_many:.4f})")
    return f"{result.modes:7.1f} modes  {quality}{kl}  {coverage}{width}{result.seconds:5.0f} CPU s"


def summarise(results: Sequence[Result], smallest: Summary, largest: Summary) -> Result:
    """The results of several runs as one: `smallest` summarises what should be large, and `largest` what should not."""

    def of(values: Iterable[float | None], summary: Summary) -> float | None:
        known = [value for value in values if value is not None]
        return summary(known) if known else None

    return Result(
        smallest([one.modes for one in results]),
        of((one.high_quality for one in results), smallest),
        largest([one.kl for one in results]),
        largest([one.seconds for one in results]),
        of((one.coverage for one in results), smallest),
        of((one.std_error for one in results), largest),
        of((one.kl_of_many for one in results), largest),
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="The modes found over several seeds, beside published results.")
    parser.add_argument("experiment", choices=tuple(RECIPES))
    parser.add_argument("--seeds", type=int, help="default: 10 for ring and grid, 3 otherwise")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, help="default: those of the recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the recipe")
    parser.add_argument("--workers", type=int, default=1, help="the number of runs at the same time")
    parser.add_argument("--threads", type=int, help="threads per run; default: 1 for ring and grid, 2 otherwise")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="the folder of the complete MNIST")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, twenty steps, one thread, in this process; not a measurement"
    )
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.steps, args.threads = 1, 20, 1
    toy = args.experiment in TOYS
    seeds, threads = args.seeds or (10 if toy else 3), args.threads or (1 if toy else 2)
    print(f"{RECIPES[args.experiment]}, {seeds} seeds, {threads} thread(s) per run, {args.workers} run(s) at a time\n")
    for row in PUBLISHED[args.experiment]:
        print(f"published  {row}")
    for variant in VARIANTS[args.experiment]:
        jobs = [
            Job(args.experiment, variant, seed, args.steps, threads, args.data_root, tuple(args.set), args.quick)
            for seed in range(args.first, args.first + seeds)
        ]
        results: list[Result] = []
        with nullcontext() if args.quick else ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
            for job, result in zip(jobs, (pool.map if pool else map)(train_and_measure, jobs), strict=True):
                results.append(result)
                print(f"ours       {variant:<14} seed {job.seed:<3} {describe(result)}", flush=True)
        for label, smallest, largest in (("mean", mean, mean), ("worst", min, max)):
            print(f"ours       {variant:<14} {label:<8} {describe(summarise(results, smallest, largest))}", flush=True)


if __name__ == "__main__":
    main()
