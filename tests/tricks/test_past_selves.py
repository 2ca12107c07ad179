"""Past selves: which copy plays when, that copies are what the players were, and that nothing of them moves."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from contracts.tiny import Session, Shift, by_hand, context, recipe, ring_feed, session, unequal
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.random_streams import derive_seed
from poise.core.types import DataSpec, MoveContext, Side
from poise.engine.step import alternate, make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.tempo import Ratio
from poise.tricks.base import TrickContext
from poise.tricks.past_selves import PastSelves, PastSelvesConfig
from tricks.small import Bent, Given, N, cloud, gradients

TABLE = [
    (4, 2, "....xx..xx..xx..xx.."),
    (6, 4, "......xxxx..xxxx..xx"),
    (5, 1, ".....x....x....x...."),
    (3, 1, "...x..x..x..x..x..x."),
    (7, 5, ".......xxxxx..xxxxx."),
    (3, 0, "...................."),
    (30, 28, "...................."),
]
"""every, duration, and in which of the first 20 steps a past self plays."""


def trick_of(keep: int, every: int, duration: int, name: str = "past_selves") -> PastSelves:
    nets: dict[Side, nn.Module] = {Side.D: Bent(), Side.G: Shift([0.3, 0.1])}
    return PastSelves(name, nets, keep, every, duration)


def of(run: Session) -> PastSelves:
    trick = run.game.tricks["past_selves"]
    assert isinstance(trick, PastSelves)
    return trick


def selves(trick: PastSelves, side: Side) -> list[nn.Module]:
    return list(trick.selves[side.value])  # type: ignore[arg-type]


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.named_parameters()}


# ---------------------------------------------------------------- who plays when


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize(("every", "duration", "plan"), TABLE)
def test_somebody_stands_in_for_the_first_steps_after_a_copy(every: int, duration: int, plan: str, keep: int) -> None:
    trick = trick_of(keep, every, duration)
    for side in Side:
        net = nn.Identity()
        for at, sign in enumerate(plan):
            for turn in (0, 3):
                now = context(at, side=side.opponent, turn=turn, steps=20)
                who, plays = trick.copy_index(side, now), trick.select_network(side, net, now)
                assert (who is not None) == (sign == "x"), at
                if who is None:
                    assert plays is net
                    continue
                made = at // every
                assert who == derive_seed(0, f"{side.value}/past_selves", made) % min(made, keep)
                assert plays is selves(trick, side)[who]


def test_of_the_first_copies_only_those_that_are_there_are_drawn() -> None:
    """With room for five: the first alone, then one of two, of three, of four, of five, and of five for ever."""
    trick = trick_of(5, 10, 8)
    for made in range(1, 12):
        drawn = {trick.copy_index(Side.G, context(10 * made, seed=seed, steps=200)) for seed in range(100)}
        assert drawn == set(range(min(made, 5)))


def test_one_of_them_plays_for_the_whole_duration() -> None:
    trick = trick_of(4, 6, 5)
    for made in range(4, 40):
        plays = {trick.copy_index(Side.D, context(6 * made + k, turn=k, steps=300)) for k in range(5)}
        assert len(plays) == 1
        assert None not in plays


@pytest.mark.parametrize("keep", [2, 3, 7])
def test_each_copy_is_drawn_alike(keep: int) -> None:
    trick = trick_of(keep, 10, 1)
    for side in Side:
        times = Counter(trick.copy_index(side, context(10 * made, steps=10)) for made in range(keep, keep + 3000))
        assert set(times) == set(range(keep))
        assert chisquare(list(times.values())).pvalue > 1e-3


def test_each_side_seed_and_name_draws_its_own() -> None:
    def drawn(side: Side, name: str = "past_selves", seed: int = 0) -> list[int | None]:
        trick = trick_of(4, 3, 1, name)
        return [trick.copy_index(side, context(3 * at, seed=seed, steps=10)) for at in range(4, 200)]

    first = drawn(Side.D)
    assert first == drawn(Side.D)
    for other in (drawn(Side.G), drawn(Side.D, "past_selves_2"), drawn(Side.D, seed=1)):
        same = sum(a == b for a, b in zip(first, other, strict=True))
        assert 20 < same < 80, "a quarter of 196"


# ---------------------------------------------------------------- in a game with batch norms


def calls(run: Session) -> list[tuple[Side, int | None]]:
    """Fills with who ran forward: the live one (None), or which copy."""
    heard: list[tuple[Side, int | None]] = []
    for side in Side:
        for which, net in [(None, run.game.players[side].net), *enumerate(selves(of(run), side))]:
            net.register_forward_pre_hook(lambda _net, _given, who=(side, which): heard.append(who))
    return heard


@pytest.mark.parametrize(("every", "duration", "plan"), [row for row in TABLE if row[0] < 6])
def test_in_a_game_the_rival_is_replaced_and_the_mover_is_not(every: int, duration: int, plan: str) -> None:
    told = {"kind": "past_selves", "keep": 2, "every": every, "duration": duration}
    run = session("pictures", told, steps=20)
    heard = calls(run)
    for at, sign in enumerate(plan[:12]):
        for side in (Side.D, Side.G):
            heard.clear()
            make_move(run.game, run.batches, run.context().for_move(side, 0), run.metrics)
            movers = {which for who, which in heard if who is side}
            rivals = {which for who, which in heard if who is side.opponent}
            assert movers == {None}
            assert len(rivals) == 1
            assert (rivals != {None}) == (sign == "x"), (at, side)
            assert rivals == {of(run).copy_index(side.opponent, run.context().for_move(side, 0))}
        run.done += 1


@pytest.mark.parametrize(("keep", "every", "duration"), [(1, 3, 1), (2, 3, 1), (3, 3, 1), (2, 4, 2), (1, 5, 1)])
def test_a_copy_is_the_player_one_step_after_the_stand_ins(keep: int, every: int, duration: int) -> None:
    """Buffers and all, in place of the oldest; the other copies stay as they are."""
    told = {"kind": "past_selves", "keep": keep, "every": every, "duration": duration}
    run = session("pictures", told, tempo={"kind": "ratio", "d": 2, "g": 2}, steps=20)
    trick = of(run)
    kept: dict[tuple[Side, int], dict[str, Tensor]] = {}
    remember = trick.after_update

    def watched(player: Player, move: MoveData) -> None:
        before = [state(net) for net in selves(trick, player.side)]
        remember(player, move)
        made, since = divmod(move.context.step - duration, every)
        for k, net in enumerate(selves(trick, player.side)):
            if since == 0 and k == made % keep:
                assert unequal(state(net), state(player.net)) == []
                kept[player.side, k] = state(player.net)
            else:
                assert unequal(state(net), before[k]) == []

    trick.after_update = watched  # type: ignore[method-assign]
    starts = {side: state(run.game.players[side].net) for side in Side}
    for _ in range(14):
        run.play(1)
        for side in Side:
            for k, net in enumerate(selves(trick, side)):
                expected = kept.get((side, k), starts[side])
                now = weights(net)
                assert unequal(now, {name: expected[name] for name in now}) == []
                assert not any(w.requires_grad or w.grad is not None for w in net.parameters())
    assert len(kept) == 2 * keep
    assert all(unequal(kept[side, k], starts[side]) for side, k in kept)


def test_an_old_g_draws_as_it_did_and_leaves_the_live_one_alone() -> None:
    """In D's move: the fakes are the copy's, by the batch's statistics; the live G keeps its running ones."""
    run = session("pictures", {"kind": "past_selves", "keep": 2, "every": 4, "duration": 2}, steps=20)
    trick = of(run)
    for _ in range(9):
        now = run.context().for_move(Side.D, 0)
        live, who = run.game.g.net, trick.copy_index(Side.G, now)
        before, plays = state(live), live if who is None else selves(trick, Side.G)[who]
        then, expected = state(plays), copy.deepcopy(plays).train()
        others = [state(net) for net in selves(trick, Side.G) if net is not plays]
        move = make_move(run.game, run.batches, now, run.metrics)
        with torch.no_grad():
            assert torch.equal(move.fake.detach(), expected(move.latents))
        changed = unequal(state(plays), then)
        assert changed
        assert all("running" in name or "num_batches" in name for name in changed), "its batch norms only"
        assert (unequal(state(live), before) == []) == (who is not None)
        still = [state(net) for net in selves(trick, Side.G) if net is not plays]
        assert all(unequal(a, b) == [] for a, b in zip(still, others, strict=True))
        make_move(run.game, run.batches, run.context().for_move(Side.G, 0), run.metrics)
        run.done += 1


