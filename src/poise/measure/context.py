"""What a measure may look at: generated and real samples, and what their run can provide beside them.

A result that several measures share is computed once (`EvalContext.cached`). A floor is the same measure with real
samples in the place of the generated ones.
"""

from __future__ import annotations

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
        found: modes with a good sample, 0 to K.
        good: share of good samples, 0 to 1.
        reverse_kl: KL(model || uniform) over the good samples' modes, nats, 0 to log K; infinite if none is good.
    """

    found: int
    good: float
    reverse_kl: float


class Reconstructor(NamedTuple):
    """How a run with an encoder reconstructs images.

    Attributes:
        dim: the length of a latent code.
        rebuild: images, B x shape, to their reconstructions, B x shape.
        bound: `reconstruction`, `kl` and `elbo` of images in nats, B each; None where there is no likelihood.
    """

    dim: int
    rebuild: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], dict[str, Tensor]] | None = None


@dataclass
class EvalContext:
    """What a measure is computed from.

    Attributes:
        fake: the generated samples, or whichever samples are measured.
        real: the real samples that they are compared with; held-out ones where there are any.
        train: returns the training samples, for tests of memorisation; None where there are none to be had.
        count_modes: counts the modes of `fake`, or of a reference; None where the data has no modes to count.
        d: extracts the discriminator's features, which `d_probe` trains a linear classifier on.
        duality_gap_fn: estimates the duality gap of the game that the samples come from.
        reconstructor: reconstructs images, where the run has an encoder.
        classes: the number of classes.
        progress: called with what is being computed and which share of it is done.
    """

    fake: SampleSet
    real: SampleSet
    train: Callable[[], SampleSet | None] = lambda: None
    count_modes: Callable[[], Modes] | None = None
    d: Extractor | None = None
    duality_gap_fn: Callable[[], float] | None = None
    reconstructor: Reconstructor | None = None
    classes: int = 0
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
    def required_reconstructor(self) -> Reconstructor:
        """The reconstructor, for a measure that requires one."""
        assert self.reconstructor is not None
        return self.reconstructor
