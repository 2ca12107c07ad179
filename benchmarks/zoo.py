"""The recipe zoo: every shipped image recipe is trained on `digits` for the same number of real images.

    python benchmarks/zoo.py zoo --images 96000 --workers 2
    python benchmarks/zoo.py zoo                              (trains what is missing, then prints the table)
    python benchmarks/zoo.py zoo --quick                      (one recipe, two steps, to see that everything runs)

Runs are trained in parallel, each in its own process with one thread; a run that exists is not repeated. A Markdown
table is printed: the parameters, the moves of D and G per step, real images per second (measured separately, one recipe
at a time on one thread), and the results of `poise measure` on 1,000 samples, with the floors in one line for each
image size. The sample grid of each recipe is written into the folder under its name. There is one seed: the table shows
that each recipe works, not which is better.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from poise.errors import PoiseError
from poise.measure.catalogue import EvaluationResult, select_measures
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table, recipe_names
from poise.runs.evaluate import measure_run
from poise.runs.run import Run

MEASURES = ("fid", "precision", "recall", "coverage", "class_confidence", "class_balance")
QUICK = ["--set", "batch=4", "--set", "measure=none"]


def train(name: str, out: Path, images: int, *, quick: bool) -> str:
    """Train one recipe in its own process, and return a message."""
    if (out / "run.json").is_file() and Run(out).info["state"] == "done":
        return f"{name}: exists already"
    shutil.rmtree(out, ignore_errors=True)
    steps = 2 if quick else images // decode(load_table(name)).batch
    command = [
        "train",
        name,
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--set",
        "log.samples=500",
        *(QUICK if quick else []),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "poise", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return f"{name}: {'done' if done.returncode == 0 else done.stderr.splitlines()[-1]}"


def speed(name: str, *, quick: bool) -> float:
    """Real images per second on one thread: the better of the last two of three rows of ten steps."""
    steps = 1 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        command = ["train", name, "--out", f"{folder}/run", "--steps", str(3 * steps), "--set", f"log.rows={steps}"]
        command += QUICK if quick else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "poise", *command], env=environment, capture_output=True, check=True)
        rates = [row["stats"]["time/images_per_second"]["mean"] for row in Run(f"{folder}/run").rows]
    return max(rates[1:])


def row(name: str, out: Path, *, quick: bool) -> tuple[list[str], EvaluationResult]:
    """The cells of a recipe's line in the table, and its measures."""
    run = Run(out)
    moves, counts = run.game.tempo.max_moves, run.info["parameters"]
    options = {"n": 50, "features": "pixels"} if quick else {}
    result, _ = measure_run(run, select_measures(MEASURES), **options)
    values = [format_value(one.value.value) for one in result.results.values()]
    parameters = " / ".join(f"{counts[network] / 1e3:,.0f} k" for network in ("g", "d", "e") if network in counts)
    return [name, parameters, f"{moves.d} : {moves.g}", f"{speed(name, quick=quick):,.0f}", *values], result


def format_value(value: float) -> str:
    """The value with three significant digits."""
    return f"{value:#.3g}".rstrip(".")


def table_line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=96_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--quick", action="store_true", help="one recipe, two steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.only = ["gan"]
    recipes = [name for name in recipe_names() if load_table(name)["data"]["kind"] == "digits"]
    recipes = [name for name in recipes if args.only is None or name in args.only]
    args.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.workers) as pool:
        for message in pool.map(lambda name: train(name, args.out / name, args.images, quick=args.quick), recipes):
            print(message, file=sys.stderr, flush=True)
    floors: dict[int, list[str]] = {}
    header = ["recipe", "parameters G / D / encoder", "moves D : G", "images/s", *MEASURES]
    print(table_line(header))
    print("|---" * len(header) + "|")
    for name in recipes:
        try:
            cells, result = row(name, args.out / name, quick=args.quick)
        except PoiseError as error:
            print(f"| {name} | {error} |")
            continue
        print(table_line(cells), flush=True)
        floors[load_table(name)["data"]["size"]] = [
            format_value(one.floor.value) for one in result.results.values() if one.floor
        ]
        grid = max((args.out / name / "samples").glob("step-*.png"))
        shutil.copy(grid, args.out / f"{name}.png")
    for size, floor in sorted(floors.items()):
        print(table_line([f"real images, {size} x {size} pixels", "", "", "", *floor]))


if __name__ == "__main__":
    main()
