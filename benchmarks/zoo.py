"""Every shipped recipe for pictures, trained on `digits` for the same number of real pictures: a table, and sheets.

    python benchmarks/zoo.py zoo --images 96000 --workers 2
    python benchmarks/zoo.py zoo                              (the table of what is there, and what is missing trained)
    python benchmarks/zoo.py zoo --quick                      (one recipe, two steps: whether everything here runs)

Runs go side by side, one thread each, each in a process of its own; a run that is there is not repeated. Printed as
Markdown: parameters, D's moves per step, real pictures per second (measured apart, each recipe alone on one thread),
and what `poise measure` says of 1,000 samples, floors in a line of their own for each size of picture. Sheets are put
beside the table, under the recipe's name. One seed: this shows that each recipe works, not which is better.
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
    """Train one recipe in its own process; returns a line about how it went."""
    if (out / "run.json").is_file() and Run(out).info["state"] == "done":
        return f"{name}: there already"
    shutil.rmtree(out, ignore_errors=True)
    steps = 2 if quick else images // decode(load_table(name)).batch
    words = [
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
        [sys.executable, "-m", "poise", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return f"{name}: {'done' if done.returncode == 0 else done.stderr.splitlines()[-1]}"


def speed(name: str, *, quick: bool) -> float:
    """Real pictures per pile and second, alone on one thread: the better of the last two of three rows of ten steps."""
    steps = 1 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", name, "--out", f"{folder}/run", "--steps", str(3 * steps), "--set", f"log.rows={steps}"]
        words += QUICK if quick else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "poise", *words], env=environment, capture_output=True, check=True)
        rates = [row["stats"]["time/images_per_second"]["mean"] for row in Run(f"{folder}/run").rows]
    return max(rates[1:])


def row(name: str, out: Path, *, quick: bool) -> tuple[list[str], EvaluationResult]:
    """One line of the table, and what was measured for it."""
    run = Run(out)
    tempo, sizes = run.game.tempo.max_moves, run.info["parameters"]
    few = {"n": 50, "features": "pixels"} if quick else {}
    result, _ = measure_run(run, select_measures(MEASURES), **few)
    figures = [figure(one.value.value) for one in result.results.values()]
    players = " / ".join(f"{sizes[who] / 1e3:,.0f} k" for who in ("g", "d", "e") if who in sizes)
    return [name, players, f"{tempo.d} : {tempo.g}", f"{speed(name, quick=quick):,.0f}", *figures], result


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}".rstrip(".")


def line(cells: list[str]) -> str:
    """A row in Markdown."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """See the module."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("out", type=Path)
    asked.add_argument("--images", type=int, default=96_000)
    asked.add_argument("--workers", type=int, default=2)
    asked.add_argument("--only", nargs="*", default=None)
    asked.add_argument("--quick", action="store_true", help="one recipe, two steps: not a measurement")
    told = asked.parse_args()
    if told.quick:
        told.only = ["gan"]
    recipes = [name for name in recipe_names() if load_table(name)["data"]["kind"] == "digits"]
    recipes = [name for name in recipes if told.only is None or name in told.only]
    told.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(told.workers) as pool:
        for words in pool.map(lambda name: train(name, told.out / name, told.images, quick=told.quick), recipes):
            print(words, file=sys.stderr, flush=True)
    floors: dict[int, list[str]] = {}
    head = ["recipe", "parameters G / D / encoder", "moves D : G", "images/s", *MEASURES]
    print(line(head))
    print("|---" * len(head) + "|")
    for name in recipes:
        try:
            cells, result = row(name, told.out / name, quick=told.quick)
        except PoiseError as error:
            print(f"| {name} | {error} |")
            continue
        print(line(cells), flush=True)
        floors[load_table(name)["data"]["size"]] = [
            figure(one.floor.value) for one in result.results.values() if one.floor
        ]
        newest = max((told.out / name / "samples").glob("step-*.png"))
        shutil.copy(newest, told.out / f"{name}.png")
    for size, floor in sorted(floors.items()):
        print(line([f"real pictures, {size} pixels", "", "", "", *floor]))


if __name__ == "__main__":
    main()
