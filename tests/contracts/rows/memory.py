"""Rows of the tricks that remember: D judges fakes of earlier moves, or a player meets its rival as it was."""

from __future__ import annotations

import copy
import math
from collections import Counter
from itertools import pairwise
from unittest.mock import patch

import torch
from torch import Tensor, nn

from contracts.rows.base import Play, Row
from contracts.tiny import BATCH, Session, unequal
from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine import step
from poise.engine.batches import RealBatches
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.networks.base import call_network

Origin = tuple[int, int]
"""Of a fake: the how-manieth of D's moves it was drawn in, and its place in the pile."""


def key(fake: Tensor) -> bytes:
    """The bytes of a fake."""
    return fake.detach().contiguous().numpy().tobytes()


def origins(run: Session) -> list[list[Origin]]:
    """Where each fake that D was handed comes from, move by move; with it came the label that it was made for.

    G's own moves are about its own fakes.
    """
    drawn: dict[bytes, Origin] = {}
    found: list[list[Origin]] = []
    moves = run.of(Side.D)
    for at, played_move in enumerate(moves):
        assert played_move.move.fake.shape == played_move.fake.shape
        for place, fake in enumerate(played_move.fake):
            assert key(fake) not in drawn, "no fake is drawn twice"
            drawn[key(fake)] = (at, place)
        assert all(key(fake) in drawn for fake in played_move.move.fake), (
            "every fake was drawn once, in these very bits"
        )
        found.append([drawn[key(fake)] for fake in played_move.move.fake])
        if played_move.move.labels is not None:
            asked = [moves[then].move.labels[place] for then, place in found[-1]]
            assert played_move.move.fake_labels.tolist() == [int(label) for label in asked]
    labelled = run.recipe.uses_labels
    assert all((played_move.move.fake_labels is not None) is labelled for played_move in moves)
    for played_move in run.of(Side.G):
        assert torch.equal(played_move.move.fake, played_move.fake)
        assert played_move.move.fake_labels is played_move.move.labels
    return found


def shows_a_queue(play: Play) -> None:
    """A quarter of D's fakes is from one of its last three steps, each as likely: six places, two new ones a step."""
    run = play(True, 150)
    told = origins(run)
    assert [at for at, _ in told[0]] == [0] * BATCH, "at first there is nothing to remember"
    for at, batch in enumerate(told[1:], 1):
        ours = [origin for origin in batch if origin[0] == at]
        assert len(ours) == len(set(ours)) == BATCH - 2
    old = [
        (at - then, then % 3, place) for at, batch in enumerate(told) if at >= 3 for then, place in batch if then != at
    ]
    ages, turns, places = (Counter(seen) for seen in zip(*old, strict=True))
    assert sorted(ages) == sorted(turn + 1 for turn in turns) == [1, 2, 3]
    assert len(places) == 2
    for counts in (ages, turns, places):  # all six are as likely, whenever they came in
        p = 1 / len(counts)
        assert all(abs(n - len(old) * p) < 5 * math.sqrt(len(old) * p * (1 - p)) for n in counts.values())
    assert all([at] * BATCH == [then for then, _ in batch] for at, batch in enumerate(origins(play(False, 3))))

    lazy = {"kind": "experience_replay", "size": 6, "fraction": 0.25, "every": 2}
    for at, batch in enumerate(origins(play(True, 6, tricks=[lazy]))):
        old = [then for then, _ in batch if then != at]
        assert len(old) == (2 if at % 2 == 0 and at else 0)
        assert all(then % 2 == 0 for then in old)


def shows_half_a_buffer(play: Play) -> None:
    """Twelve places: filled by a batch and a half; then half of each pile is from there, and half of G's goes in."""
    run = play(True, 0)
    buffers: list[set[bytes]] = []
    for _ in range(150):
        run.play(1)
        buffers.append({key(fake) for fake in run.game.tricks["history"].pool.images})
    told, moves = origins(run), run.of(Side.D)
    buffer, half = {(at, place) for at in (0, 1) for place in range(BATCH)}, BATCH // 2
    for at, batch in enumerate(told):
        ours = [origin for origin in batch if origin[0] == at]
        old = set(batch) - set(ours)
        if at < 2:
            assert len(set(ours)) == BATCH, "until it is full, all are G's newest"
        else:
            assert len(set(ours)) == len(ours) == len(old) == half
            buffer |= {(at, place) for place in range(BATCH)}
    assert buffer >= {origin for batch in told for origin in batch}
    for at, (before, after) in enumerate(pairwise(buffers[1:]), 2):  # full from the second step on
        newest = {key(fake) for fake in moves[at].fake}
        assert len(before) == len(after) == 12, "no fake is there twice"
        assert after - before <= newest
    ages = Counter(at - then for at, batch in enumerate(told) if at >= 20 for then, _ in batch if then != at)
    # a place is kept with probability 2/3 in each move, so the ages fall off as 1/3 (2/3)^(age - 1)
    count = sum(ages.values())
    for age in (1, 2, 3, 4):
        p = (2 / 3) ** (age - 1) / 3
        assert abs(ages[age] - count * p) < 5 * math.sqrt(count * p * (1 - p))
    assert max(ages) > 5
    # in each move a place is shown, taken or neither, as likely; so half of the fakes are shown before they go
    ever = {origin for at, batch in enumerate(told) for origin in batch if 1 < origin[0] < min(at, len(told) - 10)}
    stored = half * (len(told) - 12)
    assert abs(len(ever) / stored - 1 / 2) < 5 * math.sqrt(1 / 4 / stored)


