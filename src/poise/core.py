"""The nouns of a step. Everything else in the package is said in these words.

A `Moment` is when, a `Batch` is what the data handed over, a `Verdict` what D said about a pile of
pictures, `Targets` what D is asked to say, and an `Exchange` all that one move may look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.derivatives import slopes
from poise.randomness import Dice

Shape = tuple[int, ...]
"""The shape of one sample: (channels, height, width) of a picture, (2,) of a point in the plane."""

Judgement = Literal["score", "energy"]
"""What D's number is: a free score, or the minus of an energy (a reconstruction error), never above 0."""

Said = Literal["features", "classes"]
"""What D may say beside its score: its last hidden layer, and the class of what it sees."""

Pile = Literal["real", "fake", "between"]
"""What D is shown: a pile of real samples, one of G's, or one that a penalty mixes of both."""


class Side(StrEnum):
    """A player: the discriminator `d` (score, critic, energy) or the generator `g`."""

    D = "d"
    G = "g"

    @property
    def rival(self) -> Side:
        """The other player."""
        return Side.G if self is Side.D else Side.D


def packed(shape: Shape, m: int) -> Shape:
    """The shape of m samples side by side: m times the channels of a picture, or the coordinates of a point."""
    return (m * shape[0], *shape[1:])


class Batch(NamedTuple):
    """Samples on the device.

    Attributes:
        images: float, B x C x H x W in [-1, 1], or B x 2 for the plane.
        labels: int64, B: of a real its class, of a fake the class that G was asked for. None where nobody reads them.
    """

    images: Tensor
    labels: Tensor | None = None


class Subject(NamedTuple):
    """What there is to learn.

    Attributes:
        shape: of one sample.
        classes: how many kinds the labels tell apart; 0 where the data has no labels.
        few: some reals in [-1, 1] to calibrate with (virtual batch norm), or None where there are none at hand.
        count: how many samples there are to train on; 0 where they have no end.
    """

    shape: Shape
    classes: int = 0
    few: Tensor | None = None
    count: int = 0


class Moves(NamedTuple):
    """How many moves each player makes in one step."""

    d: int
    g: int


@dataclass(frozen=True, slots=True)
class Moment:
    """When a move happens.

    Attributes:
        step: steps done before this one; the first is 0. One step is D's moves, then G's.
        steps: steps in the whole run.
        batch: samples per pile.
        dice: the run's named random numbers.
        side: whose move it is.
        turn: the how-manieth move of that side within the step, from 0.
        call: the how-manieth time that the same thing is done within the move, from 0.
    """

    step: int
    steps: int
    batch: int
    dice: Dice
    side: Side = Side.D
    turn: int = 0
    call: int = 0

    @property
    def progress(self) -> float:
        """The share of the run that is done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    @property
    def images(self) -> int:
        """Real pictures that a step has brought so far: steps x batch."""
        return self.step * self.batch

    def of(self, side: Side, turn: int) -> Moment:
        """This step's moment for one move."""
        return Moment(self.step, self.steps, self.batch, self.dice, side, turn)

    def again(self, call: int) -> Moment:
        """The same move when something in it is done for the `call`-th time: its random numbers are new ones."""
        return replace(self, call=call) if call else self

    def generator(self, name: str) -> torch.Generator:
        """The random numbers called `name` in this very move; each call has a stream of its own."""
        again = f"/call {self.call}" if self.call else ""
        return self.dice(f"{self.side.value}/{name}{again}", self.step, self.turn)


class Verdict(NamedTuple):
    """What D said about a pile.

    Attributes:
        score: float, B; higher means more real. A D that is an autoencoder says minus its reconstruction error.
        features: float, B x F: what D's last hidden layer holds, for heads and terms to read.
        classes: float, B x classes: logits of an auxiliary classifier, where D has one.
    """

    score: Tensor
    features: Tensor | None = None
    classes: Tensor | None = None

    def part(self, which: slice) -> Verdict:
        """What it says of some of the samples."""
        features, classes = (None if said is None else said[which] for said in self[1:])
        return Verdict(self.score[which], features, classes)


class Targets(NamedTuple):
    """What D is asked to say, as probabilities of "real"; hard targets are 1 and 0.

    Attributes:
        real: float, B, for the real pile.
        fake: float, B, for the fake pile.
    """

    real: Tensor
    fake: Tensor


class Codes(NamedTuple):
    """What an encoder says of a pile: where in the latents' space each sample lies.

    Attributes:
        mean: float, B x dim: the code, or the middle of the region it may lie in.
        log_var: float, B x dim: the log of the region's variance along each axis; None where a code is a point.
    """

    mean: Tensor
    log_var: Tensor | None = None


class Rebuilt(NamedTuple):
    """Samples, encoded and made anew.

    Attributes:
        codes: what the encoder said.
        latents: float, B x dim: the codes, or one draw from each region.
        images: float, B x shape: what G makes of these latents.
    """

    codes: Codes
    latents: Tensor
    images: Tensor


