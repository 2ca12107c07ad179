"""Features from a classifier of rotations, for images without labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from poise.data.digits import DigitsConfig
from poise.data.source import ImageDataset
from poise.data.stacked_digits import StackedConfig
from poise.errors import RecipeError
from poise.measure import classifier
from poise.measure.extractors import (
    ClassifierExtractor,
    ExtractorContext,
    IdentityExtractor,
    RotationExtractor,
    make_extractor,
)
from poise.measure.fid import fid
from poise.measure.rotations import MIN_IMAGES, RotatedImages
from poise.measure.sample_set import SampleSet


@pytest.fixture(scope="module", autouse=True)
def _short_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Classifiers are trained for a hundred steps and use a separate cache, which the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifier, "SAMPLES_SEEN", (6400, 6400))
        yield


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    """A quarter of the training digits of 8 x 8 pixels, without their labels."""
    train = DigitsConfig(size=8).load().train
    assert isinstance(train, ImageDataset)
    return ImageDataset(train.images[::4])


def noise(n: int, height: int = 8, width: int = 8) -> ImageDataset:
    return ImageDataset(np.random.default_rng(1).integers(0, 256, (n, height, width, 3), np.uint8))


def auto(train: ImageDataset, notes: list[str] | None = None) -> object:
    return make_extractor("auto", ExtractorContext(train, None, note=([] if notes is None else notes).append))


@pytest.mark.parametrize(("height", "width", "turns"), [(8, 8, [0, 1, 2, 3]), (8, 12, [0, 2])])
def test_every_rotation_of_every_image(height: int, width: int, turns: list[int]) -> None:
    images = noise(5, height, width)
    rotated = RotatedImages(images)
    assert len(rotated) == 5 * len(turns) == sum(rotated.class_counts)
    order = torch.randperm(len(rotated), generator=torch.Generator().manual_seed(0))
    batch = rotated.gather(order)
    assert batch.labels is not None
    for index, image, label in zip(order.tolist(), batch.images.numpy(), batch.labels.tolist(), strict=True):
        original, rotation = divmod(index, len(turns))
        assert label == rotation
        assert np.array_equal(image, np.rot90(images.images[original], turns[rotation]))
        assert rotated.classes[label] == str(90 * turns[rotation])
    assert rotated.indices_of(torch.tensor([3, 1])).tolist() == [
        *range(3 * len(turns), 4 * len(turns)),
        *range(len(turns), 2 * len(turns)),
    ]
    assert rotated.fingerprint != images.fingerprint


def test_of_an_image_all_rotations_are_trained_on_or_none() -> None:
    kept, reserved = classifier._reserve(RotatedImages(noise(40)))
    assert len(kept) + len(reserved) == 160
    assert not {int(index) // 4 for index in kept} & {int(index) // 4 for index in reserved}
    assert len(reserved) == 16


def test_auto_takes_them_for_images_without_labels(digits: ImageDataset) -> None:
    notes: list[str] = []
    extractor = auto(digits, notes)
    assert isinstance(extractor, RotationExtractor)
    assert " of rotations, accuracy " in extractor.name
    assert extractor.classifier.accuracy > 0.4
    assert extractor(torch.zeros(3, *digits.shape)).features.shape == (3, 64)
    assert extractor(torch.zeros(3, *digits.shape)).logits is None
    assert notes == []


def test_auto_prefers_a_classifier_of_the_classes() -> None:
    train = DigitsConfig(size=8).load().train
    assert isinstance(train, ImageDataset)
    assert isinstance(auto(train), ClassifierExtractor)


def test_auto_takes_them_if_the_classes_can_not_be_learned(digits: ImageDataset) -> None:
    labels, notes = np.random.default_rng(5).integers(0, 2, len(digits)), list[str]()
    assert isinstance(auto(ImageDataset(digits.images, labels, ("a", "b")), notes), RotationExtractor)
    (note,) = notes
    assert note.startswith("the features are those of a classifier of rotations, because a classifier has an accuracy")


def test_auto_takes_pixels_if_images_have_no_upright_position() -> None:
    notes: list[str] = []
    assert isinstance(auto(noise(MIN_IMAGES), notes), IdentityExtractor)
    (note,) = notes
    assert note.startswith("the features are pixels, because a classifier of rotations has an accuracy of ")


def test_auto_takes_pixels_for_few_or_small_images() -> None:
    for images in (noise(MIN_IMAGES - 1), noise(MIN_IMAGES, 7, 7)):
        notes: list[str] = []
        assert isinstance(auto(images, notes), IdentityExtractor)
        assert notes == []
        with pytest.raises(RecipeError, match=f"requires {MIN_IMAGES} images of at least 8 x 8 pixels"):
            make_extractor("rotations", ExtractorContext(images, None))
    stacks = StackedConfig(size=32, count=MIN_IMAGES).load().train
    with pytest.raises(RecipeError, match="requires"):
        make_extractor("rotations", ExtractorContext(stacks, None))


def test_they_tell_shapes_that_pixels_hardly_tell(digits: ImageDataset) -> None:
    """Digits upside down have almost the mean and the covariance of digits."""
    first, second = digits.images[::2], digits.images[1::2]
    upside_down, ratios = np.ascontiguousarray(first[:, ::-1, ::-1]), dict[str, float]()
    for name in ("rotations", "pixels"):
        extractor = make_extractor(name, ExtractorContext(digits, None))
        real, other, fake = (SampleSet(torch.from_numpy(x), extractor).features for x in (second, first, upside_down))
        ratios[name] = fid(fake, real) / fid(other, real)
    assert ratios["rotations"] > 1.5 * ratios["pixels"], ratios
