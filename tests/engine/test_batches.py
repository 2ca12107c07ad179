"""The batches of real samples: random flips are a function of (seed, index), and absent unless requested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import Session, recipe
from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext, Side
from poise.data.source import ImageDataset
from poise.engine.batches import RealBatches, flip_at_random
from poise.utils.images import to_float

CPU = torch.device("cpu")
N, BATCH = 40, 12


def images_and_labels() -> ImageDataset:
    """Images of 4 x 4 pixels, no two of which are flips of each other, and the number of each as its label."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), np.uint8)
    return ImageDataset(pixels, np.arange(N), tuple(map(str, range(N))))


def at(step: int, seed: int = 0, *, side: Side = Side.D, size: int = BATCH) -> MoveContext:
    return MoveContext(step, 100, size, RandomStreams(seed)).for_move(side, 0)


def load(batches: RealBatches, context: MoveContext) -> tuple[Tensor, Tensor]:
    images, labels = batches.load(context, labels=True)
    assert images is not None
    assert labels is not None
    return images, labels


def flips(batches: RealBatches, context: MoveContext) -> list[bool]:
    """Which images of a batch are flipped; every one is either the image of its label or the flip of that."""
    images, labels = load(batches, context)
    as_they_are = to_float(torch.from_numpy(images_and_labels().images))[labels]
    found = [bool((image == flip).all()) for image, flip in zip(images, as_they_are.flip(3), strict=True)]
    unflipped = [bool((image == other).all()) for image, other in zip(images, as_they_are, strict=True)]
    assert [not flipped for flipped in found] == unflipped
    return found


def test_batches_without_mirror_are_those_of_the_source() -> None:
    source = images_and_labels()
    batches = RealBatches(source, CPU, 1)
    for step in range(8):
        expected = source.batch(step, BATCH, RandomStreams(0))
        images, labels = load(batches, at(step))
        assert torch.equal(images, to_float(expected.images))
        assert torch.equal(labels, expected.labels)
        assert not any(flips(batches, at(step)))


def test_mirror_flips_half_of_the_images_and_changes_neither_order_nor_labels() -> None:
    mirrored, plain = (RealBatches(images_and_labels(), CPU, 1, mirror=mirror) for mirror in (True, False))
    flipped = [flips(mirrored, at(step)) for step in range(100)]
    share = np.mean(flipped)
    assert share == pytest.approx(0.5, abs=4 * 0.5 / (100 * BATCH) ** 0.5)
    assert np.std([sum(batch) for batch in flipped]) == pytest.approx((BATCH / 4) ** 0.5, rel=0.3), "one by one"
    for step in range(5):
        assert torch.equal(load(mirrored, at(step))[1], load(plain, at(step))[1])


def test_flips_are_a_function_of_seed_and_index() -> None:
    batches = RealBatches(images_and_labels(), CPU, 1, mirror=True)
    expected = [load(batches, at(step))[0] for step in range(10)]
    fresh = RealBatches(images_and_labels(), CPU, 1, mirror=True)
    for step in (7, 2, 9, 2):
        assert torch.equal(load(fresh, at(step))[0], expected[step])
    assert len({tuple(flips(batches, at(step))) for step in range(10)}) == 10
    assert len({tuple(flips(batches, at(0, seed))) for seed in range(10)}) == 10


def test_an_image_is_not_flipped_in_every_epoch() -> None:
    batches = RealBatches(images_and_labels(), CPU, 1, mirror=True)
    seen: dict[int, set[bool]] = {}
    for step in range(12):
        _, labels = load(batches, at(step, size=N))
        for label, flipped in zip(labels.tolist(), flips(batches, at(step, size=N)), strict=True):
            seen.setdefault(label, set()).add(flipped)
    assert all(versions == {True, False} for versions in seen.values())


def test_gs_move_gets_the_same_flips_as_ds() -> None:
    batches = RealBatches(images_and_labels(), CPU, 1, mirror=True)
    for step in range(4):
        assert torch.equal(load(batches, at(step))[0], load(batches, at(step, side=Side.G))[0])


def test_the_data_is_not_changed() -> None:
    source = images_and_labels()
    before, fingerprint = source.images.copy(), source.fingerprint
    RealBatches(source, CPU, 1, mirror=True).load(at(0))
    flip_at_random(torch.from_numpy(source.images), 0, 0)
    assert (source.images == before).all()
    assert source.fingerprint == fingerprint


def test_columns_are_reversed_and_nothing_else() -> None:
    images = torch.arange(2 * 3 * 4 * 2, dtype=torch.uint8).reshape(2, 3, 4, 2)
    for index in range(6):
        for image, before in zip(flip_at_random(images, 3, index), images, strict=True):
            assert torch.equal(image, before) or torch.equal(image, before[:, [3, 2, 1, 0]])


def test_a_run_trains_on_flipped_images_only_if_the_recipe_says_so() -> None:
    source = images_and_labels()
    data = {"kind": "digits", "size": 8}
    reals = {}
    for mirror in (False, True):
        run = Session(recipe("pictures", data=data | {"mirror": mirror}), _digits_like(source)).play(2)
        reals[mirror] = [move.real for move in run.moves if move.real is not None]
    assert len(reals[True]) == len(reals[False]) > 0
    for plain, mirrored in zip(reals[False], reals[True], strict=True):
        changed = [not torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
        assert any(changed)
        assert all(
            torch.equal(b, a.flip(2) if flipped else a) for a, b, flipped in zip(plain, mirrored, changed, strict=True)
        )


def _digits_like(source: ImageDataset) -> ImageDataset:
    """The images in grey, enlarged to 8 x 8."""
    return ImageDataset(source.images[..., :1].repeat(2, 1).repeat(2, 2))
