"""A sitting: two piles of samples side by side, looked at through one extractor, and all that measures ask of them.

Whatever is worked out (features, their Gaussian, distances) is worked out once, when a measure first asks for it. A
floor is the same measure with other real samples in the fakes' place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from poise.data.source import Finite, to_bytes, to_signed
from poise.measure import cache
from poise.measure.classes import accuracy
from poise.measure.classifier import fitted
from poise.measure.features import Extractor, Looked
from poise.measure.frechet import Gaussian
from poise.measure.modes import Modes
from poise.measure.neighbours import Balls, balls
from poise.measure.probes import linear_probe
from poise.progress import Progress, silent
from poise.randomness import derive

if TYPE_CHECKING:
    from poise.measure.rebuilding import Coder

AT_ONCE = 250


class Pile:
    """Samples, looked at when asked.

    Args:
        samples: pictures as uint8, N x H x W x C, or points, N x 2.
        look: what makes features of them.
        labels: N, or None.
        fingerprint: a hash that tells them from other samples, if their features are worth keeping.
        tell: told how far it is.
    """

    def __init__(
        self,
        samples: Tensor,
        look: Extractor,
        labels: Tensor | None = None,
        fingerprint: str | None = None,
        tell: Progress = silent,
    ) -> None:
        self.samples, self.look, self.labels = samples, look, labels
        self.fingerprint, self.tell = fingerprint, tell

    def __len__(self) -> int:
        return len(self.samples)

    def signed(self, part: slice | Tensor = slice(None)) -> Tensor:
        """Samples as networks see them: pictures in [-1, 1], B x C x H x W."""
        some = self.samples[part]
        return to_signed(some) if some.dim() == 4 else some

    @cached_property
    def looked(self) -> Looked:
        """Features and logits of all."""
        return looked(self.signed, len(self), self.look, self.fingerprint, self.tell)

    @property
    def features(self) -> Tensor:
        """N x d."""
        return self.looked.features

    @property
    def logits(self) -> Tensor:
        """N x K, of an extractor that classifies."""
        assert self.looked.logits is not None
        return self.looked.logits

    @property
    def known_labels(self) -> Tensor:
        """The labels of a pile that has them."""
        assert self.labels is not None
        return self.labels

    @cached_property
    def gaussian(self) -> Gaussian:
        """Of the features."""
        return Gaussian.of(self.features)

    def part(self, places: slice | Tensor) -> Pile:
        """Some of them, with what was already worked out."""
        labels = None if self.labels is None else self.labels[places]
        pile = Pile(self.samples[places], self.look, labels, tell=self.tell)
        known = self.looked
        pile.looked = Looked(known.features[places], None if known.logits is None else known.logits[places])
        return pile


@torch.no_grad()
def looked(
    samples: Callable[[slice], Tensor], n: int, look: Extractor, fingerprint: str | None = None, tell: Progress = silent
) -> Looked:
    """Features and logits of n samples, a few at a time; kept for the next time if `fingerprint` says what they are."""
    key = None if fingerprint is None else cache.key_of("features", look.key, fingerprint)
    found = cache.load("features", key) if key else None
    if found is not None:
        return Looked(found["features"], found.get("logits"))
    parts = []
    for start in range(0, n, AT_ONCE):
        tell("working out features", start / n)
        parts.append(look(samples(slice(start, start + AT_ONCE))))
    features = torch.cat([part.features for part in parts])
    kinds = [part.logits for part in parts if part.logits is not None]
    logits = torch.cat(kinds) if kinds else None
    if key:
        cache.store("features", key, {"features": features} | ({} if logits is None else {"logits": logits}))
    return Looked(features, logits)


def bytes_of(samples: Tensor) -> Tensor:
    """G's samples as they would be read back from files: pictures as uint8, N x H x W x C; points as they are."""
    return torch.from_numpy(to_bytes(samples)) if samples.dim() == 4 else samples


def pile_of(source: Finite, places: Tensor, look: Extractor, tell: Progress = silent) -> Pile:
    """Samples of a source."""
    batch = source.take(places)
    chosen = cache.key_of(*places[: 1 << 16].tolist(), len(places))
    return Pile(batch.images, look, batch.labels, f"{source.fingerprint}/{chosen}", tell)


@dataclass
class Sitting:
    """What measures are taken of.

    Attributes:
        fake: G's samples, or whatever is measured.
        real: what they are held against: held-out samples, where there are any.
        train: gives what was trained on, for tests of copying.
        count: counts modes, of `fake` or of a reference; None where there are none to count.
        d: the discriminator's features of real pictures, to probe.
        play: works out the duality gap.
        coder: rebuilds pictures, where a run can.
        classes: how many there are.
        tell: told of work that takes its time.
    """

    fake: Pile
    real: Pile
    train: Callable[[], Pile | None] = lambda: None
    count: Callable[[], Modes] | None = None
    d: Extractor | None = None
    play: Callable[[], float] | None = None
    coder: Coder | None = None
    classes: int = 0
    tell: Progress = silent

    @cached_property
    def balls(self) -> Balls:
        """See `neighbours.py`."""
        return balls(self.fake.features, self.real.features)

    @cached_property
    def modes(self) -> Modes:
        """See `modes.py`."""
        assert self.count is not None
        return self.count()

    @property
    def known_coder(self) -> Coder:
        """What rebuilds."""
        assert self.coder is not None
        return self.coder

    @cached_property
    def bounds(self) -> dict[str, Tensor]:
        """The parts of the evidence lower bound of the real pictures, N each."""
        bound = self.known_coder.bound
        assert bound is not None
        told = [bound(self.real.signed(part)) for part in parts(len(self.real))]
        return {name: torch.cat([one[name] for one in told]) for name in told[0]}

    @property
    def known_train(self) -> Pile:
        """What was trained on."""
        train = self.train()
        assert train is not None
        return train

    def trained_on_fakes(self) -> float:
        """See `probes.py`: the accuracy on reals of the small classifier, trained on these fakes and their labels."""
        shape = tuple(self.fake.signed(slice(0, 1)).shape[1:])
        net = fitted(self.fake.signed, self.fake.known_labels, shape, self.classes, derive(0, "gan_train"), self.tell)
        with torch.no_grad():
            said = torch.cat([net(self.real.signed(part))[1] for part in parts(len(self.real))])
        return accuracy(said, self.real.known_labels)

    def probed_d(self) -> float:
        """See `probes.py`: D's features of the pictures trained on, asked about those held out."""
        assert self.d is not None
        train, real = self.known_train, self.real
        seen = [looked(pile.signed, len(pile), self.d, tell=self.tell).features for pile in (train, real)]
        return linear_probe(seen[0], train.known_labels, seen[1], real.known_labels)

    def gap(self) -> float:
        """See `duality.py`."""
        assert self.play is not None
        return self.play()


def parts(n: int) -> list[slice]:
    """All of n samples, a few at a time."""
    return [slice(start, start + AT_ONCE) for start in range(0, n, AT_ONCE)]
