"""Fine-tuning on 100 images against training from scratch, over paired seeds. Takes some minutes on one core.

    python benchmarks/fine_tuning.py            # --quick runs everything for a moment

A DCGAN is trained on the digits other than 3, at 16 x 16, and fine-tuned on 100 threes: all of it, or with one or two
of D's three layers frozen. Printed is the FID of samples from the averaged weights to the 400 other threes, by pixels
and by the features of the classifier of `poise measure`, as the mean over seeds with minimum and maximum. The first
line is the FID of the 100 images themselves, the second that of G before fine-tuning, which has never seen a three.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.data.digits import DigitsConfig
from poise.measure.extractors import ClassifierExtractor
from poise.measure.fid import fid
from poise.recipe.decode import decode
from poise.runs.run import Run
from poise.training.train import train
from poise.utils.images import to_bytes, to_float

CLASS, FEW = 3, 100

STARTS: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "fine-tuned": {"init": True},
    "fine-tuned, --freeze d:1": {"init": True, "d": 1},
    "fine-tuned, --freeze d:2": {"init": True, "d": 2},
}


class Images(NamedTuple):
    """The images, N x 16 x 16 x 1, uint8.

    Attributes:
        others: those of the other classes.
        few: the training images of fine-tuning.
        real: others of the same class.
    """

    others: Tensor
    few: Tensor
    real: Tensor


def split_digits() -> Images:
    """The digits by class."""
    digits = DigitsConfig(size=16).load()
    parts = [part.gather(torch.arange(len(part))) for part in (digits.train, digits.held_out)]  # type: ignore[union-attr]
    (train_images, train_labels), (held_out, held_out_labels) = ((part.images, part.labels) for part in parts)
    same = torch.cat((train_images[train_labels == CLASS], held_out[held_out_labels == CLASS]))
    return Images(train_images[train_labels != CLASS], same[:FEW], same[FEW:])


def make_recipe(data: Path, steps: int, seed: int, start: dict[str, Any], base: Path | None = None) -> dict[str, Any]:
    """The recipe of a run; `start` is an entry of `STARTS`."""
    network = {"kind": "dcgan", "width": 16}
    frozen = [{"kind": "frozen_layers", "d": start["d"]}] if "d" in start else []
    recipe: dict[str, Any] = {
        "steps": steps,
        "batch": 32,
        "seed": seed,
        "data": {"kind": "npz", "path": str(data), "size": 16, "held_out": 0.0},
        "latent": {"kind": "gaussian", "dim": 32},
        "network": {"g": network, "d": network},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
        "tempo": {"kind": "ratio"},
        "tricks": [{"kind": "averaged_weights", "half_life": 1000.0}, *frozen],
        "log": {"rows": 100, "samples": 10**6, "saves": 10**6, "sheet": 16, "to": []},
    }
    return recipe | ({"init": {"from": str(base)}} if "init" in start else {})


def train_in(folder: Path, recipe: dict[str, Any]) -> Run:
    """Train a recipe on the CPU in float32."""
    return train(decode(recipe), folder, device="cpu", precision="fp32")


def draw(run: Run, n: int) -> Tensor:
    """n samples of the averaged weights, N x 16 x 16 x 1, uint8."""
    return torch.from_numpy(to_bytes(run.sample(n, seed=7)))


def sample_runs(folder: Path, images: Images, seed: int, base_steps: int, steps: list[int]) -> dict[str, Tensor]:
    """Samples by line of the table, N x 16 x 16 x 1, uint8.

    Args:
        folder: an empty folder.
        images: the images.
        seed: the seed of the first run; those that are fine-tuned have another.
        base_steps: the number of steps of the first run.
        steps: the numbers of steps of fine-tuning.
    """
    for name in ("others", "few"):
        np.savez(folder / f"{name}.npz", images=getattr(images, name).numpy())
    n = len(images.real)
    base = train_in(folder / "base", make_recipe(folder / "others.npz", base_steps, seed, {}))
    samples = {"before fine-tuning": draw(base, n)}
    for count in steps:
        for k, (name, start) in enumerate(STARTS.items()):
            recipe = make_recipe(folder / "few.npz", count, seed + 1000, start, base.path)
            run = train_in(folder / f"run-{count}-{k}", recipe)
            samples[f"{count} steps, {name}"] = draw(run, n)
    return samples


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps, which measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = split_digits()
    seeds, base_steps, steps = (1, 2, [1]) if options.quick else (options.seeds, 600, [50, 200])
    columns = {"pixels": lambda x: to_float(x).flatten(1)}
    if not options.quick:
        digits = DigitsConfig(size=16).load()
        extractor = ClassifierExtractor(digits.train, digits.held_out)  # type: ignore[arg-type]
        columns["classifier"] = lambda x: extractor(to_float(x)).features
    table: dict[str, list[Tensor]] = {f"the {FEW} images": [images.few]}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            for name, samples in sample_runs(Path(folder), images, seed, base_steps, steps).items():
                table.setdefault(name, []).append(samples)
    print(f"{'':<38}" + "".join(f"{f'FID, {column}':>24}" for column in columns))
    for name, sets in table.items():
        cells: list[str] = []
        for features in columns.values():
            with torch.no_grad():
                values = [fid(features(one).double(), features(images.real).double()) for one in sets]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        print(f"{name:<38}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
