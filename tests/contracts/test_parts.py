"""The smaller exams: every objective, latent law, network, tempo and optimiser there is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import BATCH, CPU, WORLDS, Session, misfits, moment, recipe, session, source, suited, unequal
from poise.core import Shape, Side, Subject, Targets, Verdict
from poise.dials import Linear
from poise.entries import Part, kinds
from poise.latents import Latent
from poise.networks.blocks import Discriminator, Generator, mixes_samples
from poise.networks.norms import Norm
from poise.objectives.base import Objective, Rule
from poise.optimizers import OptimizerEntry
from poise.recipe.fit import fit
from poise.recipe.read import decode
from poise.recipe.text import parse
from poise.tempo import TempoEntry
from poise.training.build import build
from poise.training.machine import Machine
from poise.training.state import restore_game
from poise.training.step import STEPS

OBJECTIVES = kinds(Objective, "poise.objectives")
LATENTS = kinds(Latent, "poise.latents")
GENERATORS = kinds(Generator, "poise.networks")
DISCRIMINATORS = kinds(Discriminator, "poise.networks")
TEMPOS = kinds(TempoEntry, "poise.tempo")
OPTIMIZERS = kinds(OptimizerEntry, "poise.optimizers")
SHAPES: list[Shape] = [(2,), (1, 8, 8), (3, 16, 16)]
UNFIT = {"mlp": {"instance"}, "flat_autoencoder": {"instance"}}
"""Norms that a kind of network has no place for."""


def every(family: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", list(family))


def both_players(part: dict[str, Any]) -> dict[str, Any]:
    return {"g": part, "d": part}


def each_part() -> Iterable[tuple[str, str, dict[str, Any]]]:
    for kind in OBJECTIVES:
        yield "objective", kind, {"kind": kind}
    for kind in LATENTS:
        yield "latent", kind, {"kind": kind}
    for kind in TEMPOS:
        yield "tempo", kind, {"kind": kind}
    for kind in OPTIMIZERS:
        yield "optimizer", kind, both_players({"kind": kind})
    for kind in GENERATORS.keys() & DISCRIMINATORS.keys():
        yield "network", kind, both_players({"kind": kind})


@pytest.mark.parametrize(("table", "kind", "part"), sorted(each_part(), key=str))
def test_survives_toml(table: str, kind: str, part: dict[str, Any]) -> None:
    before = recipe("pictures", **{table: part})
    after = decode(parse(before.to_toml(), "recipe.toml"))
    assert after == before
    assert after.hash == before.hash


@pytest.mark.parametrize(
    "family", [OBJECTIVES, LATENTS, GENERATORS, DISCRIMINATORS, TEMPOS, OPTIMIZERS], ids=lambda f: min(f)
)
def test_builds_from_defaults_is_documented_and_frozen(family: dict[str, type[Part]]) -> None:
    assert family
    for kind, part in family.items():
        entry = part()
        assert entry.tag() == kind
        assert part.__doc__
        with pytest.raises(ValueError, match="frozen"):
            entry.kind = "another"  # type: ignore[attr-defined]


# ---------------------------------------------------------------- objectives

PLAYING: dict[str, dict[str, Any]] = {"began": {"k": 0.5}}
"""Settings under which both players pay already at the start; elsewhere the defaults do."""


def rule(kind: str) -> Rule[Any]:
    return OBJECTIVES[kind](**PLAYING.get(kind, {})).build()


def reads_energy_alone(kind: str) -> bool:
    return OBJECTIVES[kind].reads == {"energy"}


def score(kind: str, number: float) -> float:
    """The number as a D that this objective reads might say it: an energy's minus is never above 0."""
    return -abs(number) if reads_energy_alone(kind) else number


def unsure(kind: str) -> float:
    """A score at which neither player has won."""
    undecided = OBJECTIVES[kind]().undecided
    return score(kind, 1.0 if reads_energy_alone(kind) else 0.0) if undecided is None else undecided