def test_g_learns_from_the_old_d() -> None:
    """Its gradient is that through the copy's weights, not through today's; the copy gets none."""
    d, g = Bent(), Shift([0.3, 0.1])
    trick = PastSelves("past_selves", {Side.D: d, Side.G: g}, 1, 2, 1)
    game = by_hand(trick, d=d, g=g, lr=0.5)
    for at in range(2):
        alternate(game, Given(cloud(N, 2, seed=at)), context(at), StepMetrics())
    old = copy.deepcopy(selves(trick, Side.D)[0])
    with torch.no_grad():
        for w in d.parameters():
            w += 1.0
    start = g.by.detach().clone()
    move = make_move(game, Given(cloud(N, 2)), context(2, side=Side.G), StepMetrics())
    for judge, same in ((old, True), (d, False)):
        shift = start.clone().requires_grad_()
        score = judge(move.latents[:, :2] + shift).score
        (right,) = torch.autograd.grad(nn.functional.softplus(-score).mean(), shift)
        assert torch.allclose(gradients(g)[0], right, atol=1e-6) == same
    assert torch.allclose(g.by, start - 0.5 * gradients(g)[0], atol=1e-6)
    assert all(w.grad is None for w in selves(trick, Side.D)[0].parameters())
    assert all(w.requires_grad for w in d.parameters())


