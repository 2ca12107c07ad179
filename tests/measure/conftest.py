"""What the tests of benches share: the digits and their classifier, worked out once."""

from __future__ import annotations

import numpy as np
import pytest

from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.measure.evaluator import Evaluator


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    """4,000 digits of 32 x 32 to train on, 1,000 held out."""
    return DigitsConfig(size=32).load()


@pytest.fixture(scope="session")
def digits_bench(digits: DataSplits) -> Evaluator:
    """400 of the held-out digits, looked at by the classifier."""
    return Evaluator(DigitsConfig(size=32), digits, n=400)


@pytest.fixture(scope="session")
def shades() -> ImageDataset:
    """200 grey pictures of 8 x 8 in two classes that nobody can mix up, all different."""
    labels = np.arange(200) % 2
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (200, 8, 8, 1)) + 128 * labels[:, None, None, None]
    return ImageDataset(images.astype(np.uint8), labels.astype(np.int64), ("dark", "bright"))
