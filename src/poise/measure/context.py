"""What a measure is computed from: generated and real samples, and what their run provides besides them.

A result that several measures share is computed once (`EvalContext.cached`). A floor is the same measure with real
samples in place of the generated ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from poise.measure.features import Extractor
from poise.measure.sample_set import SampleSet
from poise.utils.progress import Progress, no_progress

T = TypeVar("T")


class Modes(NamedTuple):
    """How many modes of the data samples cover, how well, and how evenly.

    Attributes:
        found: the number of modes with a high-quality sample, 0 to K.
        high_quality: the share of high-quality samples, 0 to 1.
        reverse_kl: KL(model || uniform) over the modes of the high-quality samples in nats, 0 to log K; infinite if
            there are none.
        std_error: how much the standard deviation of a mode's high-quality samples differs from that of the data, as a
            share of the latter, in the mode where it differs most; 0 and up. NaN if modes have no standard deviation.
    """

    found: int
    high_quality: float
    reverse_kl: float
    std_error: float = math.nan


class Reconstructor(NamedTuple):
    """How a run with an encoder reconstructs images.

    Attributes:
        dim: the length of a latent code.
        reconstruct: maps images, B x shape, to their reconstructions, B x shape.
        elbo_terms: computes `reconstruction`, `kl` and `elbo` of images in nats, B each; None if there is no
            likelihood.
    """

    dim: int
    reconstruct: Callable[[Tensor], Tensor]
    elbo_terms: Callable[[Tensor], dict[str, Tensor]] | None = None


class Translation(NamedTuple):
    """What is known of samples that were translated from images.

    Attributes:
        sources: the images that were translated, uint8, N x H x W x C.
        targets: their true translations, uint8, N x H x W x C'; None if they are not known.
        labels: the class of each source as a class of the target domain, int64, N; None if it is not known.
        cycle_errors: returns, for N samples, the mean absolute difference between an image and what both translations
            make of it, N, for pixels from 0 to 1; None if G translates in one direction.
        notes: what should be known of the sources, a sentence each.
    """

    sources: Tensor
    targets: Tensor | None = None
    labels: Tensor | None = None
    cycle_errors: Callable[[], Tensor] | None = None
    notes: tuple[str, ...] = ()


@dataclass
class EvalContext:
    """What a measure is computed from.

    Attributes:
        fake: the generated samples, or whichever samples are measured.
        real: the real samples that they are compared with; held-out ones where there are any.
        train: returns the training samples, for tests of memorisation; None if they are not available.
        flipped_train: returns the flips of the training samples, in the same order, if the run trains on them too
            (`data.mirror`); None otherwise.
        count_modes: counts the modes of `fake`, or of a reference set; None if the data has no modes to count.
        d_extractor: extracts the discriminator's features, which `d_probe` trains a linear classifier on.
        duality_gap_fn: estimates the duality gap of the game that the samples come from; None if there is none.
        reconstructor: reconstructs images; None if the run has no encoder.
        translation: what is known of the samples if they were translated; None if they were not.
        refusal: why the fake samples can't be measured; empty if they can.
        num_classes: the number of classes of the data.
        progress: called with what is being computed and which share of it is done.
    """

    fake: SampleSet
    real: SampleSet
    train: Callable[[], SampleSet | None] = lambda: None
    flipped_train: Callable[[], SampleSet | None] = lambda: None
    count_modes: Callable[[], Modes] | None = None
    d_extractor: Extractor | None = None
    duality_gap_fn: Callable[[], float] | None = None
    reconstructor: Reconstructor | None = None
    translation: Translation | None = None
    refusal: str = ""
    num_classes: int = 0
    progress: Progress = no_progress
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is called the first time that a measure asks for `name`."""
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    @property
    def required_train(self) -> SampleSet:
        """The training samples, for a measure that requires them."""
        train = self.train()
        assert train is not None
        return train

    @property
    def train_features(self) -> list[Tensor]:
        """The features of the training samples, N x d, and those of their flips if the run trains on them too."""
        flipped = self.flipped_train()
        return [samples.features for samples in (self.required_train, flipped) if samples is not None]

    @property
    def required_translation(self) -> Translation:
        """What is known of translated samples, for a measure that requires it."""
        assert self.translation is not None
        return self.translation

    @property
    def required_reconstructor(self) -> Reconstructor:
        """The reconstructor, for a measure that requires one."""
        assert self.reconstructor is not None
        return self.reconstructor
