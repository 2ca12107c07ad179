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

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from poise.data.embedded import DigitsEntry
from poise.data.source import Bytes, Loaded, Pictures
from poise.data.vision import VisionEntry
from poise.measure.bench import Bench
from poise.measure.catalogue import Result, chosen, taken
from poise.measure.frechet import Gaussian, frechet
from poise.measure.sitting import Pile, Sitting

N, TRIES, BLUR = 1000, 5, 0.6


def part(pictures: Pictures, places: Tensor) -> Pictures:
    """Some of the pictures as a source of its own."""
    assert pictures.labels is not None
    return Pictures(pictures.images[places.numpy()], pictures.labels[places.numpy()], pictures.classes)


def piles(new: Pictures, trained: Pictures) -> dict[str, Bytes]:
    """What is measured, N pictures each."""
    images, labels = new.images, new.labels
    assert labels is not None
    rng = np.random.default_rng(0)
    without = images[labels != 9]
    return {
        "blurred": gaussian_filter(images, (0, BLUR, BLUR, 0)),
        "no nines": without[rng.permutation(len(without))[: N - 100]],
        "one picture": np.repeat(images[:1], N, axis=0),
        "noise": rng.integers(0, 256, images.shape, np.uint8),
        "copies": trained.images[rng.permutation(len(trained))[:N]],
    }


def measured(bench: Bench, images: Bytes) -> Result:
    """By all measures that need no training of their own."""
    return bench.measure(lambda n: torch.from_numpy(images), chosen(None))


def order() -> None:
    """See the module."""
    loaded = DigitsEntry().load()
    train, held_out = loaded.train, loaded.held_out
    assert isinstance(train, Pictures)
    assert isinstance(held_out, Pictures)
    shuffled = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    trained, rest = part(train, shuffled[:2000]), part(train, shuffled[2000:])
    bench = Bench(DigitsEntry(), Loaded(trained, held_out), n=N)
    rng = np.random.default_rng(2)
    fresh = [measured(bench, rest.images[rng.permutation(len(rest))[:N]]) for _ in range(TRIES)]
    told = {name: measured(bench, images) for name, images in piles(part(rest, torch.arange(N)), trained).items()}
    print(f"{bench.look.name}; {N:,} against {N:,} held out\n")
    print("| measure | real (of five) | " + " | ".join(told) + " |")
    print("|---|---|" + "---|" * len(told))
    for name in fresh[0].told:
        reals = [one.told[name].figure.value for one in fresh]
        middle, spread = median(reals), max(reals) - min(reals)
        cells = []
        for result in told.values():
            value = result.told[name].figure.value
            seen = abs(value - middle) > 3 * max(spread, 1e-9)
            cells.append(f"**{value:.3g}**" if seen else f"{value:.3g}")
        print(f"| {name} | {min(reals):.3g} to {max(reals):.3g} | {' | '.join(cells)} |")
    print("\nbold: told from real pictures")


def speed(root: Path) -> None:
    """See the module."""
    entry = VisionEntry(dataset="MNIST", download=False)
    loaded = entry.load(root)
    bench = Bench(entry, loaded, n=5000)
    assert isinstance(loaded.train, Pictures)
    fake = Pile(torch.from_numpy(loaded.train.images[20_000:25_000]), bench.look)
    sitting = Sitting(fake, bench.real, lambda: bench.train)
    for pile in (fake, bench.real, bench.train):
        assert pile is not None
        len(pile.features)
    print(f"{bench.look.name}; 5,000 against 5,000; {torch.get_num_threads()} threads\n")
    total = 0.0
    for measure in chosen(None):
        began = time.perf_counter()
        figure = taken(measure, sitting, {*bench.given, "logits"})
        if not isinstance(figure, str):
            took = time.perf_counter() - began
            total += took
            print(f"{measure.name:<18}{took:7.2f} s", flush=True)
    print(f"{'all':<18}{total:7.2f} s")


def distances() -> None:
    """See the module."""
    from scipy.linalg import sqrtm
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng = np.random.default_rng(0)
    mix = [rng.standard_normal((2048, 2048)) / 45 for _ in range(2)]
    a, b = (torch.from_numpy(rng.standard_normal((6000, 2048)) @ m + k / 20) for k, m in enumerate(mix))

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
    for _ in range(3):
        for name, way in ways.items():
            began = time.perf_counter()
            values[name] = way()
            seconds[name].append(time.perf_counter() - began)
    print(f"2,048 dimensions, 6,000 samples each, {torch.get_num_threads()} threads, from features to distance\n")
    for name in ways:
        ratio = median(theirs / our for theirs, our in zip(seconds[name], seconds["ours"], strict=True))
        off = values[name] / values["ours"] - 1
        print(f"{name:<16}{median(seconds[name]):7.2f} s  {ratio:5.2f} times ours  {values[name]:.10g} ({off:+.1e})")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What measures see, and how long they take.")
    parser.add_argument("what", choices=("order", "speed", "frechet"))
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where the complete MNIST lies")
    asked = parser.parse_args()
    if asked.what == "order":
        order()
    elif asked.what == "speed":
        speed(asked.data_root)
    else:
        distances()


if __name__ == "__main__":
    main()
