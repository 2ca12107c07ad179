"""Comparison of any two sets of images by the measures that evaluate a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.data.config import DataConfig, ImageDataConfig
from poise.data.image_array import MIN_COUNT
from poise.data.source import DataSplits, SizedSource
from poise.errors import DataError
from poise.measure.base import Measure
from poise.measure.catalogue import EvaluationResult
from poise.measure.evaluator import MAX_SAMPLES, Evaluator, notes_on_few
from poise.measure.reference import random_order
from poise.utils.progress import Progress, no_progress


def compare(
    fake: DataSplits,
    real: DataSplits,
    measures: Sequence[Measure],
    *,
    data_config: DataConfig | None = None,
    n: int | None = None,
    features: str = "auto",
    progress: Progress = no_progress,
    trust_code: bool = False,
) -> EvaluationResult:
    """Measure the images of `fake` against those of `real`, which serves as the data.

    Args:
        fake: images of the same size and channels as `real`; `n` of its training split are compared, chosen at random.
        real: if it has a held-out split, that split is compared and the training split serves floors and tests of
            copying; otherwise one random part is compared, and other parts serve the floors.
        measures: see `poise.measure.catalogue.select_measures`.
        data_config: what `real` was loaded from.
        n: the number of images of each set; by default the number of images of `fake`, as far as `real` has that many
            and others for the floors.
        features: see `poise.measure.extractors.make_extractor`.
        progress: called with what is being computed and which share of it is done.
        trust_code: whether a Python file may provide the features.

    Raises:
        DataError: one of the two is not a set of images, or their sizes or channels differ.
    """
    fake_images, real_images = fake.train, real.train
    if not isinstance(fake_images, SizedSource) or not isinstance(real_images, SizedSource):
        where = "FAKE" if not isinstance(fake_images, SizedSource) else "REAL"
        raise DataError("only images can be compared", where=where)
    if fake_images.shape != real_images.shape:
        shapes = [" x ".join(map(str, source.shape)) for source in (fake_images, real_images)]
        found = f"{shapes[0]} and {shapes[1]}"
        raise DataError("both sets of images must have the same size and channels", found=found)
    held_out = real.held_out if isinstance(real.held_out, SizedSource) else None
    num_fake, num_real = len(fake_images), len(real_images if held_out is None else held_out)
    requested = n
    if n is not None or num_fake < MIN_COUNT:
        n = min(n or num_fake, num_fake, num_real)
    evaluator = Evaluator(data_config, real, features, n, max_n=num_fake, progress=progress, trust_code=trust_code)
    order = random_order(len(fake_images))
    class_index = {name: index for index, name in enumerate(real_images.classes)}
    has_known_classes = bool(fake_images.classes) and class_index.keys() >= set(fake_images.classes)
    class_map = torch.tensor([class_index.get(name, -1) for name in fake_images.classes])

    def samples(count: int) -> Tensor:
        return fake_images.gather(order[:count]).images

    def labels(count: int) -> Tensor | None:
        fake_labels = fake_images.gather_labels(order[:count]) if has_known_classes else None
        return None if fake_labels is None else class_map[fake_labels]

    if n is not None:
        evaluator.notes += notes_on_few(evaluator.n, requested)
    if requested is not None and n is not None and requested > n:
        evaluator.notes.append(f"only {n:,} images of each set can be compared, not {requested:,}")
    return evaluator.measure(samples, measures, labels)


def default_num_samples(real: DataSplits) -> int:
    """The default number of images of each set; half of REAL is reserved for the floor if nothing is held out."""
    if isinstance(real.held_out, SizedSource):
        return min(MAX_SAMPLES, len(real.held_out))
    return min(MAX_SAMPLES, max(2, len(real.train) // 2)) if isinstance(real.train, SizedSource) else MAX_SAMPLES


def match_fit(config: DataConfig, run_data: DataConfig) -> DataConfig:
    """The config that pads or squeezes images as the data of a run does, where it can; both crop by default."""
    fields = {"fit", "background"}
    if not all(fields <= type(data).model_fields.keys() for data in (config, run_data)):
        return config
    values = {name: getattr(run_data, name) for name in fields}
    return config if values["fit"] == "crop" else config.model_copy(update=values)


def match_channels(config: DataConfig, channels: int) -> DataConfig:
    """The config of FAKE with the channels of REAL, where it can convert channels."""
    has_channels = isinstance(config, ImageDataConfig) and "channels" in type(config).model_fields
    return config.model_copy(update={"channels": channels}) if has_channels else config
