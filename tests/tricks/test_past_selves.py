"""Past selves: which copy plays when, that copies equal past players, and that their weights are constant."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from contracts.tiny import Session, Shift, by_hand, context, recipe, ring_batches, session, unequal
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
from tricks.small import FixedBatches, N, TanhDiscriminator, gradients, randn

TABLE = [
    (4, 2, "....xx..xx..xx..xx.."),
    (6, 4, "......xxxx..xxxx..xx"),
    (5, 1, ".....x....x....x...."),
    (3, 1, "...x..x..x..x..x..x."),
    (7, 5, ".......xxxxx..xxxxx."),
    (3, 0, "...................."),
    (30, 28, "...................."),
]
"""every, duration, and in which of the first 20 steps a past copy plays."""


def trick_of(keep: int, every: int, duration: int, name: str = "past_selves") -> PastSelves:
    nets: dict[Side, nn.Module] = {Side.D: TanhDiscriminator(), Side.G: Shift([0.3, 0.1])}
    return PastSelves(name, nets, keep, every, duration)


def trick_in(run: Session) -> PastSelves:
    trick = run.game.tricks["past_selves"]
    assert isinstance(trick, PastSelves)
    return trick


def copies_of(trick: PastSelves, side: Side) -> list[nn.Module]:
    return list(trick.selves[side.value])  # type: ignore[arg-type]


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.named_parameters()}


# ---------------------------------------------------------------- which copy plays


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize(("every", "duration", "plan"), TABLE)
def test_a_copy_plays_in_the_first_steps_of_each_period(every: int, duration: int, plan: str, keep: int) -> None:
    trick = trick_of(keep, every, duration)
    for side in Side:
        net = nn.Identity()
        for at, sign in enumerate(plan):
            for turn in (0, 3):
                now = context(at, side=side.opponent, turn=turn, steps=20)
                index, network = trick.copy_index(side, now), trick.select_network(side, net, now)
                assert (index is not None) == (sign == "x"), at
                if index is None:
                    assert network is net
                    continue
                num_copies = at // every
                assert index == derive_seed(0, f"{side.value}/past_selves", num_copies) % min(num_copies, keep)
                assert network is copies_of(trick, side)[index]


def test_only_copies_that_exist_are_drawn() -> None:
    """With keep = 5: the first copy alone, then one of two, of three, of four, and of five from then on."""
    trick = trick_of(5, 10, 8)
    for num_copies in range(1, 12):
        drawn = {trick.copy_index(Side.G, context(10 * num_copies, seed=seed, steps=200)) for seed in range(100)}
        assert drawn == set(range(min(num_copies, 5)))


def test_one_copy_plays_for_the_whole_duration() -> None:
    trick = trick_of(4, 6, 5)
    for num_copies in range(4, 40):
        indices = {trick.copy_index(Side.D, context(6 * num_copies + k, turn=k, steps=300)) for k in range(5)}
        assert len(indices) == 1
        assert None not in indices


@pytest.mark.parametrize("keep", [2, 3, 7])
def test_copies_are_drawn_uniformly(keep: int) -> None:
    trick = trick_of(keep, 10, 1)
    for side in Side:
        counts = Counter(trick.copy_index(side, context(10 * period, steps=10)) for period in range(keep, keep + 3000))
        assert set(counts) == set(range(keep))
        assert chisquare(list(counts.values())).pvalue > 1e-3


def test_sides_seeds_and_names_have_independent_draws() -> None:
    def drawn(side: Side, name: str = "past_selves", seed: int = 0) -> list[int | None]:
        trick = trick_of(4, 3, 1, name)
        return [trick.copy_index(side, context(3 * at, seed=seed, steps=10)) for at in range(4, 200)]

    first = drawn(Side.D)
    assert first == drawn(Side.D)
    for other in (drawn(Side.G), drawn(Side.D, "past_selves_2"), drawn(Side.D, seed=1)):
        same = sum(a == b for a, b in zip(first, other, strict=True))
        assert 20 < same < 80, "a quarter of 196"


# ---------------------------------------------------------------- in a game with batch norms


def record_calls(run: Session) -> list[tuple[Side, int | None]]:
    """A list that is filled with every network that runs: the live one (None), or the index of the copy."""
    calls_seen: list[tuple[Side, int | None]] = []
    for side in Side:
        for index, net in [(None, run.game.players[side].net), *enumerate(copies_of(trick_in(run), side))]:
            net.register_forward_pre_hook(lambda _net, _given, call=(side, index): calls_seen.append(call))
    return calls_seen


@pytest.mark.parametrize(("every", "duration", "plan"), [row for row in TABLE if row[0] < 6])
def test_in_a_game_only_the_opponent_is_replaced(every: int, duration: int, plan: str) -> None:
    settings = {"kind": "past_selves", "keep": 2, "every": every, "duration": duration}
    run = session("pictures", settings, steps=20)
    calls_seen = record_calls(run)
    for at, sign in enumerate(plan[:12]):
        for side in (Side.D, Side.G):
            calls_seen.clear()
            make_move(run.game, run.batches, run.context().for_move(side, 0), run.metrics)
            movers = {index for caller, index in calls_seen if caller is side}
            rivals = {index for caller, index in calls_seen if caller is side.opponent}
            assert movers == {None}
            assert len(rivals) == 1
            assert (rivals != {None}) == (sign == "x"), (at, side)
            assert rivals == {trick_in(run).copy_index(side.opponent, run.context().for_move(side, 0))}
        run.done += 1


@pytest.mark.parametrize(("keep", "every", "duration"), [(1, 3, 1), (2, 3, 1), (3, 3, 1), (2, 4, 2), (1, 5, 1)])
def test_a_copy_is_taken_one_step_after_the_copies_have_played(keep: int, every: int, duration: int) -> None:
    """With its buffers, in place of the oldest; the other copies do not change."""
    settings = {"kind": "past_selves", "keep": keep, "every": every, "duration": duration}
    run = session("pictures", settings, tempo={"kind": "ratio", "d": 2, "g": 2}, steps=20)
    trick = trick_in(run)
    expected_states: dict[tuple[Side, int], dict[str, Tensor]] = {}
    original = trick.after_update

    def checked_update(player: Player, move: MoveData) -> None:
        before = [state(net) for net in copies_of(trick, player.side)]
        original(player, move)
        num_copies, offset = divmod(move.context.step - duration, every)
        for k, net in enumerate(copies_of(trick, player.side)):
            if offset == 0 and k == num_copies % keep:
                assert unequal(state(net), state(player.net)) == []
                expected_states[player.side, k] = state(player.net)
            else:
                assert unequal(state(net), before[k]) == []

    trick.after_update = checked_update  # type: ignore[method-assign]
    starts = {side: state(run.game.players[side].net) for side in Side}
    for _ in range(14):
        run.play(1)
        for side in Side:
            for k, net in enumerate(copies_of(trick, side)):
                expected = expected_states.get((side, k), starts[side])
                now = weights(net)
                assert unequal(now, {name: expected[name] for name in now}) == []
                assert not any(w.requires_grad or w.grad is not None for w in net.parameters())
    assert len(expected_states) == 2 * keep
    assert all(unequal(expected_states[side, k], starts[side]) for side, k in expected_states)


def test_an_old_g_generates_samples_and_the_live_one_is_unchanged() -> None:
    """In D's move, the fakes are the copy's, with batch statistics; the live G's running statistics do not change."""
    run = session("pictures", {"kind": "past_selves", "keep": 2, "every": 4, "duration": 2}, steps=20)
    trick = trick_in(run)
    for _ in range(9):
        now = run.context().for_move(Side.D, 0)
        live, index = run.game.g.net, trick.copy_index(Side.G, now)
        before, network = state(live), live if index is None else copies_of(trick, Side.G)[index]
        state_before, expected = state(network), copy.deepcopy(network).train()
        others = [state(net) for net in copies_of(trick, Side.G) if net is not network]
        move = make_move(run.game, run.batches, now, run.metrics)
        with torch.no_grad():
            assert torch.equal(move.fake.detach(), expected(move.latents))
        changed = unequal(state(network), state_before)
        assert changed
        assert all("running" in name or "num_batches" in name for name in changed), "batch norm statistics only"
        assert (unequal(state(live), before) == []) == (index is not None)
        others_after = [state(net) for net in copies_of(trick, Side.G) if net is not network]
        assert all(unequal(a, b) == [] for a, b in zip(others_after, others, strict=True))
        make_move(run.game, run.batches, run.context().for_move(Side.G, 0), run.metrics)
        run.done += 1


