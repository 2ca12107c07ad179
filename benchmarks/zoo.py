"""Every shipped recipe for pictures, trained on `digits` for the same number of real pictures: a table, and sheets.

    python benchmarks/zoo.py zoo --images 96000 --workers 2
    python benchmarks/zoo.py zoo                              (the table of what is there, and what is missing trained)

Runs go side by side, one thread each, each in a process of its own; a run that is there is not repeated. Printed as
Markdown: parameters, D's moves per step, real pictures per second (measured apart, each recipe alone on one thread),
the Frechet distance on a small classifier's features, and how surely and evenly that classifier sees digits
(`digits_quality.py` says how). Sheets are copied beside the table, under the recipe's name. One seed: this shows that
each recipe works, not which is better.
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
from poise.recipe.read import decode
from poise.recipe.shipped import names, table
from poise.training.run import Run

sys.path.insert(0, str(Path(__file__).parent))
from digits_quality import SAMPLES, Judge

TOYS = ("ring", "grid")


def train(name: str, out: Path, images: int) -> str:
    """Train one recipe in its own process; returns a line about how it went."""
    if (out / "run.json").is_file() and Run(out).info["state"] == "done":
        return f"{name}: there already"
    shutil.rmtree(out, ignore_errors=True)
    steps = images // decode(table(name)).batch
    words = ["train", name, "--out", str(out), "--steps", str(steps), "--set", "log.samples=500"]
    done = subprocess.run(
        [sys.executable, "-m", "poise", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return f"{name}: {'done' if done.returncode == 0 else done.stderr.splitlines()[-1]}"


def speed(name: str) -> float:
    """Real pictures per pile and second, alone on one thread: the better of the last two of three rows of ten steps."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", name, "--out", f"{folder}/run", "--steps", "30", "--set", "log.rows=10"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "poise", *words], env=environment, capture_output=True, check=True)
        rates = [row["stats"]["time/images_per_second"]["mean"] for row in Run(f"{folder}/run").rows]
    return max(rates[1:])


def row(name: str, out: Path, judge: Judge) -> list[str]:
    """One line of the table."""
    run = Run(out)
    tempo = run.game.tempo.most
    sizes = run.info["parameters"]
    quality = judge(run.sample(SAMPLES, seed=1))
    return [
        name,
        f"{sizes['g'] / 1e3:,.0f} k / {sizes['d'] / 1e3:,.0f} k",
        f"{tempo.d} : {tempo.g}",
        f"{speed(name):,.0f}",
        f"{quality.frechet:.1f}",
        f"{quality.sure:.0%}",
        f"{min(quality.counts)} to {max(quality.counts)}",
    ]


def main() -> None:
    """See the module."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("out", type=Path)
    asked.add_argument("--images", type=int, default=96_000)
    asked.add_argument("--workers", type=int, default=2)
    asked.add_argument("--only", nargs="*", default=None)
    told = asked.parse_args()
    chosen = [name for name in names() if name not in TOYS and (told.only is None or name in told.only)]
    chosen = [name for name in chosen if table(name)["data"]["kind"] == "digits"]
    told.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(told.workers) as pool:
        for line in pool.map(lambda name: train(name, told.out / name, told.images), chosen):
            print(line, file=sys.stderr, flush=True)
    judges: dict[int, Judge] = {}
    head = ["recipe", "parameters G / D", "moves D : G", "images/s", "Frechet", "sure", "of each digit"]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for name in chosen:
        size = table(name)["data"]["size"]
        judge = judges.setdefault(size, Judge(size))
        try:
            print("| " + " | ".join(row(name, told.out / name, judge)) + " |")
        except PoiseError as error:
            print(f"| {name} | {error} |")
            continue
        newest = max((told.out / name / "samples").glob("step-*.png"))
        shutil.copy(newest, told.out / f"{name}.png")
    for size, judge in judges.items():
        print(f"\nAt {size} pixels the floor, training digits against held-out ones, is {judge.floor:.1f}.")


if __name__ == "__main__":
    main()
