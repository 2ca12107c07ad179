"""Pools of past fakes (tips T09a and T19): D judges yesterday's fakes beside today's, so that G can't go in circles.

Three laws of what goes in and what comes out; each is its paper's own.

`experience_replay`: a queue. Some of every batch is remembered, the oldest is forgotten, and what D is shown is drawn
    evenly from the queue: ages from 1 to size / (fraction x batch) of its turns (Pfau & Vinyals 2016,
    arXiv:1610.01945, compare what steadies GANs and reinforcement learning; ganhacks 8).
`history`: exactly half of D's fakes from a buffer, half from G; then as many places of the buffer, drawn at random
    among those that were not shown just now if there are enough, are taken by G's (Shrivastava et al. 2017,
    arXiv:1612.07828, section 2.3).
`image_pool`: 50 pictures. Once they are full, a coin for each fake: it is shown as it is, or it changes places with a
    stored one (Zhu et al. 2017, arXiv:1703.10593, section 4, and their released code). There two fakes of a batch may
    meet at the same place, here never; at the paper's batch of one it is the same.

A pool lives on the device and is saved with the run, the labels with the pictures. Nothing here waits: what is not in
the pool yet is masked out, not counted on the host.

Ages are counted in steps: fakes go in with D's first move of a step only, and its further moves in that step are shown
what was there before them. Where several pools share a pile, each is handed what is still new (`seams.fold_offer`).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import FakeReplacement, ReplacedFakes
from poise.core.types import Batch, MoveContext, Shape
from poise.tricks.base import TrickConfig, TrickContext


class FakePool(nn.Module):
    """Room for `size` fakes of `shape` with their labels; `stored` counts what has ever been put in."""

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    def get(self, places: Tensor) -> Batch:
        """What lies at some places, n."""
        return Batch(self.images[places], self.labels[places])

    @torch.no_grad()
    def put(self, fakes: Batch, places: Tensor, where: Tensor) -> None:
        """Fakes to places, n of each and no place twice, where `where` (n, bool) says so."""
        kept = where_batch(where, self.get(places), fakes)
        self.images.index_copy_(0, places, kept.images)
        if kept.labels is not None:
            self.labels.index_copy_(0, places, kept.labels)


def where_batch(which: Tensor, ours: Batch, theirs: Batch) -> Batch:
    """`theirs` where `which` (B, bool) says so, else `ours`; labels only if ours have any."""
    over = (slice(None), *(None for _ in ours.images.shape[1:]))
    images = torch.where(which[over], theirs.images.to(ours.images.dtype), ours.images)
    if ours.labels is None or theirs.labels is None:
        return Batch(images, None)
    return Batch(images, torch.where(which, theirs.labels, ours.labels))


def select_batch(fakes: Batch, which: slice | Tensor) -> Batch:
    """Some of a pile."""
    return Batch(fakes.images[which], None if fakes.labels is None else fakes.labels[which])


def fraction_of_batch(batch: int, fraction: float) -> int:
    """How many of a batch a fraction is, to the nearest one."""
    return round(batch * fraction)


def free_slots(size: int, overwritten: int, name: str, context: MoveContext, device: torch.device) -> Tensor:
    """The places of a pool in random order; in a step's further moves without those that its first move overwrote.

    The first move overwrites the last `overwritten` of its own order, which follows from the stream `name`:
    nobody needs to remember which these are.
    """
    first = torch.randperm(size, generator=context.for_move(context.side, 0).generator(name), device=device)
    if context.turn == 0:
        return first
    kept = first[: size - overwritten]
    return kept[torch.randperm(len(kept), generator=context.generator(name), device=device)]


class PoolConfig(TrickConfig):
    """What all three share: room for `size` pictures, which is memory and part of every save (4 bytes a number)."""

    size: int = Field(default=1024, ge=1, le=1_000_000)

    @property
    def num_stored(self) -> int:
        """All that go in."""
        return self.size


class ExperienceReplayConfig(PoolConfig):
    """`fraction` of D's fakes come from the queue, in every `every`-th step; as many of the newest go in."""

    kind: Literal["experience_replay"] = "experience_replay"
    tip: ClassVar[str] = "T09a"
    source: ClassVar[str] = "Pfau & Vinyals 2016, arXiv:1610.01945; ganhacks 8"

    size: int = Field(default=2000, ge=1, le=1_000_000)
    fraction: float = Field(default=0.25, ge=0, le=1)
    every: int = Field(default=1, ge=1)

    def num_replaced(self, fakes: int) -> int:
        """Its share, rounded."""
        return min(fraction_of_batch(fakes, self.fraction), self.size)

    def steps_to_fill(self, fakes: int) -> float:
        """As many go in as come out, in the steps in which it acts."""
        taken = self.num_replaced(fakes)
        return math.ceil(self.size / taken) * self.every if taken else math.inf

    def build(self, name: str, context: TrickContext) -> ExperienceReplay:
        """See `ExperienceReplay`."""
        return ExperienceReplay(name, FakePool(self.size, context.data_spec.shape), self.fraction, self.every)


