"""Rows of the tricks that keep the past: D is trained on old fakes, or a player meets a past opponent."""

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
"""Where a fake sample was generated: the index of D's move, and its index in the batch."""


def sample_bytes(fake: Tensor) -> bytes:
    """The bytes of a sample."""
    return fake.detach().contiguous().numpy().tobytes()


def origins(run: Session) -> list[list[Origin]]:
    """The origins of all fake samples in D's moves; their labels must be those that they were generated for.

    G's moves use G's newest samples.
    """
    origin_of: dict[bytes, Origin] = {}
    all_origins: list[list[Origin]] = []
    moves = run.of(Side.D)
    for move_index, played_move in enumerate(moves):
        assert played_move.move.fake.shape == played_move.fake.shape
        for index, fake in enumerate(played_move.fake):
            assert sample_bytes(fake) not in origin_of, "all samples differ"
            origin_of[sample_bytes(fake)] = (move_index, index)
        assert all(sample_bytes(fake) in origin_of for fake in played_move.move.fake), (
            "every fake was drawn once, in these very bits"
        )
        all_origins.append([origin_of[sample_bytes(fake)] for fake in played_move.move.fake])
        if played_move.move.labels is not None:
            expected = [moves[then].move.labels[index] for then, index in all_origins[-1]]
            assert played_move.move.fake_labels.tolist() == [int(label) for label in expected]
    labelled = run.recipe.uses_labels
    assert all((played_move.move.fake_labels is not None) is labelled for played_move in moves)
    for played_move in run.of(Side.G):
        assert torch.equal(played_move.move.fake, played_move.fake)
        assert played_move.move.fake_labels is played_move.move.labels
    return all_origins


def check_experience_replay(play: Play) -> None:
    """A quarter of D's fakes are from its last three steps, uniformly: six slots, two new samples per step."""
    run = play(True, 100)
    all_origins = origins(run)
    assert [move_index for move_index, _ in all_origins[0]] == [0] * BATCH, "the queue is empty at first"
    for move_index, batch in enumerate(all_origins[1:], 1):
        newest = [origin for origin in batch if origin[0] == move_index]
        assert len(newest) == len(set(newest)) == BATCH - 2
    old = [
        (move_index - origin_move, origin_move % 3, index)
        for move_index, batch in enumerate(all_origins)
        if move_index >= 3
        for origin_move, index in batch
        if origin_move != move_index
    ]
    ages, turns, indices = (Counter(seen) for seen in zip(*old, strict=True))
    assert sorted(ages) == sorted(turn + 1 for turn in turns) == [1, 2, 3]
    assert len(indices) == 2
    for counts in (ages, turns, indices):  # all six are as likely, whenever they came in
        p = 1 / len(counts)
        assert all(abs(n - len(old) * p) < 5 * math.sqrt(len(old) * p * (1 - p)) for n in counts.values())
    assert all(
        [move_index] * BATCH == [origin_move for origin_move, _ in batch]
        for move_index, batch in enumerate(origins(play(False, 3)))
    )

    lazy = {"kind": "experience_replay", "size": 6, "fraction": 0.25, "every": 2}
    for move_index, batch in enumerate(origins(play(True, 6, tricks=[lazy]))):
        old = [origin_move for origin_move, _ in batch if origin_move != move_index]
        assert len(old) == (2 if move_index % 2 == 0 and move_index else 0)
        assert all(origin_move % 2 == 0 for origin_move in old)


def check_history(play: Play) -> None:
    """Twelve slots, filled by a batch and a half; then half of each batch is replayed, and half of G's is stored."""
    run = play(True, 0)
    buffers: list[set[bytes]] = []
    for _ in range(100):
        run.play(1)
        buffers.append({sample_bytes(fake) for fake in run.game.tricks["history"].pool.images})
    all_origins, moves = origins(run), run.of(Side.D)
    buffer, half = {(move_index, index) for move_index in (0, 1) for index in range(BATCH)}, BATCH // 2
    for move_index, batch in enumerate(all_origins):
        newest_origins = [origin for origin in batch if origin[0] == move_index]
        old = set(batch) - set(newest_origins)
        if move_index < 2:
            assert len(set(newest_origins)) == BATCH, "until the buffer is full, all are G's newest"
        else:
            assert len(set(newest_origins)) == len(newest_origins) == len(old) == half
            buffer |= {(move_index, index) for index in range(BATCH)}
    assert buffer >= {origin for batch in all_origins for origin in batch}
    for move_index, (before, after) in enumerate(pairwise(buffers[1:]), 2):  # full from the second step on
        newest = {sample_bytes(fake) for fake in moves[move_index].fake}
        assert len(before) == len(after) == 12, "no sample is stored twice"
        assert after - before <= newest
    ages = Counter(
        move_index - origin_move
        for move_index, batch in enumerate(all_origins)
        if move_index >= 20
        for origin_move, _ in batch
        if origin_move != move_index
    )
    # a slot is kept with probability 2/3 in each move, so ages are distributed as 1/3 (2/3)^(age - 1)
    count = sum(ages.values())
    for age in (1, 2, 3, 4):
        p = (2 / 3) ** (age - 1) / 3
        assert abs(ages[age] - count * p) < 5 * math.sqrt(count * p * (1 - p))
    assert max(ages) > 5
    # in each move a slot is replayed, overwritten or neither, equally likely; so half of the samples are ever replayed
    replayed = {
        origin
        for move_index, batch in enumerate(all_origins)
        for origin in batch
        if 1 < origin[0] < min(move_index, len(all_origins) - 10)
    }
    stored = half * (len(all_origins) - 12)
    assert abs(len(replayed) / stored - 1 / 2) < 5 * math.sqrt(1 / 4 / stored)


