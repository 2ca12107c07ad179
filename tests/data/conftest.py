"""The fixture of the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages
from PIL import Image


@pytest.fixture
def write_images() -> WriteImages:
    """Writes n different images of random pixels: `write_images(folder, n=4, size=8, mode="RGB")`."""

    def write(folder: Path, n: int = 4, size: int = 8, mode: str = "RGB", suffix: str = ".png") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(map(ord, folder.name)))
        for i in range(n):
            pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"good-{i:03}{suffix}")

    return write
