"""The training step: moves, their samples and losses, and that nothing in it waits for the device."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import (
    BATCH,
    CPU,
    WORLDS,
    Counted,
    Linear,
    Session,
    Shift,
    by_hand,
    context,
    no_waiting,
    one_thread,
    recipe,
    ring_batches,
    session,
    source,
    unequal,
)
from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.random_streams import RandomStreams
from poise.core.types import Batch, DiscriminatorOutput, Side, Targets
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.engine.step import alternate, compute_loss, discriminate, make_move, sample
from poise.engine.step_metrics import StepMetrics
from poise.networks.mlp import MLPDiscriminatorConfig
from poise.objectives.base import Losses
from poise.objectives.pointwise import NonSaturating
from poise.tempo import Ratio
from poise.tricks.gradient_penalties import R1
from poise.tricks.soft_labels import SoftLabels


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


# ---------------------------------------------------------------- moves


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("world", WORLDS)
def test_a_move_changes_only_its_own_player(side: Side, world: str) -> None:
    """Bit for bit. Statistics of batch norm are not weights and may change."""
    run = session(world)
    players = run.game.players
    before = {s: parameters(players[s].net) for s in Side}
    states = copy.deepcopy(players[side.opponent].optimizer.state_dict())
    make_move(run.game, run.batches, run.context().for_move(side, 0), run.metrics)
    after = {s: parameters(players[s].net) for s in Side}
    assert unequal(before[side.opponent], after[side.opponent]) == []
    assert unequal(before[side], after[side]) == sorted(before[side]), "every weight of the moving player changes"
    assert players[side.opponent].optimizer.state_dict() == states
    if world == "points":
        buffers = dict(players[side.opponent].net.named_buffers())
        assert buffers == {}


@pytest.mark.parametrize("side", list(Side))
def test_the_opponent_gets_no_gradient(side: Side) -> None:
    run = session("pictures")
    opponent = run.game.players[side.opponent]
    make_move(run.game, run.batches, run.context().for_move(side, 0), run.metrics)
    assert all(w.grad is None for w in opponent.weights)
    assert all(w.grad is not None for w in run.game.players[side].weights)
    assert all(w.requires_grad for p in run.game.players.values() for w in p.weights)


def test_the_opponents_weights_are_frozen_during_a_move() -> None:
    requires_grad: list[tuple[Side, bool, bool]] = []
    game = by_hand()

    class Spy(LossTerm):
        def loss(self, move: MoveData) -> Tensor:
            requires_grad.append((move.context.side, game.d.net.weight.requires_grad, game.g.net.by.requires_grad))
            return move.score("fake").sum() * 0

    game = by_hand(Spy("spy", 1.0), d=game.d.net, g=game.g.net)
    alternate(game, ring_batches(), context(), StepMetrics())
    assert requires_grad == [(Side.D, True, False), (Side.G, False, True)]


def test_only_gs_move_has_a_graph_through_g() -> None:
    game = by_hand()
    assert not sample(game, ring_batches(), context()).fake.requires_grad
    assert sample(game, ring_batches(), context(side=Side.G)).fake.requires_grad


@pytest.mark.parametrize("side", list(Side))
def test_requires_grad_is_restored_after_an_error(side: Side) -> None:
    class Broken(LossTerm):
        def loss(self, move: MoveData) -> Tensor:
            raise ZeroDivisionError

    game = by_hand(Broken("broken", 1.0))
    with pytest.raises(ZeroDivisionError):
        make_move(game, ring_batches(), context(side=side), StepMetrics())
    assert game.d.net.weight.requires_grad
    assert game.g.net.by.requires_grad
    assert torch.is_grad_enabled()


def test_gradients_do_not_accumulate_over_moves() -> None:
    """The same move twice at rate 0 gives the same gradient, not its double."""
    game = by_hand(lr=0.0)
    for _ in range(2):
        make_move(game, ring_batches(), context(), StepMetrics())
    again = game.d.net.weight.grad.clone()
    fresh = by_hand(lr=0.0)
    make_move(fresh, ring_batches(), context(), StepMetrics())
    assert torch.equal(again, fresh.d.net.weight.grad)


# ---------------------------------------------------------------- numbers of moves and their batches


def test_the_tempo_determines_the_number_of_optimiser_steps() -> None:
    game, batches = by_hand(tempo=Ratio(3, 2)), Counted(3)
    played: list[Side] = []
    for side, player in game.players.items():
        step = player.optimizer.step
        player.optimizer.step = lambda side=side, step=step: played.append(side) or step()  # type: ignore[method-assign]
    for at in range(2):
        alternate(game, batches, context(at), StepMetrics())
    assert played == [Side.D, Side.D, Side.D, Side.G, Side.G] * 2


def test_every_move_of_d_gets_the_next_real_batch() -> None:
    batches, streams = Counted(3), RandomStreams(0)
    for at in range(2):
        alternate(by_hand(tempo=Ratio(3, 2)), batches, context(at), StepMetrics())
    assert batches.asked == [(Side.D, at, turn) for at in range(2) for turn in range(3)], (
        "G needs no real samples and loads none"
    )
    expected = [batches.source.batch(index, BATCH, streams).images for index in range(6)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batches.given, expected, strict=True))
    assert len({tuple(given.flatten().tolist()) for given in batches.given}) == 6


def test_every_move_samples_new_latents() -> None:
    run = session("points", tempo={"kind": "ratio", "d": 2, "g": 2}).play(2)
    assert len(run.moves) == 8
    assert len({tuple(played_move.latents.flatten().tolist()) for played_move in run.moves}) == 8
    assert {tuple(played_move.latents.shape) for played_move in run.moves} == {(BATCH, 3)}


class Relative(NonSaturating):
    """An objective whose loss of G uses real samples too."""

    is_relativistic = True

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        assert real is not None
        return (softplus(real - fake),)


def test_gs_move_gets_the_real_batch_of_ds_move_of_the_same_turn() -> None:
    """If G moves more often, it gets that of D's last move."""
    batches = Counted(2)
    alternate(by_hand(objective=Relative(), tempo=Ratio(2, 4)), batches, context(5), StepMetrics())
    assert [side for side, *_ in batches.asked] == [Side.D] * 2 + [Side.G] * 4
    for theirs, ours in zip((0, 1, 1, 1), batches.given[2:], strict=True):
        assert torch.equal(batches.given[theirs], ours)


