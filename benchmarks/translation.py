"""Translation between images over seeds: pix2pix beside L1 alone, CycleGAN beside a game without cycles, and SimGAN.

    python benchmarks/translation.py pix2pix --seeds 3 --out runs/translation     # or cyclegan, simgan; --quick
    python benchmarks/translation.py table                                        # of the recorded results

Each system is trained with its recipe on the built-in digits, beside arms that leave out what it is made of. Results go
to `benchmarks/studies/translation/results.jsonl`, or with `--results` to another file; what is there already is not
trained again, and a run in `--out` that was interrupted is resumed.

`pix2pix` and `cyclegan` are measured as `poise measure` does, on held-out images. For pix2pix the distance between the
outlines and the digits is printed too, which is that of the identity map.

For `simgan`, classifiers are trained on the refined images, labelled as the synthetic ones were, and tested on real
held-out digits; "unrefined" are the same classifiers trained on the synthetic images, "real" those trained on real
digits. Their accuracy on real digits depends much on the seed of a classifier, as nothing in their training refers to
real digits. So each value is the mean of five classifiers, whose seeds are the same on both sides, and each seed of the
GAN has seeds of its own. The smallest and the largest of the five are printed too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

import poise
from poise.data.source import ImageDataset
from poise.measure.catalogue import select_measures
from poise.measure.classifier import accuracy_on, train_classifier
from poise.networks.translation import split_parts
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.runs.evaluate import measure_run
from poise.runs.run import Run
from poise.utils.files import append_line
from poise.utils.images import to_float

RESULTS = Path(__file__).parent / "studies" / "translation" / "results.jsonl"
ARMS: dict[str, dict[str, list[str]]] = {
    "pix2pix": {
        "pix2pix": [],
        # the optimiser does not see the scale of a loss, so that the weight makes the adversarial loss negligible
        "L1 alone": ["tricks.target_l1.weight=1e6"],
        "without L1": ["tricks.target_l1.weight=0"],
    },
    "cyclegan": {
        "cyclegan": [],
        "without cycles": ["tricks.cycle.weight=0", "tricks.identity_mapping.weight=0"],
    },
    "simgan": {"simgan": [], "without history": ["tricks.history.fraction=0"]},
}
MEASURES = {
    "pix2pix": "fid,high_frequencies,l1,psnr,ssim",
    "cyclegan": "fid,cycle_error,class_agreement",
}
QUICK = ["steps=2", "batch=4", "network.g.width=4", "network.d.width=4", "log.sheet=4"]
BLOCK = 500
CLASSIFIERS = 5


def trained(system: str, changes: list[str], out: Path, seed: int, *, quick: bool) -> Run:
    """A run of a recipe with changes; continues one that was interrupted."""
    if (out / "run.json").is_file():
        return poise.train(None, out, resume=True, progress=False)
    table = load_table(system)
    del table["measure"]
    for change in [*changes, f"seed={seed}", *(QUICK if quick else ())]:
        set_value(table, change)
    return poise.train(table, out, progress=False)


def measured(run: Run, measures: str, *, quick: bool) -> dict[str, float]:
    """The values of measures by name, with their floors."""
    n, features = (20, "pixels") if quick else (None, "auto")
    result, _ = measure_run(run, select_measures(measures), n=n, features=features)
    values: dict[str, float] = {}
    for name, found in result.results.items():
        values[name] = found.value.value
        if found.floor is not None:
            values[f"{name} floor"] = found.floor.value
        if found.baseline is not None:
            values[f"{name} of the source"] = found.baseline
    return values


def distance_of_identity(run: Run) -> float:
    """The mean absolute difference between the held-out sources and their targets, in [-1, 1]."""
    held_out = run.load().held_out
    assert isinstance(held_out, ImageDataset)
    a, b = split_parts(to_float(held_out.gather(torch.arange(len(held_out))).images), run.parts)
    return float((a - b).abs().mean())


def accuracies_of_training_on(images: Tensor, labels: Tensor, real: ImageDataset, seeds: range) -> list[float]:
    """The accuracies on real held-out digits of classifiers that are trained on images, N x C x H x W in [-1, 1]."""
    nets = (train_classifier(lambda i: images[i], labels, real.shape, len(real.classes), seed) for seed in seeds)
    return [accuracy_on(net, real, torch.arange(len(real))) for net in nets]


def simgan_values(run: Run, seed: int, *, quick: bool) -> dict[str, float]:
    """The accuracies of classifiers that were trained on refined, on synthetic and on real digits."""
    splits = run.load()
    assert splits.held_out is not None
    (synthetic, real), (_, test) = splits.train.domain_sources, splits.held_out.domain_sources
    count = 100 if quick else len(synthetic)
    indices = torch.arange(count)
    images, net = to_float(synthetic.gather(indices).images), run.generator()
    with torch.no_grad():
        blocks = [torch.cat((part, part), 1) for part in images.split(BLOCK)]  # the refiner reads a alone
        refined = torch.cat([split_parts(net(block), run.parts)[1] for block in blocks])
    labels = synthetic.gather_labels(indices)
    real_labels = real.gather_labels(indices)
    assert labels is not None
    assert real_labels is not None
    sets = {
        "refined": (refined, labels),
        "unrefined": (images, labels),
        "real": (to_float(real.gather(indices).images), real_labels),
    }
    number = 1 if quick else CLASSIFIERS
    seeds, values = range(seed * number, (seed + 1) * number), dict[str, float]()
    for name, labelled in sets.items():
        found = accuracies_of_training_on(*labelled, test, seeds)
        values |= {name: fmean(found), f"{name}, worst": min(found), f"{name}, best": max(found)}
    return values | {"change": float((refined - images).abs().mean())}


def run_arm(system: str, arm: str, out: Path, seed: int, *, quick: bool) -> dict[str, float]:
    """Train one arm with one seed and measure it."""
    run = trained(system, ARMS[system][arm], out / f"{system}-{arm.replace(' ', '-')}-{seed}", seed, quick=quick)
    if system == "simgan":
        return simgan_values(run, seed, quick=quick)
    values = measured(run, MEASURES[system], quick=quick)
    return values | ({"identity l1": distance_of_identity(run)} if system == "pix2pix" else {})


def read_results(path: Path) -> list[dict[str, Any]]:
    """The recorded results."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def table(results: list[dict[str, Any]]) -> str:
    """For each system and arm the median over the seeds of each value, with the smallest and the largest."""
    groups: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for line in results:
        groups[line["system"], line["arm"]].append(line["values"])
    lines = []
    for (system, arm), values in groups.items():
        lines.append(f"{system}, {arm}: {len(values)} seeds")
        for name in values[0]:
            found = [one[name] for one in values if name in one]
            lines.append(f"    {name:<24}{median(found):>10.4f}  [{min(found):.4f}, {max(found):.4f}]")
    return "\n".join(lines)


def main() -> None:
    """Train and measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*ARMS, "table"])
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds")
    parser.add_argument("--arms", help="the arms, separated by commas; by default all of them")
    parser.add_argument("--out", type=Path, help="the folder of the runs; by default a temporary one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the results")
    parser.add_argument("--quick", action="store_true", help="two steps of tiny networks, which measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "table":
        print(table(read_results(options.results)))
        return
    arms = options.arms.split(",") if options.arms else list(ARMS[options.what])
    arms = arms[:1] if options.quick else arms
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        results = Path(temporary) / "results.jsonl" if options.quick else options.results
        known = {(line["system"], line["arm"], line["seed"]) for line in read_results(results)}
        for seed in range(1 if options.quick else options.seeds):
            for arm in arms:
                if (options.what, arm, seed) in known:
                    continue
                values = run_arm(options.what, arm, out, seed, quick=options.quick)
                line = {"system": options.what, "arm": arm, "seed": seed, "values": values}
                results.parent.mkdir(parents=True, exist_ok=True)
                append_line(results, line)
                print(json.dumps(line), flush=True)
        print(table(read_results(results)))


if __name__ == "__main__":
    main()