def test_g_is_trained_by_the_old_d() -> None:
    """Its gradient is that through the copy's weights, not the current ones; the copy gets none."""
    d, g = TanhDiscriminator(), Shift([0.3, 0.1])
    trick = PastSelves("past_selves", {Side.D: d, Side.G: g}, 1, 2, 1)
    game = by_hand(trick, d=d, g=g, lr=0.5)
    for at in range(2):
        alternate(game, FixedBatches(randn(N, 2, seed=at)), context(at), StepMetrics())
    old = copy.deepcopy(copies_of(trick, Side.D)[0])
    with torch.no_grad():
        for w in d.parameters():
            w += 1.0
    start = g.by.detach().clone()
    move = make_move(game, FixedBatches(randn(N, 2)), context(2, side=Side.G), StepMetrics())
    for judge, same in ((old, True), (d, False)):
        shift = start.clone().requires_grad_()
        score = judge(move.latents[:, :2] + shift).score
        (expected,) = torch.autograd.grad(nn.functional.softplus(-score).mean(), shift)
        assert torch.allclose(gradients(g)[0], expected, atol=1e-6) == same
    assert torch.allclose(g.by, start - 0.5 * gradients(g)[0], atol=1e-6)
    assert all(w.grad is None for w in copies_of(trick, Side.D)[0].parameters())
    assert all(w.requires_grad for w in d.parameters())


