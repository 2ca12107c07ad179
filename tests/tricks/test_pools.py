"""The three pools against models in plain Python: each fake is a constant picture that carries a number of its own."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
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
from tricks.small import Bent, Given, N, cloud, game_of

SHAPE = (1, 2, 2)
SIZES = (1, 3, 8, 20)
BATCHES: tuple[tuple[int, ...], ...] = ((8,), (5,), (1,), (8, 3, 1, 13, 30))
"""Batches in turn, some greater than some pools."""

LAWS = ("experience_replay", "history", "image_pool")


def numbered(ids: list[int], labels: bool = True) -> Batch:
    """Fakes that carry their numbers, and labels that follow from them."""
    images = torch.tensor(ids, dtype=torch.float32)[:, None, None, None].expand(-1, *SHAPE).contiguous()
    return Batch(images, label_of(torch.tensor(ids)) if labels else None)


def label_of(ids: Tensor) -> Tensor:
    """Another number for each number, which says whether labels travel with their pictures."""
    return 7 * ids + 2


def read(images: Tensor) -> list[int]:
    """The numbers on constant pictures."""
    flat = images.flatten(1)
    assert bool((flat == flat[:, :1]).all()), "a picture is mixed of two"
    return [int(number) for number in flat[:, 0].tolist()]


def handed(trick: FakeReplacement, fakes: Batch, now: MoveContext) -> Batch:
    """What D is handed where there is one pool."""
    return apply_fake_replacements([trick], fakes, now)


class Model:
    """A pool of numbers; 0 is nothing, as no fake carries it. Only a step's first move (turn 0) puts something in."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places = [0] * size
        self.seen = 0

    def free(self, at: MoveContext, name: str, overwritten: int) -> list[int]:
        """Places in random order; after the first move those that it did not overwrite."""
        order = torch.randperm(self.size, generator=at.for_move(at.side, 0).generator(name)).tolist()
        if at.turn == 0:
            return order
        kept = order[: self.size - overwritten]
        return [kept[k] for k in torch.randperm(len(kept), generator=at.generator(name)).tolist()]

    def offer(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        raise NotImplementedError


class Queue(Model):
    """As many as are asked for are drawn from the queue, each by itself; then as many go in, over the oldest."""

    def __init__(self, size: int, fraction: float, every: int) -> None:
        super().__init__(size)
        self.fraction, self.every = fraction, every
        self.newest: deque[int] = deque(maxlen=size)

    def offer(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        count = min(round(len(fakes) * self.fraction), self.size)
        if at.step % self.every != 0 or count == 0:
            return fakes
        last = fakes[len(fakes) - count :]
        known = list(self.newest)[: max(0, len(self.newest) - (count if at.turn else 0))]
        draws = torch.rand(count, generator=at.generator(name)).numpy()
        nth = [min(int(np.float32(u) * np.float32(len(known))), len(known) - 1) for u in draws]
        shown = [known[n] for n in nth] if known else last
        for fake in [] if at.turn else last:
            self.places[self.seen % self.size] = fake
            self.newest.append(fake)
            self.seen += 1
        return fakes[: len(fakes) - count] + shown


class Half(Model):
    """Filled first; then some of the buffer are shown in place of the last, and the first take places at random."""

    def __init__(self, size: int, fraction: float) -> None:
        super().__init__(size)
        self.fraction = fraction

    def offer(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        count = min(round(len(fakes) * self.fraction), self.size)
        if count == 0:
            return fakes
        order = self.free(at, name, count)
        if 0 in self.places:
            for fake in [] if at.turn else fakes:
                if 0 in self.places:
                    self.places[self.places.index(0)] = fake
            return fakes
        shown = [self.places[place] for place in order[:count]]
        for fake, place in [] if at.turn else zip(fakes, order[-count:], strict=False):
            self.places[place] = fake
        return fakes[: len(fakes) - len(shown)] + shown


class Zhu(Model):
    """One fake after the other, as in CycleGAN's released code; but no two of a batch at the same place."""

    def offer(self, fakes: list[int], at: MoveContext, name: str) -> list[int]:
        if self.size == 0:
            return fakes
        most = min(len(fakes), self.size)
        free = self.free(at, name, most)
        order = free[len(free) - min(most, len(free)) :]
        coins = torch.rand(len(fakes), generator=at.generator(f"{name}/coins")).tolist()
        shown, filling = [], 0 in self.places
        for fake, coin in zip(fakes, coins, strict=True):
            if 0 in self.places and at.turn == 0:
                self.places[self.places.index(0)] = fake
                shown.append(fake)
            elif coin < 0.5 and order and not (filling and at.turn):
                place = order.pop(0)
                shown.append(self.places[place])
                if at.turn == 0:
                    self.places[place] = fake
            else:
                shown.append(fake)
        return shown


def played(trick: Any, model: Model, batches: tuple[int, ...], moves: int, labels: bool) -> list[list[int]]:
    """Moves through both, compared after each; what was shown."""
    shown, number = [], 0
    for at in range(moves):
        count = batches[at // 2 % len(batches)]  # the same in both moves of a step
        ids = list(range(number + 1, number + count + 1))
        number += count
        now = context(at // 2, turn=at % 2, steps=moves)
        given = numbered(ids, labels)
        before = given.images.clone()
        offered = handed(trick, given, now)
        expected = model.offer(ids, now, trick.name)
        assert read(offered.images) == expected
        assert offered.images.shape == given.images.shape
        assert torch.equal(given.images, before), "G's own pile is left alone"
        assert read(trick.pool.images) == model.places
        if labels:
            assert torch.equal(offered.labels, label_of(torch.tensor(expected)))
            held = torch.tensor(model.places, dtype=torch.int64)
            assert torch.equal(trick.pool.labels, torch.where(held > 0, label_of(held), 0))
        else:
            assert offered.labels is None
            assert not trick.pool.labels.any()
        shown.append(expected)
    return shown


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("fraction", "every"), [(0.25, 1), (0.5, 3), (1.0, 1), (1.0, 2), (0.0, 1)])
def test_experience_replay_is_its_model(
    size: int, batches: tuple[int, ...], fraction: float, every: int, labels: bool
) -> None:
    trick = ExperienceReplay("pool", FakePool(size, SHAPE), fraction, every)
    model = Queue(size, fraction, every)
    played(trick, model, batches, 40, labels)
    assert int(trick.pool.stored) == model.seen
    assert sorted(filter(None, model.places)) == list(model.newest), "the newest are there, and nobody else"


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_history_is_its_model(size: int, batches: tuple[int, ...], fraction: float, labels: bool) -> None:
    played(History("pool", FakePool(size, SHAPE), fraction), Half(size, fraction), batches, 40, labels)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("size", [0, *SIZES])
def test_image_pool_is_its_model(size: int, batches: tuple[int, ...], labels: bool) -> None:
    played(ImagePool("pool", FakePool(size, SHAPE)), Zhu(size), batches, 40, labels)


# ---------------------------------------------------------------- the laws, counted


def test_replayed_fakes_are_of_every_age_alike() -> None:
    """4 of 16 in each turn and room for 40: ages of 1 to 10 turns, a tenth each."""
    trick, ages = ExperienceReplay("pool", FakePool(40, SHAPE), 0.25, 1), Counter[int]()
    for at in range(1500):
        shown = read(handed(trick, numbered([at + 1] * 16, False), context(at)).images)
        assert shown[:12] == [at + 1] * 12
        if at >= 10:
            ages.update(at + 1 - then for then in shown[12:])
    assert set(ages) == set(range(1, 11))
    assert chisquare([ages[age] for age in range(1, 11)]).pvalue > 1e-3


def test_nobody_is_replayed_in_the_move_in_which_it_is_remembered() -> None:
    trick = ExperienceReplay("pool", FakePool(8, SHAPE), 1.0, 1)
    for at in range(20):
        shown = read(handed(trick, numbered([at + 1] * 8, False), context(at)).images)
        assert set(shown) == ({1} if at == 0 else {at})


def test_history_shows_and_replaces_every_place_alike() -> None:
    """Of 20 places 4 are shown, all different, and 4 are replaced; so a fake stays for 5 moves in the mean."""
    trick = History("pool", FakePool(20, SHAPE), 0.5)
    shown, replaced, lives = Counter[int](), Counter[int](), []
    born: dict[int, int] = {}
    number = 0
    for at in range(2500):
        ids = list(range(number + 1, number + 9))
        number += 8
        before = read(trick.pool.images)
        seen = read(handed(trick, numbered(ids, False), context(at)).images)
        after = read(trick.pool.images)
        if at < 3:
            assert seen == ids
            continue
        assert seen[:4] == ids[:4]
        assert len(set(seen[4:])) == 4
        assert set(seen[4:]) <= set(before)
        shown.update(before.index(one) for one in seen[4:])
        places = [place for place in range(20) if before[place] != after[place]]
        assert {after[place] for place in places} == set(ids[:4])
        replaced.update(places)
        for place in places:
            born[after[place]] = at
            if before[place] in born:
                lives.append(at - born[before[place]])
    for counts in (shown, replaced):
        assert chisquare([counts[place] for place in range(20)]).pvalue > 1e-3
    assert np.mean(lives) == pytest.approx(5, rel=0.03)
    fresh = np.random.Generator(np.random.Philox(0)).geometric(0.2, len(lives))
    assert kstest(lives, fresh).pvalue > 1e-3, "how long a fake stays is geometric"


def test_the_image_pool_swaps_every_second_fake_and_every_place_alike() -> None:
    trick, number, swapped, total = ImagePool("pool", FakePool(10, SHAPE)), 0, 0, 0
    places, positions = Counter[int](), Counter[int]()
    for at in range(2000):
        ids = list(range(number + 1, number + 6))
        number += 5
        before = read(trick.pool.images)
        seen = read(handed(trick, numbered(ids, False), context(at)).images)
        after = read(trick.pool.images)
        assert sorted(seen + after) == sorted(ids + before) if at >= 2 else seen == ids, "nobody is lost or twice"
        if at >= 2:
            total += 5
            swapped += sum(one not in ids for one in seen)
            positions.update(k for k, one in enumerate(seen) if one not in ids)
            places.update(place for place in range(10) if before[place] != after[place])
    assert swapped / total == pytest.approx(0.5, abs=4 * 0.5 / total**0.5)
    assert chisquare([places[place] for place in range(10)]).pvalue > 1e-3
    assert chisquare([positions[k] for k in range(5)]).pvalue > 1e-3


@pytest.mark.parametrize("law", LAWS)
def test_every_step_turn_seed_and_name_draws_its_own(law: str) -> None:
    """From the same full pool, one offer each."""

    def shown(now: MoveContext, name: str = "pool") -> list[int]:
        trick = built(law, name, size=32)
        for k in range(4):
            trick.replace_fakes(numbered(list(range(1 + 32 * k, 33 + 32 * k)), False), context(k))
        return read(handed(trick, numbered(list(range(1000, 1032)), False), now).images)

    first = shown(context(8))
    assert shown(context(8)) == first
    assert first != list(range(1000, 1032))
    others = [shown(context(9)), shown(context(8, turn=1)), shown(context(8, seed=1)), shown(context(8), "pool_2")]
    assert all(other != first for other in others)


@pytest.mark.parametrize("law", LAWS)
def test_ages_are_counted_in_steps_however_many_moves_a_step_has(law: str) -> None:
    """What is shown is as old with five moves in a step as with one, and never of the step itself."""

    def ages(moves: int) -> list[int]:
        trick, seen = built(law, size=64), list[int]()
        for at in range(400):
            for turn in range(moves):
                shown = read(handed(trick, numbered([at + 1] * 8, False), context(at, turn=turn)).images)
                seen += [at + 1 - then for then in shown if then != at + 1] if at >= 60 else []
        return seen

    one, five = ages(1), ages(5)
    assert len(five) == pytest.approx(5 * len(one), rel=0.1), "each move is shown as many"
    assert np.mean(five) == pytest.approx(np.mean(one), rel=0.1)


OLD_AND_NEW = [(one, other) for one in LAWS for other in LAWS if (one, other) != ("image_pool", "image_pool")]


@pytest.mark.parametrize(("one", "other"), OLD_AND_NEW)
def test_two_pools_share_a_pile(one: str, other: str) -> None:
    """Both show old fakes, neither stores a fake that was old when it came in, and every fake keeps its place."""
    tricks = [built(law, f"pool_{k}", size=24) for k, law in enumerate((one, other))]
    tricks.sort(key=lambda trick: trick.rank)
    told = [Counter[str]() for _ in tricks]
    for at in range(80):
        before = [read(trick.pool.images) for trick in tricks]
        ids = list(range(8 * at + 1, 8 * at + 9))
        shown = read(apply_fake_replacements(tricks, numbered(ids, False), context(at)).images)
        stored = [set(read(trick.pool.images)) - set(then) for trick, then in zip(tricks, before, strict=True)]
        assert all(new <= set(ids) for new in stored), "only new fakes go in"
        assert [one for one in shown if one in ids] == [ids[k] for k, one in enumerate(shown) if one in ids]
        for k, then in enumerate(before):
            others = set(before[1 - k])
            told[k]["shown"] += sum(one in then and one not in others for one in shown if one not in ids)
            told[k]["stored"] += len(stored[k])
    assert all(count["shown"] > 20 and count["stored"] > 20 for count in told), told


# ---------------------------------------------------------------- nothing waits, no gradient, no shared memory


def entry(law: str, **settings: Any) -> TrickConfig:
    entries = {"experience_replay": ExperienceReplayConfig, "history": HistoryConfig, "image_pool": ImagePoolConfig}
    return entries[law](**settings)


def built(law: str, name: str = "pool", shape: tuple[int, ...] = SHAPE, **settings: Any) -> Any:
    """A pool as a recipe builds it."""
    return entry(law, **settings).build(name, TrickContext({}, DataSpec(shape)))


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
def test_the_guard_sees_who_waits(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3)
    with no_waiting(), pytest.raises(AssertionError, match="waited for"):
        WAITS[how](x)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("law", LAWS)
def test_an_offer_waits_for_nothing(law: str, size: int, labels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the pool is empty, fills and is full."""
    trick = built(law, size=size)
    for at in range(6):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)), labels)
        with no_waiting():
            trick.replace_fakes(given, context(at))
    assert int(trick.pool.stored) >= 12


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("law", LAWS)
def test_what_is_shown_and_what_is_stored_share_no_memory(law: str, labels: bool) -> None:
    """Who paints over the shown pile, or over G's, paints over nothing that is remembered."""
    trick = built(law, size=8)
    for at in range(8):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)), labels)
        shown = handed(trick, given, context(at))
        stored = [buffer.clone() for buffer in trick.buffers()]
        for tensor in (*given, *shown):
            if tensor is not None:
                tensor.fill_(-1)
        assert all(torch.equal(now, then) for now, then in zip(trick.buffers(), stored, strict=True))


@pytest.mark.parametrize("law", LAWS)
def test_a_pool_keeps_no_graph(law: str) -> None:
    """Even of fakes that carry one: what is remembered is numbers."""
    trick = built(law, size=8)
    weight = torch.ones((), requires_grad=True)
    for at in range(5):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)))
        trick.replace_fakes(Batch(given.images * weight, given.labels), context(at))
        assert not any(buffer.requires_grad for buffer in trick.buffers())
    assert sum(number > 0 for number in read(trick.pool.images)) == 8


