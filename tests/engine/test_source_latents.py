"""A G that starts from samples of the data: which samples these are, in the step and for sampling."""

from __future__ import annotations

import numpy as np
import torch

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits, ImageDataset
from poise.data.toys import RingConfig
from poise.engine.batches import bind_latent, sampling_latent
from poise.latents import Gaussian, SourceLatent
from poise.utils.images import to_float

CPU = torch.device("cpu")


def numbered_images(first: int, count: int) -> ImageDataset:
    """Images whose left half has a value of their own, and whose right half is black."""
    images = np.zeros((count, 2, 4, 1), np.uint8)
    images[:, :, :2, 0] = np.arange(first, first + count)[:, None, None]
    return ImageDataset(images)


def test_they_are_a_function_of_the_stream_and_no_others_are_drawn() -> None:
    source, streams = numbered_images(10, 50), RandomStreams(3)
    latent = bind_latent(SourceLatent(), source, CPU)
    state = torch.get_rng_state()
    drawn = latent.sample(40, streams("g/latents", 5, 0))
    assert drawn.shape == (40, 1, 2, 4)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, latent.sample(40, streams("g/latents", 5, 0)))
    assert not torch.equal(drawn, latent.sample(40, streams("g/latents", 6, 0)))
    known = {image.numpy().tobytes() for image in to_float(torch.from_numpy(source.images))}
    assert {image.numpy().tobytes() for image in drawn} <= known
    assert torch.equal(state, torch.get_rng_state())


def test_half_of_them_are_mirrored_where_the_data_is() -> None:
    latent = bind_latent(SourceLatent(), numbered_images(10, 50), CPU, mirror=True)
    drawn = latent.sample(400, RandomStreams(3)("g/latents"))
    flipped = (drawn[..., 0] < drawn[..., -1]).all((1, 2)).sum()
    assert 150 < flipped < 250


def test_samples_that_are_looked_at_start_from_held_out_data() -> None:
    data = DataSplits(numbered_images(0, 50), numbered_images(100, 50))
    looked_at = sampling_latent(SourceLatent(), data, CPU).sample(60, RandomStreams(0)("sample"))
    trained_on = sampling_latent(SourceLatent(), DataSplits(data.train), CPU).sample(60, RandomStreams(0)("sample"))
    assert looked_at[..., 0].min() > trained_on[..., 0].max()


def test_points_are_sources_too_and_other_latents_need_no_data() -> None:
    ring = RingConfig().load().train
    assert bind_latent(SourceLatent(), ring, CPU).sample(5, RandomStreams(0)("sample")).shape == (5, 2)
    assert bind_latent(Gaussian(), ring, CPU) == Gaussian()
