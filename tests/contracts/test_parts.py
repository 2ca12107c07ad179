"""The smaller exams: every objective, latent law, network, tempo and optimiser there is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import BATCH, WORLDS, Session, moment, recipe, session, source, unequal
from poise.core import Shape, Side, Targets, Verdict
from poise.dials import Linear
from poise.entries import Part, kinds
from poise.latents import Latent
from poise.networks.blocks import Discriminator, Generator, mixes_samples
from poise.objectives.base import Objective
from poise.optimizers import OptimizerEntry
from poise.recipe.fit import fit
from poise.recipe.read import decode
from poise.recipe.text import parse
from poise.tempo import TempoEntry

OBJECTIVES = kinds(Objective, "poise.objectives")
LATENTS = kinds(Latent, "poise.latents")
GENERATORS = kinds(Generator, "poise.networks")
DISCRIMINATORS = kinds(Discriminator, "poise.networks")
TEMPOS = kinds(TempoEntry, "poise.tempo")
OPTIMIZERS = kinds(OptimizerEntry, "poise.optimizers")
SHAPES: list[Shape] = [(2,), (1, 8, 8), (3, 16, 16)]


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
        assert entry.name() == kind
        assert part.__doc__
        with pytest.raises(ValueError, match="frozen"):
            entry.kind = "another"  # type: ignore[attr-defined]


# ---------------------------------------------------------------- objectives


def d_cost(objective: Objective, real: Tensor, fake: Tensor, targets: Targets | None = None) -> Tensor:
    costs = objective.d_costs(real, fake, targets)
    assert all(cost.shape == real.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


def g_cost(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    costs = objective.g_costs(fake, real if objective.compares else None)
    assert all(cost.shape == fake.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


@every(OBJECTIVES)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_objective_is_finite_far_out(kind: str, size: float) -> None:
    """With scores of any size and sign, in float32, costs and gradients stay finite."""
    objective = OBJECTIVES[kind]()
    for a in (-size, size):
        for b in (-size, size):
            real = torch.full((4,), a, requires_grad=True)
            fake = torch.full((4,), b, requires_grad=True)
            for cost in (d_cost(objective, real, fake), g_cost(objective, real, fake)):
                grads = torch.autograd.grad(cost, (real, fake), allow_unused=True)
                assert torch.isfinite(cost)
                assert all(torch.isfinite(g).all() for g in grads if g is not None)


@every(OBJECTIVES)
def test_objective_pulls_the_right_way(kind: str) -> None:
    """Where D can't tell, D wants reals higher and fakes lower, and G wants its fakes higher."""
    objective = OBJECTIVES[kind]()
    real, fake = torch.zeros(5, requires_grad=True), torch.zeros(5, requires_grad=True)
    up, down = torch.autograd.grad(d_cost(objective, real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()
    (mine,) = torch.autograd.grad(g_cost(objective, real, fake), fake)
    assert (mine < 0).all()


@every(OBJECTIVES)
def test_objective_equilibrium_is_its_cost_where_d_cannot_tell(kind: str) -> None:
    objective = OBJECTIVES[kind]()
    zero = torch.zeros(3, dtype=torch.float64)
    costs = {
        Side.D: objective.d_costs(zero, zero, None),
        Side.G: objective.g_costs(zero, zero if objective.compares else None),
    }
    assert set(objective.equilibrium) <= set(Side)
    for side, told in objective.equilibrium.items():
        mean = torch.stack([cost.mean() for cost in costs[side]]).mean()
        assert float(mean) == pytest.approx(told, abs=1e-12)


@every(OBJECTIVES)
def test_objective_takes_targets_as_declared(kind: str) -> None:
    """Hard targets are no targets, bit for bit; soft ones cost something else."""
    objective = OBJECTIVES[kind]()
    if not objective.takes_targets:
        softened = fit(recipe("points", {"kind": "soft_labels"}, objective={"kind": kind}))
        assert [finding.field for finding in softened.refusals] == ["tricks.0"]
        return
    score = torch.linspace(-30, 30, 61)
    none = objective.d_costs(score, score, None)
    hard = objective.d_costs(score, score, Targets(torch.ones_like(score), torch.zeros_like(score)))
    soft = objective.d_costs(score, score, Targets(torch.full_like(score, 0.9), torch.full_like(score, 0.1)))
    for a, b, c in zip(none, hard, soft, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)


@every(OBJECTIVES)
@pytest.mark.parametrize("world", WORLDS)
def test_objective_trains_and_resumes(kind: str, world: str) -> None:
    told = recipe(world, objective={"kind": kind})
    if fit(told, source(world).shape).refusals:
        pytest.skip(f"'{kind}' does not fit {world}")
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
    assert _reached(nets[0], samples)


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
    assert _reached(net, verdict.score)
    moved = images.clone()
    moved[0] += 1
    others_changed = not torch.allclose(net(moved).score[1:], net(images).score[1:])
    assert mixes_samples(net) == others_changed, "judging in one pass depends on this being told right"


def _reached(net: nn.Module, out: Tensor) -> bool:
    force = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    grads = torch.autograd.grad((out * force).sum(), list(net.parameters()), allow_unused=True)
    return all(g is not None and bool(g.abs().sum() > 0) for g in grads)


@pytest.mark.parametrize("kind", sorted(GENERATORS.keys() & DISCRIMINATORS.keys()))
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_network_pair_trains_and_resumes(kind: str, norm: str) -> None:
    part = both_players({"kind": kind, "width": 3, "norm": norm})
    told = recipe("pictures", network=part)
    assert fit(told, source("pictures").shape).refusals == []
    whole = Session(told, source("pictures")).play(4)
    half = Session(told, source("pictures")).play(2)
    assert unequal(half.resumed().play(2).saved(), whole.saved()) == []


# ---------------------------------------------------------------- tempos and optimisers


@every(TEMPOS)
def test_tempo_keeps_within_its_bounds_and_lets_both_play(kind: str) -> None:
    tempo = TEMPOS[kind]().build()
    seen = [tempo.moves(moment(at)) for at in range(200)]
    assert max(m.d for m in seen) <= tempo.most.d
    assert max(m.g for m in seen) <= tempo.most.g
    assert min(min(m) for m in seen) >= 0
    assert sum(m.d for m in seen) > 0
    assert sum(m.g for m in seen) > 0
    run = session("points", tempo={"kind": kind}).play(3)
    assert [len(run.of(side)) for side in Side] == [sum(m[i] for m in seen[:3]) for i in range(2)]


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
