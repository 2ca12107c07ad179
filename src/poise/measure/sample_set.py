"""A set of samples and what an extractor makes of it: features and logits, computed once and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from poise.core.types import Shape
from poise.data.source import SizedSource
from poise.errors import DataError, RecipeError
from poise.measure import feature_cache
from poise.measure.features import Extractor, ExtractorOutput
from poise.utils.images import flip_where, to_bytes, to_float
from poise.utils.printing import agree, count_noun, describe_type
from poise.utils.progress import Progress, no_progress

BATCH_SIZE = 250
"""The number of samples that are passed to an extractor at a time."""

T = TypeVar("T")


class SampleSet:
    """Samples whose features are extracted on first use.

    Args:
        samples: images as uint8, N x H x W x C, or points, N x 2.
        extractor: extracts the features.
        labels: the class of each sample, N, or None.
        fingerprint: a hash that identifies the samples; features are cached on disk only if it is given and the
            extractor has a key.
        progress: called with what is being computed and which share of it is done.
    """

    def __init__(
        self,
        samples: Tensor,
        extractor: Extractor,
        labels: Tensor | None = None,
        fingerprint: str | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.samples, self.extractor, self.labels = samples, extractor, labels
        self.fingerprint, self.progress = fingerprint, progress
        self._cache: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def normalized(self, part: slice | Tensor = slice(None)) -> Tensor:
        """Some of the samples as networks expect them: images in [-1, 1], B x C x H x W; points as they are."""
        samples = self.samples[part]
        return to_float(samples) if samples.dim() == 4 else samples

    @cached_property
    def extracted(self) -> ExtractorOutput:
        """The features and logits of all samples."""
        return extract(self.normalized, len(self), self.extractor, self.fingerprint, self.progress)

    @property
    def features(self) -> Tensor:
        """The features, N x d."""
        return self.extracted.features

    @property
    def logits(self) -> Tensor:
        """The logits, N x K, of an extractor that classifies."""
        assert self.extracted.logits is not None
        return self.extracted.logits

    @property
    def required_labels(self) -> Tensor:
        """The labels, N, for a measure that requires them."""
        assert self.labels is not None
        return self.labels

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is called the first time that a measure asks for `name`."""
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def subset(self, indices: slice | Tensor) -> SampleSet:
        """A subset of the samples, with their features."""
        labels = None if self.labels is None else self.labels[indices]
        subset = SampleSet(self.samples[indices], self.extractor, labels, progress=self.progress)
        known = self.extracted
        subset.extracted = ExtractorOutput(
            known.features[indices], None if known.logits is None else known.logits[indices]
        )
        return subset


@torch.no_grad()
def extract(
    samples: Callable[[slice], Tensor],
    n: int,
    extractor: Extractor,
    fingerprint: str | None = None,
    progress: Progress = no_progress,
) -> ExtractorOutput:
    """The features and logits of n samples, in batches.

    They are cached on disk if `fingerprint` identifies the samples, and the key of the extractor all else.
    """
    is_identified = fingerprint is not None and extractor.key is not None
    key = feature_cache.cache_key("features", extractor.key, fingerprint) if is_identified else None
    cached = feature_cache.load("features", key) if key else None
    if cached is not None:
        return ExtractorOutput(cached["features"], cached.get("logits"))
    outputs = []
    for start in range(0, n, BATCH_SIZE):
        progress("extracting features", start / n)
        outputs.append(extractor(samples(slice(start, start + BATCH_SIZE))))
    features = torch.cat([output.features for output in outputs])
    logit_batches = [output.logits for output in outputs if output.logits is not None]
    logits = torch.cat(logit_batches) if logit_batches else None
    if key:
        feature_cache.store("features", key, {"features": features} | ({} if logits is None else {"logits": logits}))
    return ExtractorOutput(features, logits)


def check_form(samples: object, n: int, shape: Shape) -> None:
    """Refuse samples to be measured that are too few, or not of the shape of the data.

    Args:
        samples: should be n or more samples: B x `shape` as floating-point numbers, or images as uint8, B x H x W x C.
        n: the number of samples that are measured.
        shape: the shape of a sample of the data: C x H x W, or 2.

    Raises:
        RecipeError: they are not; names both forms.
    """
    is_image = len(shape) == 3
    if isinstance(samples, Tensor):
        is_bytes = is_image and samples.dtype == torch.uint8
        fits = tuple(samples.shape[1:]) == ((*shape[1:], shape[0]) if is_bytes else tuple(shape))
        if fits and len(samples) >= n and (is_bytes or samples.is_floating_point()):
            return
        sizes = " x ".join(map(str, samples.shape)) or "a scalar"
        found = f"{sizes} as {str(samples.dtype).removeprefix('torch.')}"
    else:
        found = describe_type(samples)
    what = f"must be {n} x {' x '.join(map(str, shape))} as floating-point numbers"
    if is_image:
        what += f" in [-1, 1], or {n} x {' x '.join(map(str, (*shape[1:], shape[0])))} as uint8"
    raise RecipeError(what, where="samples", found=found)


def describe_non_finite(samples: Tensor) -> str:
    """How many of the samples have a value that is not finite, as a sentence; empty if none has."""
    if not samples.is_floating_point() or not samples.numel():
        return ""
    bad = int((~samples.detach().flatten(1).isfinite().all(1)).sum())
    return (
        f"{bad:,} of {count_noun(len(samples), 'sample')} {agree(len(samples), 'is', 'are')} not finite" if bad else ""
    )


def check_finite(samples: Tensor, where: str) -> None:
    """Refuse samples of which some are not finite: as bytes they would be black images.

    Raises:
        DataError: some are not; says how many of how many.
    """
    if what := describe_non_finite(samples):
        raise DataError(what, where=where)


def samples_to_bytes(samples: Tensor) -> Tensor:
    """G's samples as they are read back from files: images as uint8, N x H x W x C; points as they are."""
    return torch.from_numpy(to_bytes(samples)) if samples.dim() == 4 else samples


def sample_set(
    source: SizedSource,
    indices: Tensor,
    extractor: Extractor,
    progress: Progress = no_progress,
    *,
    flipped: Tensor | None = None,
) -> SampleSet:
    """The samples of a source at some indices, N; those images for which `flipped`, bool, N, is true as their flips."""
    batch = source.gather(indices)
    fingerprint = f"{source.fingerprint}/{_key(indices)}"
    if flipped is None:
        return SampleSet(batch.images, extractor, batch.labels, fingerprint, progress)
    images = flip_where(flipped, batch.images)
    return SampleSet(images, extractor, batch.labels, f"{fingerprint}/{_key(flipped)}", progress)


def _key(values: Tensor) -> str:
    return feature_cache.cache_key(*values[: 1 << 16].tolist(), len(values))


def batch_slices(n: int) -> list[slice]:
    """Slices of `BATCH_SIZE` that cover n samples."""
    return [slice(start, start + BATCH_SIZE) for start in range(0, n, BATCH_SIZE)]
