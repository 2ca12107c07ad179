"""What each measure sees, and how long measuring takes: three tables, one command, minutes on two cores.

    python benchmarks/measures.py order
    python benchmarks/measures.py speed --data-root data
    python benchmarks/measures.py frechet

order    On the embedded digits: real pictures that were neither trained on nor held against, the same blurred a little
         (sigma 0.6 pixels), without one class, all the same one, noise, and copies of what was trained on, each by all
         measures. Bold is what is told from real ones: farther from the median of five fresh piles of real pictures
         than three times their range.
speed    Seconds for every measure, 5,000 against 5,000 digits of the complete MNIST, once features are there.
frechet  The distance between two Gaussians in 2,048 dimensions, ours, by scipy's matrix square root and by
         torch-fidelity, in turn, three rounds: seconds and values.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.torchvision_data import VisionConfig
from poise.measure.catalogue import EvaluationResult, compute_or_reason, select_measures
from poise.measure.context import EvalContext
from poise.measure.evaluator import Evaluator
from poise.measure.fid import Gaussian, frechet
from poise.measure.sample_set import SampleSet
from poise.utils.images import Bytes

BLUR = 0.6


class Size(NamedTuple):
    """How much is measured, and by what.

    Attributes:
        n: pictures in a pile.
        tries: piles of real pictures.
        features: a word for `extractor`; pixels need no training.
        dim: of the two Gaussians, with three times as many samples.
        rounds: of the three ways to their distance.
    """

    n: int = 1000
    tries: int = 5
    features: str = "auto"
    dim: int = 2048
    rounds: int = 3


FULL, QUICK = Size(), Size(n=100, tries=2, features="pixels", dim=32, rounds=1)


def part(pictures: ImageDataset, places: Tensor) -> ImageDataset:
    """Some of the pictures as a source of its own."""
    assert pictures.labels is not None
    return ImageDataset(pictures.images[places.numpy()], pictures.labels[places.numpy()], pictures.classes)


def piles(new: ImageDataset, trained: ImageDataset, n: int) -> dict[str, Bytes]:
    """What is measured, n pictures each."""
    images, labels = new.images, new.labels
    assert labels is not None
    rng = np.random.default_rng(0)
    without = images[labels != 9]
    return {
        "blurred": gaussian_filter(images, (0, BLUR, BLUR, 0)),
        "no nines": without[rng.permutation(len(without))[: n - n // 10]],
        "one picture": np.repeat(images[:1], n, axis=0),
        "noise": rng.integers(0, 256, images.shape, np.uint8),
        "copies": trained.images[rng.permutation(len(trained))[:n]],
    }


def measured(bench: Evaluator, images: Bytes) -> EvaluationResult:
    """By all measures that need no training of their own."""
    return bench.measure(lambda n: torch.from_numpy(images), select_measures(None))


def order(size: Size) -> None:
    """See the module."""
    loaded = DigitsConfig().load()
    (train, held_out), n = (loaded.train, loaded.held_out), size.n
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    shuffled = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    trained, rest = part(train, shuffled[:2000]), part(train, shuffled[2000:])
    bench = Evaluator(DigitsConfig(), DataSplits(trained, held_out), size.features, n=n)
    rng = np.random.default_rng(2)
    fresh = [measured(bench, rest.images[rng.permutation(len(rest))[:n]]) for _ in range(size.tries)]
    told = {name: measured(bench, images) for name, images in piles(part(rest, torch.arange(n)), trained, n).items()}
    print(f"{bench.extractor.name}; {n:,} against {n:,} held out\n")
    print("| measure | real (of five) | " + " | ".join(told) + " |")
    print("|---|---|" + "---|" * len(told))
    for name in fresh[0].results:
        reals = [one.results[name].value.value for one in fresh]
        middle, spread = median(reals), max(reals) - min(reals)
        cells = []
        for result in told.values():
            value = result.results[name].value.value
            seen = abs(value - middle) > 3 * max(spread, 1e-9)
            cells.append(f"**{value:.3g}**" if seen else f"{value:.3g}")
        print(f"| {name} | {min(reals):.3g} to {max(reals):.3g} | {' | '.join(cells)} |")
    print("\nbold: told from real pictures")


def speed(root: Path, *, quick: bool) -> None:
    """See the module; if `quick`, of a hundred embedded digits by their pixels."""
    entry = DigitsConfig() if quick else VisionConfig(dataset="MNIST", download=False)
    loaded, n = entry.load(root), 100 if quick else 5000
    bench = Evaluator(entry, loaded, QUICK.features if quick else FULL.features, n=n)
    assert isinstance(loaded.train, ImageDataset)
    fake = SampleSet(
        torch.from_numpy(loaded.train.images[-n:] if quick else loaded.train.images[20_000:25_000]), bench.extractor
    )
    context = EvalContext(fake, bench.real, lambda: bench.train)
    for pile in (fake, bench.real, bench.train):
        assert pile is not None
        len(pile.features)
    print(f"{bench.extractor.name}; {n:,} against {n:,}; {torch.get_num_threads()} threads\n")
    total = 0.0
    for measure in select_measures(None):
        began = time.perf_counter()
        figure = compute_or_reason(measure, context, bench.available if quick else {*bench.available, "logits"})
        if not isinstance(figure, str):
            took = time.perf_counter() - began
            total += took
            print(f"{measure.name:<18}{took:7.2f} s", flush=True)
    print(f"{'all':<18}{total:7.2f} s")


def distances(dim: int, rounds: int) -> None:
    """See the module."""
    from scipy.linalg import sqrtm
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng, samples = np.random.default_rng(0), 6000 * dim // 2048
    mix = [rng.standard_normal((dim, dim)) / np.sqrt(dim) for _ in range(2)]
    a, b = (torch.from_numpy(rng.standard_normal((samples, dim)) @ m + k / 20) for k, m in enumerate(mix))

    def ours() -> float:
        return frechet(Gaussian.of(a), Gaussian.of(b))

    def by_scipy() -> float:
        (m, c), (n, d) = ((x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (a, b))
        return float((m - n) @ (m - n) + np.trace(c) + np.trace(d) - 2 * np.trace(sqrtm(c @ d).real))

    def by_torch_fidelity() -> float:
        told = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False)
        return told["frechet_inception_distance"]

    ways = {"ours": ours, "scipy sqrtm": by_scipy, "torch-fidelity": by_torch_fidelity}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            values[name] = way()
            seconds[name].append(time.perf_counter() - began)
    print(
        f"{dim:,} dimensions, {samples:,} samples each, {torch.get_num_threads()} threads, from features to distance\n"
    )
    for name in ways:
        ratio = median(theirs / our for theirs, our in zip(seconds[name], seconds["ours"], strict=True))
        off = values[name] / values["ours"] - 1
        print(f"{name:<16}{median(seconds[name]):7.2f} s  {ratio:5.2f} times ours  {values[name]:.10g} ({off:+.1e})")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What measures see, and how long they take.")
    parser.add_argument("what", choices=("order", "speed", "frechet"))
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where the complete MNIST lies")
    parser.add_argument("--quick", action="store_true", help="a hundred pictures, 32 dimensions: not a measurement")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    if asked.what == "order":
        order(size)
    elif asked.what == "speed":
        speed(asked.data_root, quick=asked.quick)
    else:
        distances(size.dim, size.rounds)


if __name__ == "__main__":
    main()
