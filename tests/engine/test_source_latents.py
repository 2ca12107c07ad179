"""A G that starts from samples of the data: which samples these are, in the step and for sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.data.clouds import CloudsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.toys import RingConfig
from poise.engine.batches import StartingSamples, bind_latent, notes_on_starts, sampling_latent
from poise.errors import RecipeError
from poise.latents import Gaussian, SourceLatent
from poise.runs.generate import sample_latents
from poise.utils.images import to_float
from two_domains import domains, pairs

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


def test_samples_that_are_looked_at_start_from_each_held_out_one_before_any_is_repeated() -> None:
    data = DataSplits(numbered_images(0, 50), numbered_images(100, 50))
    latent, streams = sampling_latent(SourceLatent(), data, CPU), RandomStreams(7)
    starts = sample_latents(latent, 100, streams, "sample")
    assert len(starts[:50].unique(dim=0)) == len(starts[50:].unique(dim=0)) == 50
    assert not torch.equal(starts[:50], starts[50:]), "the second round has an order of its own"
    assert torch.equal(sample_latents(latent, 70, streams, "sample"), starts[:70])
    assert not torch.equal(sample_latents(latent, 50, RandomStreams(8), "sample"), starts[:50])


def test_unrelated_domains_have_orders_and_labels_of_their_own() -> None:
    data, streams = DataSplits(domains(9), domains(40, 1)), RandomStreams(7)
    a, b = data.held_out.domain_sources  # type: ignore[union-attr]
    starts = StartingSamples(data)
    images = starts.block(0, 40, streams, "sample")
    order_of_a, order_of_b = (
        [next(i for i in range(len(one)) if np.array_equal(one.images[i], image)) for image in part.numpy()]
        for one, part in ((a, images[..., :1]), (b, images[..., 1:]))
    )
    assert sorted(order_of_a) == list(range(40))
    assert order_of_a != order_of_b
    for k, (one, order) in enumerate(((a, order_of_a), (b, order_of_b))):
        assert starts.labels(k, 0, 40, streams, "sample").tolist() == one.labels[order].tolist()  # type: ignore[union-attr]


NOT_HELD_OUT = "no images are held out: where samples are looked at or measured, G starts from those that it is trained"


@pytest.mark.parametrize("kind", ["one domain", "pairs", "domains"])
def test_notes_say_that_sources_are_training_images_and_that_they_occur_again(kind: str) -> None:
    make = {"one domain": lambda n: numbered_images(0, n), "pairs": pairs, "domains": domains}[kind]
    data = DataSplits(make(9), make(4))
    starts, of_all = StartingSamples(data), [0, 1] if kind == "domains" else [0]
    assert starts.notes() == starts.notes(4, of_all) == notes_on_starts(SourceLatent(), data) == []
    again = "5 samples start from 4 held-out images: the same ones occur again"
    assert starts.notes(5, of_all) == starts.notes(5, [0]) == [again]
    assert starts.notes(5, [1]) == ([] if kind == "domains" else [again]), "there are five more of b"
    without = DataSplits(data.train)
    assert [note.startswith(NOT_HELD_OUT) for note in notes_on_starts(SourceLatent(), without)] == [True]
    assert len(StartingSamples(without).notes(10, of_all)) == 2
    assert notes_on_starts(Gaussian(), without) == []


def test_points_and_vectors_are_not_held_out() -> None:
    assert notes_on_starts(SourceLatent(), RingConfig().load()) == []
    assert notes_on_starts(SourceLatent(), CloudsConfig(count=20, dim=3).load()) == []


def test_pairs_stay_together() -> None:
    held_out, streams = pairs(30, labelled=True), RandomStreams(7)
    starts = StartingSamples(DataSplits(pairs(9), held_out))
    rows = {image.tobytes(): label for image, label in zip(held_out.images, held_out.labels, strict=True)}
    labels = starts.labels(1, 0, 30, streams, "sample").tolist()  # type: ignore[union-attr]
    assert [rows[image.numpy().tobytes()] for image in starts.block(0, 30, streams, "sample")] == labels
    a, b = held_out.domain_sources
    assert (a.shape, b.shape, a.classes) == ((1, 16, 16), (3, 16, 16), held_out.classes)
    assert np.array_equal(np.concatenate((a.images, b.images), 3), held_out.images)
    assert len({held_out.fingerprint, a.fingerprint, b.fingerprint}) == 3
    assert a.gather(torch.tensor([2, 5])).images.numpy().tobytes() == held_out.images[[2, 5], ..., :1].tobytes()


def test_they_can_not_be_truncated() -> None:
    latent = bind_latent(SourceLatent(), numbered_images(0, 5), CPU)
    z = latent.sample(3, RandomStreams(0)("sample"))
    assert latent.truncate(z, 1.0) is z
    with pytest.raises(RecipeError, match="sample without truncation"):
        latent.truncate(z, 0.5)
