"""Pools of past fake samples (tips T09a and T19): D is trained on old fakes too, so that the players do not cycle.

There are three policies for what is stored and what is replayed, each that of its paper:

`experience_replay`: a queue. A part of every batch is stored and replaces the oldest samples; the replayed samples are
    drawn uniformly from the queue, so they are 1 to size / (fraction x batch) uses old (Pfau & Vinyals 2016,
    arXiv:1610.01945, compare what stabilises GANs and reinforcement learning; ganhacks 8).
`history`: exactly half of D's fake samples come from a buffer, half from G; then as many of G's replace random samples
    of the buffer, chosen among those that were not just replayed if there are enough (Shrivastava et al. 2017,
    arXiv:1612.07828, section 2.3).
`image_pool`: 50 images. Once they are full, each fake sample is, with probability 1/2 each, either used as it is or
    swapped with a stored one (Zhu et al. 2017, arXiv:1703.10593, section 4, and their released code). There two samples
    of a batch can be swapped with the same slot, here never; at the paper's batch size of one it is the same.

A pool is on the device and saved in checkpoints, with the labels of its images. Nothing here waits for the device: what
is not in the pool yet is masked out, not counted on the host.

Ages are counted in steps: samples are stored in D's first move of a step only, and its further moves in that step
replay what was stored before. If a recipe has several pools, each gets the samples that are still new
(`hooks.apply_fake_replacements`).
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
    """Memory for `size` fake samples of `shape` with their labels; `stored` counts all samples ever stored."""

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    def get(self, slots: Tensor) -> Batch:
        """The samples in n slots."""
        return Batch(self.images[slots], self.labels[slots])

    @torch.no_grad()
    def put(self, fakes: Batch, slots: Tensor, mask: Tensor) -> None:
        """Store n fake samples in n different slots, where `mask` (bool, n) is true."""
        contents = replace_where(mask, self.get(slots), fakes)
        self.images.index_copy_(0, slots, contents.images)
        if contents.labels is not None:
            self.labels.index_copy_(0, slots, contents.labels)


def replace_where(mask: Tensor, batch: Batch, replacement: Batch) -> Batch:
    """`replacement` where `mask` (bool, B) is true, else `batch`; without labels if either has none."""
    broadcast = (slice(None), *(None for _ in batch.images.shape[1:]))
    images = torch.where(mask[broadcast], replacement.images.to(batch.images.dtype), batch.images)
    if batch.labels is None or replacement.labels is None:
        return Batch(images, None)
    return Batch(images, torch.where(mask, replacement.labels, batch.labels))


def select_batch(batch: Batch, indices: slice | Tensor) -> Batch:
    """The samples of a batch at some indices, with their labels."""
    return Batch(batch.images[indices], None if batch.labels is None else batch.labels[indices])


def fraction_of_batch(batch_size: int, fraction: float) -> int:
    """A fraction of the batch in samples, rounded to the nearest integer."""
    return round(batch_size * fraction)


def share_of_part(size: int, context: MoveContext) -> int:
    """The number of a pool's slots that a part of the batch uses; all of them if gradients are not accumulated."""
    return size // context.accumulate


def free_slots(size: int, overwritten: int, name: str, context: MoveContext, device: torch.device) -> Tensor:
    """The slots of a pool in random order; in a step's further moves without those that the first move overwrote.

    The first move overwrites the last `overwritten` slots of its own order. That order follows from the stream `name`,
    so these slots need not be stored. If gradients are accumulated, each part of a batch has `share_of_part` slots of
    its own, so that no part gets what another one has just stored.
    """
    order = torch.randperm(size, generator=context.for_move(context.side, 0).generator(name), device=device)
    share = share_of_part(size, context)
    first = order[context.part * share :][:share]
    if context.turn == 0:
        return first
    free = first[: share - overwritten]
    return free[torch.randperm(len(free), generator=context.generator(name), device=device)]


