"""Large data: the time until a million decoded images are open, and how fast batches are loaded beside a training step.

    python benchmarks/feed.py                 # --images 1000000; needs 13 GB of disk space, and takes minutes

The decoded images are synthesised: random pixels, 64 x 64 x 3, in a thousand classes, are written into a cache of their
own, as if they had been decoded from a tar archive. No images are kept in memory, however few they are. Printed are

    opening     CPU seconds from the path to the first batch, in a process of its own: the data with its split, the
                fingerprint (which reads all pixels the first time, and is remembered), the order of an epoch, the class
                counts, a batch of 64; and the peak of the memory that the process has allocated in that time, pages of
                the mapped file left out, as the system may drop them
    step        images per second of a step of DCGAN-64 (width 64, batch 64) on one thread
    feed        images per second that `RealBatches.load` alone loads on the same thread, in batches of 64, and how many
                times as fast that is: of images in memory, and mapped, with the file in the page cache and not
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from _training_loops import Poise
from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext
from poise.data import decode_cache, image_array
from poise.data.classes import classes_by_number
from poise.data.decode_cache import Destination, Entry
from poise.data.pixel_statistics import PixelStatistics
from poise.data.scan import Scanned
from poise.data.source import ImageDataset, SizedSource
from poise.data.tar_shards import TarConfig
from poise.engine.batches import RealBatches
from poise.engine.compute import ComputeSettings
from throughput import FULL, QUICK, image_recipe

CPU = torch.device("cpu")
SIDE, BATCH, CLASSES, BLOCK = 64, 64, 1000, 2048
IN_MEMORY = 50_000
"""The number of images of the set in memory."""

STATUS = Path("/proc/self/status")


def synthesise(config: TarConfig, n: int) -> None:
    """Put n images into the cache of decoded images of an archive, which need not contain any."""
    shards, _ = config.shards()

    def fill(destination: Destination) -> tuple[Entry, bool]:
        images = destination.allocate((n, SIDE, SIDE, 3))
        noise = np.random.default_rng(0).integers(0, 256, (BLOCK, SIDE, SIDE, 3), np.uint8)
        parts = []
        for start in range(0, n, BLOCK):
            block = noise[: n - start]
            numbers = np.arange(start, start + len(block), dtype="<u4").view(np.uint8).reshape(-1, 4)
            block.reshape(len(block), -1)[:, :4] = numbers  # so that all images are different
            images[start : start + len(block)] = block
            parts.append(PixelStatistics.of(block))
        statistics = PixelStatistics(*map(np.concatenate, zip(*parts, strict=True)))
        classes = classes_by_number(np.arange(n) % CLASSES)
        return Scanned(images, np.arange(n), statistics, classes, [], [], []).to_entry(), True

    decode_cache.cached(config.files(shards, time.time()), fill)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The growth of the memory that the process has allocated, in MiB, at its peak in the block; none without /proc."""

    def allocated() -> float:
        return int(STATUS.read_text().split("RssAnon:")[1].split()[0]) / 1024 if STATUS.exists() else 0.0

    start, over = allocated(), threading.Event()
    peak = [0.0]

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], allocated() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak[0] = max(peak[0], allocated() - start)


def open_data(path: str) -> dict[str, float]:
    """CPU seconds of each part of opening the data, and the memory."""
    streams, seconds = RandomStreams(0), {}
    with peak_memory() as peak:
        start = time.process_time()

        def lap(name: str) -> None:
            seconds[name] = time.process_time() - start - sum(seconds.values())

        source = TarConfig(path=path, size=SIDE).load().train
        assert isinstance(source, SizedSource)
        lap("data and split")
        assert source.fingerprint
        lap("fingerprint")
        source.epoch_order(0, streams)
        lap("order")
        assert sum(source.class_counts) == len(source)
        lap("class counts")
        assert len(source.batch(0, BATCH, streams).images) == BATCH
        lap("batch")
    return seconds | {"total": sum(seconds.values()), "MiB": peak[0]}


def images_per_second(source: SizedSource, seconds: float) -> float:
    """The rate of `RealBatches.load`, in wall time."""
    batches, streams = RealBatches(source, CPU, 1), RandomStreams(0)
    source.epoch_order(0, streams)
    start, step = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        batches.load(MoveContext(step, 1, BATCH, streams))
        step += 1
    return step * BATCH / (time.perf_counter() - start)


def drop_from_page_cache(source: ImageDataset) -> None:
    """Ask the system to forget the file that the images are mapped from."""
    assert isinstance(source.images, np.memmap)
    handle = os.open(str(source.images.filename), os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def step_rate(source: ImageDataset, *, quick: bool) -> float:
    """Images per second of poise's own training step."""
    size = QUICK if quick else FULL
    loop = Poise(image_recipe(size), source, ComputeSettings(CPU, "fp32"))
    loop.run(1)
    start, steps = time.perf_counter(), 1 if quick else 10
    loop.run(steps)
    return steps * size.batch / (time.perf_counter() - start)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the images are written; by default that of temporary files")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each feed is timed")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a few images, which measures nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    decode_cache.MIN_AGE, image_array.MEMORY_BUDGET = 0.0, 0
    if options.open:
        print(json.dumps(open_data(options.open)))
        return
    seconds, counts = (0.05, [300]) if options.quick else (options.seconds, options.images)
    with TemporaryDirectory(dir=options.folder) as folder:
        before = os.environ.get("POISE_CACHE")
        os.environ["POISE_CACHE"] = str(Path(folder) / "cache")
        try:
            for n in counts:
                archive = Path(folder) / f"{n}.tar"
                archive.write_bytes(bytes(1024))
                config = TarConfig(path=str(archive), size=SIDE)
                synthesise(config, n)
                for which in ("first", "second"):
                    print(f"{n:,} images, {which} opening: {described(opened(config.path, quick=options.quick))}")
            mapped = config.load().train
            assert isinstance(mapped, ImageDataset)
            kept = min(IN_MEMORY, len(mapped))
            memory = ImageDataset(np.array(mapped.images[:kept]), np.zeros(kept, np.int64), ("one",))
            step = step_rate(memory, quick=options.quick)
            print(f"step: {step:,.0f} images/s")
            rates = {f"{kept:,} images in memory": images_per_second(memory, seconds)}
            drop_from_page_cache(mapped)
            rates[f"{len(mapped):,} images mapped, not in the page cache"] = images_per_second(mapped, seconds)
            for rows in range(0, len(mapped.images), BLOCK):
                mapped.images[rows : rows + BLOCK].max()
            rates[f"{len(mapped):,} images mapped, in the page cache"] = images_per_second(mapped, seconds)
            for name, rate in rates.items():
                print(f"feed: {name}: {rate:,.0f} images/s, {rate / step:,.0f} times the step")
        finally:
            os.environ.pop("POISE_CACHE")
            if before is not None:
                os.environ["POISE_CACHE"] = before


def opened(path: str, *, quick: bool) -> dict[str, float]:
    """`open_data` in a process of its own; in this one if that would take too long."""
    if quick:
        return open_data(path)
    command = [sys.executable, __file__, "--open", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def described(found: dict[str, float]) -> str:
    """The parts of opening the data in a line."""
    parts = ", ".join(f"{name} {found[name]:.2f}" for name in found if name not in ("total", "MiB"))
    return f"{found['total']:.1f} s of CPU time ({parts}), {found['MiB']:,.0f} MiB"


if __name__ == "__main__":
    main()
