"""The overhead of frames: a game in the plane with and without them, alternately for a block of steps.

    python benchmarks/frames.py
    python benchmarks/frames.py --recipe ring --rounds 60

Both runs are complete trainings in this process, rows, diagnostics and sample grids included, on one thread. Times are
processor times, so that other load on the machine does not count. The clock of frames stands still while the other run
makes its steps, so that their number and their share of the time are those of a run alone. The median over rounds of
the ratio of both speeds is printed, and how much space the run folders take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import torch

from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.runs.frames import read_frames
from poise.training.frames import FrameClock
from poise.training.listener import NullListener
from poise.training.train import open_trainer
from poise.training.trainer import Trainer

RECIPES = ("ring", "grid")


class OwnTime:
    """A clock of processor time that only runs within `running`."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    def seconds(self) -> float:
        """The time so far."""
        return self._before + (0.0 if self._since is None else time.process_time() - self._since)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A context in which the clock runs."""
        self._since = time.process_time()
        try:
            yield
        finally:
            self._before, self._since = self.seconds(), None


def recipe_with(name: str, steps: int, frames: float) -> Recipe:
    """A shipped recipe without measures, so that only training is timed."""
    table = load_table(name)
    table.pop("measure", None)
    return decode(table | {"steps": steps, "log": {**table.get("log", {}), "frames": frames}})


def block_seconds(trainer: Trainer, clock: OwnTime, steps: int) -> float:
    """The processor time that a block of steps takes, in seconds."""
    before = clock.seconds()
    with clock.running():
        for _ in range(steps):
            trainer.step()
    return clock.seconds() - before


def folder_bytes(folder: Path) -> int:
    """The space that the files of a folder occupy on the disk, in bytes."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(getattr(file, "st_blocks", -(-file.st_size // 512)) * 512 for file in files)


def compare(name: str, rounds: int, steps: int, rate: float) -> None:
    """Train a recipe with and without frames, and print the comparison."""
    clocks, ratios = {"with": OwnTime(), "without": OwnTime()}, list[float]()
    with TemporaryDirectory() as place, ExitStack() as stack:
        folders = {key: Path(place) / key for key in clocks}
        trainers: dict[str, Trainer] = {}
        for key, folder in folders.items():
            recipe = recipe_with(name, (rounds + 1) * steps, rate if key == "with" else 0)
            trainers[key] = stack.enter_context(open_trainer(recipe, folder, listener=NullListener()))
            stack.enter_context(trainers[key].session())
        trainers["with"].frame_clock = FrameClock(rate, clocks["with"].seconds)
        for turn in range(rounds + 1):
            order = ("with", "without") if turn % 2 else ("without", "with")
            seconds = {key: block_seconds(trainers[key], clocks[key], steps) for key in order}
            if turn:  # the first round is a warm-up
                ratios.append(seconds["without"] / seconds["with"])
        frames = read_frames(folders["with"] / "frames.bin")
        assert frames is not None
        count, file_size = int(frames.records["number"][-1]) + 1, (folders["with"] / "frames.bin").stat().st_size
        sizes = {key: folder_bytes(folder) / 1e6 for key, folder in folders.items()}
    low, _, high = quantiles(ratios, n=4)
    speed = {key: (rounds + 1) * steps / clock.seconds() for key, clock in clocks.items()}
    print(f"{name}: {speed['with']:.1f} steps per second with frames, {speed['without']:.1f} without")
    print(f"  ratio over {rounds} rounds of {steps} steps: median {median(ratios):.4f}, {low:.4f} to {high:.4f}")
    print(f"  {count / clocks['with'].seconds():.1f} frames per second, {count} frames")
    print(f"  on the disk: {sizes['with']:.2f} MB with frames, {sizes['without']:.2f} MB without", flush=True)
    print(f"  frames.bin: {file_size / 1e6:.2f} MB, holes included", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="ring, grid; both if none is given")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="the steps of a block")
    parser.add_argument("--rate", type=float, default=10.0, help="log.frames")
    parser.add_argument("--quick", action="store_true", help="two rounds of two steps; not a measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds, steps = (2, 2) if args.quick else (args.rounds, args.steps)
    for name in args.recipe or RECIPES:
        compare(name, rounds, steps, args.rate)


if __name__ == "__main__":
    main()
