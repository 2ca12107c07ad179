"""The recipes semi-adversarial and infogan over seeds, beside the same without each of their parts.

    python benchmarks/critics.py semi-adversarial --data-root data --out runs/critics  # or infogan; --seeds 3; --quick
    python benchmarks/critics.py table                                                 # of the recorded results

Of `semi-adversarial`, each of the 1,000 held-out digits is translated to thin, medium and thick. Printed are the shares
of the 3,000 images that

  - are read as the digit of their source, by a classifier that has nothing in common with the critic: another
    architecture and seed, and other images, the 55,000 training digits of the complete MNIST that are not among poise's
    5,000 (without --data-root, the training digits of the recipe);
  - have the thickness that was asked for, by their stroke width itself, the same only of images whose source has
    another thickness, and by such a classifier of thickness;

and the accuracy of both classifiers on the held-out digits themselves, D's accuracy in the last rows, the mean absolute
change of a pixel, in [-1, 1], and FID to 1,000 training digits, in features of the classifier of digits, of a third of
the images for each thickness, beside that of their sources. Results go to `benchmarks/studies/critics/results.jsonl`,
or with `--results` to another file; what is there already is not trained again, and a run in `--out` that was
interrupted is resumed. With --out, a grid of each run is written too: source, thin, medium, thick.

Of `infogan`, the classifier of digits reads 2,000 samples. Printed are the share of them whose digit is the one that is
assigned to their category, for the best assignment of the ten categories to the ten digits (Hungarian method), the same
for shuffled categories, the number of digits that are the most frequent one of a category, and the absolute correlation
of each of the two numbers with what is read off the samples: their slant and stroke width. The grid has a row per
category, with the same other coordinates of z in each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import safetensors.torch
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import poise
from poise.core.random_streams import RandomStreams
from poise.data.digits import DigitsConfig, load_digits, thickness_bounds
from poise.data.source import ImageDataset
from poise.data.strokes import WIDTH_CLASSES, stroke_widths, width_classes
from poise.data.torchvision_data import VisionConfig
from poise.measure.fid import fid
from poise.networks.base import call_network
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.runs.run import Run
from poise.utils.files import append_line, write_bytes
from poise.utils.image_grid import image_grid, side_by_side, write_png
from poise.utils.images import to_bytes, to_float

RESULTS = Path(__file__).parent / "studies" / "critics" / "results.jsonl"
KEEP, LABEL = "tricks.0.weight", "tricks.1.weight"
ARMS: dict[str, dict[str, list[str]]] = {
    "semi-adversarial": {
        "semi-adversarial": [],
        "without the critic of digits": [f"{KEEP}=0"],
        "without the critic of thickness": [f"{LABEL}=0"],
        "without both critics": [f"{KEEP}=0", f"{LABEL}=0"],
        # the optimiser does not see the scale of a loss, so that the weights make the adversarial loss negligible
        "without D": [f"{KEEP}=1e6", f"{LABEL}=1e6"],
    },
    "infogan": {"infogan": [], "without the term": ["tricks.infogan.weight=0"]},
}
QUICK = ["steps=2", "batch=4", "network.g.width=4", "network.d.width=4", "log.sheet=4"]
NUM_SAMPLES = 2_000
SIDE = 28
BLOCK = 250
LAST_ROWS = 5
NUM_SHOWN = 12


class Reader(nn.Module):
    """A classifier of another architecture than poise's: two convolutions without norms, after LeCun et al. 1998."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(800, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, num_classes)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images, B x 1 x 28 x 28, to logits, B x K."""
        return self.layers(images)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The 128 features before the last layer, N x 128."""
        return torch.cat([self.layers[:-1](block) for block in images.split(BLOCK)])

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """The class of each image, N."""
        return torch.cat([self(block).argmax(1) for block in images.split(BLOCK)])


def train_reader(images: Tensor, labels: Tensor, num_classes: int, samples: int) -> Reader:
    """Train a classifier on images, uint8, N x 28 x 28 x 1, that are shifted by up to two pixels."""
    with RandomStreams(99).seeded_global("reader"):
        net, batch = Reader(num_classes), 64
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(samples // batch):
            chosen = torch.randint(len(images), (batch,))
            down, right = torch.randint(-2, 3, (2,)).tolist()
            inputs = to_float(images[chosen]).roll((down, right), (2, 3))  # the margin of a digit is black
            optimizer.zero_grad()
            cross_entropy(net.train()(inputs), labels[chosen]).backward()
            optimizer.step()
    return net.eval()


class Readers(NamedTuple):
    """Classifiers of digits and of thickness, and their accuracies on the held-out digits."""

    digit: Reader
    thickness: Reader
    accuracies: dict[str, float]


def held_out(labels: str) -> tuple[Tensor, Tensor]:
    """The held-out digits in [-1, 1], 1,000 x 1 x 28 x 28, and their labels."""
    source = DigitsConfig(size=SIDE, labels=labels).load().held_out  # type: ignore[arg-type]
    assert isinstance(source, ImageDataset)
    batch = source.gather(torch.arange(len(source)))
    assert batch.labels is not None
    return to_float(batch.images), batch.labels


def training_digits(n: int) -> Tensor:
    """n of the digits that the recipe is trained on, in [-1, 1]."""
    return DigitsConfig(size=SIDE).load().train.preview(n)


def other_digits(root: Path | None) -> tuple[Tensor, Tensor]:
    """The training digits of MNIST that are not among poise's; without MNIST, the training digits of the recipe."""
    config = DigitsConfig(size=SIDE) if root is None else VisionConfig(dataset="MNIST", size=SIDE)
    train = config.load(root).train
    assert isinstance(train, ImageDataset)
    known = set() if root is None else {digit.tobytes() for digit in load_digits()[0]}
    others = torch.tensor([i for i, image in enumerate(train.images) if image.tobytes() not in known])
    batch = train.gather(others)
    assert batch.labels is not None
    return batch.images, batch.labels