@pytest.mark.parametrize("law", LAWS)
def test_ds_move_carries_no_gradient_of_g_and_gs_move_has_no_pool(law: str) -> None:
    trick = built(law, shape=(2,), size=4)
    game = game_of(trick, d=Bent(), lr=0.1)
    batches = Given(cloud(N, 2))
    changed = 0
    for at in range(6):
        move = sample(game, batches, context(at))
        own = move.fake.clone()
        replace_fakes(game, move)
        assert not move.fake.requires_grad
        assert move.fake.grad_fn is None
        changed += not torch.equal(move.fake, own)
        kept = [buffer.clone() for buffer in trick.buffers()]
        move = sample(game, batches, context(at, side=Side.G))
        own = move.fake
        replace_fakes(game, move)
        assert move.fake is own
        assert own.requires_grad
        assert all(torch.equal(now, then) for now, then in zip(trick.buffers(), kept, strict=True))
    assert changed >= 3
    assert trick.sides == {Side.D}


@pytest.mark.parametrize("law", LAWS)
def test_a_penalty_at_the_offered_fakes_reads_no_slope_of_the_pool(law: str) -> None:
    """R2 makes the pile want a gradient: G gets none, and the pool stays what it is."""
    trick = built(law, shape=(2,), size=4)
    game = game_of(trick, R2Config().build("r2", TrickContext({}, DataSpec((2,)))), d=Bent(), lr=0.1)
    for at in range(5):
        move = make_move(game, Given(cloud(N, 2)), context(at), StepMetrics())
        assert move.fake.requires_grad
        assert move.fake.is_leaf
        assert not any(buffer.requires_grad for buffer in trick.buffers())
        assert all(weight.grad is None for weight in game.g.weights)