class PoolConfig(TrickConfig):
    """The common field of the pools: `size` images, in memory and in every checkpoint (4 bytes per value)."""

    size: int = Field(default=1024, ge=1, le=1_000_000)

    @property
    def num_stored(self) -> int:
        """The size of the pool."""
        return self.size


class ExperienceReplayConfig(PoolConfig):
    """`fraction` of D's fake samples come from the queue, in every `every`-th step; as many new ones are stored."""

    kind: Literal["experience_replay"] = "experience_replay"
    tip: ClassVar[str] = "T09a"
    source: ClassVar[str] = "Pfau & Vinyals 2016, arXiv:1610.01945; ganhacks 8"

    size: int = Field(default=2000, ge=1, le=1_000_000)
    fraction: float = Field(default=0.25, ge=0, le=1)
    every: int = Field(default=1, ge=1)

    def num_replaced(self, num_fakes: int) -> int:
        """The fraction of the batch, rounded."""
        return min(fraction_of_batch(num_fakes, self.fraction), self.size)

    def steps_to_fill(self, num_fakes: int) -> float:
        """As many samples are stored as are replayed, in the steps in which the trick acts."""
        num_replaced = self.num_replaced(num_fakes)
        return math.ceil(self.size / num_replaced) * self.every if num_replaced else math.inf

    def build(self, name: str, context: TrickContext) -> ExperienceReplay:
        """See `ExperienceReplay`."""
        return ExperienceReplay(name, FakePool(self.size, context.data_spec.shape), self.fraction, self.every)


class ExperienceReplay(FakeReplacement):
    """Replaces the last samples of the batch by fake samples from the queue, once it contains any."""

    def __init__(self, name: str, pool: FakePool, fraction: float, every: int) -> None:
        super().__init__(name)
        self.pool, self.fraction, self.every = pool, fraction, every

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """Sample from the queue before storing, so that no sample is replayed in the step in which it was generated."""
        share = share_of_part(self.pool.size, context)
        count = min(fraction_of_batch(len(fake.images), self.fraction), share)
        if context.step % self.every:
            count = 0
        pool, num_kept = self.pool, len(fake.images) - count
        newest, device = select_batch(fake, slice(num_kept, None)), fake.images.device
        if count == 0:
            return ReplacedFakes(fake, newest)
        length = pool.stored.clamp(max=pool.size)
        parts_before = context.accumulate if context.turn else context.part
        oldest, from_this_step = pool.stored - length, count * parts_before
        available = (length - from_this_step).clamp(min=0)
        draws = torch.rand(count, generator=context.generator(self.name), device=device)
        positions = torch.minimum((draws * available).long(), (available - 1).clamp(min=0))
        old = pool.get((oldest + positions) % pool.size)
        replacements = replace_where((available > 0).expand(count), newest, old)
        if context.turn == 0:
            slots = (pool.stored + torch.arange(count, device=device)) % pool.size
            pool.put(newest, slots, torch.ones_like(slots, dtype=torch.bool))
            pool.stored.add_(count)
        return ReplacedFakes(select_batch(fake, slice(num_kept)), replacements)


class HistoryConfig(PoolConfig):
    """`fraction` of D's fake samples come from a buffer of `size`; the paper uses one half, the size is our choice."""

    kind: Literal["history"] = "history"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Shrivastava et al. 2017, arXiv:1612.07828"

    fraction: float = Field(default=0.5, ge=0, le=1)

    def num_replaced(self, num_fakes: int) -> int:
        """The fraction of the batch, rounded."""
        return min(fraction_of_batch(num_fakes, self.fraction), self.size)

    def steps_to_fill(self, num_fakes: int) -> float:
        """All new samples are stored until the buffer is full."""
        return math.ceil(self.size / num_fakes) if self.num_replaced(num_fakes) else math.inf

    def build(self, name: str, context: TrickContext) -> History:
        """See `History`."""
        return History(name, FakePool(self.size, context.data_spec.shape), self.fraction)


