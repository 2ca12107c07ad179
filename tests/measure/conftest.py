"""Shared fixtures: the digits, an evaluator with their classifier, and a small two-class data set."""

from __future__ import annotations

import numpy as np
import pytest

from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.measure.evaluator import Evaluator


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    """4,000 training and 1,000 held-out digits of 32 x 32."""
    return DigitsConfig(size=32).load()


@pytest.fixture(scope="session")
def digits_evaluator(digits: DataSplits) -> Evaluator:
    """An evaluator with 400 held-out digits and classifier features."""
    return Evaluator(DigitsConfig(size=32), digits, n=400)


@pytest.fixture(scope="session")
def shades() -> ImageDataset:
    """200 different grey images of 8 x 8 in two clearly separated classes, dark and bright."""
    labels = np.arange(200) % 2
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (200, 8, 8, 1)) + 128 * labels[:, None, None, None]
    return ImageDataset(images.astype(np.uint8), labels.astype(np.int64), ("dark", "bright"))