@pytest.mark.parametrize("law", LAWS)
def test_labels_that_d_is_told_are_those_of_the_fakes_it_is_shown(law: str) -> None:
    """In a game: `asked` goes with the pile, `labels` stays with the reals."""
    trick = built(law, shape=(2,), size=16)
    game = game_of(trick, d=Bent(), labelled=True)
    known: dict[tuple[float, ...], int] = {}
    old = 0
    for at in range(12):
        labels = torch.arange(N) + N * at
        batches = Given(cloud(N, 2), labels)
        move = sample(game, batches, context(at))
        known |= {tuple(row): int(label) for row, label in zip(move.fake.tolist(), labels, strict=True)}
        replace_fakes(game, move)
        assert move.fake_labels is not None
        assert move.fake_labels.tolist() == [known[tuple(row)] for row in move.fake.tolist()]
        assert torch.equal(move.labels, labels)
        old += int((move.fake_labels < N * at).sum())
    assert old > 10


@pytest.mark.parametrize("law", LAWS)
def test_the_pile_keeps_its_precision_and_the_pool_its_own(law: str) -> None:
    trick = built(law, size=4)
    for at in range(4):
        given = numbered(list(range(8 * at + 1, 8 * at + 9)))
        shown = handed(trick, Batch(given.images.double(), given.labels), context(at))
        assert shown.images.dtype == torch.float64
        assert shown.labels.dtype == torch.int64
        assert trick.pool.images.dtype == torch.float32


