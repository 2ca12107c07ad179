"""Seconds of CPU until a target FID: poise beside other GAN trainers, on the same images and by the same measure.

    python benchmarks/time_to_quality.py digits                       # every system, three seeds
    python benchmarks/time_to_quality.py cifar10 --cifar DIR          # DIR: CIFAR-10's images, a folder per class
    python benchmarks/time_to_quality.py digits --systems poise,torchgan --workers 2
    python benchmarks/time_to_quality.py table                        # of the recorded results; --quick

Each peer is a plain loop that was written anew after its public code; the modules `_peers_*.py` name the source and the
settings. poise is what `poise train` does without a recipe (digits) and what `poise train --data DIR` chooses for the
time limit (CIFAR-10), in the precision that it chooses and in float32.

All train on the same images at 32 x 32, the training part of poise's split, and are measured by poise's FID against the
held-out ones, with the features that `--features auto` chooses: a small classifier of the data. The target is 10 on the
digits with 1,000 samples, 20 on CIFAR-10 with 5,000. A system has met it if two measurements in a row are below it; the
time is that of the first one. Measurements are at least 8 % of the time apart, and at least as long as one takes.

The clock is the CPU time of the process in its steps, without measurements and preparations. Peers draw batches from a
tensor in memory, which none of their loaders does faster. A run is a process with one thread, so several can go side by
side, but a busy machine still slows the clock (shared caches, frequency): compare runs that were made under the same
load. Results are appended to a file when a run ends; a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from _peers import Batches, Draw, Facts, Labelled, System
from _peers_lightweight import lightweight, small_lightweight
from _peers_poise import Poise, recipe_for
from _peers_studiogan import studiogan_dcgan, studiogan_sngan
from _peers_torchgan import torchgan
from _peers_tutorial import narrow_tutorial, tutorial
from poise.data.lookup import data_table
from poise.data.source import DataSplits, SizedSource
from poise.errors import DataError
from poise.measure.catalogue import select_measures
from poise.measure.evaluator import Evaluator
from poise.recipe.choose import Limits
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import DEFAULT, load_table
from poise.recipe.toml import Table, set_value
from poise.training.default_recipe import default_choice
from poise.utils.files import append_line
from poise.utils.image_grid import image_grid, write_png
from poise.utils.images import to_float

RESULTS = Path(__file__).parent / "studies" / "peers" / "results.jsonl"
SIDE = 32
FIRST, GROWTH = 10.0, 1.08
"""The seconds until the first measurement, and the least ratio of the times of two successive ones."""

POISE = {"poise": "auto", "poise-fp32": "fp32"}
"""poise's names among the systems, and the precisions."""

PEERS: dict[str, Callable[..., System]] = {
    "dcgan-tutorial": tutorial,
    "dcgan-tutorial-32": narrow_tutorial,
    "torchgan": torchgan,
    "studiogan-dcgan": studiogan_dcgan,
    "studiogan-sngan": studiogan_sngan,
    "lightweight-gan": lightweight,
    "lightweight-gan-small": small_lightweight,
}
VARIANTS = ("poise-fp32", "dcgan-tutorial-32", "lightweight-gan-small")
"""Systems that differ from another one in a setting only."""

TARGETS, NUM_SAMPLES = {"digits": 10.0, "cifar10": 20.0}, {"digits": 1000, "cifar10": 5000}
QUICK = ["steps=2", "batch=4", "network.g.width=4", "network.d.width=4", "log.sheet=4"]

Curve = list[tuple[float, int, float]]
"""The CPU seconds, the steps and the FID of each measurement."""


class Task(NamedTuple):
    """What is trained on, and how well.

    Attributes:
        data: "digits" or "cifar10".
        recipe: poise's recipe, whose data all systems use.
        splits: the training and the held-out images.
        own_steps: whether the recipe has a number of steps of its own, which is then kept.
    """

    data: str
    recipe: Recipe
    splits: DataSplits
    own_steps: bool

    @property
    def facts(self) -> Facts:
        """What peers must know of the training images."""
        train = self.splits.train
        assert isinstance(train, SizedSource)
        return Facts(train.shape[0], len(train.classes), len(train), flips=self.data != "digits")

    def batches(self, seed: int) -> Batches:
        """The training images for a peer."""
        train = self.splits.train
        assert isinstance(train, SizedSource)
        images, labels = train.gather(torch.arange(len(train)))
        if labels is None:
            cure = "give a folder with one folder per class"
            raise DataError("the images need classes", where="--cifar", found="none", cure=cure)
        return Batches(to_float(images).contiguous(), labels, seed)


def make_task(data: str, cifar: Path | None, limit: float, *, quick: bool) -> Task:
    """The task of this name."""
    if data == "digits":
        table: Table = load_table(DEFAULT)
    else:
        images = data_table(str(cifar), option="--cifar")
        table = default_choice(images, Limits(limit, SIDE), device="cpu", precision="auto").table
    for change in QUICK if quick else ():
        set_value(table, change)
    recipe = decode(table)
    return Task(data, recipe, recipe.data.load(), quick or data == "digits")