def check_image_pool(play: Play) -> None:
    """Twelve slots, filled first; then, with probability 1/2, a sample is swapped with a stored one."""
    run = play(True, 120)
    pool: set[Origin] = set()
    swapped, ages = [], []
    for move_index, batch in enumerate(origins(run)):
        available = set(pool)
        for index, origin in enumerate(batch):
            own = (move_index, index)
            if move_index * BATCH + index < 12:
                assert origin == own, "the first samples are not replaced"
                pool.add(own)
                continue
            swapped.append(origin != own)
            if origin != own:
                assert origin in available, "it was stored before this move and has not been replayed since"
                available.remove(origin)
                pool.remove(origin)
                pool.add(own)
                ages.append(move_index - origin[0])
    assert abs(sum(swapped) / len(swapped) - 0.5) < 5 * 0.5 / math.sqrt(len(swapped))
    assert min(ages) == 1
    assert max(ages) > 5, "slots are drawn at random, not in order"
    # each swap overwrites one of twelve slots, so a sample stays for 12 / 4 moves on average
    assert abs(sum(ages) / len(ages) - 3) < 0.5
    moves = run.of(Side.D)
    stored = sorted(sample_bytes(fake) for fake in run.game.tricks["image_pool"].pool.images)
    assert stored == sorted(sample_bytes(moves[move_index].fake[index]) for move_index, index in pool)


def check_past_selves(play: Play) -> None:
    """A copy of each player is made every third step; two steps later one of the last two plays, otherwise none.

    The player that moves is the current one, and the replaced opponent does not change.
    """
    run, steps = play(True, 0), 30
    copies: dict[Side, list[nn.Module]] = {side: [] for side in Side}
    draws: dict[Side, list[tuple[int, int]]] = {side: [] for side in Side}
    make_move = step.make_move

    def state(side: Side) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in run.game.players[side].net.state_dict().items()}

    @torch.no_grad()
    def output_of(net: nn.Module, move: MoveData) -> Tensor:
        """The output of an opponent in this move: G's samples, or D's scores of G's samples."""
        net, labels = copy.deepcopy(net), move.labels
        if move.context.side is Side.D:
            return call_network(net, move.latents, labels)
        return call_network(net, move.fake.detach(), labels).score

    def played_move(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> MoveData:
        mover, rival = context.side, context.side.opponent
        current, own_before, rival_before = copy.deepcopy(game.players[rival].net), state(mover), state(rival)
        move = make_move(game, batches, context, metrics)
        output = run.moves[-1].fake if mover is Side.D else move.score("fake").detach()
        copies_so_far = copies[rival][-2:]
        matches = [torch.allclose(output_of(net, move), output, rtol=1e-5, atol=1e-7) for net in copies_so_far]
        is_current = torch.allclose(output_of(current, move), output, rtol=1e-5, atol=1e-7)
        if copies[rival] and context.step % 3 == 0:
            assert sum(matches) == 1
            assert not is_current
            age = len(copies_so_far) - matches.index(True)
            draws[rival].append((age, (len(copies[rival]) - age) % 2))
            assert unequal(state(rival), rival_before) == [], (
                "the replaced opponent does not change, not even its statistics"
            )
        else:
            assert is_current
        for name, weight in game.players[rival].net.named_parameters():
            assert torch.equal(weight, rival_before[name])
        assert all(
            not torch.equal(weight, own_before[name]) for name, weight in game.players[mover].net.named_parameters()
        ), "the player that moves is trained"
        return move

    with patch.object(step, "make_move", played_move):
        for at in range(steps):
            run.play(1)
            if at % 3 == 1:
                for side in Side:
                    copies[side].append(copy.deepcopy(run.game.players[side].net))
    for side in Side:
        assert len(draws[side]) == steps // 3 - 1
        ages, slots = ({*seen} for seen in zip(*draws[side], strict=True))
        assert ages == {1, 2}, "both copies are drawn"
        assert slots == {0, 1}, "and both slots"


ROWS = {
    "experience_replay": Row(
        strong={"size": 6, "fraction": 0.25}, zero={"fraction": 0.0}, check=check_experience_replay
    ),
    "history": Row(strong={"size": 12, "fraction": 0.5}, zero={"fraction": 0.0}, check=check_history),
    "image_pool": Row(strong={"size": 12}, zero={"size": 0}, check=check_image_pool),
    "past_selves": Row(
        strong={"keep": 2, "every": 3, "duration": 1},
        zero={"duration": 0},
        check=check_past_selves,
    ),
}
