"""The small classifier: how right it is, that it is the same for the same data, and that it is trained once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

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


class Told:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float]] = []

    def __call__(self, what: str, share: float) -> None:
        self.heard.append((what, share))


@pytest.fixture
def brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty steps, kept by themselves."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (2560, 2560))


def weights(trained: TrainedClassifier | SmallClassifier) -> dict[str, Tensor]:
    return (trained.net if isinstance(trained, TrainedClassifier) else trained).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def halves(pictures: ImageDataset, at: int) -> tuple[ImageDataset, ImageDataset]:
    assert pictures.labels is not None
    first, second = (
        ImageDataset(pictures.images[part], pictures.labels[part], pictures.classes)
        for part in (slice(0, at), slice(at, None))
    )
    return first, second


def test_it_knows_digits_that_it_has_never_seen(digits: DataSplits) -> None:
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


def test_the_second_time_it_comes_from_the_cache(digits: DataSplits) -> None:
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    first, told = classifier.load_or_train(train, held_out), Told()
    again = classifier.load_or_train(train, held_out, told)
    assert told.heard == []
    assert again.net is not first.net
    assert same(weights(again), weights(first))
    assert (again.name, again.accuracy) == (first.name, first.accuracy)
    assert not again.net.training


@pytest.mark.usefixtures("brief")
def test_trained_once_and_kept(shades: ImageDataset) -> None:
    told = Told()
    train, held_out = halves(shades, 150)
    first = classifier.load_or_train(train, held_out, told)
    assert [share for _, share in told.heard] == [0.0, 0.5]
    assert {what for what, _ in told.heard} == {"training a small classifier for the features"}
    again = classifier.load_or_train(train, held_out, told)
    assert len(told.heard) == 2
    assert same(weights(again), weights(first))
    assert (again.name, again.accuracy) == (first.name, first.accuracy) == (first.name, 1.0)
    batch = to_float(torch.from_numpy(shades.images))
    with torch.no_grad():
        assert torch.equal(again.net(batch)[0], first.net(batch)[0]), "the same figure the first time and after it"


@pytest.mark.usefixtures("brief")
def test_a_cache_that_lies_is_not_believed(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = halves(shades, 150)
    first = classifier.load_or_train(train, held_out)
    (path,) = (feature_cache.cache_dir() / "classifiers").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    told = Told()
    again = classifier.load_or_train(train, held_out, told)
    assert told.heard
    assert (again.name, again.accuracy) == (first.name, first.accuracy)


@pytest.mark.usefixtures("brief")
def test_other_data_another_classifier(shades: ImageDataset) -> None:
    train, held_out = halves(shades, 150)
    fewer, _ = halves(train, 140)
    asked, _ = halves(held_out, 40)
    names = {classifier.load_or_train(*pair).name for pair in ((train, held_out), (fewer, held_out))}
    assert len(names) == 2
    told = Told()
    assert (
        classifier.load_or_train(train, asked, told).name in names
    )  # the same weights, but asked about other pictures
    assert told.heard


@pytest.mark.usefixtures("brief")
def test_without_pictures_held_out_a_tenth_is_kept_back(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    asked: list[Tensor] = []
    real_take = ImageDataset.gather

    def take(self: ImageDataset, places: Tensor):  # type: ignore[no-untyped-def]
        (asked if in_test else seen).append(places)
        return real_take(self, places)

    def right(net: SmallClassifier, source: ImageDataset, places: Tensor) -> float:
        nonlocal in_test
        in_test = True
        return accuracy_on(net, source, places)

    in_test = False
    monkeypatch.setattr(ImageDataset, "gather", take)
    monkeypatch.setattr(classifier, "accuracy_on", right)
    trained = classifier.load_or_train(shades, None)
    trained_on, tested = (set(torch.cat(places).tolist()) for places in (seen, asked))
    assert len(tested) == 20
    assert trained_on | tested == set(range(200))
    assert not trained_on & tested
    assert trained.accuracy == 1.0


def fit(pictures: ImageDataset, seed: int) -> SmallClassifier:
    labels = pictures.gather_labels(torch.arange(len(pictures)))
    assert labels is not None
    return train_classifier(
        lambda places: to_float(pictures.gather(places).images), labels, pictures.shape, len(pictures.classes), seed
    )


@pytest.mark.usefixtures("brief")
def test_the_same_for_the_same_seed(shades: ImageDataset) -> None:
    one, again, other = fit(shades, 1), fit(shades, 1), fit(shades, 2)
    assert same(weights(one), weights(again))
    assert not same(weights(one), weights(other))
    assert not one.training


@pytest.mark.usefixtures("brief")
def test_global_random_numbers_are_left_alone(shades: ImageDataset) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(shades, 1)
    for _ in range(2):  # trained, and from the cache
        classifier.load_or_train(shades, None)
        assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()
    torch.manual_seed(8)
    by_another = fit(shades, 1)
    torch.manual_seed(9)
    assert same(weights(fit(shades, 1)), weights(by_another))


@pytest.mark.usefixtures("brief")
def test_few_pictures_and_odd_shapes() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 8, 8, 3), (40, 9, 13, 1), (70, 33, 20, 4)):
        labels = np.arange(shape[0]) % 2
        images = (rng.integers(0, 100, shape) + 128 * labels[:, None, None, None]).astype(np.uint8)
        pictures = ImageDataset(images, labels.astype(np.int64), ("a", "b"))
        assert can_train_on(pictures)
        assert accuracy_on(fit(pictures, 0), pictures, torch.arange(len(pictures))) > 0.9


@pytest.mark.parametrize("side", [8, 15, 16, 28, 32, 64, 128])
def test_the_map_before_the_features_is_small(side: int) -> None:
    net = SmallClassifier((1, side, side), 3)
    features, logits = net.eval()(torch.zeros(2, 1, side, side))
    assert (features.shape, logits.shape) == ((2, 64), (2, 3))
    flat = net.features[0].in_features
    assert flat <= 64 * 7 * 7
    assert flat >= 64 * 2 * 2


@pytest.mark.parametrize(
    ("n", "classes", "side", "worth"),
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
def test_worth_it(n: int, classes: int, side: int, worth: bool) -> None:
    labels = np.arange(n, dtype=np.int64) % classes if classes else None
    pictures = ImageDataset(np.zeros((n, side, 8, 1), np.uint8), labels, tuple(map(str, range(classes))))
    assert can_train_on(pictures) is worth


@pytest.mark.usefixtures("brief")
def test_the_name_is_of_the_weights(shades: ImageDataset) -> None:
    train, held_out = halves(shades, 150)
    look = ClassifierExtractor(train, held_out)
    assert look.name == f"{look.classifier.name}, accuracy 100.0% on unseen images"
    assert look.classifier.name.startswith("classifier ")
    assert len(look.classifier.name) == len("classifier ") + 8
    with torch.no_grad():
        look.classifier.net.head.bias += 1
    assert classifier._classifier_name(look.classifier.net) != look.classifier.name
