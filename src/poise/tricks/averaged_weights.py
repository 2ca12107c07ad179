"""Averaged weights (tip T21): generate samples from an average of recent generators.

theta_avg <- beta theta_avg + (1 - beta) theta once per step, after G's first move, with beta = 0.5^(batch / half-life),
both counted in real images (Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018, arXiv:1710.10196). A step uses
one batch of images whatever its number of moves, so the weight of the past halves in one half-life. The half-life ramps
up as min(half_life, ramp_up x images so far), so that the first steps are soon forgotten (Karras et al. 2020,
arXiv:2006.06676, their released code). `mean_weights` is the plain mean of the last few copies instead. Averaging never
affects training.
"""

from __future__ import annotations

import copy
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import PostUpdate
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import Side
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


def decay(images: int, batch: int, half_life: float, ramp_up: float) -> float:
    """beta = 0.5^(batch / min(half_life, ramp_up x images)); 0 if that minimum is 0."""
    life = min(half_life, ramp_up * images) if ramp_up else half_life
    return 0.5 ** (batch / life) if life > 0 else 0.0


@torch.no_grad()
def ema_update_(mean: nn.Module, live: nn.Module, beta: float) -> None:
    """mean <- beta mean + (1 - beta) live, in place, for weights and real-valued buffers.

    The exponential moving average of weights (Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018,
    arXiv:1710.10196). The running means and variances of batch norms are averaged like weights. What has no mean is
    copied: numbers of batches, singular vectors of spectral norms (see `TensorPairs.of`).

    Args:
        mean: the average, at first a copy of the network in float32: `copy.deepcopy(g).float().eval()`.
        live: the network after its update, with the same tensors in the same order. It may have another precision than
            the average, be on another device, or be wrapped, as by `torch.compile` or `DistributedDataParallel`.
        beta: the weight of the past, 0 to 1; 0.5^(batch / half-life) halves it after `half-life` images.

    Raises:
        ValueError: beta is out of range, the networks have tensors of different shapes, or the average has weights of
            16 bits, in which the small steps of an average are rounded to none.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta, the weight of the past, must be from 0 to 1, found {beta:g}")
    shapes = [[tuple(tensor.shape) for tensor in (*net.parameters(), *net.buffers())] for net in (mean, live)]
    if shapes[0] != shapes[1]:
        differing = [pair for pair in zip_longest(*shapes, fillvalue="none") if pair[0] != pair[1]]
        found = " and ".join(map(str, differing[0]))
        raise ValueError(f"the average and the network must have tensors of the same shapes, found {found}")
    for name, weight in mean.named_parameters():
        if weight.is_floating_point() and weight.dtype.itemsize < 4:
            found = f"{name} in {str(weight.dtype).removeprefix('torch.')}"
            raise ValueError(f"the average must be in float32: copy.deepcopy(g).float(), found {found}")
    kept = non_finite_buffers(live)  # a wrapper of a network puts words in front of its names, but keeps their order
    also_copied = (
        name for (name, _), (other, _) in zip(mean.named_buffers(), live.named_buffers(), strict=True) if other in kept
    )
    pairs = TensorPairs.of(mean, live, frozenset(also_copied))
    blend_(pairs._replace(live=[new.to(old) for old, new in zip(pairs.mean, pairs.live, strict=True)]), beta)


def non_finite_buffers(net: nn.Module) -> frozenset[str]:
    """The names of buffers with values that are not finite, such as a mask of -inf, which cannot be averaged."""
    return frozenset(
        name for name, values in net.named_buffers() if values.is_floating_point() and not bool(values.isfinite().all())
    )


COPIED = ("_u", "_v", "weight_u", "weight_v", "strength_reached")
"""Names of buffers that are copied, not averaged: those of spectral norms, and of `tricks/layers.py`."""


class TensorPairs(NamedTuple):
    """The tensors of an averaged network, paired with those of the network it averages.

    Attributes:
        mean: the average's tensors.
        live: the network's tensors, in the same order.
        copied: pairs (average, network) of tensors that are copied instead.
    """

    mean: list[Tensor]
    live: list[Tensor]
    copied: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, mean: nn.Module, live: nn.Module, also_copied: frozenset[str] = frozenset()) -> TensorPairs:
        """Pair the tensors: real-valued ones are averaged, all others copied.

        Also copied are the singular vectors of spectral norms (the mean of two unit vectors is shorter than one), the
        strength of noise and dropout layers in G, and the buffers named in `also_copied`.
        """
        mean_tensors, live_tensors = ([*net.named_parameters(), *net.named_buffers()] for net in (mean, live))
        averaged: list[tuple[Tensor, Tensor]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        for (name, old), (_, new) in zip(mean_tensors, live_tensors, strict=True):
            is_copied = not old.is_floating_point() or name.rpartition(".")[2] in COPIED or name in also_copied
            (copied if is_copied else averaged).append((old, new))
        return cls([old for old, _ in averaged], [new for _, new in averaged], copied)


@torch.no_grad()
def blend_(pairs: TensorPairs, beta: float) -> None:
    """See `ema_update_`."""
    torch._foreach_lerp_(pairs.mean, pairs.live, 1 - beta)
    for old, new in pairs.copied:
        old.copy_(new)


class AveragedWeightsConfig(TrickConfig):
    """An average of G's weights with `half_life` in images.

    `half_life = 0` turns averaging off, `ramp_up = 0` the ramp.
    """

    kind: Literal["averaged_weights"] = "averaged_weights"
    tip: ClassVar[str] = "T21"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018, arXiv:1710.10196"

    half_life: Annotated[Schedulable, in_range(0)] = 10_000.0
    ramp_up: float = Field(default=0.05, ge=0, le=1)

    @property
    def has_sampling_network(self) -> bool:
        """Always true."""
        return True

    def build(self, name: str, context: TrickContext) -> AveragedWeights:
        """See `AveragedWeights`."""
        return AveragedWeights(name, context.networks[Side.G], self.half_life, self.ramp_up)


class AveragedWeights(PostUpdate):
    """Keeps the average, which replaces G when samples are generated."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, live: nn.Module, half_life: Schedulable, ramp_up: float) -> None:
        super().__init__(name)
        self.mean = copy.deepcopy(live).requires_grad_(False).eval()
        self.half_life, self.ramp_up = half_life, ramp_up
        self.also_copied = non_finite_buffers(live)
        self._pairs: TensorPairs | None = None

    def after_update(self, player: Player, move: MoveData) -> None:
        """Update the average; the images of this step are included in the count."""
        context = move.context
        if context.turn:
            return
        images = context.images_seen + context.batch_size
        if self._pairs is None:  # both networks are on their final device from the first step on
            self._pairs = TensorPairs.of(self.mean, player.net, self.also_copied)
        blend_(self._pairs, decay(images, context.batch_size, current_value(self.half_life, context), self.ramp_up))

    def sampling_network(self, side: Side) -> nn.Module | None:
        """The average, for G."""
        return self.mean if side is Side.G else None

    def train(self, mode: bool = True) -> AveragedWeights:
        """Stay in evaluation mode, because the average is never trained."""
        return super().train(False)


