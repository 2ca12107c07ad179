"""A small classifier, trained on the labelled data at hand: the features that need no download.

Strided and pooled convolutions with batch norms down to a map of 4 x 4 or so, 64 features, one linear layer. Seeded,
trained once for the same data and kept; it says how right it is on pictures that it was not trained on. Distances in
its features can be compared only where its name is the same: the name ends in a hash of its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from poise.core.random_streams import RandomStreams, derive_seed
from poise.core.types import Shape
from poise.data.source import ImageDataset, SizedSource
from poise.data.split import held_out_split, pixel_hashes
from poise.measure import feature_cache
from poise.utils.images import to_float
from poise.utils.progress import Progress, no_progress

WIDTH = 64
"""Features: few enough for a covariance to be known from a thousand samples."""

STREAM = "measure/classifier"
BATCH, RATE, SHIFT = 64, 4e-3, 2
SEEN = (40_000, 300_000)
"""Least and most pictures that it sees in training: ten rounds of four thousand, five of sixty thousand."""

CLEAR = 1e-3
"""A classifier has learnt something if its answers would come by chance more rarely than this."""

KEPT = 0.1
"""The share that is kept back to test it where nothing is held out."""

FEW = 20
"""As many pictures of each class, on average, make a classifier worth training."""


class SmallClassifier(nn.Module):
    """Pictures, B x C x H x W in [-1, 1], to 64 features, B x 64, and logits, B x K."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, side = shape[0], min(shape[1:])
        widths = [16, 32, 64]
        while side >> len(widths) > 7:
            widths.append(64)
        first = 2 if side >= 16 else 1
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 5, first, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for here, there in pairwise(widths):
            layers += [nn.Conv2d(here, there, 3, 1, 1, bias=False), nn.BatchNorm2d(there), nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        with torch.no_grad():
            flat = self.trunk.eval()(torch.zeros(1, *shape)).shape[1]
        self.features = nn.Sequential(nn.Linear(flat, WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.features(self.trunk(images))
        return features, self.head(features)


class TrainedClassifier(NamedTuple):
    """A classifier and what it is worth.

    Attributes:
        net: in evaluation mode.
        name: with a hash of the weights.
        right: share of right answers on pictures it was not trained on, 0 to 1.
        asked: how many these were.
        largest: the share of the largest class among them.
    """

    net: SmallClassifier
    name: str
    right: float
    asked: int
    largest: float

    @property
    def chance(self) -> float:
        """The p-value of its answers if it were no better than one who always names the largest class.

        One-sided exact binomial test: how likely so many right answers are if each is right with the probability of
        that class's share; 1 if it was asked about nothing.
        """
        from scipy.stats import binomtest

        if not self.asked:
            return 1.0
        return float(binomtest(round(self.right * self.asked), self.asked, self.largest, "greater").pvalue)

    @property
    def knows(self) -> bool:
        """Whether it has clearly learnt something about the classes that holds for new pictures."""
        return self.chance < CLEAR


def train_classifier(
    images: Callable[[Tensor], Tensor],
    labels: Tensor,
    shape: Shape,
    classes: int,
    seed: int,
    progress: Progress = no_progress,
) -> SmallClassifier:
    """A classifier trained on labels, N, and images(places), B x shape in [-1, 1]; the same for the same seed.

    Adam under one cosine; each batch is moved by up to two pixels, its edge repeated.
    """
    streams, n = RandomStreams(seed), len(labels)
    with streams.seeded_global("classifier"):
        net = SmallClassifier(shape, classes).to(memory_format=torch.channels_last)
        steps = max(1, min(max(SEEN[0], 5 * n), SEEN[1]) // BATCH)
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
        order, at = torch.randperm(n), 0
        for step in range(steps):
            if at + BATCH > n:
                order, at = torch.randperm(n), 0
            chosen, at = order[at : at + BATCH], at + BATCH
            down, right = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
            batch = pad(images(chosen), (SHIFT,) * 4, mode="replicate")
            batch = batch[:, :, down : down + shape[1], right : right + shape[2]]
            optimizer.zero_grad()
            cross_entropy(net.train()(batch)[1], labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                progress("training a small classifier to measure with", step / steps)
    return net.eval()


@torch.no_grad()
def accuracy_on(net: SmallClassifier, source: SizedSource, places: Tensor) -> float:
    """Its share of right answers on some pictures of a labelled source."""
    right = 0
    for some in places.split(500):
        batch = source.gather(some)
        assert batch.labels is not None
        right += int((net(to_float(batch.images))[1].argmax(1) == batch.labels).sum())
    return right / max(1, len(places))


def can_train_on(source: SizedSource) -> bool:
    """Whether there are two classes and enough pictures of each to train on."""
    return len(source.classes) >= 2 and len(source) >= FEW * len(source.classes) and min(source.shape[1:]) >= 8


def load_or_train(
    train: SizedSource, held_out: SizedSource | None, progress: Progress = no_progress
) -> TrainedClassifier:
    """The classifier of this data: from the cache, or trained now.

    Where nothing is held out a tenth is kept back, by content and by class (`data/split.py`): on copies of what it was
    trained on it could not be tested.
    """
    if held_out is None:
        assert isinstance(train, ImageDataset), "stacks are read by a classifier of their digits"
        places, kept = map(torch.from_numpy, held_out_split(pixel_hashes(train.images), train.labels, KEPT))
        test, asked = train, kept
    else:
        test, places, asked = held_out, torch.arange(len(train)), torch.arange(len(held_out))
    told = test.gather_labels(asked)
    assert told is not None
    largest = int(told.bincount().max()) / len(asked) if len(asked) else 1.0
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # another way of training is another classifier
    key = feature_cache.cache_key(code, train.fingerprint, "kept" if held_out is None else held_out.fingerprint)
    found = feature_cache.load("classifiers", key)
    if found is not None:
        right = float(found.pop("right"))
        net = _of(train, found)
        return TrainedClassifier(net, _name(net), right, len(asked), largest)
    labels = train.gather_labels(places)
    assert labels is not None

    def images(chosen: Tensor) -> Tensor:
        return to_float(train.gather(places[chosen]).images)

    made = train_classifier(images, labels, train.shape, len(train.classes), derive_seed(0, STREAM), progress)
    net = _of(train, made.state_dict())  # laid out in memory as it will be next time: then its features are, too
    right = accuracy_on(net, test, asked)
    feature_cache.store("classifiers", key, net.state_dict() | {"right": torch.tensor(right, dtype=torch.float64)})
    return TrainedClassifier(net, _name(net), right, len(asked), largest)


def _of(train: SizedSource, weights: Mapping[str, Tensor]) -> SmallClassifier:
    """The classifier with these weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and thrown away
        net = SmallClassifier(train.shape, len(train.classes)).eval()
    net.load_state_dict(weights)
    return net


def _name(net: SmallClassifier) -> str:
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return f"classifier {digest.hexdigest()[:8]}"
