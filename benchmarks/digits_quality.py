"""How good a run's digits are, by a small classifier of real ones: one command, one line per run.

    python benchmarks/digits_quality.py runs/a runs/b

The classifier (two convolutions, trained here for twelve epochs on the 4,000 training digits, seeded) gives
64 features before its last layer. Printed for 4,000 samples of each run: the Frechet distance of these
features to the training digits', the mean confidence, the share of samples that it is at least 95 % sure of,
and how many it takes for each digit. The floor, training digits against the 1,000 held-out ones, stands on
top with the classifier's own accuracy. The distance depends on the classifier: compare within one run only.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigvalsh
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from poise.data.embedded import DigitsEntry
from poise.data.source import Pictures, Source, to_signed
from poise.training.run import Run

EPOCHS, SAMPLES, SURE = 12, 4000, 0.95


def tensors(source: Source | None) -> tuple[Tensor, Tensor]:
    """All pictures and labels."""
    assert isinstance(source, Pictures)
    assert source.labels is not None
    return to_signed(torch.from_numpy(source.images)), torch.from_numpy(source.labels)


def classifier(images: Tensor, labels: Tensor) -> nn.Sequential:
    """Trained on shifted copies, up to two pixels; the last layer stands alone at the end."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU()]
    features = [
        *convolutions,
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * (images.shape[2] // 4) ** 2, 64),
        nn.ReLU(),
    ]
    net = nn.Sequential(*features, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(64):
            down, right = torch.randint(-2, 3, (2,)).tolist()
            shifted = torch.roll(images[chosen], (down, right), (2, 3))
            optimizer.zero_grad()
            cross_entropy(net(shifted), labels[chosen]).backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def look(net: nn.Sequential, images: Tensor) -> tuple[npt.NDArray[np.float64], Tensor]:
    """Features, N x 64, and class probabilities, N x 10."""
    features = torch.cat([net[:-1](part) for part in images.split(500)])
    return features.double().numpy(), net[-1](features).softmax(1)


def frechet(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2), the root's trace by way of a symmetric eigenproblem."""
    gap, one, two = a.mean(0) - b.mean(0), np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    crossed = np.sqrt(eigvalsh(root @ two @ root).clip(0)).sum()
    return float(gap @ gap + np.trace(one) + np.trace(two) - 2 * crossed)


class Quality(NamedTuple):
    """What the classifier makes of a pile of samples."""

    frechet: float
    confidence: float
    sure: float
    counts: list[int]


class Judge:
    """The classifier, trained once for one picture size.

    Attributes:
        right: its share of right answers on the held-out digits.
        floor: the Frechet distance of the held-out digits to the training ones.
    """

    def __init__(self, size: int = 32) -> None:
        loaded = DigitsEntry(size=size).load()
        self.net = classifier(*tensors(loaded.train))
        (train, _), (held_out, labels) = tensors(loaded.train), tensors(loaded.held_out)
        self.real, _ = look(self.net, train)
        other, said = look(self.net, held_out)
        self.right = float((said.argmax(1) == labels).float().mean())
        self.floor = frechet(self.real, other)

    def __call__(self, samples: Tensor) -> Quality:
        """See `Quality`."""
        features, said = look(self.net, samples)
        sure = said.max(1).values
        counts = torch.bincount(said.argmax(1), minlength=10).tolist()
        return Quality(frechet(features, self.real), float(sure.mean()), float((sure > SURE).float().mean()), counts)


def main() -> None:
    """See the module."""
    judge = Judge()
    print(f"classifier right on {judge.right:.1%} of the held-out digits; floor {judge.floor:.2f}")
    for path in sys.argv[1:]:
        told = judge(Run(path).sample(SAMPLES, seed=1))
        words = f"confidence {told.confidence:.3f}, sure {told.sure:.3f}, of each digit {told.counts}"
        print(f"{path}: Frechet {told.frechet:.2f}, {words}")


if __name__ == "__main__":
    main()