def build(task: Task, name: str, seed: int, seconds: float | None, limit: float, *, quick: bool) -> System:
    """A system with its initial weights.

    Args:
        task: the task.
        name: the system.
        seed: the seed of its random numbers.
        seconds: poise's training time; None for the recipe's own number of steps, or else for the limit.
        limit: the most seconds of training.
        quick: whether to make it tiny.
    """
    torch.manual_seed(seed)
    if name not in POISE:
        return PEERS[name](task.facts, tiny=quick)
    recipe = task.recipe
    if seconds is not None or not task.own_steps:
        recipe = recipe_for(recipe, task.splits, seconds or limit, POISE[name])
    return Poise(decode(recipe.canonical() | {"seed": seed}), POISE[name])


class Evaluation:
    """Measures a system: FID of samples whose latents are the same each time."""

    def __init__(self, task: Task, seed: int, *, quick: bool) -> None:
        n, features = (50, "pixels") if quick else (NUM_SAMPLES[task.data], "auto")
        self.evaluator = Evaluator(task.recipe.data, task.splits, features, n)
        self.seed = seed

    def fid(self, system: System) -> float:
        """The FID of a system's samples, infinite if they are not finite; the global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            samples = system.sample(self.evaluator.n)
        if not samples.isfinite().all():
            return math.inf
        return self.evaluator.measure(lambda n: samples[:n], select_measures(("fid",))).results["fid"].value.value


def time_to_target(curve: Curve, target: float) -> float | None:
    """The seconds of the first of two successive measurements below the target; None if there are none."""
    return next((a[0] for a, b in pairwise(curve) if max(a[2], b[2]) < target), None)


def trained(
    system: System, draw: Draw, fid: Callable[[], float], target: float, limit: float, *, quick: bool = False
) -> Curve:
    """Train a system until it has met the target, has made its steps or has used up its time, and measure it meanwhile.

    Args:
        system: the system.
        draw: draws training images.
        fid: measures the system; infinite ends the run.
        target: the FID to reach.
        limit: the most CPU seconds of training.
        quick: whether to make only two steps, each with a measurement.
    """
    curve: Curve = []
    seconds, steps, due = 0.0, 0, 0.0 if quick else FIRST
    while time_to_target(curve, target) is None:
        start = time.process_time()
        system.step(draw)
        seconds, steps = seconds + time.process_time() - start, steps + 1
        last = system.ended or seconds >= limit or (quick and steps == 2)
        if last or seconds >= due:
            start = time.process_time()
            curve.append((round(seconds, 2), steps, round(fid(), 3)))
            due = max(seconds * GROWTH, seconds + time.process_time() - start)
            print(f"    {seconds:,.0f} s, step {steps:,}: FID {curve[-1][2]:.2f}", flush=True)
            if last or math.isinf(curve[-1][2]):
                break
    return curve


def run(options: argparse.Namespace, name: str, seed: int) -> None:
    """Train and measure one system with one seed, and append the result."""
    torch.set_num_threads(1)
    task = make_task(options.data, options.cifar, options.limit, quick=options.quick)
    target, evaluation = TARGETS[task.data], Evaluation(task, seed, quick=options.quick)
    system = build(task, name, seed, options.time, options.limit, quick=options.quick)
    print(f"{task.data}, {name}, seed {seed}: {system.settings}", flush=True)
    draw = no_images if isinstance(system, Poise) else task.batches(seed)
    try:
        curve = trained(system, draw, lambda: evaluation.fid(system), target, options.limit, quick=options.quick)
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            write_png(image_grid(system.sample(100)), options.sheets / f"{task.data}-{name}-{seed}.png")
    finally:
        if isinstance(system, Poise):
            system.close()
    seconds, steps, _ = curve[-1]
    line = {"data": task.data, "system": name, "seed": seed, "settings": system.settings, "target": target}
    line |= {"seconds": time_to_target(curve, target), "limit": options.limit, "trained": seconds}
    line |= {"images_per_second": round(steps * system.images_per_step / seconds, 1), "parameters": system.parameters}
    line |= {"n": evaluation.evaluator.n, "features": evaluation.evaluator.extractor.name, "torch": torch.__version__}
    line |= {"curve": [point for point in curve if math.isfinite(point[2])]}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    append_line(options.results, line)


def no_images(n: int) -> Labelled:
    """What poise gets, as it loads its images itself.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("poise loads its images itself")


