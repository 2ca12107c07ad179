"""What `poise train --data DIR` makes of 60, 600 and 6,000 images, and whether it copies them. Minutes per size.

    python benchmarks/small_sets.py DIR --minutes 10 --out FOLDER         # --quick runs everything for a moment
    python benchmarks/small_sets.py DIR --sizes 600 --without-augmentation --out ANOTHER

DIR is a folder of at least 7,500 colour images. A fifth of them is never trained on. Of the others, evenly spaced ones
are written into a folder of their own, without labels, and trained on with what `poise.choose_recipe` chooses for the
time. Printed for each size are

  - how often each image was shown to D (epochs);
  - FID, recall and coverage of samples against images that were never trained on, at most 1,000, beside the FID of the
    training images themselves;
  - C_T, the copying test: far below 0 means that samples are nearer to the training images than new images are; the
    threshold of its authors is -3. The features are those of a classifier of all images. Samples of a weak generator
    lie where images are dense, and so nearer to any images. Therefore the same is printed for as many other images,
    which were not trained on: only the difference is memorisation;
  - the ratio of the samples' distance to the nearest training image to that of new images, as a median, and the same
    for the other images;
  - the alarms of the run.

FOLDER gets the runs, with their sample grids, and for each size `neighbours-N.png`: samples, each followed by the three
training images that are nearest to it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import poise
from poise.data.digits import load_digits
from poise.data.folder import FolderConfig
from poise.data.source import SizedSource
from poise.measure.extractors import ExtractorContext, make_extractor
from poise.measure.features import Extractor
from poise.measure.fid import fid
from poise.measure.memorization import copying_test, nearest_neighbours
from poise.measure.prdc import prdc
from poise.measure.sample_set import SampleSet, samples_to_bytes
from poise.runs.run import Run
from poise.utils.image_grid import sample_grid, write_png
from poise.utils.images import to_float

SIZES = (60, 600, 6_000)
SIDE = 32
NUM_COMPARED = 1_000
NUM_SHOWN = 15


class Sets(NamedTuple):
    """All images, divided.

    Attributes:
        pool: those that may be trained on.
        new: those that are never trained on, uint8, N x H x W x C.
        extractor: the features that both are compared in.
    """

    pool: SizedSource
    new: Tensor
    extractor: Extractor


def load(folder: Path) -> Sets:
    """Divide the images of a folder, and make the features."""
    splits = FolderConfig(path=str(folder), size=SIDE, held_out=0.2).load()
    pool, new = splits.train, splits.held_out
    assert isinstance(pool, SizedSource)
    assert isinstance(new, SizedSource)
    print(f"{len(pool):,} images to train on, {len(new):,} others", flush=True)
    extractor = make_extractor("auto", ExtractorContext(pool, new))
    print(f"features: {extractor.name}", flush=True)
    return Sets(pool, new.gather(new.evenly_spaced(NUM_COMPARED)).images, extractor)


def write_images(images: Tensor, folder: Path) -> None:
    """One PNG file each."""
    folder.mkdir(parents=True)
    for index, image in enumerate(images.numpy()):
        Image.fromarray(image.squeeze()).save(folder / f"{index:05}.png")


def train_on(images: Tensor, out: Path, minutes: float | None, *, augmented: bool = True) -> Run:
    """Train on images with the default for the time, or for a few steps; continues a run that was interrupted.

    Args:
        images: the images.
        out: a folder for them and the run.
        minutes: the training time; None for two steps.
        augmented: whether D's input is augmented where the default is.
    """
    if (out / "run" / "run.json").is_file():
        return poise.train(None, out / "run", resume=True, progress=False)
    write_images(images, out / "images")
    if minutes is None:
        recipe, reasons = poise.choose_recipe(out / "images", steps=2, size=SIDE)
    else:
        recipe, reasons = poise.choose_recipe(out / "images", time=60 * minutes, size=SIDE)
    if not augmented:
        tricks = tuple(trick for trick in recipe.tricks if trick.tag() != "diff_augment")
        recipe = recipe.model_copy(update={"tricks": tricks})
        reasons.append("without augmentation")
    print(*reasons, sep="\n", flush=True)
    return poise.train(recipe, out / "run", progress=False)


def describe(run: Run, trained_on: Tensor, others: Tensor, sets: Sets) -> str:
    """The line of the table.

    Args:
        run: the run.
        trained_on: its training images.
        others: as many images that it was not trained on.
        sets: the new images that its samples are compared with.
    """

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return SampleSet(images, sets.extractor).features.double()

    samples = samples_to_bytes(run.sample(len(sets.new), seed=1))
    fake, train, other, new = map(features, (samples, trained_on, others, sets.new))
    similarity = prdc(fake, new)

    def ratio(among: Tensor) -> float:
        ours, theirs = (nearest_neighbours(rows, among).distances.median() for rows in (fake, new))
        return float(ours / theirs)

    alarms = json.loads((run.path / "run.json").read_text()).get("alarms", {})
    epochs = run.recipe.steps * run.recipe.batch / len(trained_on)
    return (
        f"{len(trained_on):>6,}{run.recipe.steps:>8,}{epochs:>9.0f}{fid(fake, new):>8.1f}{fid(train, new):>8.1f}"
        f"{similarity.recall:>8.2f}{similarity.coverage:>10.2f}{copying_test(fake, new, train):>8.1f}"
        f"{copying_test(fake, new, other):>8.1f}{ratio(train):>8.2f}{ratio(other):>8.2f}  {', '.join(alarms) or 'none'}"
    )


def write_neighbours(path: Path, run: Run, trained_on: Tensor, extractor: Extractor) -> None:
    """A sample in each group of four, followed by the training images nearest to it."""
    samples = samples_to_bytes(run.sample(NUM_SHOWN, seed=2))
    with torch.no_grad():
        near = nearest_neighbours(
            SampleSet(samples, extractor).features.double(), SampleSet(trained_on, extractor).features.double(), 3
        ).indices
    rows = [torch.cat((samples[i : i + 1], trained_on[near[i]])) for i in range(len(samples))]
    write_png(sample_grid(to_float(torch.cat(rows)), None, 12), path)


def coloured_digits(folder: Path) -> Path:
    """A folder of a hundred small colour images, for `--quick`."""
    digits = load_digits()[0][::50]
    random = np.random.default_rng(0)
    images = (digits * random.uniform(0.3, 1.0, (len(digits), 1, 1, 3))).astype(np.uint8)
    write_images(torch.from_numpy(images), folder / "digits")
    return folder / "digits"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DIR")
    parser.add_argument("--minutes", type=float, default=10.0, help="the training time for each size")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="the numbers of images")
    parser.add_argument("--without-augmentation", action="store_true", help="leave out DiffAugment")
    parser.add_argument("--out", type=Path, help="the folder of the runs; by default a temporary one")
    parser.add_argument("--quick", action="store_true", help="few steps on few images, which measure nothing")
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("a folder of images is needed: DIR")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        sets = load(coloured_digits(Path(temporary)) if options.quick else options.data)
        lines = []
        for size in (12, 30) if options.quick else map(int, options.sizes.split(",")):
            indices = sets.pool.evenly_spaced(size)
            images = sets.pool.gather(indices).images
            others = sets.pool.gather((indices + len(sets.pool) // (2 * size)) % len(sets.pool)).images
            minutes = None if options.quick else options.minutes
            run = train_on(images, out / str(size), minutes, augmented=not options.without_augmentation)
            lines.append(describe(run, images, others, sets))
            write_neighbours(out / f"neighbours-{size}.png", run, images, sets.extractor)
        print("images   steps   epochs     FID  of set  recall  coverage     C_T  others   ratio  others  alarms")
        print(*lines, sep="\n")


if __name__ == "__main__":
    main()