# ---------------------------------------------------------------- the pieces


def test_a_share_is_the_nearest_number() -> None:
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


def test_chosen_part_and_joined_go_sample_by_sample() -> None:
    ours, theirs = numbered([1, 2, 3]), numbered([4, 5, 6])
    mixed = replace_where(torch.tensor([True, False, True]), ours, theirs)
    assert read(mixed.images) == [4, 2, 6]
    assert torch.equal(mixed.labels, label_of(torch.tensor([4, 2, 6])))
    assert read(select_batch(ours, slice(1, None)).images) == [2, 3]
    assert read(select_batch(ours, torch.tensor([2, 0])).images) == [3, 1]
    assert torch.equal(concat_batches(ours, theirs).labels, label_of(torch.arange(1, 7)))
    bare = numbered([7, 8, 9], False)
    for none in (
        replace_where(torch.ones(3, dtype=torch.bool), bare, theirs),
        concat_batches(bare, ours),
        concat_batches(ours, bare),
    ):
        assert none.labels is None
    assert select_batch(bare, slice(2)).labels is None


def test_a_pool_writes_where_it_is_told_to() -> None:
    pool = FakePool(5, SHAPE)
    assert set(pool.state_dict()) == {"images", "labels", "stored"}
    assert pool.stored.dtype == torch.int64
    order = [3, 0, 4]
    pool.put(numbered([7, 8, 9]), torch.tensor(order), torch.tensor([True, False, True]))
    assert read(pool.images) == [0, 0, 0, 7, 9]
    taken = pool.get(torch.tensor([4, 3, 1]))
    assert read(taken.images) == [9, 7, 0]
    assert torch.equal(taken.labels, torch.tensor([65, 51, 0]))