def read_results(path: Path) -> list[dict[str, Any]]:
    """The recorded results."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def is_known(results: list[dict[str, Any]], data: str, name: str, seed: int, limit: float) -> bool:
    """Whether there is a result of a run that has met the target, or had at least as much time."""
    return any(
        (line["data"], line["system"], line["seed"]) == (data, name, seed)
        and (line["seconds"] is not None or line["limit"] >= limit)
        for line in results
    )


def run_missing(options: argparse.Namespace) -> None:
    """Run what has no result yet, each run in a process of its own with one thread."""
    results, names = read_results(options.results), options.systems
    jobs = [
        (name, seed)
        for seed in range(options.seeds)
        for name in names
        if not is_known(results, options.data, name, seed, options.limit)
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(job: tuple[str, int]) -> None:
        name, seed = job
        command = [sys.executable, __file__, *sys.argv[1:], "--systems", name, "--seed", str(seed)]
        if subprocess.run(command, env=environment).returncode:
            print(f"{options.data}, {name}, seed {seed}: failed, no result", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(start, jobs))


def table(results: list[dict[str, Any]], data: str) -> str:
    """The results on one data set in Markdown; the last line of a system and a seed counts."""
    groups: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in results:
        if line["data"] == data:
            groups[line["system"]][line["seed"]] = line
    found = {name: list(groups[name].values()) for name in [*POISE, *PEERS] if name in groups}
    best = min((median_seconds(lines) for name, lines in found.items() if name not in POISE), default=math.inf)
    header = ["system", "settings", "seeds", f"CPU seconds to FID {TARGETS[data]:g}", "beside the best peer"]
    header += ["images/s", "parameters G / D"]
    rows = [header, ["---"] * len(header)]
    for name, lines in found.items():
        middle = median_seconds(lines)
        ratio = f"{middle / best:.2f}" if math.isfinite(middle) and math.isfinite(best) else ""
        rate = f"{median(line['images_per_second'] for line in lines):,.0f}"
        parameters = " / ".join(f"{count / 1e3:,.0f} k" for count in lines[0]["parameters"])
        rows.append([name, lines[-1]["settings"], str(len(lines)), describe_times(lines), ratio, rate, parameters])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def times(lines: list[dict[str, Any]]) -> list[float]:
    """The times to the target in ascending order, infinite where it was not met."""
    return sorted(math.inf if line["seconds"] is None else line["seconds"] for line in lines)


def median_seconds(lines: list[dict[str, Any]]) -> float:
    """The median of the times."""
    return median(times(lines))


def describe_times(lines: list[dict[str, Any]]) -> str:
    """The median time with the smallest and the largest; or that the target was not met, and the best FID."""
    known, middle = times(lines), median_seconds(lines)
    if math.isinf(middle):
        best = min((point[2] for line in lines for point in line["curve"]), default=math.inf)
        shortest, longest = (f"{choose(line['trained'] for line in lines):,.0f}" for choose in (min, max))
        within = longest if shortest == longest else f"{shortest} to {longest}"
        return f"not within {within} s (best FID {best:.1f})"
    low, high = (f"{value:,.0f}" if math.isfinite(value) else "not met" for value in (known[0], known[-1]))
    return f"{middle:,.0f}" if len(known) == 1 else f"{middle:,.0f} [{low}, {high}]"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=[*TARGETS, "table"], help="what to train on, or only print the tables")
    names = [*POISE, *PEERS]
    parser.add_argument("--systems", type=lambda text: text.split(","), help=", ".join(names))
    parser.add_argument("--cifar", type=Path, metavar="DIR", help="the folder of CIFAR-10's images")
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds")
    parser.add_argument("--seed", type=int, help="run only this seed, in this process")
    parser.add_argument("--limit", type=float, default=1800.0, help="the most CPU seconds of a run")
    parser.add_argument("--time", type=float, help="poise's training time in seconds, as in `poise train --time`")
    parser.add_argument("--workers", type=int, default=1, help="the number of runs at the same time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the results")
    parser.add_argument("--sheets", type=Path, help="a folder for samples of each run")
    parser.add_argument("--quick", action="store_true", help="two steps of tiny networks, which measure nothing")
    options = parser.parse_args()
    options.systems = options.systems or [name for name in names if not options.quick or name not in VARIANTS]
    if unknown := set(options.systems) - set(names):
        parser.error(f"no such system: {', '.join(sorted(unknown))}")
    if options.data == "cifar10" and options.cifar is None:
        parser.error("cifar10 needs --cifar DIR, a folder of its images with one folder per class")
    if options.data == "table":
        results = read_results(options.results)
        tables = [table(results, data) for data in TARGETS if any(line["data"] == data for line in results)]
        print("\n\n".join(tables) or f"there are no results in {options.results}")
    elif options.quick:
        with tempfile.TemporaryDirectory() as folder:
            options.results = Path(folder) / "results.jsonl"
            for name in options.systems:
                run(options, name, 0)
            print(table(read_results(options.results), options.data))
    elif options.seed is not None:
        for name in options.systems:
            run(options, name, options.seed)
    else:
        run_missing(options)
        print(table(read_results(options.results), options.data))


if __name__ == "__main__":
    main()