def d_cost(objective: Rule[Any], real: Tensor, fake: Tensor, targets: Targets | None = None) -> Tensor:
    costs = objective.d_costs(real, fake, targets, moment())
    assert all(cost.shape == real.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


def g_cost(objective: Rule[Any], real: Tensor, fake: Tensor) -> Tensor:
    costs = objective.g_costs(fake, real if objective.compares else None, moment(side=Side.G))
    assert all(cost.shape == fake.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


@every(OBJECTIVES)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_objective_is_finite_far_out(kind: str, size: float) -> None:
    """With scores of any size and sign that D can say, in float32, costs and gradients stay finite."""
    objective = rule(kind)
    for a in (-size, size):
        for b in (-size, size):
            real = torch.full((4,), score(kind, a), requires_grad=True)
            fake = torch.full((4,), score(kind, b), requires_grad=True)
            for cost in (d_cost(objective, real, fake), g_cost(objective, real, fake)):
                grads = torch.autograd.grad(cost, (real, fake), allow_unused=True)
                assert torch.isfinite(cost)
                assert all(torch.isfinite(g).all() for g in grads if g is not None)


@every(OBJECTIVES)
def test_objective_pulls_the_right_way(kind: str) -> None:
    """Where D can't tell, D wants reals higher and fakes lower, and G wants its fakes higher."""
    objective = rule(kind)
    real, fake = (torch.full((5,), unsure(kind), requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(d_cost(objective, real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()
    (mine,) = torch.autograd.grad(g_cost(objective, real, fake), fake)
    assert (mine < 0).all()


@every(OBJECTIVES)
def test_objective_equilibrium_is_its_cost_where_d_cannot_tell(kind: str) -> None:
    entry, objective = OBJECTIVES[kind](), rule(kind)
    same = torch.full((3,), unsure(kind), dtype=torch.float64)
    costs = {
        Side.D: objective.d_costs(same, same, None, moment()),
        Side.G: objective.g_costs(same, same if objective.compares else None, moment(side=Side.G)),
    }
    assert set(entry.equilibrium) in (set(), set(Side))
    for side, told in entry.equilibrium.items():
        mean = torch.stack([cost.mean() for cost in costs[side]]).mean()
        assert float(mean) == pytest.approx(told, abs=1e-12)


@every(OBJECTIVES)
def test_objective_takes_targets_as_declared(kind: str) -> None:
    """Hard targets are no targets, bit for bit; soft ones cost something else."""
    if not OBJECTIVES[kind].takes_targets:
        softened = fit(recipe("points", {"kind": "soft_labels"}, **suited("points", kind)))
        assert [finding.field for finding in softened.refusals] == ["tricks.0"]
        return
    objective, scores = rule(kind), torch.linspace(-30, 30, 61)
    ones, zeros = torch.ones_like(scores), torch.zeros_like(scores)
    none, hard, soft = (
        objective.d_costs(scores, scores, targets, moment())
        for targets in (None, Targets(ones, zeros), Targets(0.9 * ones, zeros + 0.1))
    )
    for a, b, c in zip(none, hard, soft, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)


@every(OBJECTIVES)
def test_objective_says_which_d_it_reads(kind: str) -> None:
    """A D that says something else is refused, with the objective named; a D that says this is taken."""
    for says, network in (("score", {"kind": "mlp"}), ("energy", {"kind": "flat_autoencoder"})):
        told = recipe("points", objective={"kind": kind}, network={"g": {"kind": "mlp"}, "d": network})
        refused = [finding.field for finding in fit(told).refusals]
        assert refused == ([] if says in OBJECTIVES[kind].reads else ["objective"])


@every(OBJECTIVES)
@pytest.mark.parametrize("world", WORLDS)
def test_objective_trains_and_resumes(kind: str, world: str) -> None:
    told = recipe(world, **suited(world, kind))
    assert misfits(told, world).refusals == []
    whole = Session(told, source(world)).play(6)
    assert all(torch.isfinite(t).all() for t in whole.saved().values())
    half = Session(told, source(world)).play(3)
    assert unequal(half.resumed().play(3).saved(), whole.saved()) == []


# ---------------------------------------------------------------- latents


@every(LATENTS)
def test_latents_are_a_function_of_the_generator(kind: str) -> None:
    law = LATENTS[kind](dim=7)
    before = torch.get_rng_state()
    first = law.draw(50, torch.Generator().manual_seed(1))
    assert first.shape == (50, 7)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert len(torch.unique(first, dim=0)) == 50
    assert torch.equal(first, law.draw(50, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, law.draw(50, torch.Generator().manual_seed(2)))
    assert torch.equal(before, torch.get_rng_state()), "nobody else's dice are moved"


@every(LATENTS)
def test_latents_train(kind: str) -> None:
    run = session("points", latent={"kind": kind, "dim": 4}).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    assert {tuple(move.latents.shape) for move in run.moves} == {(BATCH, 4)}


# ---------------------------------------------------------------- networks


@every(GENERATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_generator(kind: str, shape: Shape) -> None:
    entry = GENERATORS[kind](width=4)
    if (why := entry.misfit(shape)) is not None:
        assert all(why), "a misfit has a reason and a cure"
        return
    nets = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets.append(entry.build(5, shape))
    latents = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    samples = nets[0](latents)
    assert samples.shape == (6, *shape)
    assert torch.equal(samples, nets[1](latents)), "first weights come from the global generator alone"
    assert not torch.equal(samples, nets[2](latents))
    _perturb(nets[0])
    assert _reached(nets[0], nets[0](latents))


@every(DISCRIMINATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_discriminator(kind: str, shape: Shape) -> None:
    entry = DISCRIMINATORS[kind](width=4)
    if (why := entry.misfit(shape)) is not None:
        assert all(why), "a misfit has a reason and a cure"
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = entry.build(shape)
    images = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    verdict = net(images)
    assert isinstance(verdict, Verdict)
    assert verdict.score.shape == (6,)
    assert verdict.features is not None
    assert verdict.features.shape == (6, net.width)
    assert verdict.classes is None
    assert entry.says == "score" or (verdict.score <= 0).all()
    _perturb(net)
    assert _reached(net, net(images).score)
    moved = images.clone()
    moved[0] += 1
    others_changed = not torch.allclose(net(moved).score[1:], net(images).score[1:])
    assert mixes_samples(net) == others_changed, "judging in one pass depends on this being told right"


@torch.no_grad()
def _perturb(net: nn.Module) -> None:
    """Away from the start, where a last layer may be zero and keep the gradient from what is before it."""
    generator = torch.Generator().manual_seed(4)
    for weight in net.parameters():
        weight += 0.1 * torch.randn(weight.shape, generator=generator)


def _reached(net: nn.Module, out: Tensor) -> bool:
    force = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    grads = torch.autograd.grad((out * force).sum(), list(net.parameters()), allow_unused=True)
    return all(g is not None and bool(g.abs().sum() > 0) for g in grads)


def normed(part: type[Part], norm: str | None) -> dict[str, Any]:
    return {"norm": norm} if norm and "norm" in part.model_fields else {}


@every(DISCRIMINATORS)
@pytest.mark.parametrize("norm", [None, *get_args(Norm)])
def test_network_pair_trains_and_resumes(kind: str, norm: str | None) -> None:
    """With its own norm and with each there is; G is of D's kind, or fully connected where none is."""
    d, other = DISCRIMINATORS[kind], kind if kind in GENERATORS else "mlp"
    if norm and not normed(d, norm):
        pytest.skip(f"'{kind}' has no choice of norms")
    parts = {
        "d": {"kind": kind, "width": 3, **normed(d, norm)},
        "g": {"kind": other, "width": 3, **normed(GENERATORS[other], norm if kind == other else None)},
    }
    objective = "energy" if d().says == "energy" else "non_saturating"
    told = recipe("pictures", network=parts, objective={"kind": objective})
    wanted = [f"network.{side}" for side in ("g", "d") if getattr(told.network, side).misfit((1, 8, 8))]
    refusals = misfits(told, "pictures").refusals
    assert [finding.field for finding in refusals] == wanted
    assert bool(refusals) == (norm in UNFIT.get(kind, ()))
    if refusals:
        assert all(finding.cure and finding.message for finding in refusals)
        return
    whole = Session(told, source("pictures")).play(4)
    assert all(torch.isfinite(t).all() for t in whole.saved().values())
    half = Session(told, source("pictures")).play(2)
    assert unequal(half.resumed().play(2).saved(), whole.saved()) == []


@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_saved_game_is_put_together_without_its_data(norm: str) -> None:
    """A run is sampled where its data may be gone: the shape and the number of classes must do."""
    run = session("pictures", network=both_players({"kind": "dcgan", "width": 2, "norm": norm})).play(1)
    blind = build(run.recipe, Subject((1, 8, 8)), Machine(CPU, "fp32"), run.dice)
    restore_game(blind, run.saved())
    latents, ours, theirs = run.moves[0].latents, blind.shown().eval(), run.game.shown().eval()
    assert torch.equal(ours(latents), theirs(latents))


# ---------------------------------------------------------------- tempos and optimisers


@every(TEMPOS)
def test_tempo_keeps_within_its_bounds_and_lets_both_play(kind: str) -> None:
    """Counted in a real run: in each step the sides come in their order, turn by turn, neither beyond its most."""
    run, steps = session("points", tempo={"kind": kind}, steps=30), 30
    tempo = run.game.tempo
    assert tempo.style in STEPS
    run.play(steps)
    moves = [(m.moment.step, m.moment.side, m.moment.turn) for m in run.moves]
    count = Counter((step, side) for step, side, _ in moves)
    order = tempo.order if tempo.style == "alternate" else tuple(Side)
    assert moves == [(at, side, turn) for at in range(steps) for side in order for turn in range(count[at, side])]
    for side, most in ((Side.D, tempo.most.d), (Side.G, tempo.most.g)):
        assert max(count[at, side] for at in range(steps)) <= most
        assert sum(count[at, side] for at in range(steps)) > 0


@every(TEMPOS)
@pytest.mark.parametrize("world", WORLDS)
def test_tempo_trains_and_resumes(kind: str, world: str) -> None:
    whole = session(world, tempo={"kind": kind}).play(6)
    half = session(world, tempo={"kind": kind}).play(3)
    assert unequal(half.resumed().play(3).saved(), whole.saved()) == []


@every(OPTIMIZERS)
@pytest.mark.parametrize("world", WORLDS)
def test_optimizer_trains_and_resumes(kind: str, world: str) -> None:
    part = both_players({"kind": kind, "lr": {"kind": "linear", "start": 1e-2, "end": 1e-3}})
    whole = session(world, optimizer=part).play(6)
    half = session(world, optimizer=part).play(3)
    assert unequal(half.resumed().play(3).saved(), whole.saved()) == []


@every(OPTIMIZERS)
def test_optimizer_obeys_the_dial(kind: str) -> None:
    """At rate 0 nothing moves; at ten times the rate the first step is ten times as long."""

    def length(lr: Any) -> float:
        run = session("points", optimizer=both_players({"kind": kind, "lr": lr}))
        before = [w.detach().clone() for w in run.game.d.weights]
        run.play(1)
        moved = [(w - b).square().sum() for w, b in zip(run.game.d.weights, before, strict=True)]
        return math.sqrt(float(torch.stack(moved).sum().detach()))

    assert length(0.0) == 0
    assert length(1e-2) == pytest.approx(10 * length(1e-3), rel=1e-3)
    assert length(Linear(start=1e-2, end=0.0).model_dump()) == pytest.approx(length(1e-2), rel=1e-6)