@pytest.mark.parametrize("law", LAWS)
def test_is_resumed(law: str) -> None:
    """From its state alone, in the middle of filling and when full."""
    for until in (1, 6):
        old, fresh = built(law, size=12), built(law, size=12)
        for at in range(until):
            old.replace_fakes(numbered(list(range(8 * at + 1, 8 * at + 9))), context(at))
        fresh.load_state_dict(old.state_dict())
        for at in range(until, until + 5):
            given = numbered(random.Random(at).sample(range(1, 1000), 8))
            one, two = (handed(trick, given, context(at)) for trick in (old, fresh))
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize("told", [{"fraction": 0.0}, {"every": 2}])
def test_replay_that_rests_draws_nothing_and_remembers_nothing(told: dict[str, Any]) -> None:
    trick, given = built("experience_replay", size=8, **told), numbered([1, 2, 3, 4])
    assert handed(trick, given, context(1)) is given
    assert int(trick.pool.stored) == 0
    assert not trick.pool.images.any()


def test_defaults_are_those_of_the_papers() -> None:
    replay, history, pool = built("experience_replay"), built("history"), built("image_pool")
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
def test_what_is_no_pool_is_refused(kind: str, key: str, value: float) -> None:
    with pytest.raises(RecipeError, match=key):
        recipe("points", {"kind": kind, key: value})
    assert recipe("points", {"kind": "image_pool", "size": 0}).tricks