class History(FakeReplacement):
    """Stores all fake samples until the buffer is full, then replaces the last of each batch by stored ones."""

    def __init__(self, name: str, pool: FakePool, fraction: float) -> None:
        super().__init__(name)
        self.pool, self.fraction = pool, fraction

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """See `History`."""
        batch_size, pool, device = len(fake.images), self.pool, fake.images.device
        count = min(fraction_of_batch(batch_size, self.fraction), share_of_part(pool.size, context))
        slots = free_slots(pool.size, count, self.name, context, device)
        num_replaced = min(count, len(slots))
        num_kept = batch_size - num_replaced
        newest, is_full = select_batch(fake, slice(num_kept, None)), pool.stored >= pool.size
        replacements = replace_where(is_full.expand(num_replaced), newest, pool.get(slots[:num_replaced]))
        if context.turn == 0 and count:
            numbers = torch.arange(min(batch_size, pool.size), device=device) + pool.stored
            pool.put(select_batch(fake, slice(len(numbers))), numbers % pool.size, numbers < pool.size)
            pool.put(select_batch(fake, slice(count)), slots[-count:], is_full.expand(count))
            pool.stored.add_(batch_size)
        return ReplacedFakes(select_batch(fake, slice(num_kept)), replacements)


class ImagePoolConfig(PoolConfig):
    """CycleGAN's pool of `size` fake samples, 50 in the paper; 0 turns the trick off."""

    kind: Literal["image_pool"] = "image_pool"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = "Zhu et al. 2017, arXiv:1703.10593"

    size: int = Field(default=50, ge=0, le=1_000_000)

    def num_replaced(self, num_fakes: int) -> int:
        """Any of them."""
        return num_fakes if self.size else 0

    def steps_to_fill(self, num_fakes: int) -> float:
        """All new samples are stored until the pool is full."""
        return math.ceil(self.size / num_fakes)

    @property
    def replaces_all_fakes(self) -> bool:
        """True unless the size is 0: which samples are replaced is only known on the device."""
        return self.size > 0

    def build(self, name: str, context: TrickContext) -> ImagePool:
        """See `ImagePool`."""
        return ImagePool(name, FakePool(self.size, context.data_spec.shape))


class ImagePool(FakeReplacement):
    """Stores the first `size` fake samples; after that, swaps each sample with a stored one with probability 1/2.

    The draws are made on the device, so no sample of the batch counts as new afterwards, and the trick acts after other
    pools.
    """

    rank: ClassVar[int] = 1

    def __init__(self, name: str, pool: FakePool) -> None:
        super().__init__(name)
        self.pool = pool

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """See `ImagePool`."""
        pool, batch_size, device = self.pool, len(fake.images), fake.images.device
        none, max_swaps = select_batch(fake, slice(0)), min(batch_size, share_of_part(pool.size, context))
        if max_swaps == 0:
            return ReplacedFakes(fake, none)
        free = free_slots(pool.size, max_swaps, self.name, context, device)
        draws = torch.rand(batch_size, generator=context.generator(f"{self.name}/coins"), device=device)
        is_full = (pool.stored >= pool.size).expand(batch_size)
        if context.turn == 0:
            numbers = torch.arange(batch_size, device=device) + pool.stored
            is_full = numbers >= pool.size
            first = numbers[: pool.size]
            pool.put(select_batch(fake, slice(len(first))), first % pool.size, first < pool.size)
        slots = free[-min(max_swaps, len(free)) :]
        swap = (draws < 0.5) & is_full
        indices = torch.argsort(swap.logical_not(), stable=True)[: len(slots)]  # samples to swap come first
        newest, mask, stored = select_batch(fake, indices), swap[indices], pool.get(slots)
        if context.turn == 0:
            pool.put(newest, slots, mask)
            pool.stored.add_(batch_size)
        replacements = replace_where(mask, newest, stored)
        images = fake.images.index_copy(0, indices, replacements.images)
        if fake.labels is None or replacements.labels is None:
            return ReplacedFakes(none, Batch(images, None))
        return ReplacedFakes(none, Batch(images, fake.labels.index_copy(0, indices, replacements.labels)))