def swaps_by_a_coin(play: Play) -> None:
    """Twelve places, first come; then heads: a fake takes the place of a stored one, which D is shown instead."""
    run = play(True, 200)
    pool: set[Origin] = set()
    coins, ages = [], []
    for at, batch in enumerate(origins(run)):
        there = set(pool)
        for place, origin in enumerate(batch):
            ours = (at, place)
            if at * BATCH + place < 12:
                assert origin == ours, "the first ones are shown as they are"
                pool.add(ours)
                continue
            coins.append(origin != ours)
            if origin != ours:
                assert origin in there, "it was there before this move, and no one has been shown it since"
                there.remove(origin)
                pool.remove(origin)
                pool.add(ours)
                ages.append(at - origin[0])
    assert abs(sum(coins) / len(coins) - 0.5) < 5 * 0.5 / math.sqrt(len(coins))
    assert min(ages) == 1
    assert max(ages) > 5, "a place is drawn at random, not in turn"
    # each swap takes one of twelve places, so a fake stays for 12 / 4 moves in the mean
    assert abs(sum(ages) / len(ages) - 3) < 0.5
    moves = run.of(Side.D)
    stored = sorted(key(fake) for fake in run.game.tricks["image_pool"].pool.images)
    assert stored == sorted(key(moves[at].fake[place]) for at, place in pool)


def meets_old_rivals(play: Play) -> None:
    """A copy of each player after every third step; two steps later one of the last two plays, else nobody does.

    Who moves is the player of today, and whom it doesn't meet stands still.
    """
    run, steps = play(True, 0), 30
    copies: dict[Side, list[nn.Module]] = {side: [] for side in Side}
    met_which: dict[Side, list[tuple[int, int]]] = {side: [] for side in Side}
    moving = step.make_move

    def state(side: Side) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in run.game.players[side].net.state_dict().items()}

    @torch.no_grad()
    def told(net: nn.Module, move: MoveData) -> Tensor:
        """What a rival would have done in this move: G's fakes, or D's verdict on G's."""
        net, labels = copy.deepcopy(net), move.labels
        if move.context.side is Side.D:
            return call_network(net, move.latents, labels)
        return call_network(net, move.fake.detach(), labels).score

    def played_move(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> MoveData:
        mover, rival = context.side, context.side.opponent
        today, ours, theirs = copy.deepcopy(game.players[rival].net), state(mover), state(rival)
        move = moving(game, batches, context, metrics)
        met = run.moves[-1].fake if mover is Side.D else move.score("fake").detach()
        known = copies[rival][-2:]
        same = [torch.allclose(told(net, move), met, rtol=1e-5, atol=1e-7) for net in known]
        is_today = torch.allclose(told(today, move), met, rtol=1e-5, atol=1e-7)
        if copies[rival] and context.step % 3 == 0:
            assert sum(same) == 1
            assert not is_today
            age = len(known) - same.index(True)
            met_which[rival].append((age, (len(copies[rival]) - age) % 2))
            assert unequal(state(rival), theirs) == [], "whom nobody meets learns nothing, not even a statistic"
        else:
            assert is_today
        for name, weight in game.players[rival].net.named_parameters():
            assert torch.equal(weight, theirs[name])
        assert all(
            not torch.equal(weight, ours[name]) for name, weight in game.players[mover].net.named_parameters()
        ), "who moves learns"
        return move

    with patch.object(step, "make_move", played_move):
        for at in range(steps):
            run.play(1)
            if at % 3 == 1:
                for side in Side:
                    copies[side].append(copy.deepcopy(run.game.players[side].net))
    for side in Side:
        assert len(met_which[side]) == steps // 3 - 1
        ages, slots = ({*seen} for seen in zip(*met_which[side], strict=True))
        assert ages == {1, 2}, "sometimes the newest, sometimes the other one"
        assert slots == {0, 1}, "and neither always the odd one nor the even one"


ROWS = {
    "experience_replay": Row(strong={"size": 6, "fraction": 0.25}, zero={"fraction": 0.0}, acts=shows_a_queue),
    "history": Row(strong={"size": 12, "fraction": 0.5}, zero={"fraction": 0.0}, acts=shows_half_a_buffer),
    "image_pool": Row(strong={"size": 12}, zero={"size": 0}, acts=swaps_by_a_coin),
    "past_selves": Row(
        strong={"keep": 2, "every": 3, "duration": 1},
        zero={"duration": 0},
        acts=meets_old_rivals,
    ),
}
