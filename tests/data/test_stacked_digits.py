"""Stacked digits: channels, mode numbers, and reproducibility."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch
from poise.data.digits import DigitsConfig
from poise.data.lookup import data_config, data_table
from poise.data.source import ImageDataset
from poise.data.stacked_digits import StackedConfig, StackedDigits, mode_numbers
from poise.recipe.decode import decode
from poise.recipe.shipped import load_recipe
from poise.utils.image_grid import image_grid
from poise.utils.images import to_float


@pytest.fixture(scope="module")
def digit_sets() -> tuple[ImageDataset, ImageDataset]:
    """The training and the held-out digits, 28 x 28."""
    loaded = DigitsConfig(size=28).load()
    assert isinstance(loaded.train, ImageDataset)
    assert isinstance(loaded.held_out, ImageDataset)
    return loaded.train, loaded.held_out


@pytest.fixture(scope="module", params=[2, 3])
def stacks(request: pytest.FixtureRequest) -> tuple[StackedDigits, StackedDigits]:
    loaded = StackedConfig(size=28, stack=request.param, count=400).load()
    assert isinstance(loaded.train, StackedDigits)
    assert isinstance(loaded.held_out, StackedDigits)
    return loaded.train, loaded.held_out


def gather_all(source: StackedDigits) -> Batch:
    return source.gather(torch.arange(len(source)))


def test_shapes_and_class_names(stacks: tuple[StackedDigits, StackedDigits]) -> None:
    for source, count in zip(stacks, (400, 100), strict=True):
        stack = source.stack
        batch = gather_all(source)
        assert len(source) == count
        assert source.shape == (stack, 28, 28)
        assert batch.images.shape == (count, 28, 28, stack)
        assert (batch.images.dtype, batch.images.is_contiguous()) == (torch.uint8, True)
        assert batch.labels is not None
        assert batch.labels.dtype == torch.int64
        assert len(source.classes) == 10**stack
        assert source.classes[:2] == ("0" * stack, "0" * (stack - 1) + "1")
        assert source.classes[-1] == "9" * stack
        assert source.spec().num_classes == 10**stack


def test_each_channel_is_a_digit_and_the_label_is_their_number(
    stacks: tuple[StackedDigits, StackedDigits], digit_sets: tuple[ImageDataset, ImageDataset]
) -> None:
    for source, digit_set in zip(stacks, digit_sets, strict=True):
        assert digit_set.labels is not None
        known = {image.tobytes(): int(label) for image, label in zip(digit_set.images, digit_set.labels, strict=True)}
        batch = gather_all(source)
        assert batch.labels is not None
        for image, label in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
            digits = [known[np.ascontiguousarray(image[..., k : k + 1]).tobytes()] for k in range(source.stack)]
            assert source.classes[label] == "".join(map(str, digits))


def test_held_out_digits_are_in_no_training_stack(
    stacks: tuple[StackedDigits, StackedDigits], digit_sets: tuple[ImageDataset, ImageDataset]
) -> None:
    held_out, trained = ({bytes(image) for image in digit_set.images} for digit_set in reversed(digit_sets))
    for source, digit_set, other in zip(stacks, (trained, held_out), (held_out, trained), strict=True):
        channels = gather_all(source).images.permute(0, 3, 1, 2).flatten(0, 1).contiguous().numpy()
        seen = {image.tobytes() for image in channels}
        assert seen <= digit_set
        assert not seen & other
        assert len(seen) > len(channels) / 2


def test_mode_numbers_start_with_the_first_channel() -> None:
    assert mode_numbers(torch.tensor([[4, 0, 7], [0, 0, 0], [9, 9, 9], [0, 1, 2]])).tolist() == [407, 0, 999, 12]
    assert mode_numbers(torch.tensor([[4, 0], [0, 7]])).tolist() == [40, 7]


def test_gather_in_any_order(stacks: tuple[StackedDigits, StackedDigits]) -> None:
    source, _ = stacks
    everything, indices = gather_all(source), torch.tensor([399, 7, 7, 0])
    subset = source.gather(indices)
    assert torch.equal(subset.images, everything.images[indices])
    assert subset.labels is not None
    assert everything.labels is not None
    assert torch.equal(subset.labels, everything.labels[indices])
    assert torch.equal(source.gather_labels(indices), everything.labels[indices])
    assert torch.equal(source.preview(5), to_float(source.gather(source.evenly_spaced(5)).images))


def test_stacks_are_the_same_in_every_process() -> None:
    script = (
        "from poise.data.stacked_digits import StackedConfig; import torch, hashlib;"
        "t = StackedConfig(size=28, count=300).load().train; b = t.gather(torch.arange(300));"
        "print(t.fingerprint, hashlib.sha256(b.images.numpy().tobytes()).hexdigest(), b.labels.tolist()[:5])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    source = StackedConfig(size=28, count=300).load().train
    assert isinstance(source, StackedDigits)
    batch = gather_all(source)
    assert batch.labels is not None
    digest = hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()
    assert output == f"{source.fingerprint} {digest} {batch.labels.tolist()[:5]}\n"


def test_fingerprints_differ(digit_sets: tuple[ImageDataset, ImageDataset]) -> None:
    train, held_out = digit_sets
    sources = [
        StackedDigits(train, 3, 50),
        StackedDigits(train, 2, 50),
        StackedDigits(train, 3, 51),
        StackedDigits(held_out, 3, 50),
    ]
    assert len({source.fingerprint for source in sources}) == 4
    assert StackedDigits(train, 3, 50).fingerprint == sources[0].fingerprint
    assert len(sources[0].fingerprint) == 16


def test_a_larger_set_begins_with_the_smaller_one(digit_sets: tuple[ImageDataset, ImageDataset]) -> None:
    fewer, more = (StackedDigits(digit_sets[0], 3, count) for count in (20, 60))
    assert torch.equal(gather_all(fewer).images, gather_all(more).images[:20])


def test_batches_are_ordered_like_those_of_an_image_dataset(digit_sets: tuple[ImageDataset, ImageDataset]) -> None:
    stacked = StackedDigits(digit_sets[0], 2, 30)
    batch = gather_all(stacked)
    assert batch.labels is not None
    plain = ImageDataset(batch.images.numpy(), batch.labels.numpy(), stacked.classes)
    orders = []
    for seed in (0, 1):
        streams = RandomStreams(seed)
        for index in range(5):
            actual, expected = stacked.batch(index, 12, streams), plain.batch(index, 12, streams)
            assert torch.equal(actual.images, expected.images)
            assert actual.labels is not None
            assert expected.labels is not None
            assert torch.equal(actual.labels, expected.labels)
            labels = stacked.batch_labels(index, 12, streams)
            assert labels is not None
            assert torch.equal(labels, actual.labels)
        orders += [stacked.epoch_order(epoch, streams).tolist() for epoch in (0, 1)]
        stacked._orders, plain._orders = {}, {}
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_modes_are_about_equally_frequent(digit_sets: tuple[ImageDataset, ImageDataset]) -> None:
    """20,000 draws: chi-square over the thousand modes is within five standard deviations."""
    source = StackedDigits(digit_sets[0], 3, 20_000)
    counts = torch.bincount(source.gather_labels(torch.arange(20_000)), minlength=1000).double()
    assert len(counts) == 1000
    assert counts.min() > 0
    chi = float(((counts - 20) ** 2 / 20).sum())
    assert abs(chi - 999) < 5 * (2 * 999) ** 0.5


def test_default_sizes() -> None:
    assert StackedConfig().count == 128_000
    loaded = StackedConfig(size=28, stack=2).load()
    assert isinstance(loaded.train, StackedDigits)
    assert isinstance(loaded.held_out, StackedDigits)
    assert (len(loaded.train), len(loaded.held_out)) == (128_000, 26_000)
    assert len(loaded.train.digits) == 4000
    assert len(loaded.held_out.digits) == 1000


def test_two_channels_in_an_image_grid() -> None:
    """The first channel is red, the second green, and both together yellow; nothing is transparent."""
    sample = torch.full((1, 2, 4, 4), -1.0)
    sample[0, 0, :, :2] = 1.0
    sample[0, 1, :2] = 1.0
    grid = image_grid(sample, 1, alpha=False)
    assert grid.shape[2] == 3
    scale = (grid.shape[0] - 4) // 4
    tile = grid[2:-2:scale, 2:-2:scale]
    assert tile.shape == (4, 4, 3)
    assert (tile[:2, :2] == (255, 255, 0)).all()
    assert (tile[:2, 2:] == (0, 255, 0)).all()
    assert (tile[2:, :2] == (255, 0, 0)).all()
    assert (tile[2:, 2:] == 0).all()
    assert (grid[0] == 128).all()
    assert image_grid(sample, 1).shape[2] == 4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_alpha_does_not_change_other_image_grids(channels: int) -> None:
    sample = torch.rand(4, channels, 4, 4) * 2 - 1
    assert (image_grid(sample, alpha=False) == image_grid(sample)).all()


def test_selected_by_name() -> None:
    assert data_table("stacked_digits", {"size": 28, "kind": "digits"}) == {"kind": "stacked_digits", "size": 28}
    mirrored = {"kind": "folder", "path": "p", "size": 28, "mirror": True}
    assert data_table("stacked_digits", mirrored) == {"kind": "stacked_digits", "size": 28, "mirror": True}
    assert data_table("ring", mirrored) == {"kind": "ring"}
    assert data_config("stacked_digits") == StackedConfig()


def test_training_by_name(poise: Any, tmp_path: Path) -> None:
    """On the command line; the image grid uses one colour per digit of the stack."""
    networks = ["--set", 'network.g={kind="mlp", width=4}', "--set", 'network.d={kind="mlp", width=4}']
    small = ["--set", "batch=4", "--set", "data.stack=2", "--set", "data.count=80", "--set", "log.sheet=4"]
    measure = 'measure={n=20, features="pixels", measures=["fid"]}'
    out = tmp_path / "run"
    arguments = ["--data", "stacked_digits", "--set", "data.size=16", "--set", measure, *networks, *small]
    result = poise("train", "gan", "--steps", 1, "--out", out, *arguments)
    assert result.code == 0, result.err
    with Image.open(out / "samples" / "step-00000001.png") as grid:
        assert grid.mode == "RGB"
        assert (np.asarray(grid)[..., 2] <= 128).all()
    assert not (out / "bad_images.csv").exists()


def test_the_shipped_recipe_uses_stacked_digits() -> None:
    recipe = decode(load_recipe("stacked-digits-small"))
    assert isinstance(recipe.data, StackedConfig)
    assert (recipe.data.stack, recipe.data.count) == (3, 128_000)