def in_full(numbers: Tensor) -> Tensor:
    """In float32 at least: where costs and penalties are summed, half precision ends."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def in_double(numbers: Tensor) -> Tensor:
    """In float64; in float32 on a device that has no such numbers (mps)."""
    return numbers.float() if numbers.device.type == "mps" else numbers.double()


def of_each(score: Tensor, slope: Tensor) -> Tensor:
    """The slope as one entry for each score: itself, B x shape, or the slopes of a pack laid end to end."""
    return slope if len(slope) == len(score) else slope.reshape(len(score), -1)


@dataclass(slots=True)
class Exchange:
    """All that one move may look at: drawn, then offered, then judged.

    `real` and `fake` are the raw samples, before views; a penalty differentiates here, at the piles named
    in `sloped`. In G's move `real` and its verdict are there only if something in that move reads them.
    `judged` are the piles that D is shown. `labels` (B) are those of the reals, `asked` what each fake was meant to be:
    the same, place by place, unless an older fake was offered. `make` lets G make samples of other latents, `rebuild`
    the reals of their codes. `ask` shows D other samples and their labels, through the same views. `readings` are what
    the rows will show of this move.

    Where D judges several samples at once (packing), it has a score for each pack, and a slope is the pack's.
    """

    moment: Moment
    latents: Tensor
    fake: Tensor
    real: Tensor | None = None
    labels: Tensor | None = None
    asked: Tensor | None = None
    sloped: tuple[Pile, ...] = ()
    judged: frozenset[Pile] = frozenset({"real", "fake"})
    make: Callable[[Tensor], Tensor] | None = None
    rebuild: Callable[[], Rebuilt] | None = None
    verdicts: dict[Pile, Verdict] = field(default_factory=dict)
    ask: Callable[[Tensor, Tensor | None], Verdict] | None = None
    readings: dict[str, Tensor] = field(default_factory=dict)
    _slopes: dict[Pile, Tensor] = field(default_factory=dict)
    _rebuilt: Rebuilt | None = None

    def pile(self, name: Pile) -> Tensor:
        """The raw pile called `name`."""
        pile = self.fake if name == "fake" else self.real
        assert pile is not None, f"nothing in {self.moment.side}'s move asked for the {name} pile"
        return pile

    @property
    def judges_reals(self) -> bool:
        """Whether D is shown the reals in this move; they may be there for their codes alone."""
        return self.real is not None and "real" in self.judged

    @property
    def pack(self) -> int:
        """How many samples each of D's scores is about; 1 before D has judged."""
        return len(self.fake) // len(self.verdicts["fake"].score) if self.verdicts else 1

    def kinds(self, name: Pile) -> Tensor | None:
        """The labels of a pile, B, if this game has any; a mixed pile goes by the reals'."""
        return self.asked if name == "fake" else self.labels

    def score(self, name: Pile) -> Tensor:
        """D's score of a pile in float32 at least, B."""
        return in_full(self.verdicts[name].score)

    def said(self, name: Pile, what: Said) -> Tensor:
        """What else D said about a pile, in float32 at least."""
        said = getattr(self.verdicts[name], what)
        assert said is not None, f"this D says nothing of {what}"
        return in_full(said)

    @property
    def rebuilt(self) -> Rebuilt:
        """The reals as G makes them of their codes, worked out when a term first asks; no gradient in D's move."""
        if self._rebuilt is None:
            assert self.rebuild is not None, "this game has no encoder"
            self._rebuilt = self.rebuild()
        return self._rebuilt

    def made_of(self, latents: Tensor) -> Tensor:
        """What G makes of other latents, B x dim, for the same labels; no gradient in D's move."""
        assert self.make is not None, "nothing was drawn yet"
        return self.make(latents)

    def answer(self, images: Tensor, labels: Tensor | None) -> Verdict:
        """What D says of other samples."""
        assert self.ask is not None, "D has not been asked yet"
        return self.ask(images, labels)

    def slope_at(self, images: Tensor) -> Tensor:
        """The gradient of D's score at other samples, same shape, differentiable in D's weights."""
        images = images.detach().requires_grad_()
        score = in_full(self.answer(images, self.labels).score)
        (slope,) = slopes(score.sum(), [images])
        return of_each(score, slope)

    def slope(self, name: Pile) -> Tensor:
        """The gradient of D's score with respect to a raw pile, one entry for each score, differentiable.

        Every pile in `sloped` is answered by the same `autograd.grad`, so two penalties (one on real, one
        on fake) pay for one. The scores' sum is what is differentiated: its gradient at sample i is that
        of score i, as long as D keeps no statistics over the batch.
        """
        if not self._slopes:
            first, *rest = (self.score(pile).sum() for pile in self.sloped)
            total = sum(rest, first)
            grads = slopes(total, [self.pile(pile) for pile in self.sloped])
            self._slopes = {p: of_each(self.score(p), grad) for p, grad in zip(self.sloped, grads, strict=True)}
        return self._slopes[name]