class MeanWeightsConfig(TrickConfig):
    """The plain mean of the `last` copies of G, taken every `every` steps; the window is last x every steps long."""

    kind: Literal["mean_weights"] = "mean_weights"
    tip: ClassVar[str] = "T21"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Yazici et al. 2019, arXiv:1806.04498; Izmailov et al. 2018, arXiv:1803.05407"

    last: int = Field(default=10, ge=1, le=1000)
    every: int = Field(default=100, ge=1)

    @property
    def has_sampling_network(self) -> bool:
        """Always true."""
        return True

    @property
    def first_active_step(self) -> int:
        """Before the first copy is taken, samples come from the initial G."""
        return self.every

    def build(self, name: str, context: TrickContext) -> MeanWeights:
        """See `MeanWeights`."""
        return MeanWeights(name, context.networks[Side.G], self.last, self.every)


class MeanWeights(PostUpdate):
    """Keeps copies of G and their mean, which replaces G when samples are generated; at first it is the initial G.

    The mean is recomputed from the copies whenever one is added, so rounding errors do not accumulate. Running
    statistics of batch norms are averaged too; Izmailov et al. recompute them.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, live: nn.Module, last: int, every: int) -> None:
        super().__init__(name)
        self.last, self.every, self.also_copied = last, every, non_finite_buffers(live)
        self.mean = copy.deepcopy(live).requires_grad_(False).eval()
        self.copies = nn.ModuleList(copy.deepcopy(self.mean) for _ in range(last))

    def after_update(self, player: Player, move: MoveData) -> None:
        """After every `every`-th step, replace the oldest copy and recompute the mean."""
        num_copies, remainder = divmod(move.context.step + 1, self.every)
        if remainder:
            return
        self.copies[(num_copies - 1) % self.last].load_state_dict(player.net.state_dict())
        newest_first = [self.copies[(num_copies - 1 - age) % self.last] for age in range(min(num_copies, self.last))]
        for k, net in enumerate(newest_first):  # tensors that are not averaged come from the newest copy
            pairs = TensorPairs.of(self.mean, net, self.also_copied)
            blend_(pairs if k == 0 else pairs._replace(copied=[]), k / (k + 1))

    def sampling_network(self, side: Side) -> nn.Module | None:
        """The mean, for G."""
        return self.mean if side is Side.G else None

    def train(self, mode: bool = True) -> MeanWeights:
        """Stay in evaluation mode, because the mean is never trained."""
        return super().train(False)
