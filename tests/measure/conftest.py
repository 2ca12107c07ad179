"""Shared fixtures: the digits, an evaluator with their classifier, and a small two-class data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.measure import classifier
from poise.measure.evaluator import Evaluator

SAMPLES_SEEN = classifier.SAMPLES_SEEN
"""Those of a user: the tests have not begun yet."""

ENOUGH = (20_000, 20_000)
"""With so many, a classifier of digits is right for more than 96 %, which takes half of the time."""


@pytest.fixture(scope="module", autouse=True)
def _good_classifier(session_folder: Path) -> Iterator[None]:
    """Classifiers are trained well, and kept apart from those of other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POISE_CACHE", str(session_folder / "good"))
        patch.setattr(classifier, "SAMPLES_SEEN", ENOUGH)
        yield


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    """4,000 training and 1,000 held-out digits of 32 x 32."""
    return DigitsConfig(size=32).load()


@pytest.fixture(scope="module")
def digits_evaluator(digits: DataSplits, _good_classifier: None) -> Evaluator:
    """An evaluator with 400 held-out digits and classifier features."""
    return Evaluator(DigitsConfig(size=32), digits, n=400)


@pytest.fixture(scope="session")
def shades() -> ImageDataset:
    """200 different grey images of 8 x 8 in two clearly separated classes, dark and bright."""
    labels = np.arange(200) % 2
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (200, 8, 8, 1)) + 128 * labels[:, None, None, None]
    return ImageDataset(images.astype(np.uint8), labels.astype(np.int64), ("dark", "bright"))