def test_an_epoch_contains_every_image_once() -> None:
    """40 images in batches of 8 and two moves of D per step: ten moves are two epochs."""
    run = session("pictures", tempo={"kind": "ratio", "d": 2, "g": 1}).play(5)
    reals = torch.cat([m.real for m in run.of(Side.D)]).flatten(1)
    every = run.source.preview(40).flatten(1)
    for epoch in (reals[:40], reals[40:]):
        assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, every.tolist()))
    assert not torch.equal(reals[:40], reals[40:])


# ---------------------------------------------------------------- one or two passes through D


@pytest.mark.parametrize("side", list(Side))
def test_one_pass_equals_two_passes_without_batch_norm(side: Side) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        d = MLPDiscriminatorConfig(width=16, depth=3).build((2,))
    found: dict[Any, list[Tensor]] = {}
    for discriminate_fn in (discriminate_separately, discriminate_jointly):
        game = by_hand(d=copy.deepcopy(d), judge=discriminate_fn, objective=Relative(), lr=0.0)
        move = sample(game, ring_batches(), context(side=side))
        discriminate(game, move)
        loss = compute_loss(game, move)
        loss.backward()
        scores = [move.score("real"), move.score("fake")]
        found[discriminate_fn] = [*scores, loss, *(w.grad for w in game.players[side].weights)]
    assert len(found[discriminate_separately]) > 3
    for one, two in zip(found[discriminate_jointly], found[discriminate_separately], strict=True):
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-6)


class Order(nn.Module):
    """Scores a sample by its index in the batch."""

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=torch.arange(float(len(images))))


def test_each_batch_gets_its_own_output() -> None:
    real, fake = torch.zeros(2, 2), torch.zeros(3, 2)
    shared, split = (
        discriminate_jointly(Order(), Batch(real), Batch(fake)),
        discriminate_separately(Order(), Batch(real), Batch(fake)),
    )
    assert shared["real"].score.tolist() == [0, 1]
    assert shared["fake"].score.tolist() == [2, 3, 4]
    assert (split["real"].score.tolist(), split["fake"].score.tolist()) == ([0, 1], [0, 1, 2])
    assert (
        discriminate_jointly(Order(), None, Batch(fake)).keys()
        == discriminate_separately(Order(), None, Batch(fake)).keys()
        == {"fake"}
    )


def norm(world: str, kind: str) -> dict[str, Any]:
    network = {"kind": "mlp", "width": 4} if world == "points" else {"kind": "dcgan", "width": 2}
    return {"g": network, "d": {**network, "norm": kind}}


