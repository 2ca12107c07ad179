"""Images per second and memory of DCGAN against its width, the resolution, the batch, the data's size and the threads.

    python benchmarks/sizes.py --write      # writes sizes.jsonl and the table of docs/speed.md; twenty minutes

One size at a time is changed from DCGAN-64: width 64, 64 x 64 pixels, batch 64, 1,000 images, one thread. Every case
runs in a process of its own, whose peak memory is that of the case. "Share of the peak" is the number of floating point
operations of a step (counted by PyTorch) per second, divided by what the largest of some matrix products reaches in the
same process between and after the steps. Images are colour noise in a file that is mapped; a million of them need 12 GB
of disk.

`--quick` runs two tiny cases for a moment, which is no measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
import torch

from _measuring import FlopCounter, median_seconds, peak_flops, replace_block, timed
from poise.data.source import DataSplits, ImageDataset
from poise.engine.compute import ComputeSettings, Precision, native_bf16
from poise.training.state import TrainState
from throughput import Size, image_recipe

RESULTS = Path(__file__).with_name("sizes.jsonl")
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
PRODUCTS = (1024, 2048, 4096)
"""The sides of the square matrices whose product gives the peak."""

STEPS = 3
"""The number of steps that are timed before, and after, the first measurement of the peak."""


class Case(NamedTuple):
    """What is measured: the sizes, and the threads and the precision that a step is computed with."""

    width: int = 64
    side: int = 64
    batch: int = 64
    images: int = 1_000
    threads: int = 1
    precision: Precision = "fp32"


def cases(*, quick: bool) -> Iterator[Case]:
    """The base case, and the cases that differ from it in one size, in each precision that the processor has."""
    base = Case(width=4, side=32, batch=4, images=8) if quick else Case()
    changes: list[dict[str, int]] = [{}, {"batch": 8}] if quick else [{}]
    if not quick:
        for name, values in (
            ("width", (16, 32, 128)),
            ("side", (32, 128)),
            ("batch", (16, 256)),
            ("images", (10_000, 100_000, 1_000_000)),
            ("threads", (2,)),
        ):
            changes += [{name: value} for value in values]
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if native_bf16(torch.device("cpu")) else ("fp32",)
    for precision in precisions:
        for change in changes:
            if not (precision == "bf16" and "images" in change):
                yield base._replace(precision=precision, **change)


def noise(case: Case, folder: Path) -> ImageDataset:
    """The images of a case, in a mapped file that later cases use again."""
    shape = (case.images, case.side, case.side, 3)
    path = folder / f"{case.images}-{case.side}.bytes"
    if not path.exists():
        generator, block = np.random.default_rng(0), max(1, 2**26 // (3 * case.side**2))
        with path.open("wb") as stream:
            for start in range(0, case.images, block):
                count = min(block, case.images - start)
                stream.write(generator.integers(0, 256, (count, *shape[1:]), np.uint8).tobytes())
    return ImageDataset(np.memmap(path, np.uint8, "r", shape=shape), rows=np.arange(case.images))


class PeakMemory:
    """Looks again and again how much memory this process has, without pages of mapped files (Linux only)."""

    def __init__(self) -> None:
        self.mebibytes, self._over = 0.0, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            anonymous = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            self.mebibytes = max(self.mebibytes, int(anonymous.split()[1]) / 2**10)
            if self._over.wait(0.01):
                return

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def measure(case: Case, folder: Path, *, quick: bool) -> dict[str, float]:
    """The results of a case, in this process."""
    torch.set_num_threads(case.threads)
    recipe = image_recipe(Size(width=case.width, batch=case.batch))
    table = recipe.canonical()
    table["data"] = {"kind": "folder", "path": "noise", "size": case.side}
    recipe = type(recipe).model_validate(table)
    state = TrainState(recipe, ComputeSettings(torch.device("cpu"), case.precision), DataSplits(noise(case, folder)))
    with FlopCounter() as counter:
        state.step()
    dtype, sides = (torch.float32 if case.precision == "fp32" else torch.bfloat16), (64,) if quick else PRODUCTS
    steps, memory, peaks = [], PeakMemory(), []
    with memory:
        state.step()
    for _ in range(2):
        steps += timed(state.step, 1 if quick else STEPS)
        peaks.append(peak_flops(dtype, sides, median_seconds))
    step = median(steps)
    share = counter.get_total_flops() / step / max(peaks)
    return {
        "images/s": round(case.batch / step, 1),
        "GFLOP/image": round(counter.get_total_flops() / case.batch / 1e9, 3),
        "peak GFLOP/s": round(max(peaks) / 1e9, 1),
        "share": round(share, 3),
        "MiB": round(memory.mebibytes),
    }


def table(lines: list[dict[str, float | str]]) -> str:
    """The results as a table of markdown."""
    names = Case._fields[:-1]
    rows = [
        "| width | pixels | batch | images | threads | precision | images/s | share of the peak | MiB |",
        "|" + "---|" * 9,
    ]
    for line in lines:
        sizes = " | ".join(f"{int(line[name]):,}" for name in names)
        rate, share, memory = float(line["images/s"]), float(line["share"]), float(line["MiB"])
        rows.append(f"| {sizes} | {line['precision']} | {rate:,.1f} | {share:.0%} | {memory:,.0f} |")
    return "\n".join(rows)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Images per second and memory of DCGAN against its sizes.")
    parser.add_argument("--quick", action="store_true", help="two tiny cases; not a measurement")
    parser.add_argument("--write", action="store_true", help="write sizes.jsonl and the table of docs/speed.md")
    parser.add_argument("--folder", type=Path, help="where images are kept, by default in a temporary folder")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(Case(**json.loads(args.case)), args.folder, quick=args.quick)))
        return
    lines: list[dict[str, float | str]] = []
    with TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for case in cases(quick=args.quick):
            command = [sys.executable, __file__, "--folder", str(folder), "--case", json.dumps(case._asdict())]
            environment = os.environ | {"OMP_NUM_THREADS": str(case.threads)}
            if args.quick:
                result = measure(case, folder, quick=True)
            else:
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
                result = json.loads(output)
            lines.append({**case._asdict(), **result})
            print(json.dumps(lines[-1]), flush=True)
    text = table(lines)
    print(text)
    if args.write and not args.quick:
        RESULTS.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        PAGE.write_text(replace_block(PAGE.read_text("utf-8"), "sizes", text), "utf-8")


if __name__ == "__main__":
    main()