class ExperienceReplay(FakeReplacement):
    """The last places of the pile are taken by fakes from the queue; as long as it is empty, they keep their own."""

    def __init__(self, name: str, pool: FakePool, fraction: float, every: int) -> None:
        super().__init__(name)
        self.pool, self.fraction, self.every = pool, fraction, every

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """Draw first, then remember: nobody meets itself, nor a fake of the same step."""
        count = min(fraction_of_batch(len(fake.images), self.fraction), self.pool.size)
        if context.step % self.every:
            count = 0
        pool, keep = self.pool, len(fake.images) - count
        newest, device = select_batch(fake, slice(keep, None)), fake.images.device
        if count == 0:
            return ReplacedFakes(fake, newest)
        held = pool.stored.clamp(max=pool.size)
        oldest, this_step = pool.stored - held, count if context.turn else 0
        known = (held - this_step).clamp(min=0)
        draws = torch.rand(count, generator=context.generator(self.name), device=device)
        nth = torch.minimum((draws * known).long(), (known - 1).clamp(min=0))
        old = pool.get((oldest + nth) % pool.size)
        shown = where_batch((known > 0).expand(count), newest, old)
        if context.turn == 0:
            places = (pool.stored + torch.arange(count, device=device)) % pool.size
            pool.put(newest, places, torch.ones_like(places, dtype=torch.bool))
            pool.stored.add_(count)
        return ReplacedFakes(select_batch(fake, slice(keep)), shown)


class HistoryConfig(PoolConfig):
    """`fraction` of D's fakes come from a buffer of `size`; one half in the paper, the size is ours."""

    kind: Literal["history"] = "history"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Shrivastava et al. 2017, arXiv:1612.07828"

    fraction: float = Field(default=0.5, ge=0, le=1)

    def num_replaced(self, fakes: int) -> int:
        """Its share, rounded."""
        return min(fraction_of_batch(fakes, self.fraction), self.size)

    def steps_to_fill(self, fakes: int) -> float:
        """All go in until it is full."""
        return math.ceil(self.size / fakes) if self.num_replaced(fakes) else math.inf

    def build(self, name: str, context: TrickContext) -> History:
        """See `History`."""
        return History(name, FakePool(self.size, context.data_spec.shape), self.fraction)


class History(FakeReplacement):
    """Until the buffer is full all fakes go in, and D is shown G's own."""

    def __init__(self, name: str, pool: FakePool, fraction: float) -> None:
        super().__init__(name)
        self.pool, self.fraction = pool, fraction

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """See `History`."""
        batch, pool, device = len(fake.images), self.pool, fake.images.device
        count = min(fraction_of_batch(batch, self.fraction), pool.size)
        places = free_slots(pool.size, count, self.name, context, device)
        many = min(count, len(places))
        ours, full = select_batch(fake, slice(batch - many, None)), pool.stored >= pool.size
        shown = where_batch(full.expand(many), ours, pool.get(places[:many]))
        if context.turn == 0 and count:
            first = torch.arange(min(batch, pool.size), device=device) + pool.stored
            pool.put(select_batch(fake, slice(len(first))), first % pool.size, first < pool.size)
            pool.put(select_batch(fake, slice(count)), places[-count:], full.expand(count))
            pool.stored.add_(batch)
        return ReplacedFakes(select_batch(fake, slice(batch - many)), shown)


class ImagePoolConfig(PoolConfig):
    """CycleGAN's pool of `size` fakes, 50 in the paper; 0 is none."""

    kind: Literal["image_pool"] = "image_pool"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Zhu et al. 2017, arXiv:1703.10593"

    size: int = Field(default=50, ge=0, le=1_000_000)

    def num_replaced(self, fakes: int) -> int:
        """Any of them."""
        return fakes if self.size else 0

    def steps_to_fill(self, fakes: int) -> float:
        """All go in until it is full."""
        return math.ceil(self.size / fakes)

    @property
    def replaces_all_fakes(self) -> bool:
        """Nobody knows on the host which fakes it left as they were."""
        return self.size > 0

    def build(self, name: str, context: TrickContext) -> ImagePool:
        """See `ImagePool`."""
        return ImagePool(name, FakePool(self.size, context.data_spec.shape))


class ImagePool(FakeReplacement):
    """The first `size` fakes go in and are shown; of the others every second one changes places with a stored one.

    Coins on the device decide which, so nothing of the pile counts as new after it, and it acts behind other pools.
    """

    rank: ClassVar[int] = 1

    def __init__(self, name: str, pool: FakePool) -> None:
        super().__init__(name)
        self.pool = pool

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """See `ImagePool`."""
        pool, batch, device = self.pool, len(fake.images), fake.images.device
        none, most = select_batch(fake, slice(0)), min(batch, pool.size)
        if most == 0:
            return ReplacedFakes(fake, none)
        free = free_slots(pool.size, most, self.name, context, device)
        draws = torch.rand(batch, generator=context.generator(f"{self.name}/coins"), device=device)
        full = (pool.stored >= pool.size).expand(batch)
        if context.turn == 0:
            arrived = torch.arange(batch, device=device) + pool.stored
            full = arrived >= pool.size
            pool.put(select_batch(fake, slice(most)), arrived[:most] % pool.size, arrived[:most] < pool.size)
        places = free[-min(most, len(free)) :]
        swaps = (draws < 0.5) & full
        who = torch.argsort(swaps.logical_not(), stable=True)[: len(places)]  # those that change places come first
        ours, now, theirs = select_batch(fake, who), swaps[who], pool.get(places)
        if context.turn == 0:
            pool.put(ours, places, now)
            pool.stored.add_(batch)
        shown = where_batch(now, ours, theirs)
        images = fake.images.index_copy(0, who, shown.images)
        if fake.labels is None or shown.labels is None:
            return ReplacedFakes(none, Batch(images, None))
        return ReplacedFakes(none, Batch(images, fake.labels.index_copy(0, who, shown.labels)))