@pytest.mark.parametrize(
    ("world", "of_d", "judging", "tricks", "expected"),
    [
        ("points", "none", "apart", [], discriminate_jointly),
        ("pictures", "none", "apart", [], discriminate_jointly),
        ("points", "batch", "apart", [], discriminate_separately),
        ("pictures", "batch", "apart", [], discriminate_separately),
        ("pictures", "batch", "together", [], discriminate_jointly),
        ("points", "none", "apart", ["r1"], discriminate_separately),
        ("points", "none", "together", ["r1"], discriminate_jointly),
        ("points", "none", "apart", ["instance_noise", "soft_labels", "averaged_weights"], discriminate_jointly),
    ],
)
def test_one_pass_is_chosen_only_if_it_is_equivalent(
    world: str, of_d: str, judging: str, tricks: list[str], expected: object
) -> None:
    config = recipe(world, *({"kind": kind} for kind in tricks), network=norm(world, of_d), judging=judging)
    game = build_game(config, source(world).spec(), ComputeSettings(CPU, "fp32"), RandomStreams(0))
    assert game.discriminate is expected


def test_gs_batch_norm_does_not_require_two_passes() -> None:
    network = {"g": {"kind": "mlp", "norm": "batch"}, "d": {"kind": "mlp"}}
    assert Session(recipe("points", network=network), source("points")).game.discriminate is discriminate_jointly


# ---------------------------------------------------------------- losses


def test_the_loss_at_equilibrium_is_log_two() -> None:
    """The logged loss is the mean over both halves: log 2 for each player."""
    metrics = StepMetrics()
    game = by_hand(d=Linear([0.0, 0.0]), lr=0.0)
    alternate(game, ring_batches(), context(), metrics)
    stats = metrics.reduce()
    assert stats["d/adversarial"].mean == pytest.approx(math.log(2), rel=1e-6)
    assert stats["g/adversarial"].mean == pytest.approx(math.log(2), rel=1e-6)


def discriminated(game: Any, batches: RealBatches, at: Any) -> MoveData:
    """The data of the move at `at`; sampling and discriminating change nothing without batch norm."""
    move = sample(game, batches, at)
    with torch.no_grad():
        discriminate(game, move)
    return move


def test_the_logged_loss_is_the_mean_of_both_halves() -> None:
    game, metrics = by_hand(lr=0.0), StepMetrics()
    move = discriminated(game, ring_batches(), context())
    real, fake = softplus(-move.score("real")).mean(), softplus(move.score("fake")).mean()
    make_move(game, ring_batches(), context(), metrics)
    assert metrics.reduce()["d/adversarial"].mean == pytest.approx(float((real + fake) / 2), rel=1e-6)


class Pull(LossTerm):
    """Penalises D's mean score of the real samples."""

    needs_output = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        return move.score("real").mean()


