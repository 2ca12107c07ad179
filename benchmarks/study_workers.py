"""How much faster two workers finish a study than one: the same study of small runs, alternately with one and with two.

    python benchmarks/study_workers.py
    python benchmarks/study_workers.py --rounds 5 --images 100000

Each time is that of the whole command `poise study`, with its start. The CPU times show what it costs when other
processes use the cores as well. The median over rounds of the ratio of both times is printed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

PLAN = """
name = "small-runs"
seeds = {seeds}
budget = {{ images = {images} }}
evaluations = 1

[base.ring]
recipe = "ring"
set = ["tricks=[]", 'objective={{kind="non_saturating"}}']
measures = ["modes"]

[[tip]]
id = "T16"
name = "packing"
set = ['tricks+=[{{kind="packing", samples=2}}]']
"""


class Duration(NamedTuple):
    """The time of a study in seconds: elapsed, and CPU time of all its processes."""

    elapsed: float
    cpu: float


def time_study(plan: Path, out: Path, workers: int) -> Duration:
    """Train a study in a new process.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    words = [sys.executable, "-m", "poise", "study", str(plan), "--out", str(out), "--workers", str(workers)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Duration(time.perf_counter() - start, cpu)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10, help="two runs for each")
    parser.add_argument("--images", type=int, default=100_000, help="the real images that D sees in a run")
    parser.add_argument("--quick", action="store_true", help="one round of two runs of two steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seeds, args.images = 1, 1, 512
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.toml"
        plan.write_text(PLAN.format(seeds=args.seeds, images=args.images), "utf-8")
        print(f"{2 * args.seeds} runs of {max(1, round(args.images / 256))} steps; seconds (CPU seconds)")
        for number in range(args.rounds):
            one, two = (time_study(plan, Path(folder) / f"{number}-{workers}", workers) for workers in (1, 2))
            ratios.append(one.elapsed / two.elapsed)
            print(
                f"one worker {one.elapsed:.1f} ({one.cpu:.1f}), two workers {two.elapsed:.1f} ({two.cpu:.1f}): "
                f"{ratios[-1]:.2f} times faster",
                flush=True,
            )
    print(f"median: {median(ratios):.2f} times faster")


if __name__ == "__main__":
    main()