def make_readers(root: Path | None, folder: Path, *, quick: bool) -> Readers:
    """The classifiers, from the folder or newly trained."""
    images, digits = other_digits(root)
    widths = torch.from_numpy(width_classes(stroke_widths(images.numpy()), thickness_bounds()))
    readers, accuracies = [], {}
    for name, labels, num_classes in (("digit", digits, 10), ("thickness", widths, len(WIDTH_CLASSES))):
        path = folder / f"reader-{name}.safetensors"
        if path.is_file():
            reader = Reader(num_classes).eval()
            reader.load_state_dict(safetensors.torch.load(path.read_bytes()))
        else:
            reader = train_reader(images, labels, num_classes, 128 if quick else 300_000)
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, safetensors.torch.save(reader.state_dict()))
        tested, truth = held_out(name)
        readers.append(reader)
        accuracies[f"reader of {name}"] = float((reader.read(tested) == truth).float().mean())
    return Readers(*readers, accuracies)


def trained(system: str, changes: list[str], out: Path, seed: int, *, quick: bool) -> Run:
    """A run of a recipe with changes; continues one that was interrupted."""
    if (out / "run.json").is_file():
        return poise.train(None, out, resume=True, progress=False)
    table = load_table(system)
    for change in [*changes, f"seed={seed}", *(QUICK if quick else ())]:
        set_value(table, change)
    return poise.train(table, out, progress=False)


@torch.no_grad()
def translate(run: Run, sources: Tensor, label: int) -> Tensor:
    """The sources with the label, in whole grey levels, N x 1 x 28 x 28 in [-1, 1]."""
    net = run.generator().eval()
    blocks = [call_network(net, block, torch.full((len(block),), label)) for block in sources.split(BLOCK)]
    return to_float(torch.from_numpy(to_bytes(torch.cat(blocks))))


def semi_adversarial_values(run: Run, readers: Readers, grid: Path) -> dict[str, float]:
    """What is printed of a run, see the module."""
    sources, digits = held_out("digit")
    thickness = held_out("thickness")[1]
    kept, by_width, by_reader, moved, changes, images = [], [], [], [], [], [sources]
    widths: dict[str, float] = {}
    for label, name in enumerate(WIDTH_CLASSES):
        translated = translate(run, sources, label)
        measured = stroke_widths(to_bytes(translated))
        reached = torch.from_numpy(width_classes(measured, thickness_bounds())) == label
        kept.append(readers.digit.read(translated) == digits)
        by_width.append(reached)
        by_reader.append(readers.thickness.read(translated) == label)
        moved.append(reached[thickness != label])
        changes.append((translated - sources).abs().mean())
        widths[f"width of {name}"] = float(measured.mean())
        images.append(translated)
    shown = torch.linspace(0, len(sources) - 1, NUM_SHOWN).long()
    write_png(image_grid(side_by_side([group[shown] for group in images]), len(images), group=len(images)), grid)
    by_turns = torch.stack(images[1:])[torch.arange(len(sources)) % len(WIDTH_CLASSES), torch.arange(len(sources))]
    features = [readers.digit.features(group).double() for group in (by_turns, sources, training_digits(len(sources)))]

    def share(groups: list[Tensor]) -> float:
        return float(torch.cat(groups).float().mean())

    return {
        "digit kept": share(kept),
        "thickness by width": share(by_width),
        "of other thickness": share(moved),
        "thickness by reader": share(by_reader),
        **widths,
        "D's accuracy": mean(row["stats"]["d/accuracy"]["mean"] for row in run.rows[-LAST_ROWS:]),
        "change": float(torch.stack(changes).mean()),
        "fid": fid(features[0], features[2]),
        "fid of sources": fid(features[1], features[2]),
        **readers.accuracies,
    }


