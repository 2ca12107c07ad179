"""Which measures detect what, and the time that they take: three tables, minutes on two cores.

    python benchmarks/measures.py order
    python benchmarks/measures.py speed --data-root data
    python benchmarks/measures.py frechet

order    All measures on sets of embedded digits: real images that are neither training nor held-out images, the same
         images slightly blurred (sigma 0.6 pixels), without one class, a single image repeated, noise, and copies of
         training images. Bold values differ from real images: they are farther from the median of five fresh sets of
         real images than three times the range of these five.
speed    The seconds that each measure takes on 5,000 against 5,000 digits of the complete MNIST, with features already
         extracted.
frechet  The Frechet distance between two Gaussians in 2,048 dimensions, by poise, by scipy's matrix square root and by
         torch-fidelity, in three interleaved rounds: seconds and values.
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
    """The sizes of the benchmark.

    Attributes:
        n: the number of images in a set.
        num_trained: the number of images whose copies are one of the sets.
        num_real_sets: the number of sets of real images.
        features: the extractor, as in `poise measure --features`; pixels need no training.
        dim: the dimension of the two Gaussians; they are estimated from three times as many samples.
        rounds: the number of rounds in which the three implementations are timed.
    """

    n: int = 1000
    num_trained: int = 2000
    num_real_sets: int = 5
    features: str = "auto"
    dim: int = 2048
    rounds: int = 3


FULL, QUICK = Size(), Size(n=100, num_trained=200, num_real_sets=2, features="pixels", dim=32, rounds=1)


def subset(dataset: ImageDataset, indices: Tensor) -> ImageDataset:
    """The samples at `indices` as a data set."""
    assert dataset.labels is not None
    return ImageDataset(dataset.images[indices.numpy()], dataset.labels[indices.numpy()], dataset.classes)


def degraded_sets(new: ImageDataset, trained: ImageDataset, n: int) -> dict[str, Bytes]:
    """The sets to evaluate, n images each, by name; of the new images, at least n must not be nines."""
    assert new.labels is not None
    images, no_nines, rng = new.images[:n], new.images[new.labels != 9], np.random.default_rng(0)
    return {
        "blurred": gaussian_filter(images, (0, BLUR, BLUR, 0)),
        "no nines": no_nines[rng.permutation(len(no_nines))[:n]],
        "one image": np.repeat(images[:1], n, axis=0),
        "noise": rng.integers(0, 256, images.shape, np.uint8),
        "copies": trained.images[rng.permutation(len(trained))[:n]],
    }


def measure_all(evaluator: Evaluator, images: Bytes) -> EvaluationResult:
    """The results of all measures that do not train a network themselves."""
    return evaluator.measure(lambda n: torch.from_numpy(images), select_measures(None))


def order(size: Size) -> None:
    """See the module."""
    loaded = DigitsConfig().load()
    (train, held_out), n = (loaded.train, loaded.held_out), size.n
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    shuffled = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    trained, rest = (subset(train, part) for part in (shuffled[: size.num_trained], shuffled[size.num_trained :]))
    evaluator = Evaluator(DigitsConfig(), DataSplits(trained, held_out), size.features, n=n)
    rng = np.random.default_rng(2)
    real_sets = [measure_all(evaluator, rest.images[rng.permutation(len(rest))[:n]]) for _ in range(size.num_real_sets)]
    sets = degraded_sets(rest, trained, n)
    results = {name: measure_all(evaluator, images) for name, images in sets.items()}
    print(f"{evaluator.extractor.name}; {n:,} against {n:,} held out\n")
    print(f"| measure | real (range of {size.num_real_sets}) | " + " | ".join(results) + " |")
    print("|---|---|" + "---|" * len(results))
    for name in real_sets[0].results:
        reals = [one.results[name].value.value for one in real_sets]
        center, spread = median(reals), max(reals) - min(reals)
        cells = []
        for result in results.values():
            value = result.results[name].value.value
            differs = abs(value - center) > 3 * max(spread, 1e-9)
            cells.append(f"**{value:.3g}**" if differs else f"{value:.3g}")
        print(f"| {name} | {min(reals):.3g} to {max(reals):.3g} | {' | '.join(cells)} |")
    print("\nbold: different from real images")


def speed(root: Path, *, quick: bool) -> None:
    """See the module; if `quick`, on a hundred embedded digits with pixels as features."""
    config = DigitsConfig() if quick else VisionConfig(dataset="MNIST", download=False)
    loaded, n = config.load(root), 100 if quick else 5000
    evaluator = Evaluator(config, loaded, QUICK.features if quick else FULL.features, n=n)
    assert isinstance(loaded.train, ImageDataset)
    fake = SampleSet(
        torch.from_numpy(loaded.train.images[-n:] if quick else loaded.train.images[20_000:25_000]), evaluator.extractor
    )
    context = EvalContext(fake, evaluator.real, lambda: evaluator.train)
    for samples in (fake, evaluator.real, evaluator.train):
        assert samples is not None
        len(samples.features)  # extracts them
    print(f"{evaluator.extractor.name}; {n:,} against {n:,}; {torch.get_num_threads()} threads\n")
    total = 0.0
    for measure in select_measures(None):
        start = time.perf_counter()
        value = compute_or_reason(measure, context, evaluator.available if quick else {*evaluator.available, "logits"})
        if not isinstance(value, str):
            seconds = time.perf_counter() - start
            total += seconds
            print(f"{measure.name:<18}{seconds:7.2f} s", flush=True)
    print(f"{'all':<18}{total:7.2f} s")


def compare_frechet(dim: int, rounds: int) -> None:
    """See the module."""
    from scipy.linalg import sqrtm
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng, samples = np.random.default_rng(0), 6000 * dim // 2048
    mix = [rng.standard_normal((dim, dim)) / np.sqrt(dim) for _ in range(2)]
    a, b = (torch.from_numpy(rng.standard_normal((samples, dim)) @ m + k / 20) for k, m in enumerate(mix))

    def by_poise() -> float:
        return frechet(Gaussian.fit(a), Gaussian.fit(b))

    def by_scipy() -> float:
        (m, c), (n, d) = ((x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (a, b))
        return float((m - n) @ (m - n) + np.trace(c) + np.trace(d) - 2 * np.trace(sqrtm(c @ d).real))

    def by_torch_fidelity() -> float:
        statistics = fid_features_to_statistics(a), fid_features_to_statistics(b)
        return fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]

    functions = {"poise": by_poise, "scipy sqrtm": by_scipy, "torch-fidelity": by_torch_fidelity}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    values = {}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            values[name] = function()
            seconds[name].append(time.perf_counter() - start)
    threads = torch.get_num_threads()
    print(f"{dim:,} dimensions, {samples:,} samples each, {threads} threads, from features to distance\n")
    for name in functions:
        ratio = median(a / b for a, b in zip(seconds[name], seconds["poise"], strict=True))
        error = values[name] / values["poise"] - 1
        print(f"{name:<16}{median(seconds[name]):7.2f} s  {ratio:5.2f} x poise  {values[name]:.10g} ({error:+.1e})")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Which measures detect what, and the time that they take.")
    parser.add_argument("what", choices=("order", "speed", "frechet"))
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="the folder of the complete MNIST")
    parser.add_argument("--quick", action="store_true", help="a hundred images, 32 dimensions; not a measurement")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    if args.what == "order":
        order(size)
    elif args.what == "speed":
        speed(args.data_root, quick=args.quick)
    else:
        compare_frechet(size.dim, size.rounds)


if __name__ == "__main__":
    main()