def test_copies_belong_to_no_optimiser_and_share_no_memory() -> None:
    run = session("pictures", {"kind": "past_selves", "keep": 2, "every": 3, "duration": 1}).play(5)
    copies = [w for side in Side for net in selves(of(run), side) for w in (*net.parameters(), *net.buffers())]
    optimised = {
        id(w) for p in run.game.players.values() for group in p.optimizer.param_groups for w in group["params"]
    }
    assert not optimised & {id(w) for w in copies}
    live = {w.data_ptr() for p in run.game.players.values() for w in (*p.net.parameters(), *p.net.buffers())}
    assert not live & {w.data_ptr() for w in copies}
    assert len({w.data_ptr() for w in copies}) == len(copies)


def test_copies_start_as_the_players_do() -> None:
    run = session("pictures", {"kind": "past_selves", "keep": 3, "every": 4, "duration": 1})
    for side in Side:
        assert len(selves(of(run), side)) == 3
        for net in selves(of(run), side):
            assert unequal(state(net), state(run.game.players[side].net)) == []


def test_with_no_duration_nothing_is_kept() -> None:
    run = session("points", {"kind": "past_selves", "keep": 3, "every": 1, "duration": 0}).play(3)
    assert not of(run).state_dict()
    assert unequal(run.saved(), session("points").play(3).saved()) == []


def test_while_g_waits_out_a_head_start_its_copies_are_its_start() -> None:
    d, g = Bent(), Shift([0.3, 0.1])
    trick = PastSelves("past_selves", {Side.D: d, Side.G: g}, 2, 3, 1)
    game = by_hand(trick, d=d, g=g, tempo=Ratio(1, 1, head_start=5))
    path = [weights(g)]
    for at in range(8):
        alternate(game, ring_feed(), context(at), StepMetrics())
        path.append(weights(g))
    assert unequal(path[4], path[0]) == []
    made = [weights(net) for net in selves(trick, Side.G)]
    assert [unequal(made[k], path[at]) for k, at in ((0, 8), (1, 5))] == [[], []]
    assert all(unequal(a, b) for a, b in pairwise(path[5:]))


# ---------------------------------------------------------------- the entry


def test_a_duration_of_every_is_refused_with_both_named() -> None:
    with pytest.raises(RecipeError) as refused:
        recipe("points", {"kind": "past_selves", "every": 11, "duration": 10})
    for part in ("tricks.0", "duration", "every", "10 of 11"):
        assert part in str(refused.value)
    assert recipe("points", {"kind": "past_selves", "every": 10, "duration": 8}).tricks


@pytest.mark.parametrize(("key", "value"), [("keep", 0), ("keep", 101), ("every", 0), ("duration", -1)])
def test_what_is_none_is_refused(key: str, value: int) -> None:
    with pytest.raises(RecipeError, match=key):
        recipe("points", {"kind": "past_selves", key: value})


def test_the_entry_builds_it() -> None:
    nets: dict[Side, nn.Module] = {Side.D: Bent(), Side.G: Shift([0.3, 0.1])}
    trick = PastSelvesConfig().build("past_selves", TrickContext(nets, DataSpec((2,))))
    assert (trick.name, trick.keep, trick.every, trick.duration) == ("past_selves", 3, 500, 10)
    assert set(trick.selves) == {"d", "g"}
    assert all(len(selves(trick, side)) == 3 for side in Side)
    told = PastSelvesConfig(keep=2, every=7, duration=5).build("x", TrickContext(nets, DataSpec((2,))))
    assert (told.name, told.keep, told.every, told.duration) == ("x", 2, 7, 5)
    now: MoveContext = context(7, steps=20)
    assert told.copy_index(Side.G, now) == 0