def slants(images: Tensor) -> Tensor:
    """The horizontal shift of the strokes per row, N, by regression: positive if they lean to the left."""
    light = (images[:, 0].double() + 1) / 2
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in light.shape[1:])
    mass = light.sum((1, 2)).clamp_min(1e-9)
    down = rows[:, None] - ((light.sum(2) * rows).sum(1) / mass)[:, None, None]
    right = columns - ((light.sum(1) * columns).sum(1) / mass)[:, None, None]
    return (light * down * right).sum((1, 2)) / (light * down**2).sum((1, 2)).clamp_min(1e-9)


def agreement(categories: Tensor, digits: Tensor) -> float:
    """The share of samples of the digit that is assigned to their category, for the best assignment."""
    counts = torch.zeros(10, 10)
    counts.index_put_((categories, digits), torch.ones(len(digits)), accumulate=True)
    return float(counts[linear_sum_assignment(counts.numpy(), maximize=True)].sum() / len(digits))


def infogan_values(run: Run, readers: Readers, grid: Path, *, quick: bool) -> dict[str, float]:
    """What is printed of a run, see the module."""
    layout = run.recipe.latent.code_layout
    n = 100 if quick else NUM_SAMPLES
    codes = run.latents(n, seed=1)[:, : layout.size]
    samples = to_float(torch.from_numpy(to_bytes(run.sample(n, seed=1))))
    margin = (samples.shape[2] - SIDE) // 2  # the recipe pads the digits to 32 pixels
    inner = samples[:, :, margin : margin + SIDE, margin : margin + SIDE]
    one_hot, numbers = layout.split(codes)
    categories, digits = one_hot.argmax(1), readers.digit.read(inner)
    likeliest = {int(digits[categories == k].mode().values) for k in categories.unique()}
    shuffled = categories[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    latents = run.latents(10, seed=2).repeat(10, 1)
    latents[:, :10] = torch.eye(10).repeat_interleave(10, 0)
    with torch.no_grad():
        write_png(image_grid(run.generator().eval()(latents), 10), grid)
    seen = {"slant": slants(inner), "width": torch.from_numpy(stroke_widths(to_bytes(inner)))}
    return {
        "agreement": agreement(categories, digits),
        "agreement by chance": agreement(shuffled, digits),
        "digits": float(len(likeliest)),
        **{
            f"{name} by number {i}": abs(float(torch.corrcoef(torch.stack((values, numbers[:, i].double())))[0, 1]))
            for i in range(layout.numbers)
            for name, values in seen.items()
        },
        **readers.accuracies,
    }


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
            found = [one[name] for one in values]
            lines.append(f"    {name:<24}{median(found):>10.4f}  [{min(found):.4f}, {max(found):.4f}]")
    return "\n".join(lines)


def main() -> None:
    """Train and measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*ARMS, "table"])
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds")
    parser.add_argument("--arms", help="the arms, separated by commas; by default all of them")
    parser.add_argument("--data-root", type=Path, help="the folder of the complete MNIST")
    parser.add_argument("--out", type=Path, help="the folder of the runs and grids; by default a temporary one")
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
        values_of = measurement(options.what, options.data_root, out, quick=options.quick)
        known = {(line["system"], line["arm"], line["seed"]) for line in read_results(results)}
        for seed in range(1 if options.quick else options.seeds):
            for arm in arms:
                if (options.what, arm, seed) in known:
                    continue
                folder = out / f"{options.what}-{arm.replace(' ', '-')}-{seed}"
                run = trained(options.what, ARMS[options.what][arm], folder, seed, quick=options.quick)
                line = {"system": options.what, "arm": arm, "seed": seed, "values": values_of(run)}
                results.parent.mkdir(parents=True, exist_ok=True)
                append_line(results, line)
                print(json.dumps(line), flush=True)
        print(table(read_results(results)))


def measurement(system: str, root: Path | None, out: Path, *, quick: bool) -> Callable[[Run], dict[str, float]]:
    """The function that measures a run of a system."""
    readers = make_readers(root, out, quick=quick)
    if system == "infogan":
        return lambda run: infogan_values(run, readers, out / f"{run.path.name}.png", quick=quick)
    return lambda run: semi_adversarial_values(run, readers, out / f"{run.path.name}.png")


if __name__ == "__main__":
    main()
