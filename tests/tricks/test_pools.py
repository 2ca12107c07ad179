"""The three pools, compared with models in plain Python: each fake sample is a constant image with its own number."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from contracts.tiny import context, no_waiting, recipe
from poise.core.hooks import FakeReplacement, apply_fake_replacements, concat_batches
from poise.core.types import Batch, DataSpec, MoveContext, Side
from poise.engine.step import make_move, replace_fakes, sample
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.gradient_penalties import R2Config
from poise.tricks.pools import (
    ExperienceReplay,
    ExperienceReplayConfig,
    FakePool,
    History,
    HistoryConfig,
    ImagePool,
    ImagePoolConfig,
    fraction_of_batch,
    replace_where,
    select_batch,
)
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, randn

SHAPE = (1, 2, 2)
SIZES = (1, 3, 8, 20)
BATCHES: tuple[tuple[int, ...], ...] = ((8,), (5,), (1,), (8, 3, 1, 13, 30))
"""Batch sizes in turn, some greater than some pools."""

KINDS = ("experience_replay", "history", "image_pool")


def numbered(ids: list[int], labels: bool = True) -> Batch:
    """Fake samples with the given numbers, and labels that follow from them."""
    images = torch.tensor(ids, dtype=torch.float32)[:, None, None, None].expand(-1, *SHAPE).contiguous()
    return Batch(images, label_of(torch.tensor(ids)) if labels else None)


def label_of(ids: Tensor) -> Tensor:
    """A label for each number, which shows whether labels stay with their images."""
    return 7 * ids + 2


def numbers_in(images: Tensor) -> list[int]:
    """The numbers of constant images."""
    flat = images.flatten(1)
    assert bool((flat == flat[:, :1]).all()), "two images are mixed"
    return [int(number) for number in flat[:, 0].tolist()]


def replaced_batch(trick: FakeReplacement, fakes: Batch, now: MoveContext) -> Batch:
    """D's fakes after replacement by a single pool."""
    return apply_fake_replacements([trick], fakes, now)


