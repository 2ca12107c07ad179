"""A small classifier trained on the labelled data of a run, which provides features without a download.

It consists of strided and pooled convolutions with batch norm down to maps of about 4 x 4, a layer of 64 features and a
linear head. It is trained once per data set with a fixed seed and cached, and its accuracy on images that it was not
trained on is reported. Distances in its features are comparable only between classifiers of the same name; the name
ends in a hash of the weights.
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
from poise.data.split import held_out_split
from poise.measure import feature_cache
from poise.measure.rotations import RotatedImages
from poise.utils.images import to_float
from poise.utils.progress import Progress, no_progress
from poise.utils.threads import num_threads

NUM_FEATURES = 64
"""The number of features; small enough for a thousand samples to determine a covariance matrix."""

STREAM = "measure/classifier"
BATCH_SIZE, LEARNING_RATE, MAX_SHIFT = 64, 4e-3, 2
SAMPLES_SEEN = (40_000, 300_000)
"""The least and the most images seen in training: ten epochs of four thousand images, five of sixty thousand."""

THREADS = 1
"""The threads that a classifier is trained with: with another number its weights, and all features, would differ.

One, as in a study, whose workers have one thread each: their figures stay comparable with those of other runs.
"""

SIGNIFICANCE = 1e-3
"""A classifier counts as trained successfully if its p-value is below this."""

TEST_FRACTION = 0.1
"""The share of the images that is reserved for testing if none are held out."""

MIN_SIDE = 8
"""The smallest height and width of the images that a classifier can be trained on."""

MIN_PER_CLASS = 20
"""The mean number of images per class that training requires."""


class SmallClassifier(nn.Module):
    """Maps images, B x C x H x W in [-1, 1], to features, B x 64, and logits, B x K."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        channels, side = shape[0], min(shape[1:])
        widths = [16, 32, 64]
        while side >> len(widths) > 7:
            widths.append(64)
        stride = 2 if side >= 16 else 1
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 5, stride, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for in_width, out_width in pairwise(widths):
            layers += [nn.Conv2d(in_width, out_width, 3, 1, 1, bias=False), nn.BatchNorm2d(out_width)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        with torch.no_grad():
            flat = self.trunk.eval()(torch.zeros(1, *shape)).shape[1]
        self.features = nn.Sequential(nn.Linear(flat, NUM_FEATURES), nn.ReLU())
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features and logits."""
        features = self.features(self.trunk(images))
        return features, self.head(features)


class TrainedClassifier(NamedTuple):
    """A trained classifier and its accuracy.

    Attributes:
        net: the network, in evaluation mode.
        name: a name that ends in a hash of the weights.
        accuracy: the accuracy on test images, which it was not trained on, 0 to 1.
        num_tested: the number of test images.
        majority_share: the share of the largest class among the test images, 0 to 1.
    """

    net: SmallClassifier
    name: str
    accuracy: float
    num_tested: int
    majority_share: float

    @property
    def p_value(self) -> float:
        """The p-value of the null hypothesis that it is no better than always predicting the largest class.

        A one-sided exact binomial test of the number of correct predictions, with the share of the largest class as the
        probability of success; 1 if there are no test images.
        """
        from scipy.stats import binomtest

        if not self.num_tested:
            return 1.0
        num_correct = round(self.accuracy * self.num_tested)
        return float(binomtest(num_correct, self.num_tested, self.majority_share, "greater").pvalue)

    @property
    def has_learned(self) -> bool:
        """Whether its predictions for unseen images are significantly better than the largest class."""
        return self.p_value < SIGNIFICANCE


def train_classifier(
    images: Callable[[Tensor], Tensor],
    labels: Tensor,
    shape: Shape,
    num_classes: int,
    seed: int,
    progress: Progress = no_progress,
) -> SmallClassifier:
    """Train a classifier; deterministic in the seed, whatever the number of threads of the process.

    Uses Adam with a one-cycle schedule. Each batch is shifted by up to two pixels, with edge pixels repeated.

    Args:
        images: returns the images at some indices, B, as B x shape in [-1, 1].
        labels: the class of each image, N.
        shape: the shape of an image.
        num_classes: the number of classes.
        seed: the seed of the weights, the order and the shifts.
        progress: called with the share of the steps that is done.
    """
    streams, n = RandomStreams(seed), len(labels)
    with streams.seeded_global("classifier"), num_threads(THREADS):
        net = SmallClassifier(shape, num_classes).to(memory_format=torch.channels_last)
        steps = max(1, min(max(SAMPLES_SEEN[0], 5 * n), SAMPLES_SEEN[1]) // BATCH_SIZE)
        optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
        order, start = torch.randperm(n), 0
        for step in range(steps):
            if start + BATCH_SIZE > n:
                order, start = torch.randperm(n), 0
            indices, start = order[start : start + BATCH_SIZE], start + BATCH_SIZE
            down, right = torch.randint(0, 2 * MAX_SHIFT + 1, (2,)).tolist()
            batch = pad(images(indices), (MAX_SHIFT,) * 4, mode="replicate")
            batch = batch[:, :, down : down + shape[1], right : right + shape[2]]
            optimizer.zero_grad()
            cross_entropy(net.train()(batch)[1], labels[indices], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                progress("training a small classifier for the features", step / steps)
    return net.eval()


@torch.no_grad()
def accuracy_on(net: SmallClassifier, source: SizedSource, indices: Tensor) -> float:
    """The accuracy, 0 to 1, on the samples of a labelled source at `indices`."""
    num_correct = 0
    for part in indices.split(500):
        batch = source.gather(part)
        assert batch.labels is not None
        num_correct += int((net(to_float(batch.images))[1].argmax(1) == batch.labels).sum())
    return num_correct / max(1, len(indices))


def can_train_on(source: SizedSource) -> bool:
    """Whether there are at least two classes, enough images per class, and images that are large enough."""
    num_classes = len(source.classes)
    return num_classes >= 2 and len(source) >= MIN_PER_CLASS * num_classes and min(source.shape[1:]) >= MIN_SIDE


def load_or_train(
    train: SizedSource, held_out: SizedSource | None, progress: Progress = no_progress
) -> TrainedClassifier:
    """The classifier of this data, from the cache or newly trained.

    If nothing with labels is held out, a tenth of the images is reserved for testing. It is chosen by content and by
    class (`data/split.py`), because copies of training images would not test the classifier.
    """
    if held_out is None or not held_out.classes:
        held_out = None
        train_indices, test_indices = _reserve(train)
        test: SizedSource = train
    else:
        test, train_indices, test_indices = held_out, torch.arange(len(train)), torch.arange(len(held_out))
    test_labels = test.gather_labels(test_indices)
    assert test_labels is not None
    num_tested = len(test_indices)
    majority_share = int(test_labels.bincount().max()) / num_tested if num_tested else 1.0
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # a change of the training changes the classifier
    key = feature_cache.cache_key(code, train.fingerprint, "kept" if held_out is None else held_out.fingerprint)
    cached = feature_cache.load("classifiers", key)
    if cached is not None:
        accuracy = float(cached.pop("accuracy"))
        net = _build_classifier(train, cached)
        return TrainedClassifier(net, _classifier_name(net), accuracy, num_tested, majority_share)
    labels = train.gather_labels(train_indices)
    assert labels is not None

    def images(indices: Tensor) -> Tensor:
        return to_float(train.gather(train_indices[indices]).images)

    trained = train_classifier(images, labels, train.shape, len(train.classes), derive_seed(0, STREAM), progress)
    # rebuilt as from the cache: the memory layout of the weights, and thus rounding, is the same in every process
    net = _build_classifier(train, trained.state_dict())
    accuracy = accuracy_on(net, test, test_indices)
    stored = net.state_dict() | {"accuracy": torch.tensor(accuracy, dtype=torch.float64)}
    feature_cache.store("classifiers", key, stored)
    return TrainedClassifier(net, _classifier_name(net), accuracy, num_tested, majority_share)


def _reserve(source: SizedSource) -> tuple[Tensor, Tensor]:
    """The indices of the samples to train on, and of those to test on; of an image all rotations or none."""
    if isinstance(source, RotatedImages):
        kept, reserved = _reserve(source.source)
        return source.indices_of(kept), source.indices_of(reserved)
    assert isinstance(source, ImageDataset), "stacked digits are classified by a classifier of single digits"
    kept, reserved = held_out_split(source.pixel_hashes(), source.labels, TEST_FRACTION)
    return torch.from_numpy(kept), torch.from_numpy(reserved)


def _build_classifier(train: SizedSource, weights: Mapping[str, Tensor]) -> SmallClassifier:
    """A classifier with given weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced, so they must not consume random numbers
        net = SmallClassifier(train.shape, len(train.classes)).eval()
    net.load_state_dict(weights)
    return net


def _classifier_name(net: SmallClassifier) -> str:
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return f"classifier {digest.hexdigest()[:8]}"
