"""The small classifier: its accuracy, determinism and caching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from measure.conftest import ENOUGH, SAMPLES_SEEN
from poise.data.source import DataSplits, ImageDataset
from poise.measure import classifier, feature_cache
from poise.measure.classifier import (
    MIN_PER_CLASS,
    SmallClassifier,
    TrainedClassifier,
    accuracy_on,
    can_train_on,
    train_classifier,
)
from poise.measure.extractors import ClassifierExtractor
from poise.utils.images import to_float
from poise.utils.threads import num_threads


class ProgressLog:
    """Records all progress calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def __call__(self, what: str, share: float) -> None:
        self.calls.append((what, share))


@pytest.fixture
def short_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes forty steps and uses a separate cache."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (2560, 2560))


def weights(trained: TrainedClassifier | SmallClassifier) -> dict[str, Tensor]:
    return (trained.net if isinstance(trained, TrainedClassifier) else trained).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def halves(dataset: ImageDataset, at: int) -> tuple[ImageDataset, ImageDataset]:
    assert dataset.labels is not None
    first, second = (
        ImageDataset(dataset.images[part], dataset.labels[part], dataset.classes)
        for part in (slice(0, at), slice(at, None))
    )
    return first, second


@pytest.mark.parametrize("seen", [ENOUGH, pytest.param(SAMPLES_SEEN, marks=pytest.mark.slow)], ids=["enough", "user's"])
def test_classifier_is_accurate_on_held_out_digits(
    digits: DataSplits, seen: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seen != ENOUGH:
        monkeypatch.setenv("POISE_CACHE", str(tmp_path))
        monkeypatch.setattr(classifier, "SAMPLES_SEEN", seen)
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    trained = classifier.load_or_train(train, held_out)
    assert not trained.net.training
    assert trained.accuracy >= 0.97
    assert held_out.labels is not None
    batch = held_out.gather(torch.arange(500))
    with torch.no_grad():
        features, logits = trained.net(to_float(batch.images))
    assert features.shape == (500, 64)
    assert logits.shape == (500, 10)
    assert float((logits.argmax(1) == batch.labels).double().mean()) >= 0.96
    assert trained.accuracy == accuracy_on(trained.net, held_out, torch.arange(1000))


def test_trained_classifier_is_loaded_from_the_cache(digits: DataSplits) -> None:
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    first, progress = classifier.load_or_train(train, held_out), ProgressLog()
    again = classifier.load_or_train(train, held_out, progress)
    assert progress.calls == []
    assert again.net is not first.net
    assert same(weights(again), weights(first))
    assert (again.name, again.accuracy) == (first.name, first.accuracy)
    assert not again.net.training


@pytest.mark.usefixtures("short_training")
def test_classifier_is_trained_once(shades: ImageDataset) -> None:
    progress = ProgressLog()
    train, held_out = halves(shades, 150)
    first = classifier.load_or_train(train, held_out, progress)
    assert [share for _, share in progress.calls] == [0.0, 0.5]
    assert {what for what, _ in progress.calls} == {"training a small classifier for the features"}
    again = classifier.load_or_train(train, held_out, progress)
    assert len(progress.calls) == 2
    assert same(weights(again), weights(first))
    assert (again.name, again.accuracy) == (first.name, first.accuracy) == (first.name, 1.0)
    batch = to_float(torch.from_numpy(shades.images))
    with torch.no_grad():
        assert torch.equal(again.net(batch)[0], first.net(batch)[0]), (
            "the trained and the cached network must give identical features"
        )


@pytest.mark.usefixtures("short_training")
def test_damaged_cache_file_is_ignored(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = halves(shades, 150)
    first = classifier.load_or_train(train, held_out)
    (path,) = (feature_cache.cache_dir() / "classifiers").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    progress = ProgressLog()
    again = classifier.load_or_train(train, held_out, progress)
    assert progress.calls
    assert (again.name, again.accuracy) == (first.name, first.accuracy)


@pytest.mark.usefixtures("short_training")
def test_cache_depends_on_both_splits(shades: ImageDataset) -> None:
    train, held_out = halves(shades, 150)
    fewer, _ = halves(train, 140)
    fewer_tested, _ = halves(held_out, 40)
    names = {classifier.load_or_train(*pair).name for pair in ((train, held_out), (fewer, held_out))}
    assert len(names) == 2
    progress = ProgressLog()
    # the same weights, but tested on other images
    assert classifier.load_or_train(train, fewer_tested, progress).name in names
    assert progress.calls


@pytest.mark.usefixtures("short_training")
def test_a_tenth_is_reserved_if_nothing_is_held_out(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_batches: list[Tensor] = []
    tested_batches: list[Tensor] = []
    gather = ImageDataset.gather

    def recording_gather(self: ImageDataset, indices: Tensor):  # type: ignore[no-untyped-def]
        (tested_batches if in_test else trained_batches).append(indices)
        return gather(self, indices)

    def recording_accuracy(net: SmallClassifier, source: ImageDataset, indices: Tensor) -> float:
        nonlocal in_test
        in_test = True
        return accuracy_on(net, source, indices)

    in_test = False
    monkeypatch.setattr(ImageDataset, "gather", recording_gather)
    monkeypatch.setattr(classifier, "accuracy_on", recording_accuracy)
    trained = classifier.load_or_train(shades, None)
    trained_on, tested = (set(torch.cat(batches).tolist()) for batches in (trained_batches, tested_batches))
    assert len(tested) == 20
    assert trained_on | tested == set(range(200))
    assert not trained_on & tested
    assert trained.accuracy == 1.0


def fit(dataset: ImageDataset, seed: int) -> SmallClassifier:
    labels = dataset.gather_labels(torch.arange(len(dataset)))
    assert labels is not None
    return train_classifier(
        lambda indices: to_float(dataset.gather(indices).images), labels, dataset.shape, len(dataset.classes), seed
    )


@pytest.mark.usefixtures("short_training")
def test_training_is_deterministic_in_the_seed(shades: ImageDataset) -> None:
    one, again, other = fit(shades, 1), fit(shades, 1), fit(shades, 2)
    assert same(weights(one), weights(again))
    assert not same(weights(one), weights(other))
    assert not one.training


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("threads", [2, 3])
def test_training_has_the_same_number_of_threads_everywhere(threads: int) -> None:
    """Otherwise features would depend on which process trains the classifier first, as a study has one thread."""
    seen = set[int]()

    def images(indices: Tensor) -> Tensor:
        seen.add(torch.get_num_threads())
        return torch.zeros(len(indices), 1, 8, 8)

    with num_threads(threads):
        train_classifier(images, torch.arange(64) % 2, (1, 8, 8), 2, seed=0)
        assert torch.get_num_threads() == threads
    assert seen == {classifier.THREADS}


@pytest.mark.usefixtures("short_training")
def test_global_random_state_is_unchanged(shades: ImageDataset) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(shades, 1)
    for _ in range(2):  # first trained, then from the cache
        classifier.load_or_train(shades, None)
        assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    torch.manual_seed(8)
    under_seed_8 = fit(shades, 1)
    torch.manual_seed(9)
    assert same(weights(fit(shades, 1)), weights(under_seed_8))


@pytest.mark.usefixtures("short_training")
def test_small_data_sets_and_unusual_shapes() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 8, 8, 3), (40, 9, 13, 1), (70, 33, 20, 4)):
        labels = np.arange(shape[0]) % 2
        images = (rng.integers(0, 100, shape) + 128 * labels[:, None, None, None]).astype(np.uint8)
        dataset = ImageDataset(images, labels.astype(np.int64), ("a", "b"))
        assert can_train_on(dataset)
        assert accuracy_on(fit(dataset, 0), dataset, torch.arange(len(dataset))) > 0.9


@pytest.mark.parametrize("side", [8, 15, 16, 28, 32, 64, 128])
def test_last_feature_map_is_small(side: int) -> None:
    net = SmallClassifier((1, side, side), 3)
    features, logits = net.eval()(torch.zeros(2, 1, side, side))
    assert (features.shape, logits.shape) == ((2, 64), (2, 3))
    flat = net.features[0].in_features
    assert flat <= 64 * 7 * 7
    assert flat >= 64 * 2 * 2


@pytest.mark.parametrize(
    ("n", "classes", "side", "expected"),
    [
        (2 * MIN_PER_CLASS, 2, 8, True),
        (2 * MIN_PER_CLASS - 1, 2, 8, False),
        (200, 1, 8, False),
        (200, 0, 8, False),
        (200, 2, 7, False),
        (10 * MIN_PER_CLASS, 10, 8, True),
        (10 * MIN_PER_CLASS - 1, 10, 8, False),
    ],
)
def test_can_train_on(n: int, classes: int, side: int, expected: bool) -> None:
    labels = np.arange(n, dtype=np.int64) % classes if classes else None
    dataset = ImageDataset(np.zeros((n, side, 8, 1), np.uint8), labels, tuple(map(str, range(classes))))
    assert can_train_on(dataset) is expected


@pytest.mark.usefixtures("short_training")
def test_name_is_a_hash_of_the_weights(shades: ImageDataset) -> None:
    train, held_out = halves(shades, 150)
    extractor = ClassifierExtractor(train, held_out)
    assert extractor.name == f"{extractor.classifier.name}, accuracy 100.0% on unseen images"
    assert extractor.classifier.name.startswith("classifier ")
    assert len(extractor.classifier.name) == len("classifier ") + 8
    with torch.no_grad():
        extractor.classifier.net.head.bias += 1
    assert classifier._classifier_name(extractor.classifier.net) != extractor.classifier.name