def test_copies_are_in_no_optimiser_and_share_no_memory() -> None:
    run = session("pictures", {"kind": "past_selves", "keep": 2, "every": 3, "duration": 1}).play(5)
    copies = [w for side in Side for net in copies_of(trick_in(run), side) for w in (*net.parameters(), *net.buffers())]
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
        assert len(copies_of(trick_in(run), side)) == 3
        for net in copies_of(trick_in(run), side):
            assert unequal(state(net), state(run.game.players[side].net)) == []


def test_with_duration_0_nothing_is_kept() -> None:
    run = session("points", {"kind": "past_selves", "keep": 3, "every": 1, "duration": 0}).play(3)
    assert not trick_in(run).state_dict()
    assert unequal(run.saved(), session("points").play(3).saved()) == []


def test_during_a_head_start_the_copies_are_the_initial_g() -> None:
    d, g = TanhDiscriminator(), Shift([0.3, 0.1])
    trick = PastSelves("past_selves", {Side.D: d, Side.G: g}, 2, 3, 1)
    game = by_hand(trick, d=d, g=g, tempo=Ratio(1, 1, head_start=5))
    path = [weights(g)]
    for at in range(8):
        alternate(game, ring_batches(), context(at), StepMetrics())
        path.append(weights(g))
    assert unequal(path[4], path[0]) == []
    made = [weights(net) for net in copies_of(trick, Side.G)]
    assert [unequal(made[k], path[at]) for k, at in ((0, 8), (1, 5))] == [[], []]
    assert all(unequal(a, b) for a, b in pairwise(path[5:]))


# ---------------------------------------------------------------- the config


def test_a_duration_above_every_minus_2_is_rejected() -> None:
    with pytest.raises(RecipeError) as rejected:
        recipe("points", {"kind": "past_selves", "every": 11, "duration": 10})
    for part in ("tricks.0", "duration", "every", "10 of 11"):
        assert part in str(rejected.value)
    assert recipe("points", {"kind": "past_selves", "every": 10, "duration": 8}).tricks


@pytest.mark.parametrize(("key", "value"), [("keep", 0), ("keep", 101), ("every", 0), ("duration", -1)])
def test_invalid_values_are_rejected(key: str, value: int) -> None:
    with pytest.raises(RecipeError, match=key):
        recipe("points", {"kind": "past_selves", key: value})


def test_the_config_builds_the_trick() -> None:
    nets: dict[Side, nn.Module] = {Side.D: TanhDiscriminator(), Side.G: Shift([0.3, 0.1])}
    trick = PastSelvesConfig().build("past_selves", TrickContext(nets, DataSpec((2,))))
    assert (trick.name, trick.keep, trick.every, trick.duration) == ("past_selves", 3, 500, 10)
    assert set(trick.selves) == {"d", "g"}
    assert all(len(copies_of(trick, side)) == 3 for side in Side)
    settings = PastSelvesConfig(keep=2, every=7, duration=5).build("x", TrickContext(nets, DataSpec((2,))))
    assert (settings.name, settings.keep, settings.every, settings.duration) == ("x", 2, 7, 5)
    now: MoveContext = context(7, steps=20)
    assert settings.copy_index(Side.G, now) == 0
