"""Averaged weights (tip T21): sample from the mean of recent generators.

theta_avg <- beta theta_avg + (1 - beta) theta once in each step, after G's first move in it, with beta = 0.5^(batch /
half-life), both counted in real pictures (Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018, arXiv:1710.10196).
However many moves a step has, it brings one batch of pictures, so one half-life leaves a half of what was before. The
half-life ramps up, as min(half_life, ramp_up x pictures so far), so that the first steps are soon forgotten
(Karras et al. 2020, arXiv:2006.06676, their released code). `mean_weights` is the plain mean of the last few copies
instead. Averaging never touches training.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core import Exchange, Side
from poise.dials import Dial, value, within
from poise.seams import After, Stage
from poise.tricks.base import TrickEntry

if TYPE_CHECKING:
    from poise.players import Player


def decay(images: int, batch: int, half_life: float, ramp_up: float) -> float:
    """beta = 0.5^(batch / min(half_life, ramp_up x images)); 0 where the exponent's denominator is 0."""
    life = min(half_life, ramp_up * images) if ramp_up else half_life
    return 0.5 ** (batch / life) if life > 0 else 0.0


@torch.no_grad()
def average_(mean: nn.Module, live: nn.Module, beta: float) -> None:
    """mean <- beta mean + (1 - beta) live for weights and real-valued buffers; see `Pairs.of` for what is copied."""
    blend_(Pairs.of(mean, live, not_finite(live)), beta)


def not_finite(net: nn.Module) -> frozenset[str]:
    """The buffers that hold something that is not finite, such as a mask of -inf: a mean of those is no number."""
    return frozenset(
        name for name, held in net.named_buffers() if held.is_floating_point() and not bool(held.isfinite().all())
    )


COPIED = ("_u", "_v", "weight_u", "weight_v", "strength_reached")
"""What buffers are called that an average copies: those of spectral norms, and of `tricks/layers.py`."""


class Pairs(NamedTuple):
    """The tensors of an average and of the network it follows, side by side."""

    old: list[Tensor]
    new: list[Tensor]
    copied: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, mean: nn.Module, live: nn.Module, constant: frozenset[str] = frozenset()) -> Pairs:
        """Real-valued ones to be averaged, others to be copied.

        Copied too are the singular vectors of spectral norms (the mean of two unit vectors is shorter than one), the
        strength that noise and dropout in G have reached, and what is `constant`, by name.
        """
        ours, theirs = ([*net.named_parameters(), *net.named_buffers()] for net in (mean, live))
        averaged: list[tuple[Tensor, Tensor]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        for (name, old), (_, new) in zip(ours, theirs, strict=True):
            exact = not old.is_floating_point() or name.rpartition(".")[2] in COPIED or name in constant
            (copied if exact else averaged).append((old, new))
        return cls([old for old, _ in averaged], [new for _, new in averaged], copied)


@torch.no_grad()
def blend_(pairs: Pairs, beta: float) -> None:
    """See `average_`."""
    torch._foreach_lerp_(pairs.old, pairs.new, 1 - beta)
    for old, new in pairs.copied:
        old.copy_(new)


class AveragedWeightsEntry(TrickEntry):
    """An average of G with `half_life` in pictures; 0 switches the averaging off, `ramp_up = 0` the ramp."""

    kind: Literal["averaged_weights"] = "averaged_weights"
    tip: ClassVar[str] = "T21"
    asks_d: ClassVar[bool] = False
    source: ClassVar[str] = "Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018, arXiv:1710.10196"

    half_life: Annotated[Dial, within(0)] = 10_000.0
    ramp_up: float = Field(default=0.05, ge=0, le=1)

    @property
    def shows(self) -> bool:
        """Yes."""
        return True

    def build(self, name: str, stage: Stage) -> AveragedWeights:
        """See `AveragedWeights`."""
        return AveragedWeights(name, stage.nets[Side.G], self.half_life, self.ramp_up)


class AveragedWeights(After):
    """Keeps the average and shows it in place of the live G."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, live: nn.Module, half_life: Dial, ramp_up: float) -> None:
        super().__init__(name)
        self.mean = copy.deepcopy(live).requires_grad_(False).eval()
        self.half_life, self.ramp_up = half_life, ramp_up
        self.constant = not_finite(live)
        self._pairs: Pairs | None = None

    def remember(self, player: Player, exchange: Exchange) -> None:
        """One step of the average. Pictures are counted with this step's own."""
        moment = exchange.moment
        if moment.turn:
            return
        images = moment.images + moment.batch
        if self._pairs is None:  # at the first step both are where they stay
            self._pairs = Pairs.of(self.mean, player.net, self.constant)
        blend_(self._pairs, decay(images, moment.batch, value(self.half_life, moment), self.ramp_up))

    def shown(self, side: Side) -> nn.Module | None:
        """The average, for G."""
        return self.mean if side is Side.G else None

    def train(self, mode: bool = True) -> AveragedWeights:
        """Stay in evaluation mode: nobody trains an average."""
        return super().train(False)


class MeanWeightsEntry(TrickEntry):
    """The plain mean of the `last` copies of G, one taken `every` steps; so it looks back last x every steps."""

    kind: Literal["mean_weights"] = "mean_weights"
    tip: ClassVar[str] = "T21"
    asks_d: ClassVar[bool] = False
    source: ClassVar[str] = "Yazici et al. 2019, arXiv:1806.04498; Izmailov et al. 2018, arXiv:1803.05407"

    last: int = Field(default=10, ge=1, le=1000)
    every: int = Field(default=100, ge=1)

    @property
    def shows(self) -> bool:
        """Yes."""
        return True

    @property
    def first_acts(self) -> int:
        """Before the first copy, samples come from the G of the start."""
        return self.every

    def build(self, name: str, stage: Stage) -> MeanWeights:
        """See `MeanWeights`."""
        return MeanWeights(name, stage.nets[Side.G], self.last, self.every)


class MeanWeights(After):
    """Keeps the copies, and shows their mean; before there is one, the G of the start is in its place.

    The mean is made anew from the copies whenever one is added, so no rounding gathers in it. Running statistics of
    batch norms are averaged too; Izmailov et al. take them anew.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, live: nn.Module, last: int, every: int) -> None:
        super().__init__(name)
        self.last, self.every, self.constant = last, every, not_finite(live)
        self.mean = copy.deepcopy(live).requires_grad_(False).eval()
        self.copies = nn.ModuleList(copy.deepcopy(self.mean) for _ in range(last))

    def remember(self, player: Player, exchange: Exchange) -> None:
        """After the last move of every `every`-th step the oldest copy makes room, and the mean is taken again."""
        made, since = divmod(exchange.moment.step + 1, self.every)
        if since:
            return
        self.copies[(made - 1) % self.last].load_state_dict(player.net.state_dict())
        there = [self.copies[(made - 1 - back) % self.last] for back in range(min(made, self.last))]
        for k, net in enumerate(there):  # the newest first: what is copied, not averaged, is its
            pairs = Pairs.of(self.mean, net, self.constant)
            blend_(pairs if k == 0 else pairs._replace(copied=[]), k / (k + 1))

    def shown(self, side: Side) -> nn.Module | None:
        """The mean, for G."""
        return self.mean if side is Side.G else None

    def train(self, mode: bool = True) -> MeanWeights:
        """Stay in evaluation mode: nobody trains an average."""
        return super().train(False)