class PoolModel:
    """A pool of numbers; 0 is an empty slot. Samples are only stored in a step's first move (turn 0)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.slots = [0] * size
        self.seen = 0

    def free(self, at: MoveContext, name: str, overwritten: int) -> list[int]:
        """Slots in random order; in later moves without those that the first move overwrote."""
        order = torch.randperm(self.size, generator=at.for_move(at.side, 0).generator(name)).tolist()
        if at.turn == 0:
            return order
        untouched = order[: self.size - overwritten]
        return [untouched[k] for k in torch.randperm(len(untouched), generator=at.generator(name)).tolist()]

    def replace(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        raise NotImplementedError


class QueueModel(PoolModel):
    """The replayed samples are drawn independently from the queue; then as many are stored in place of the oldest."""

    def __init__(self, size: int, fraction: float, every: int) -> None:
        super().__init__(size)
        self.fraction, self.every = fraction, every
        self.newest: deque[int] = deque(maxlen=size)

    def replace(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        count = min(round(len(fakes) * self.fraction), self.size)
        if at.step % self.every != 0 or count == 0:
            return fakes
        last = fakes[len(fakes) - count :]
        available = list(self.newest)[: max(0, len(self.newest) - (count if at.turn else 0))]
        draws = torch.rand(count, generator=at.generator(name)).numpy()
        positions = [min(int(np.float32(u) * np.float32(len(available))), len(available) - 1) for u in draws]
        replayed = [available[n] for n in positions] if available else last
        for fake in [] if at.turn else last:
            self.slots[self.seen % self.size] = fake
            self.newest.append(fake)
            self.seen += 1
        return fakes[: len(fakes) - count] + replayed


class HistoryModel(PoolModel):
    """Filled first; then part of the buffer replaces the last samples, and the first samples overwrite random slots."""

    def __init__(self, size: int, fraction: float) -> None:
        super().__init__(size)
        self.fraction = fraction

    def replace(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        count = min(round(len(fakes) * self.fraction), self.size)
        if count == 0:
            return fakes
        order = self.free(at, name, count)
        if 0 in self.slots:
            for fake in [] if at.turn else fakes:
                if 0 in self.slots:
                    self.slots[self.slots.index(0)] = fake
            return fakes
        replayed = [self.slots[slot] for slot in order[:count]]
        for fake, slot in [] if at.turn else zip(fakes, order[-count:], strict=False):
            self.slots[slot] = fake
        return fakes[: len(fakes) - len(replayed)] + replayed


class ImagePoolModel(PoolModel):
    """One sample after another, as in CycleGAN's released code, but no two of a batch swap with the same slot."""

    def replace(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        if self.size == 0:
            return fakes
        max_swaps = min(len(fakes), self.size)
        free = self.free(at, name, max_swaps)
        order = free[len(free) - min(max_swaps, len(free)) :]
        draws = torch.rand(len(fakes), generator=at.generator(f"{name}/coins")).tolist()
        result, filling = [], 0 in self.slots
        for fake, draw in zip(fakes, draws, strict=True):
            if 0 in self.slots and at.turn == 0:
                self.slots[self.slots.index(0)] = fake
                result.append(fake)
            elif draw < 0.5 and order and not (filling and at.turn):
                slot = order.pop(0)
                result.append(self.slots[slot])
                if at.turn == 0:
                    self.slots[slot] = fake
            else:
                result.append(fake)
        return result


def play_both(trick: Any, model: PoolModel, batches: tuple[int, ...], moves: int, labels: bool) -> list[list[int]]:
    """Run both for some moves and compare them after each; returns the expected batches."""
    all_expected, number = [], 0
    for at in range(moves):
        count = batches[at // 2 % len(batches)]  # the same in both moves of a step
        ids = list(range(number + 1, number + count + 1))
        number += count
        now = context(at // 2, turn=at % 2, steps=moves)
        batch = numbered(ids, labels)
        before = batch.images.clone()
        result = replaced_batch(trick, batch, now)
        expected = model.replace(ids, now, trick.name)
        assert numbers_in(result.images) == expected
        assert result.images.shape == batch.images.shape
        assert torch.equal(batch.images, before), "G's batch is not changed"
        assert numbers_in(trick.pool.images) == model.slots
        if labels:
            assert torch.equal(result.labels, label_of(torch.tensor(expected)))
            stored = torch.tensor(model.slots, dtype=torch.int64)
            assert torch.equal(trick.pool.labels, torch.where(stored > 0, label_of(stored), 0))
        else:
            assert result.labels is None
            assert not trick.pool.labels.any()
        all_expected.append(expected)
    return all_expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("fraction", "every"), [(0.25, 1), (0.5, 3), (1.0, 1), (1.0, 2), (0.0, 1)])
def test_experience_replay_equals_its_model(size: int, fraction: float, every: int) -> None:
    for batches, labels in product(BATCHES, (True, False)):
        trick = ExperienceReplay("pool", FakePool(size, SHAPE), fraction, every)
        model = QueueModel(size, fraction, every)
        play_both(trick, model, batches, 40, labels)
        assert int(trick.pool.stored) == model.seen
        assert sorted(filter(None, model.slots)) == list(model.newest), "the pool contains exactly the newest"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_history_equals_its_model(size: int, fraction: float) -> None:
    for batches, labels in product(BATCHES, (True, False)):
        play_both(History("pool", FakePool(size, SHAPE), fraction), HistoryModel(size, fraction), batches, 40, labels)


@pytest.mark.parametrize("size", [0, *SIZES])
def test_image_pool_equals_its_model(size: int) -> None:
    for batches, labels in product(BATCHES, (True, False)):
        play_both(ImagePool("pool", FakePool(size, SHAPE)), ImagePoolModel(size), batches, 40, labels)


# ---------------------------------------------------------------- distributions


def test_replayed_fakes_have_uniform_ages() -> None:
    """4 of 16 per step and a size of 40: ages of 1 to 10 steps, a tenth each."""
    trick, ages = ExperienceReplay("pool", FakePool(40, SHAPE), 0.25, 1), Counter[int]()
    for at in range(1500):
        numbers = numbers_in(replaced_batch(trick, numbered([at + 1] * 16, False), context(at)).images)
        assert numbers[:12] == [at + 1] * 12
        if at >= 10:
            ages.update(at + 1 - number for number in numbers[12:])
    assert set(ages) == set(range(1, 11))
    assert chisquare([ages[age] for age in range(1, 11)]).pvalue > 1e-3


def test_samples_are_not_replayed_in_the_step_in_which_they_are_stored() -> None:
    trick = ExperienceReplay("pool", FakePool(8, SHAPE), 1.0, 1)
    for at in range(20):
        numbers = numbers_in(replaced_batch(trick, numbered([at + 1] * 8, False), context(at)).images)
        assert set(numbers) == ({1} if at == 0 else {at})


def test_history_replays_and_overwrites_slots_uniformly() -> None:
    """Of 20 slots 4 are replayed, all different, and 4 are overwritten; so a sample stays for 5 moves on average."""
    trick = History("pool", FakePool(20, SHAPE), 0.5)
    replayed, overwritten, lifetimes = Counter[int](), Counter[int](), []
    stored_at: dict[int, int] = {}
    number = 0
    for at in range(2500):
        ids = list(range(number + 1, number + 9))
        number += 8
        before = numbers_in(trick.pool.images)
        numbers = numbers_in(replaced_batch(trick, numbered(ids, False), context(at)).images)
        after = numbers_in(trick.pool.images)
        if at < 3:
            assert numbers == ids
            continue
        assert numbers[:4] == ids[:4]
        assert len(set(numbers[4:])) == 4
        assert set(numbers[4:]) <= set(before)
        replayed.update(before.index(one) for one in numbers[4:])
        slots = [slot for slot in range(20) if before[slot] != after[slot]]
        assert {after[slot] for slot in slots} == set(ids[:4])
        overwritten.update(slots)
        for slot in slots:
            stored_at[after[slot]] = at
            if before[slot] in stored_at:
                lifetimes.append(at - stored_at[before[slot]])
    for counts in (replayed, overwritten):
        assert chisquare([counts[slot] for slot in range(20)]).pvalue > 1e-3
    assert np.mean(lifetimes) == pytest.approx(5, rel=0.03)
    expected = np.random.Generator(np.random.Philox(0)).geometric(0.2, len(lifetimes))
    assert kstest(lifetimes, expected).pvalue > 1e-3, "lifetimes are geometrically distributed"


def test_the_image_pool_swaps_half_of_the_fakes_with_uniform_slots() -> None:
    trick, number, swapped, total = ImagePool("pool", FakePool(10, SHAPE)), 0, 0, 0
    slots, positions = Counter[int](), Counter[int]()
    for at in range(2000):
        ids = list(range(number + 1, number + 6))
        number += 5
        before = numbers_in(trick.pool.images)
        numbers = numbers_in(replaced_batch(trick, numbered(ids, False), context(at)).images)
        after = numbers_in(trick.pool.images)
        assert sorted(numbers + after) == sorted(ids + before) if at >= 2 else numbers == ids, (
            "no sample is lost or duplicated"
        )
        if at >= 2:
            total += 5
            swapped += sum(one not in ids for one in numbers)
            positions.update(k for k, one in enumerate(numbers) if one not in ids)
            slots.update(slot for slot in range(10) if before[slot] != after[slot])
    assert swapped / total == pytest.approx(0.5, abs=4 * 0.5 / total**0.5)
    assert chisquare([slots[slot] for slot in range(10)]).pvalue > 1e-3
    assert chisquare([positions[k] for k in range(5)]).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_steps_turns_seeds_and_names_have_independent_draws(kind: str) -> None:
    """One replacement each, from the same full pool."""

    def replay(move_context: MoveContext, name: str = "pool") -> list[int]:
        trick = build(kind, name, size=32)
        for k in range(4):
            trick.replace_fakes(numbered(list(range(1 + 32 * k, 33 + 32 * k)), False), context(k))
        return numbers_in(replaced_batch(trick, numbered(list(range(1000, 1032)), False), move_context).images)

    first = replay(context(8))
    assert replay(context(8)) == first
    assert first != list(range(1000, 1032))
    others = [replay(context(9)), replay(context(8, turn=1)), replay(context(8, seed=1)), replay(context(8), "pool_2")]
    assert all(other != first for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_ages_are_counted_in_steps_not_moves(kind: str) -> None:
    """Replayed samples are as old with five moves per step as with one, and never from the same step."""

    def ages(moves: int) -> list[int]:
        trick, found = build(kind, size=64), list[int]()
        for at in range(400):
            for turn in range(moves):
                numbers = numbers_in(
                    replaced_batch(trick, numbered([at + 1] * 8, False), context(at, turn=turn)).images
                )
                found += [at + 1 - number for number in numbers if number != at + 1] if at >= 60 else []
        return found

    one, five = ages(1), ages(5)
    assert len(five) == pytest.approx(5 * len(one), rel=0.1), "each move replays as many"
    assert np.mean(five) == pytest.approx(np.mean(one), rel=0.1)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_batch_neither_replay_nor_overwrite_what_one_of_them_has_stored(kind: str, parts: int) -> None:
    """With accumulated gradients, as with whole batches, replayed samples are of earlier steps, and all differ."""
    trick, replayed, swapped = build(kind, size=61), 0, 0
    for at in range(80):
        for turn in range(2):
            old: list[int] = []
            for part, now in enumerate(replace(context(at, turn=turn), accumulate=parts).parts):
                new = [1000 * (at + 1) + 100 * turn + 10 * part + i for i in range(8)]
                old += [n for n in numbers_in(replaced_batch(trick, numbered(new, False), now).images) if n not in new]
            if at < 30:  # the pool is not full yet
                continue
            assert max(old) < 1000 * (at + 1)
            if kind != "experience_replay":  # which draws from its queue with replacement
                assert len(set(old)) == len(old)
            replayed, swapped = replayed + len(old), swapped + (len(old) if turn == 0 else 0)
            kept = [n for n in numbers_in(trick.pool.images) if n // 1000 == at + 1]
            assert len(kept) == (swapped if turn == 0 else len(kept))
            assert {n // 100 % 10 for n in kept} == {0}, "what a further move generates is not stored"
            swapped = 0
    assert replayed > 50 * parts


OLD_AND_NEW = [(one, other) for one in KINDS for other in KINDS if (one, other) != ("image_pool", "image_pool")]


@pytest.mark.parametrize(("one", "other"), OLD_AND_NEW)
def test_two_pools_share_a_batch(one: str, other: str) -> None:
    """Both replay old samples, neither stores a replayed one, and every new sample keeps its index."""
    tricks = [build(kind, f"pool_{k}", size=24) for k, kind in enumerate((one, other))]
    tricks.sort(key=lambda trick: trick.rank)
    counts = [Counter[str]() for _ in tricks]
    for at in range(80):
        before = [numbers_in(trick.pool.images) for trick in tricks]
        ids = list(range(8 * at + 1, 8 * at + 9))
        numbers = numbers_in(apply_fake_replacements(tricks, numbered(ids, False), context(at)).images)
        stored = [
            set(numbers_in(trick.pool.images)) - set(contents) for trick, contents in zip(tricks, before, strict=True)
        ]
        assert all(new <= set(ids) for new in stored), "only new samples are stored"
        assert [one for one in numbers if one in ids] == [ids[k] for k, one in enumerate(numbers) if one in ids]
        for k, contents in enumerate(before):
            others = set(before[1 - k])
            counts[k]["replayed"] += sum(one in contents and one not in others for one in numbers if one not in ids)
            counts[k]["stored"] += len(stored[k])
    assert all(count["replayed"] > 20 and count["stored"] > 20 for count in counts), counts


# ---------------------------------------------------------------- no waiting, no gradient, no shared memory


def entry(kind: str, **settings: Any) -> TrickConfig:
    entries = {"experience_replay": ExperienceReplayConfig, "history": HistoryConfig, "image_pool": ImagePoolConfig}
    return entries[kind](**settings)


def build(kind: str, name: str = "pool", shape: tuple[int, ...] = SHAPE, **settings: Any) -> Any:
    """A pool as a recipe builds it."""
    return entry(kind, **settings).build(name, TrickContext({}, DataSpec(shape)))


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum()),
    "float": lambda x: float(x.sum()),
    "list": lambda x: x.tolist(),
    "slice": lambda x: x[: x.sum().int()],
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: torch.nonzero(x),
    "where": lambda x: torch.where(x > 0),
    "if": lambda x: 1 if (x > 0).all() else 0,
}


@pytest.mark.parametrize("how", WAITS)
def test_no_waiting_detects_synchronisation(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3)
    with no_waiting(), pytest.raises(AssertionError, match="waited for"):
        WAITS[how](x)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_replacement_does_not_wait_for_the_device(
    kind: str, size: int, labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the pool is empty, being filled and full."""
    trick = build(kind, size=size)
    for at in range(6):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)), labels)
        with no_waiting():
            trick.replace_fakes(given, context(at))
    assert int(trick.pool.stored) >= 12


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_replayed_and_stored_samples_share_no_memory(kind: str, labels: bool) -> None:
    """Overwriting D's batch or G's does not change the pool."""
    trick = build(kind, size=8)
    for at in range(8):
        batch = numbered(list(range(8 * at + 1, 8 * at + 9)), labels)
        result = replaced_batch(trick, batch, context(at))
        stored = [buffer.clone() for buffer in trick.buffers()]
        for tensor in (*batch, *result):
            if tensor is not None:
                tensor.fill_(-1)
        assert all(torch.equal(buffer, before) for buffer, before in zip(trick.buffers(), stored, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_keeps_no_graph(kind: str) -> None:
    """Even if the samples have one, only their values are stored."""
    trick = build(kind, size=8)
    weight = torch.ones((), requires_grad=True)
    for at in range(5):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)))
        trick.replace_fakes(Batch(given.images * weight, given.labels), context(at))
        assert not any(buffer.requires_grad for buffer in trick.buffers())
    assert sum(number > 0 for number in numbers_in(trick.pool.images)) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_ds_move_has_no_gradient_of_g_and_gs_move_has_no_pool(kind: str) -> None:
    trick = build(kind, shape=(2,), size=4)
    game = game_of(trick, d=TanhDiscriminator(), lr=0.1)
    batches = FixedBatches(randn(N, 2))
    changed = 0
    for at in range(6):
        move = sample(game, batches, context(at))
        own = move.fake.clone()
        replace_fakes(game, move)
        assert not move.fake.requires_grad
        assert move.fake.grad_fn is None
        changed += not torch.equal(move.fake, own)
        before = [buffer.clone() for buffer in trick.buffers()]
        move = sample(game, batches, context(at, side=Side.G))
        own = move.fake
        replace_fakes(game, move)
        assert move.fake is own
        assert own.requires_grad
        assert all(torch.equal(buffer, old) for buffer, old in zip(trick.buffers(), before, strict=True))
    assert changed >= 3
    assert trick.sides == {Side.D}


@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_at_replayed_fakes_gives_the_pool_no_gradient(kind: str) -> None:
    """R2 requires a gradient at the batch: G gets none, and the pool is not changed."""
    trick = build(kind, shape=(2,), size=4)
    game = game_of(trick, R2Config().build("r2", TrickContext({}, DataSpec((2,)))), d=TanhDiscriminator(), lr=0.1)
    for at in range(5):
        move = make_move(game, FixedBatches(randn(N, 2)), context(at), StepMetrics())
        assert move.fake.requires_grad
        assert move.fake.is_leaf
        assert not any(buffer.requires_grad for buffer in trick.buffers())
        assert all(weight.grad is None for weight in game.g.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_ds_labels_are_those_of_the_replayed_fakes(kind: str) -> None:
    """In a game, `fake_labels` belong to the fakes and `labels` to the real samples."""
    trick = build(kind, shape=(2,), size=16)
    game = game_of(trick, d=TanhDiscriminator(), labelled=True)
    known: dict[tuple[float, ...], int] = {}
    old = 0
    for at in range(12):
        labels = torch.arange(N) + N * at
        batches = FixedBatches(randn(N, 2), labels)
        move = sample(game, batches, context(at))
        known |= {tuple(row): int(label) for row, label in zip(move.fake.tolist(), labels, strict=True)}
        replace_fakes(game, move)
        assert move.fake_labels is not None
        assert move.fake_labels.tolist() == [known[tuple(row)] for row in move.fake.tolist()]
        assert torch.equal(move.labels, labels)
        old += int((move.fake_labels < N * at).sum())
    assert old > 10


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_pool_keep_their_dtypes(kind: str) -> None:
    trick = build(kind, size=4)
    for at in range(4):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)))
        result = replaced_batch(trick, Batch(given.images.double(), given.labels), context(at))
        assert result.images.dtype == torch.float64
        assert result.labels.dtype == torch.int64
        assert trick.pool.images.dtype == torch.float32


# ---------------------------------------------------------------- the pieces


def test_a_fraction_of_the_batch_is_rounded() -> None:
    assert [fraction_of_batch(8, fraction) for fraction in (0.0, 0.05, 0.07, 0.25, 0.5, 0.94, 1.0)] == [
        0,
        0,
        1,
        2,
        4,
        8,
        8,
    ]
    assert fraction_of_batch(1, 0.25) == 0
    assert fraction_of_batch(1, 1.0) == 1


def test_batches_are_selected_replaced_and_joined_sample_by_sample() -> None:
    first, second = numbered([1, 2, 3]), numbered([4, 5, 6])
    mixed = replace_where(torch.tensor([True, False, True]), first, second)
    assert numbers_in(mixed.images) == [4, 2, 6]
    assert torch.equal(mixed.labels, label_of(torch.tensor([4, 2, 6])))
    assert numbers_in(select_batch(first, slice(1, None)).images) == [2, 3]
    assert numbers_in(select_batch(first, torch.tensor([2, 0])).images) == [3, 1]
    assert torch.equal(concat_batches(first, second).labels, label_of(torch.arange(1, 7)))
    unlabelled = numbered([7, 8, 9], False)
    for none in (
        replace_where(torch.ones(3, dtype=torch.bool), unlabelled, second),
        concat_batches(unlabelled, first),
        concat_batches(first, unlabelled),
    ):
        assert none.labels is None
    assert select_batch(unlabelled, slice(2)).labels is None


def test_a_pool_writes_the_given_slots() -> None:
    pool = FakePool(5, SHAPE)
    assert set(pool.state_dict()) == {"images", "labels", "stored"}
    assert pool.stored.dtype == torch.int64
    order = [3, 0, 4]
    pool.put(numbered([7, 8, 9]), torch.tensor(order), torch.tensor([True, False, True]))
    assert numbers_in(pool.images) == [0, 0, 0, 7, 9]
    contents = pool.get(torch.tensor([4, 3, 1]))
    assert numbers_in(contents.images) == [9, 7, 0]
    assert torch.equal(contents.labels, torch.tensor([65, 51, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_is_resumed(kind: str) -> None:
    """From its state alone, while it is being filled and when it is full."""
    for until in (1, 6):
        old, fresh = build(kind, size=12), build(kind, size=12)
        for at in range(until):
            old.replace_fakes(numbered(list(range(8 * at + 1, 8 * at + 9))), context(at))
        fresh.load_state_dict(old.state_dict())
        for at in range(until, until + 5):
            given = numbered(random.Random(at).sample(range(1, 1000), 8))
            one, two = (replaced_batch(trick, given, context(at)) for trick in (old, fresh))
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize("settings", [{"fraction": 0.0}, {"every": 2}])
def test_idle_replay_neither_replaces_nor_stores(settings: dict[str, Any]) -> None:
    trick, given = build("experience_replay", size=8, **settings), numbered([1, 2, 3, 4])
    left = replaced_batch(trick, given, context(1))
    assert left.images is given.images
    assert left.labels is given.labels
    assert int(trick.pool.stored) == 0
    assert not trick.pool.images.any()


def test_defaults_are_those_of_the_papers() -> None:
    replay, history, pool = build("experience_replay"), build("history"), build("image_pool")
    assert isinstance(replay, FakeReplacement)
    assert (replay.pool.size, replay.fraction, replay.every) == (2000, 0.25, 1)
    assert (history.pool.size, history.fraction) == (1024, 0.5)
    assert pool.pool.size == 50
    assert pool.pool.images.shape == (50, *SHAPE)
    settings = entry("experience_replay", size=7, fraction=0.5, every=3).build("x", TrickContext({}, DataSpec((2,))))
    assert (settings.name, settings.pool.images.shape, settings.fraction, settings.every) == ("x", (7, 2), 0.5, 3)
    assert entry("history", size=7, fraction=0.25).build("x", TrickContext({}, DataSpec((2,)))).fraction == 0.25


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("experience_replay", "size", 0),
        ("experience_replay", "fraction", 1.1),
        ("experience_replay", "fraction", -0.1),
        ("experience_replay", "every", 0),
        ("history", "size", 0),
        ("history", "fraction", 1.1),
        ("image_pool", "size", -1),
    ],
)
def test_invalid_values_are_rejected(kind: str, key: str, value: float) -> None:
    with pytest.raises(RecipeError, match=key):
        recipe("points", {"kind": kind, key: value})
    assert recipe("points", {"kind": "image_pool", "size": 0}).tricks
