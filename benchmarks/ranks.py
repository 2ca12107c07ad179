"""Throughput on several ranks: one rank with all cores as threads, and a rank per core, with the same batch.

    python benchmarks/ranks.py --recipes dcgan,ring --rounds 5

Both train the same recipe by turns, in processes of their own. Printed are the images per second of each, the median
over the rounds of each round's median row, and the median ratio with the smallest and the largest. The first row of a
run does not count. CPU only.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value, to_toml

CHANGES = ("log.to=[]", "log.saves=1000000", "log.samples=1000000", "log.sheet=4", "log.frames=0")
STEPS = {"dcgan": (80, 10), "ring": (1500, 250)}
"""The number of steps, and of those between two rows."""


def free_port() -> int:
    """A port that nothing uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, ranks: int, port: int, threads: int) -> dict[str, str]:
    """What torchrun would set, for one rank of several, and the number of threads."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    chosen = (launched if ranks > 1 else {}) | {"OMP_NUM_THREADS": threads}
    return os.environ | {name: str(value) for name, value in chosen.items()}


def images_per_second(recipe: Path, out: Path, ranks: int, threads: int) -> float:
    """The median of all rows but the first of a run."""
    command, port = [sys.executable, "-m", "poise", "train", str(recipe), "--out", str(out)], free_port()
    processes = [
        subprocess.Popen(command, env=environment(rank, ranks, port, threads), stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    for process in processes:
        text = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"a rank ended with exit code {process.returncode}: {text}")
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    rates = [row["stats"]["time/images_per_second"]["mean"] for row in rows]
    return median(rates[1:] or rates)


def write_recipe(path: Path, name: str, *, quick: bool) -> None:
    """A file with a shipped recipe, which is not measured or saved on the way."""
    table = load_table(name)
    table.pop("measure", None)
    steps, rows = (4, 2) if quick else STEPS.get(name, STEPS["dcgan"])
    for change in (*CHANGES, f"steps={steps}", f"log.rows={rows}"):
        set_value(table, change)
    path.write_text(to_toml(table), "utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="dcgan,ring")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=len(os.sched_getaffinity(0)), help="by default one per core")
    parser.add_argument("--quick", action="store_true", help="one round of four steps, which measures nothing")
    options = parser.parse_args()
    names = options.recipes.split(",")[: 1 if options.quick else None]
    for name in names:
        results: dict[int, list[float]] = {1: [], options.ranks: []}
        for number in range(1 if options.quick else options.rounds):
            for ranks in sorted(results, reverse=number % 2 == 1):
                with TemporaryDirectory() as folder:
                    recipe = Path(folder) / f"{name}.toml"
                    write_recipe(recipe, name, quick=options.quick)
                    rate = images_per_second(recipe, Path(folder) / "run", ranks, options.ranks // ranks)
                    results[ranks].append(rate)
        ratios = [many / one for one, many in zip(results[1], results[options.ranks], strict=True)]
        one, many = (median(rates) for rates in results.values())
        print(f"{name}: 1 rank with {options.ranks} threads {one:,.0f} images/s, {options.ranks} ranks {many:,.0f}")
        print(f"    ratio {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] over {len(ratios)} rounds")


if __name__ == "__main__":
    main()
