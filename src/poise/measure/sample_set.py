"""A set of samples and what an extractor makes of it: features and logits, computed once and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from poise.data.source import SizedSource
from poise.measure import feature_cache
from poise.measure.features import Extractor, ExtractorOutput
from poise.utils.images import to_bytes, to_float
from poise.utils.progress import Progress, no_progress

BATCH = 250
"""How many samples an extractor is given at a time."""


T = TypeVar("T")


class SampleSet:
    """Samples, looked at when asked.

    Args:
        samples: pictures as uint8, N x H x W x C, or points, N x 2.
        extractor: what makes features of them.
        labels: N, or None.
        fingerprint: a hash that tells them from other samples, if their features are worth keeping.
        progress: told how far it is.
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
        """Samples as networks see them: pictures in [-1, 1], B x C x H x W."""
        some = self.samples[part]
        return to_float(some) if some.dim() == 4 else some

    @cached_property
    def extracted(self) -> ExtractorOutput:
        """Features and logits of all."""
        return extract(self.normalized, len(self), self.extractor, self.fingerprint, self.progress)

    @property
    def features(self) -> Tensor:
        """N x d."""
        return self.extracted.features

    @property
    def logits(self) -> Tensor:
        """N x K, of an extractor that classifies."""
        assert self.extracted.logits is not None
        return self.extracted.logits

    @property
    def required_labels(self) -> Tensor:
        """The labels of a pile that has them."""
        assert self.labels is not None
        return self.labels

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is called the first time that a measure asks for `name`."""
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def subset(self, places: slice | Tensor) -> SampleSet:
        """Some of them, with what was already worked out."""
        labels = None if self.labels is None else self.labels[places]
        pile = SampleSet(self.samples[places], self.extractor, labels, progress=self.progress)
        known = self.extracted
        pile.extracted = ExtractorOutput(known.features[places], None if known.logits is None else known.logits[places])
        return pile


@torch.no_grad()
def extract(
    samples: Callable[[slice], Tensor],
    n: int,
    extractor: Extractor,
    fingerprint: str | None = None,
    progress: Progress = no_progress,
) -> ExtractorOutput:
    """Features and logits of n samples, a few at a time; kept for the next time if `fingerprint` says what they are."""
    key = None if fingerprint is None else feature_cache.cache_key("features", extractor.key, fingerprint)
    found = feature_cache.load("features", key) if key else None
    if found is not None:
        return ExtractorOutput(found["features"], found.get("logits"))
    parts = []
    for start in range(0, n, BATCH):
        progress("working out features", start / n)
        parts.append(extractor(samples(slice(start, start + BATCH))))
    features = torch.cat([part.features for part in parts])
    kinds = [part.logits for part in parts if part.logits is not None]
    logits = torch.cat(kinds) if kinds else None
    if key:
        feature_cache.store("features", key, {"features": features} | ({} if logits is None else {"logits": logits}))
    return ExtractorOutput(features, logits)


def samples_to_bytes(samples: Tensor) -> Tensor:
    """G's samples as they would be read back from files: pictures as uint8, N x H x W x C; points as they are."""
    return torch.from_numpy(to_bytes(samples)) if samples.dim() == 4 else samples


def sample_set(
    source: SizedSource, indices: Tensor, extractor: Extractor, progress: Progress = no_progress
) -> SampleSet:
    """Samples of a source."""
    batch = source.gather(indices)
    chosen = feature_cache.cache_key(*indices[: 1 << 16].tolist(), len(indices))
    return SampleSet(batch.images, extractor, batch.labels, f"{source.fingerprint}/{chosen}", progress)


def batch_slices(n: int) -> list[slice]:
    """All of n samples, a few at a time."""
    return [slice(start, start + BATCH) for start in range(0, n, BATCH)]