def test_ds_gradient_equals_that_of_a_reference_loss() -> None:
    """With soft targets, both halves summed, R1 and a second weighted term: the gradient and the update."""
    soft, lr = SoftLabels("soft", (0.7, 1.2), (0.0, 0.3)), 0.05
    game, metrics = by_hand(soft, R1("r1", 3.0), Pull("pull", 0.5), lr=lr), StepMetrics()
    at = context(2)
    start = [w.detach().clone() for w in game.d.weights]
    seen = discriminated(by_hand(), ring_batches(), at)
    make_move(game, ring_batches(), at, metrics)

    d = Linear(start[0].tolist(), float(start[1])).double()
    real, fake = seen.samples("real").detach().double().requires_grad_(), seen.fake.double()
    score, fake_score = d(real).score, d(fake).score
    hard = Targets(torch.ones(BATCH), torch.zeros(BATCH))
    t = soft.transform_targets(hard, at)
    entropy = (t.real * softplus(-score) + (1 - t.real) * softplus(score)).mean()
    entropy = entropy + (t.fake * softplus(-fake_score) + (1 - t.fake) * softplus(fake_score)).mean()
    (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    penalty = gradient.square().sum(1).mean() / 2
    pull = score.mean()
    gradients = torch.autograd.grad(entropy + 3.0 * penalty + 0.5 * pull, list(d.parameters()))

    for weight, before, grad in zip(game.d.weights, start, gradients, strict=True):
        assert torch.allclose(weight.grad.double(), grad, atol=1e-6)
        assert torch.allclose(weight.detach(), before - lr * grad.float(), atol=1e-6)
    stats = metrics.reduce()
    expected = {"d/adversarial": entropy / 2, "d/r1": penalty, "d/pull": pull}
    for name, number in expected.items():
        assert stats[name].mean == pytest.approx(float(number.detach()), rel=1e-5), "logged alone and unweighted"
    length = torch.cat([g.flatten() for g in gradients]).norm()
    assert stats["d/grad_norm"].mean == pytest.approx(float(length.detach()), rel=1e-5)
    assert stats["d/real_score"].mean == pytest.approx(float(score.mean().detach()), rel=1e-5)
    assert stats["d/fake_score"].mean == pytest.approx(float(fake_score.mean().detach()), rel=1e-5)


def test_gs_gradient_equals_that_of_a_reference_loss() -> None:
    game, metrics = by_hand(lr=0.05), StepMetrics()
    at = context(1, side=Side.G)
    before = game.g.net.by.detach().clone()
    latents = sample(game, ring_batches(), at).latents
    make_move(game, ring_batches(), at, metrics)
    g, d = Shift(before.tolist()).double(), Linear([0.5, -0.25]).double()
    loss = softplus(-d(g(latents.double())).score).mean()
    (grad,) = torch.autograd.grad(loss, g.by)
    assert torch.allclose(game.g.net.by.detach(), before - 0.05 * grad.float(), atol=1e-6)
    assert metrics.reduce()["g/adversarial"].mean == pytest.approx(float(loss.detach()), rel=1e-6)


def test_a_lazy_term_is_computed_in_every_fourth_step_with_four_times_the_weight() -> None:
    def gradients(*terms: LossTerm) -> tuple[list[Tensor], StepMetrics]:
        game, metrics = by_hand(*terms, lr=0.0), StepMetrics()
        found = []
        for at in range(9):
            make_move(game, ring_batches(), context(at), metrics)
            found.append(game.d.net.bias.grad.clone())
        return found, metrics

    plain, _ = gradients()
    lazy, metrics = gradients(Pull("pull", 0.25, every=4))
    force = [float(a - b) for a, b in zip(lazy, plain, strict=True)]
    assert force == pytest.approx([1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0], abs=1e-6)
    assert len(metrics.state_dict()["d/pull"]) == 3
    assert len(metrics.state_dict()["d/adversarial"]) == 9


class Never(LossTerm):
    """Must not be computed."""

    needs_input_gradient = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        pytest.fail("a term of weight 0 was computed")


def test_a_term_of_weight_zero_is_never_computed() -> None:
    game, metrics = by_hand(Never("never", 0.0)), StepMetrics()
    assert game.requirements(context()).input_gradients == ()
    alternate(game, ring_batches(), context(), metrics)
    assert "d/never" not in metrics.reduce()
    off_duty = by_hand(Never("never", 1.0, every=3))
    make_move(off_duty, ring_batches(), context(1), StepMetrics())
    assert off_duty.requirements(context(3)).input_gradients == ("real",)


def test_gs_move_loads_real_samples_only_if_needed() -> None:
    at = context(side=Side.G)
    assert sample(by_hand(), ring_batches(), at).real is None
    assert sample(by_hand(Pull("pull", 1.0)), ring_batches(), at).real is not None
    assert sample(by_hand(Pull("pull", 0.0)), ring_batches(), at).real is None
    assert sample(by_hand(Pull("pull", 1.0, every=2)), ring_batches(), context(1, side=Side.G)).real is None
    assert sample(by_hand(objective=Relative()), ring_batches(), at).real is not None


# ---------------------------------------------------------------- no synchronisation


def test_reading_a_tensor_is_detected() -> None:
    """A test of `no_waiting`, which the next test and others use."""
    for read in (float, int, bool, lambda x: x.item(), lambda x: x.tolist(), lambda x: [1, 2][x.long()]):
        with no_waiting(), pytest.raises(AssertionError, match="waited"):
            read(torch.ones(()))
    assert float(torch.ones(())) == 1


@pytest.mark.parametrize("world", WORLDS)
def test_the_step_never_waits_for_the_device(world: str) -> None:
    """Only a logged row reads values. For all tricks see tests/contracts/test_tricks.py."""
    run = session(world).play(1)  # optimisers make their moments
    with no_waiting():
        for _ in range(2):
            alternate(run.game, run.batches, run.context(), run.metrics)
            run.done += 1
    assert run.metrics.reduce()["d/adversarial"].mean > 0


def test_the_step_is_in_float32_under_bfloat16() -> None:
    """Networks run in bfloat16; scores, losses and gradients of weights are in float32."""
    run = Session(recipe("pictures", {"kind": "r1"}), source("pictures"), precision="bf16")
    inside: list[torch.dtype] = []
    run.game.d.net.trunk[0].register_forward_hook(lambda m, x, y: inside.append(y.dtype))
    run.play(2)
    assert set(inside) == {torch.bfloat16}
    move = run.moves[0].move
    assert move.score("real").dtype == move.fake.dtype == torch.float32
    assert all(w.dtype == w.grad.dtype == torch.float32 for p in run.game.players.values() for w in p.weights)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
