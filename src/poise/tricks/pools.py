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
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core import Batch, Moment, Shape
from poise.seams import Offer, Stage
from poise.tricks.base import TrickEntry


class Pool(nn.Module):
    """Room for `size` fakes of `shape` with their labels; `stored` counts what has ever been put in."""

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    def take(self, places: Tensor) -> Batch:
        """What lies at some places, n."""
        return Batch(self.images[places], self.labels[places])

    @torch.no_grad()
    def put(self, fakes: Batch, places: Tensor, where: Tensor) -> None:
        """Fakes to places, n of each and no place twice, where `where` (n, bool) says so."""
        kept = chosen(where, self.take(places), fakes)
        self.images.index_copy_(0, places, kept.images)
        if kept.labels is not None:
            self.labels.index_copy_(0, places, kept.labels)


def chosen(which: Tensor, ours: Batch, theirs: Batch) -> Batch:
    """`theirs` where `which` (B, bool) says so, else `ours`; labels only if ours have any."""
    over = (slice(None), *(None for _ in ours.images.shape[1:]))
    images = torch.where(which[over], theirs.images.to(ours.images.dtype), ours.images)
    if ours.labels is None or theirs.labels is None:
        return Batch(images, None)
    return Batch(images, torch.where(which, theirs.labels, ours.labels))


def part(fakes: Batch, which: slice | Tensor) -> Batch:
    """Some of a pile."""
    return Batch(fakes.images[which], None if fakes.labels is None else fakes.labels[which])


def joined(first: Batch, second: Batch) -> Batch:
    """One pile of two."""
    images = torch.cat((first.images, second.images))
    if first.labels is None or second.labels is None:
        return Batch(images, None)
    return Batch(images, torch.cat((first.labels, second.labels)))


def share_of(batch: int, fraction: float) -> int:
    """How many of a batch a fraction is, to the nearest one."""
    return round(batch * fraction)


class PoolEntry(TrickEntry):
    """What all three share: room for `size` pictures, which is memory and part of every save (4 bytes a number)."""

    size: int = Field(default=1024, ge=1, le=1_000_000)

    @property
    def keeps(self) -> int:
        """All that go in."""
        return self.size


class ExperienceReplayEntry(PoolEntry):
    """`fraction` of D's fakes come from the queue, in every `every`-th step; as many of the newest go in."""

    kind: Literal["experience_replay"] = "experience_replay"
    tip: ClassVar[str] = "T09a"
    source: ClassVar[str] = "Pfau & Vinyals 2016, arXiv:1610.01945; ganhacks 8"

    size: int = Field(default=2000, ge=1, le=1_000_000)
    fraction: float = Field(default=0.25, ge=0, le=1)
    every: int = Field(default=1, ge=1)

    def build(self, name: str, stage: Stage) -> ExperienceReplay:
        """See `ExperienceReplay`."""
        return ExperienceReplay(name, Pool(self.size, stage.subject.shape), self.fraction, self.every)


class ExperienceReplay(Offer):
    """The last places of the pile are taken by fakes from the queue; as long as it is empty, they keep their own."""

    def __init__(self, name: str, pool: Pool, fraction: float, every: int) -> None:
        super().__init__(name)
        self.pool, self.fraction, self.every = pool, fraction, every

    def offer(self, fake: Batch, moment: Moment) -> Batch:
        """Draw first, then remember: nobody meets itself."""
        count = min(share_of(len(fake.images), self.fraction), self.pool.size)
        if count == 0 or moment.step % self.every:
            return fake
        pool, keep = self.pool, len(fake.images) - count
        newest = part(fake, slice(keep, None))
        held = pool.stored.clamp(max=pool.size)
        draws = torch.rand(count, generator=moment.generator(self.name), device=fake.images.device)
        old = pool.take((draws * held).long().clamp_(max=pool.size - 1))
        shown = chosen((held > 0).expand(count), newest, old)
        places = (pool.stored + torch.arange(count, device=fake.images.device)) % pool.size
        pool.put(newest, places, torch.ones_like(places, dtype=torch.bool))
        pool.stored.add_(count)
        return joined(part(fake, slice(keep)), shown)


class HistoryEntry(PoolEntry):
    """`fraction` of D's fakes come from a buffer of `size`; one half in the paper, the size is ours."""

    kind: Literal["history"] = "history"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Shrivastava et al. 2017, arXiv:1612.07828"

    fraction: float = Field(default=0.5, ge=0, le=1)

    def build(self, name: str, stage: Stage) -> History:
        """See `History`."""
        return History(name, Pool(self.size, stage.subject.shape), self.fraction)


class History(Offer):
    """Until the buffer is full all fakes go in, and D is shown G's own."""

    def __init__(self, name: str, pool: Pool, fraction: float) -> None:
        super().__init__(name)
        self.pool, self.fraction = pool, fraction

    def offer(self, fake: Batch, moment: Moment) -> Batch:
        """See `History`."""
        batch, pool = len(fake.images), self.pool
        count = min(share_of(batch, self.fraction), pool.size)
        if count == 0:
            return fake
        device = fake.images.device
        order = torch.randperm(pool.size, generator=moment.generator(self.name), device=device)
        full = pool.stored >= pool.size
        ours = part(fake, slice(batch - count, None))
        shown = chosen(full.expand(count), ours, pool.take(order[:count]))
        first = torch.arange(min(batch, pool.size), device=device) + pool.stored
        pool.put(part(fake, slice(len(first))), first % pool.size, first < pool.size)
        pool.put(part(fake, slice(count)), order[-count:], full.expand(count))
        pool.stored.add_(batch)
        return joined(part(fake, slice(batch - count)), shown)


class ImagePoolEntry(PoolEntry):
    """CycleGAN's pool of `size` fakes, 50 in the paper; 0 is none."""

    kind: Literal["image_pool"] = "image_pool"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Zhu et al. 2017, arXiv:1703.10593"

    size: int = Field(default=50, ge=0, le=1_000_000)

    def build(self, name: str, stage: Stage) -> ImagePool:
        """See `ImagePool`."""
        return ImagePool(name, Pool(self.size, stage.subject.shape))


class ImagePool(Offer):
    """The first `size` fakes go in and are shown; of the others every second one changes places with a stored one."""

    def __init__(self, name: str, pool: Pool) -> None:
        super().__init__(name)
        self.pool = pool

    def offer(self, fake: Batch, moment: Moment) -> Batch:
        """See `ImagePool`."""
        pool, batch = self.pool, len(fake.images)
        if pool.size == 0:
            return fake
        device, generator = fake.images.device, moment.generator(self.name)
        order = torch.randperm(pool.size, generator=generator, device=device)
        heads = torch.rand(batch, generator=generator, device=device) < 0.5
        place = torch.arange(batch, device=device) + pool.stored
        most = min(batch, pool.size)
        pool.put(part(fake, slice(most)), place[:most] % pool.size, place[:most] < pool.size)
        swaps = heads & (place >= pool.size)
        who = torch.argsort(swaps.logical_not(), stable=True)[:most]  # those that change places come first
        ours, now = part(fake, who), swaps[who]
        theirs = pool.take(order[:most])
        pool.put(ours, order[:most], now)
        pool.stored.add_(batch)
        shown = chosen(now, ours, theirs)
        images = fake.images.index_copy(0, who, shown.images)
        if fake.labels is None or shown.labels is None:
            return Batch(images, None)
        return Batch(images, fake.labels.index_copy(0, who, shown.labels))
