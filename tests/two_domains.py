"""Small data with two domains, and runs on it, for tests of what is seen and measured of a translating G.

Image a is grey with a disc, and b, its translation, has the colours of a disc of the same shape: which of four corners
it is in is the class.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch
from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset, Source
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.run import Run
from poise.training.train import train

CLASSES = ("one", "two", "three", "four")
SIDE = 16
PARTS = (1, 3)


class Unpaired(Source):
    """Two sets of images that are not related."""

    def __init__(self, a: ImageDataset, b: ImageDataset) -> None:
        self.sets = (a, b)
        self.parts = (a.shape[0], b.shape[0])
        self.shape = (sum(self.parts), *a.shape[1:])

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        own = [RandomStreams(streams.seed + k) for k in range(2)]
        images = [one.batch(index, size, order).images for one, order in zip(self.sets, own, strict=True)]
        return Batch(torch.cat(images, -1))

    def preview(self, n: int) -> Tensor:
        return torch.cat([one.preview(n) for one in self.sets], 1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.cat([one.draw(n, generator) for one in self.sets], -1)

    @property
    def domain_sources(self) -> tuple[ImageDataset, ...]:
        return self.sets

    @property
    def fingerprint(self) -> str:
        return "/".join(one.fingerprint for one in self.sets)


def images_of_both(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images a, N x 16 x 16 x 1, their translations b, N x 16 x 16 x 3, and their labels, N."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    centres = np.stack((labels // 2, labels % 2), 1) * 8 + 3.5 + rng.uniform(-1, 1, (n, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = np.hypot(rows - centres[:, :1, None], columns - centres[:, 1:, None]) < rng.uniform(2, 3.5, (n, 1, 1))
    a = np.where(inside, 200, 30)[..., None] + rng.integers(0, 20, (n, SIDE, SIDE, 1))
    b = np.where(inside[..., None], (240, 120, 20), (10, 60, 120)) + rng.integers(0, 15, (n, SIDE, SIDE, 3))
    return a.astype(np.uint8), b.astype(np.uint8), labels


def pairs(n: int, seed: int = 0, *, labelled: bool = False) -> ImageDataset:
    """Pairs, with the channels of a before those of b."""
    a, b, labels = images_of_both(n, seed)
    return ImageDataset(np.concatenate((a, b), 3), *((labels, CLASSES) if labelled else (None, ())), PARTS)


def domains(n: int, seed: int = 0, *, labelled: bool = True) -> Unpaired:
    """Unrelated images: n of a and n + 5 of b."""
    a, _, of_a = images_of_both(n, seed)
    _, b, of_b = images_of_both(n + 5, seed + 1000)
    names = CLASSES if labelled else ()
    return Unpaired(
        ImageDataset(a, of_a if labelled else None, names), ImageDataset(b, of_b if labelled else None, names)
    )


@cache
def splits(kind: str) -> DataSplits:
    """The data `pairs`, `labelled pairs`, `domains` or `same`, with 48 training and 24 held-out samples."""
    if kind == "domains":
        return DataSplits(domains(200), domains(24, 1))
    if kind == "same":
        return DataSplits(*(ImageDataset(images_of_both(n, seed)[0]) for n, seed in ((48, 0), (24, 1))))
    labelled = kind == "labelled pairs"
    return DataSplits(pairs(120 if labelled else 48, labelled=labelled), pairs(24, 1, labelled=labelled))


def translating(direction: str, *tricks: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe of four steps for data of this file, which takes the place of the digits (`use_data`)."""
    network: dict[str, Any] = {
        "g": {"kind": "unet", "width": 4, "depth": 2, "norm": "instance"},
        "d": {"kind": "patch", "width": 4, "layers": 1},
        "direction": direction,
    }
    if direction == "both_ways":
        network["judges"] = "each"
    table: dict[str, Any] = {
        "name": "tiny",
        "steps": 4,
        "batch": 4,
        "data": {"kind": "digits", "size": SIDE},
        "latent": {"kind": "source"},
        "network": network,
        "objective": {"kind": "least_squares"},
        "optimizer": {"g": {"kind": "adam", "lr": 1e-3}, "d": {"kind": "adam", "lr": 1e-3}},
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
        "log": {"rows": 2, "samples": 2, "saves": 2, "sheet": 24, "to": []},
    }
    return decode(table | changes)


def use_data(monkeypatch: pytest.MonkeyPatch, kind: str) -> DataSplits:
    """Let the recipes of `translating` load this data."""
    data = splits(kind)
    monkeypatch.setattr(DigitsConfig, "load", lambda self, root=None: data)
    return data


def trained(out: Path, direction: str, *tricks: dict[str, Any], **changes: Any) -> Run:
    """A run of `translating`; the data must have been chosen by `use_data`."""
    return train(translating(direction, *tricks, **changes), out)
