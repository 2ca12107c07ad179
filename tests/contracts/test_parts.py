"""Tests that every objective, latent distribution, network, tempo and optimiser must pass."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import (
    BATCH,
    CPU,
    TRANSLATED,
    WORLDS,
    Session,
    changed_by_resuming,
    context,
    findings_of,
    no_waiting,
    recipe,
    session,
    source,
    suited,
    unequal,
    with_encoder,
)
from poise.core.config import ComponentConfig, find_components
from poise.core.move import MoveData
from poise.core.schedules import Linear
from poise.core.types import DataSpec, DiscriminatorOutput, EncoderOutput, ReconstructedBatch, Shape, Side, Targets
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.latents import Latent
from poise.networks.base import (
    DiscriminatorConfig,
    EncoderConfig,
    EncoderModule,
    GeneratorConfig,
    TranslatorConfig,
    call_encoder,
    mixes_samples,
)
from poise.networks.norms import Norm
from poise.objectives.base import Objective, ObjectiveModule
from poise.optimizers import OptimizerConfig
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.toml import parse_toml
from poise.runs.state_tensors import load_game_tensors
from poise.tempo import TempoConfig
from poise.training.state import STEP_FUNCTIONS

OBJECTIVES = find_components(Objective, "poise.objectives")
JUDGED = {kind: part for kind, part in OBJECTIVES.items() if part.output_kinds}  # type: ignore[attr-defined]
ALONE = {kind: part for kind, part in OBJECTIVES.items() if kind not in JUDGED}
LATENTS = find_components(Latent, "poise.latents")
CODED: dict[str, dict[str, Any]] = {"codes": {"categories": [2], "continuous": 1}}
"""What some kinds of latents need to have few dimensions."""
DISTRIBUTIONS = {kind: part for kind, part in LATENTS.items() if part.is_space}  # type: ignore[attr-defined]
TRANSLATORS = find_components(TranslatorConfig, "poise.networks")
GENERATORS = {
    kind: part for kind, part in find_components(GeneratorConfig, "poise.networks").items() if kind not in TRANSLATORS
}
DISCRIMINATORS = find_components(DiscriminatorConfig, "poise.networks")
ENCODERS = find_components(EncoderConfig, "poise.networks")
TEMPOS = find_components(TempoConfig, "poise.tempo")
OPTIMIZERS = find_components(OptimizerConfig, "poise.optimizers")
SMALL: dict[str, dict[str, Any]] = {"patch": {"layers": 1}}
"""What some kinds of network need for images of 8 x 8."""

SHAPES: list[Shape] = [(2,), (1, 8, 8), (3, 16, 16), (2, 24, 16)]
UNFIT = {"mlp": {"instance"}, "flat_autoencoder": {"instance"}}
"""Norms that a kind of network does not support."""


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
    for kind in ENCODERS:
        yield "network", f"encoder {kind}", both_players({"kind": "dcgan"}) | {"e": {"kind": kind, "pace": 3.0}}


@pytest.mark.parametrize(("table", "kind", "part"), sorted(each_part(), key=str))
def test_survives_toml(table: str, kind: str, part: dict[str, Any]) -> None:
    before = recipe("pictures", **{table: part})
    after = decode(parse_toml(before.to_toml(), "recipe.toml"))
    assert after == before
    assert after.hash == before.hash


@pytest.mark.parametrize(
    "family",
    [OBJECTIVES, LATENTS, GENERATORS, TRANSLATORS, DISCRIMINATORS, ENCODERS, TEMPOS, OPTIMIZERS],
    ids=lambda f: min(f),
)
def test_builds_from_defaults_is_documented_and_frozen(family: dict[str, type[ComponentConfig]]) -> None:
    assert family
    for kind, part in family.items():
        entry = part()
        assert entry.tag() == kind
        assert part.__doc__
        with pytest.raises(ValueError, match="frozen"):
            entry.kind = "another"  # type: ignore[attr-defined]


# ---------------------------------------------------------------- objectives

PLAYING: dict[str, dict[str, Any]] = {"began": {"k": 0.5}}
"""Settings under which both losses are positive from the start; other objectives use their defaults."""


def rule(kind: str) -> ObjectiveModule[Any]:
    return OBJECTIVES[kind](**PLAYING.get(kind, {})).build()


def reads_energy_alone(kind: str) -> bool:
    return OBJECTIVES[kind].output_kinds == {"energy"}


def score(kind: str, number: float) -> float:
    """The number as a score that a suitable D could return: the negative of an energy is at most 0."""
    return -abs(number) if reads_energy_alone(kind) else number


def unsure(kind: str) -> float:
    """A score at which neither player has an advantage."""
    undecided = OBJECTIVES[kind]().decision_threshold
    return score(kind, 1.0 if reads_energy_alone(kind) else 0.0) if undecided is None else undecided


def d_cost(objective: ObjectiveModule[Any], real: Tensor, fake: Tensor, targets: Targets | None = None) -> Tensor:
    costs = objective.d_losses(real, fake, targets, context())
    assert all(cost.shape == real.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


def g_cost(objective: ObjectiveModule[Any], real: Tensor, fake: Tensor) -> Tensor:
    costs = objective.g_losses(fake, real if objective.is_relativistic else None, context(side=Side.G))
    assert all(cost.shape == fake.shape for cost in costs), "costs are per sample"
    return torch.stack([cost.mean() for cost in costs]).sum()


@every(JUDGED)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_objective_is_finite_far_out(kind: str, size: float) -> None:
    """Losses and gradients are finite in float32 for scores of any size and sign that D can return."""
    objective = rule(kind)
    for a in (-size, size):
        for b in (-size, size):
            real = torch.full((4,), score(kind, a), requires_grad=True)
            fake = torch.full((4,), score(kind, b), requires_grad=True)
            for cost in (d_cost(objective, real, fake), g_cost(objective, real, fake)):
                grads = torch.autograd.grad(cost, (real, fake), allow_unused=True)
                assert torch.isfinite(cost)
                assert all(torch.isfinite(g).all() for g in grads if g is not None)


@every(JUDGED)
def test_objective_pulls_the_right_way(kind: str) -> None:
    """D's loss falls for higher real and lower fake scores, and G's for higher fake scores."""
    objective = rule(kind)
    real, fake = (torch.full((5,), unsure(kind), requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(d_cost(objective, real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()
    (mine,) = torch.autograd.grad(g_cost(objective, real, fake), fake)
    assert (mine < 0).all()


@every(JUDGED)
def test_equilibrium_is_the_loss_where_d_cannot_distinguish(kind: str) -> None:
    entry, objective = OBJECTIVES[kind](), rule(kind)
    same = torch.full((3,), unsure(kind), dtype=torch.float64)
    costs = {
        Side.D: objective.d_losses(same, same, None, context()),
        Side.G: objective.g_losses(same, same if objective.is_relativistic else None, context(side=Side.G)),
    }
    assert set(entry.equilibrium) in (set(), set(Side))
    for side, result in entry.equilibrium.items():
        mean = torch.stack([cost.mean() for cost in costs[side]]).mean()
        assert float(mean) == pytest.approx(result, abs=1e-12)


@every(OBJECTIVES)
def test_objective_accepts_targets_as_declared(kind: str) -> None:
    """Hard targets equal no targets bit for bit; soft targets change the loss."""
    if not OBJECTIVES[kind].accepts_targets:
        softened = check_compatibility(recipe("points", {"kind": "soft_labels"}, **suited("points", kind)))
        assert [finding.field for finding in softened.refusals] == ["tricks.0"]
        return
    objective, scores = rule(kind), torch.linspace(-30, 30, 61)
    ones, zeros = torch.ones_like(scores), torch.zeros_like(scores)
    none, hard, soft = (
        objective.d_losses(scores, scores, targets, context())
        for targets in (None, Targets(ones, zeros), Targets(0.9 * ones, zeros + 0.1))
    )
    for a, b, c in zip(none, hard, soft, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)


@every(JUDGED)
def test_objective_declares_the_output_of_d(kind: str) -> None:
    """A D with another kind of output is refused at the objective; a suitable one is accepted."""
    for says, network in (("score", {"kind": "mlp"}), ("energy", {"kind": "flat_autoencoder"})):
        config = recipe("points", objective={"kind": kind}, network={"g": {"kind": "mlp"}, "d": network})
        refused = [finding.field for finding in check_compatibility(config).refusals]
        assert refused == ([] if says in OBJECTIVES[kind].output_kinds else ["objective"])


@every(OBJECTIVES)
@pytest.mark.parametrize("world", WORLDS)
def test_objective_trains_and_resumes(kind: str, world: str) -> None:
    config = recipe(world, **suited(world, kind))
    assert findings_of(config, world).refusals == []
    run = Session(config, source(world))
    assert changed_by_resuming(run, 3) == []
    assert all(torch.isfinite(t).all() for t in run.saved().values())


@every(JUDGED)
def test_adversarial_objective_is_refused_without_a_discriminator(kind: str) -> None:
    """The refusal names what is missing: D's network, its optimiser, or a tempo that lets it move."""
    whole = suited("pictures", kind)
    network, adam = recipe("pictures", **whole).canonical()["network"], {"kind": "adam"}
    wrong: dict[str, dict[str, Any]] = {
        "network.d": {"network": {"g": network["g"]}},
        "optimizer.d": {"optimizer": {"g": adam}},
        "tempo": {"tempo": {"kind": "alone"}},
    }
    refused_each_at_its_place("pictures", whole, wrong)


def refused_each_at_its_place(world: str, whole: dict[str, Any], wrong: dict[str, dict[str, Any]]) -> None:
    """`whole` is accepted; each change in `wrong`, by the field at fault, is refused at that field only."""
    assert findings_of(recipe(world, **whole), world).refusals == []
    for where, changes in wrong.items():
        (finding,) = findings_of(recipe(world, **(whole | changes)), world).refusals
        assert finding.field == where
        assert finding.message
        assert finding.cure


# ---------------------------------------------------------------- games for one


def choices() -> Iterable[tuple[str, dict[str, Any]]]:
    """Every reconstruction objective, with every combination of its options."""
    for kind, part in ALONE.items():
        fields = {name: field.annotation for name, field in part.model_fields.items() if name != "kind"}
        words = {name: get_args(kind) for name, kind in fields.items() if get_origin(kind) is Literal}
        for chosen in product(*words.values()):
            yield kind, dict(zip(words, chosen, strict=True))


every_choice = pytest.mark.parametrize(
    ("kind", "chosen"), [pytest.param(*one, id="-".join((one[0], *one[1].values()))) for one in choices()]
)


def codes_of(kind: str, mean: Tensor, log_var: Tensor | None = None) -> EncoderOutput:
    """An encoder's output for this objective, with a log-variance if it needs one."""
    if not ALONE[kind].needs_code_variance:
        return EncoderOutput(mean)
    return EncoderOutput(mean, torch.zeros_like(mean) if log_var is None else log_var)


def rebuilding(kind: str, chosen: dict[str, Any], real: Tensor, rebuilt: Tensor, codes: EncoderOutput) -> MoveData:
    """A move of G with these reconstructions, after its loss was computed and logged as `cost`."""
    result = ReconstructedBatch(codes, codes.mean, rebuilt)
    move = MoveData(context(side=Side.G), codes.mean, rebuilt, real, reconstruct_fn=lambda: result)
    move.logged["cost"] = ALONE[kind](**chosen).build().reconstruction_loss(move)
    return move


def rebuilding_costs(kind: str, chosen: dict[str, Any], real: Tensor, rebuilt: Tensor, codes: EncoderOutput) -> Tensor:
    return rebuilding(kind, chosen, real, rebuilt, codes).logged["cost"]


def shades(seed: int, n: int = 4) -> Tensor:
    """Random images within (-1, 1), n x 1 x 8 x 8."""
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def ink(seed: int, n: int = 4) -> Tensor:
    """Random black and white images, n x 1 x 8 x 8."""
    return shades(seed, n).sign()


@every_choice
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_reconstruction_loss_is_finite_for_extreme_values(kind: str, chosen: dict[str, Any], size: float) -> None:
    """Losses and gradients are finite for the smallest images, codes and variances, and for variances up to e^30."""
    for a, b, width in product((-size, size), (-size, size), (-size, min(size, 30.0))):
        rebuilt = torch.full((4, 1, 8, 8), a, requires_grad=True)
        mean, log_var = (torch.full((4, 3), number, requires_grad=True) for number in (b, width))
        cost = rebuilding_costs(kind, chosen, ink(1), rebuilt, codes_of(kind, mean, log_var))
        assert torch.isfinite(cost)
        grads = torch.autograd.grad(cost, (rebuilt, mean, log_var), allow_unused=True)
        assert all(torch.isfinite(g).all() for g in grads if g is not None)


@every_choice
def test_reconstruction_loss_falls_towards_the_real_image(kind: str, chosen: dict[str, Any]) -> None:
    """Along the line from another image to the real one; each pixel's gradient points the right way."""
    real, other, codes = ink(1), shades(2), codes_of(kind, torch.zeros(4, 3))
    path = [rebuilding_costs(kind, chosen, real, torch.lerp(other, real, k / 8), codes) for k in range(9)]
    assert path == sorted(path, reverse=True)
    assert len({float(cost) for cost in path}) == len(path)
    rebuilt = other.clone().requires_grad_()
    (pull,) = torch.autograd.grad(rebuilding_costs(kind, chosen, real, rebuilt, codes), rebuilt)
    assert (pull * (real - other) < 0).all()


@every_choice
def test_reconstruction_loss_penalises_codes_only_with_a_variance(kind: str, chosen: dict[str, Any]) -> None:
    """With a variance, only the prior has no loss; without one, codes are free."""
    real, rebuilt, nothing = ink(1), shades(2), torch.zeros(4, 3)
    free = rebuilding_costs(kind, chosen, real, rebuilt, codes_of(kind, nothing))
    for mean, log_var in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        codes = codes_of(kind, nothing + mean, nothing + log_var)
        cost = rebuilding_costs(kind, chosen, real, rebuilt, codes)
        assert cost > free if ALONE[kind].needs_code_variance else cost == free


@every_choice
def test_reconstruction_loss_is_logged_and_is_a_mean_over_samples(kind: str, chosen: dict[str, Any]) -> None:
    """The reconstruction error is logged; repeating the batch does not change the loss."""
    real, rebuilt = ink(1), shades(2)
    mean = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    once = rebuilding(kind, chosen, real, rebuilt, codes_of(kind, mean))
    twice = rebuilding(
        kind, chosen, torch.cat((real, real)), torch.cat((rebuilt, rebuilt)), codes_of(kind, torch.cat((mean, mean)))
    )
    assert "reconstruction" in once.logged
    assert once.logged.keys() == twice.logged.keys()
    for name, number in once.logged.items():
        assert number.shape == ()
        assert float(number) == pytest.approx(float(twice.logged[name]), rel=1e-5)


@every(ALONE)
@pytest.mark.parametrize("world", WORLDS)
def test_without_a_discriminator_its_parts_are_refused(kind: str, world: str) -> None:
    """A D, its optimiser, its conditioning and a tempo of two players are refused, and so is a missing encoder."""
    whole = suited(world, kind)
    network, adam = whole["network"], {"kind": "adam"}
    d = recipe(world).canonical()["network"]["d"]
    wrong: dict[str, dict[str, Any]] = {
        "network.d": {"network": {**network, "d": d}},
        "optimizer.d": {"optimizer": both_players(adam)},
        "conditioning.d": {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "projection"}}},
        "network.e": {"network": {"g": network["g"]}},
    }
    refused_each_at_its_place(world, whole, wrong)
    for tempo in TEMPOS:
        if tempo != "alone":
            refused_each_at_its_place(world, whole, {"tempo": {"tempo": {"kind": tempo}}})


@every(ALONE)
@pytest.mark.parametrize("world", WORLDS)
def test_without_a_discriminator_every_weight_is_trained(kind: str, world: str) -> None:
    """G moves once in each step, its samples are reconstructions of the real ones, and there is no D."""
    run = session(world, **suited(world, kind))
    before = run.saved()
    run.play(3)
    assert run.game.d is None
    assert [(m.context.step, m.context.side, m.context.turn) for m in run.moves] == [(k, Side.G, 0) for k in range(3)]
    assert not any(name.startswith(("game/d.", "optimizer/d", "ledger/d")) for name in run.saved())
    stuck = [name for name, now in run.saved().items() if torch.equal(before.get(name, now + 1), now)]
    assert [name for name in stuck if name.startswith("game/g.")] == []
    for played_move in run.moves:
        rebuilt = played_move.move.reconstruction
        assert played_move.move.fake is rebuilt.images
        assert played_move.move.latents is rebuilt.latents
        wanted, codes = rebuilt.codes.mean, rebuilt.codes
        assert (codes.log_var is not None) == ALONE[kind].needs_code_variance
        if codes.log_var is not None:
            eps = torch.empty_like(wanted).normal_(generator=played_move.context.generator("codes"))
            wanted = wanted + codes.log_var.exp().sqrt() * eps
        assert torch.allclose(rebuilt.latents, wanted, atol=1e-6)


EXACTING: dict[str, dict[str, Any]] = {"elbo": {"sigma": 0.1}}
"""Settings in which the reconstruction error outweighs the KL; other objectives have no KL."""


@every(ALONE)
def test_without_a_discriminator_the_reconstruction_error_falls(kind: str) -> None:
    """The error after some steps is below the first one."""
    objective = {"objective": {"kind": kind, **EXACTING.get(kind, {})}}
    run = session("points", **suited("points", kind) | objective, steps=150).play(150)
    missed = [float((played_move.move.fake - played_move.real).detach().square().mean()) for played_move in run.moves]
    assert sum(missed[-20:]) / 20 < 0.6 * sum(missed[:3]) / 3


@every(ALONE)
@pytest.mark.parametrize("world", WORLDS)
def test_without_a_discriminator_nothing_waits_for_the_device(kind: str, world: str) -> None:
    """No value is read from the device in three steps; logging the row reads."""
    run = session(world, **suited(world, kind)).play(1)
    with no_waiting():
        for _ in range(3):
            STEP_FUNCTIONS[run.game.tempo.step_kind](run.game, run.batches, run.context(), run.metrics)
            run.done += 1
    assert "g/reconstruction" in run.metrics.reduce()


# ---------------------------------------------------------------- latents


@every(DISTRIBUTIONS)
def test_latents_are_a_function_of_the_generator(kind: str) -> None:
    law = LATENTS[kind](dim=7, **CODED.get(kind, {}))
    before = torch.get_rng_state()
    first = law.sample(50, torch.Generator().manual_seed(1))
    assert first.shape == (50, 7)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert len(torch.unique(first, dim=0)) == 50
    assert torch.equal(first, law.sample(50, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, law.sample(50, torch.Generator().manual_seed(2)))
    assert torch.equal(before, torch.get_rng_state()), "nobody else's dice are moved"


@every(DISTRIBUTIONS)
def test_latents_train(kind: str) -> None:
    run = session("points", latent={"kind": kind, "dim": 4} | CODED.get(kind, {})).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    assert {tuple(played_move.latents.shape) for played_move in run.moves} == {(BATCH, 4)}


@every(DISTRIBUTIONS)
def test_project_keeps_latents_and_moves_codes_to_them(kind: str) -> None:
    """Samples of the distribution are unchanged; other codes are projected onto its support."""
    law = LATENTS[kind](dim=7, **CODED.get(kind, {}))
    generator = torch.Generator().manual_seed(1)
    drawn, far = law.sample(50, generator), 30 * torch.randn(50, 7, generator=generator)
    assert torch.allclose(law.project(drawn), drawn, atol=1e-6)
    codes = far.clone().requires_grad_()
    held = law.project(codes)
    assert torch.allclose(law.project(held), held, atol=1e-5), "once is enough"
    (pull,) = torch.autograd.grad((held * drawn).sum(), codes)
    assert torch.isfinite(pull).all()
    assert (pull.abs().sum(1) > 0).all(), "codes can learn"
    if kind == "sphere":
        assert torch.allclose(held.norm(dim=1), torch.ones(50))
        assert torch.allclose(held, far / far.norm(dim=1, keepdim=True), atol=1e-6)
    else:
        assert torch.equal(held, far), "these may lie anywhere"


@every(DISTRIBUTIONS)
def test_latents_are_codes_without_a_discriminator(kind: str) -> None:
    """G gets codes on the support of the latents; the KL is defined for the Gaussian only."""
    law = {"latent": {"kind": kind, "dim": 4} | CODED.get(kind, {})}
    run = session("points", **suited("points", "reconstruction"), **law).play(3)
    for played_move in run.moves:
        rebuilt = played_move.move.reconstruction
        assert rebuilt.latents.shape == (BATCH, 4)
        assert torch.equal(rebuilt.latents, run.recipe.latent.project(rebuilt.codes.mean))
    found = findings_of(recipe("points", **suited("points", "elbo"), **law), "points").refusals
    assert [finding.field for finding in found] == ([] if kind == "gaussian" else ["latent"])
    assert all(finding.cure for finding in found)


# ---------------------------------------------------------------- networks


@every(TRANSLATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_translator(kind: str, shape: Shape) -> None:
    """It keeps the height and width of images, and its weights are a function of the global generator."""
    config = TRANSLATORS[kind](**({"width": 2} if "width" in TRANSLATORS[kind].model_fields else {}))
    if (why := config.incompatibility(shape)) is not None:  # type: ignore[attr-defined]
        assert all(why), "a refusal has a reason and a cure"
        return
    out_shape, nets = (3, *shape[1:]), []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets.append(config.build_translator(shape, out_shape))  # type: ignore[attr-defined]
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    first, again, other = (net(images) for net in nets)
    assert first.shape == (4, *out_shape)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert kind == "linear_map" or not torch.equal(first, other), "it starts as the identity"
    if len(shape) == 3:
        assert first.abs().max() <= 1
    for net in nets:
        net.eval()
    torch.testing.assert_close(nets[0](images[:2]), nets[0](images)[:2], rtol=1e-4, atol=1e-5)


IMAGE_TRANSLATORS = [kind for kind in TRANSLATORS if kind != "linear_map"]
TRANSLATIONS = [("a_to_b", "all"), ("a_to_b", "b"), ("both_ways", "each"), ("both_ways", "all")]


@pytest.mark.parametrize("kind", IMAGE_TRANSLATORS)
@pytest.mark.parametrize(("direction", "judges"), TRANSLATIONS)
def test_translation_trains_and_resumes(kind: str, direction: str, judges: str) -> None:
    network = recipe(TRANSLATED).canonical()["network"]
    network |= {"g": {"kind": kind, "width": 2}, "direction": direction, "judges": judges}
    if kind == "translator":
        network["g"] |= {"blocks": 1, "downsamplings": 1}
    dropout = {"kind": "standing_dropout"}
    assert findings_of(recipe(TRANSLATED, dropout, network=network), TRANSLATED).refusals == []
    run = session(TRANSLATED, dropout, network=network)
    assert changed_by_resuming(run, 2) == []
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    for played_move in run.moves:
        assert played_move.fake.shape == played_move.latents.shape == (BATCH, 2, 8, 8)
        kept = torch.equal(played_move.fake[:, :1], played_move.latents[:, :1])
        assert kept == (direction == "a_to_b"), "the source is beside its translation"


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("kind", IMAGE_TRANSLATORS)
def test_a_translator_has_every_norm(kind: str, norm: str) -> None:
    network = recipe(TRANSLATED).canonical()["network"]
    network["g"] = {"kind": kind, "width": 2, "norm": norm} | ({"blocks": 1} if kind != "unet" else {})
    run = session(TRANSLATED, network=network).play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    blind = build_game(run.recipe, DataSpec((2, 8, 8), parts=(1, 1)), ComputeSettings(CPU, "fp32"), run.streams)
    load_game_tensors(blind, run.saved())
    latents, ours, theirs = run.moves[0].latents, blind.sampling_network().eval(), run.game.sampling_network().eval()
    assert torch.equal(ours(latents), theirs(latents)), "a saved game is built without its data"


@every(GENERATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_generator(kind: str, shape: Shape) -> None:
    entry = GENERATORS[kind](width=4)
    if (why := entry.incompatibility(shape)) is not None:
        assert all(why), "a misfit has a reason and a cure"
        return
    nets = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets.append(entry.build(5, shape))
    latents = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))

    def samples(net: nn.Module) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)  # style mixing draws in training
            return net(latents)

    first, same, other = map(samples, nets)  # once each: spectral norm changes with each pass in training
    assert first.shape == (6, *shape)
    assert torch.equal(first, same), "first weights come from the global generator alone"
    assert not torch.equal(first, other)
    _perturb(nets[0])
    assert _reached(nets[0], nets[0](latents))


@every(DISCRIMINATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_discriminator(kind: str, shape: Shape) -> None:
    entry = DISCRIMINATORS[kind](width=4)
    if (why := entry.incompatibility(shape)) is not None:
        assert all(why), "a misfit has a reason and a cure"
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = entry.build(shape)
    images = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    output = net(images)
    assert isinstance(output, DiscriminatorOutput)
    assert output.score.shape == (6,)
    assert output.features is not None
    assert output.features.shape == (6, net.width)
    assert output.classes is None
    assert entry.output_kind == "score" or (output.score <= 0).all()
    _perturb(net)
    assert _reached(net, net(images).score)
    moved = images.clone()
    moved[0] += 1
    before, after = (copy.deepcopy(net)(batch).score for batch in (images, moved))  # each pass changes a spectral norm
    others_changed = not torch.allclose(after[1:], before[1:])
    assert mixes_samples(net) == others_changed, "judging in one pass depends on this being told right"


@every(ENCODERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encoder(kind: str, shape: Shape) -> None:
    entry = ENCODERS[kind](**({"width": 4} if "width" in ENCODERS[kind].model_fields else {}))
    if (why := entry.incompatibility(shape)) is not None:
        assert all(why), "a misfit has a reason and a cure"
        return
    nets = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets.append(entry.build(shape, 10, 6))
    places = torch.tensor([5, 3, 1, 0, 2, 4])
    images = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    seen = places if entry.by_index else images
    numbers = nets[0](seen)
    assert numbers.shape == (6, 10)
    assert torch.equal(numbers, nets[1](seen)), "first weights come from the global generator alone"
    assert not torch.equal(numbers, nets[2](seen))
    point, region = (
        call_encoder(EncoderModule(nets[0], has_variance=region), images, lambda: places) for region in (False, True)
    )
    assert torch.equal(point.mean, numbers), "who knows samples by their places is told these, who does not sees them"
    assert point.log_var is None
    assert torch.equal(region.mean, numbers[:, :5])
    assert region.log_var is not None
    assert torch.equal(region.log_var, numbers[:, 5:])
    if entry.by_index:
        for at, place in enumerate(places):
            assert torch.equal(nets[0](place[None])[0], numbers[at]), "a place has one code"
        with pytest.raises(IndexError):
            nets[0](torch.tensor([6]))  # and there are no more of them
    _perturb(nets[0])
    assert _reached(nets[0], nets[0](seen))


@torch.no_grad()
def _perturb(net: nn.Module) -> None:
    """Move the weights away from their initial values, where a last layer may be zero and block all gradients."""
    generator = torch.Generator().manual_seed(4)
    for weight in net.parameters():
        weight += 0.1 * torch.randn(weight.shape, generator=generator)


def _reached(net: nn.Module, out: Tensor) -> bool:
    force = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    grads = torch.autograd.grad((out * force).sum(), list(net.parameters()), allow_unused=True)
    return all(g is not None and bool(g.abs().sum() > 0) for g in grads)


def normed(part: type[ComponentConfig], norm: str | None) -> dict[str, Any]:
    return {"norm": norm} if norm and "norm" in part.model_fields else {}


@every(DISCRIMINATORS)
@pytest.mark.parametrize("norm", [None, *get_args(Norm)])
def test_network_pair_trains_and_resumes(kind: str, norm: str | None) -> None:
    """With its default norm and with every other one; G is of D's kind, or fully connected if there is none."""
    d, other = DISCRIMINATORS[kind], kind if kind in GENERATORS else "mlp"
    if norm and not normed(d, norm):
        pytest.skip(f"'{kind}' has no choice of norms")
    parts = {
        "d": {"kind": kind, "width": 3, **SMALL.get(kind, {}), **normed(d, norm)},
        "g": {"kind": other, "width": 3, **normed(GENERATORS[other], norm if kind == other else None)},
    }
    objective = "energy" if d().output_kind == "energy" else "non_saturating"
    config = recipe("pictures", network=parts, objective={"kind": objective})
    wanted = [f"network.{side}" for side in ("g", "d") if getattr(config.network, side).incompatibility((1, 8, 8))]
    refusals = findings_of(config, "pictures").refusals
    assert [finding.field for finding in refusals] == wanted
    assert bool(refusals) == (norm in UNFIT.get(kind, ()))
    if refusals:
        assert all(finding.cure and finding.message for finding in refusals)
        return
    run = Session(config, source("pictures"))
    assert changed_by_resuming(run, 2) == []
    assert all(torch.isfinite(t).all() for t in run.saved().values())


ENCODINGS = [(kind, None, world) for kind in ENCODERS for world in WORLDS]
ENCODINGS += [
    (kind, norm, "pictures") for kind, part in ENCODERS.items() if normed(part, "batch") for norm in get_args(Norm)
]
"""Every encoder in each world with its default norm and, if it has a choice, with every other one."""


def encoding(world: str, objective: str, kind: str, norm: str | None = None) -> Any:
    """A recipe without a discriminator, with this encoder."""
    tables, part = suited(world, objective), ENCODERS[kind]
    small = {"width": 3} if "width" in part.model_fields else {}
    return recipe(
        world, **tables | {"network": {**tables["network"], "e": {"kind": kind, **small, **normed(part, norm)}}}
    )


@pytest.mark.parametrize("objective", list(ALONE))
@pytest.mark.parametrize(("kind", "norm", "world"), ENCODINGS, ids=str)
def test_encoder_trains_and_resumes(kind: str, norm: str | None, objective: str, world: str) -> None:
    """Into a second epoch; points are endless and no images, and a hidden layer is no feature map."""
    config = encoding(world, objective, kind, norm)
    refusals = findings_of(config, world).refusals
    misfit = config.network.e.incompatibility(source(world).shape) is not None
    assert misfit == ((kind == "dcgan" and world == "points") or norm in UNFIT.get(kind, ()))
    endless = kind == "free_codes" and world == "points"
    assert [finding.field for finding in refusals] == ["network.e"] * (misfit or endless)
    assert all(finding.cure and finding.message for finding in refusals)
    if refusals:
        return
    run = Session(config, source(world))
    assert changed_by_resuming(run, 3) == []
    assert all(torch.isfinite(t).all() for t in run.saved().values())


@every(ENCODERS)
def test_encoder_has_its_own_learning_rate(kind: str) -> None:
    """Adam's first step is as long as its rate: the encoder's is G's times `pace`, and G's is unchanged."""

    def steps(pace: float) -> tuple[float, float]:
        tables = suited("pictures", "reconstruction")
        encoder = {"kind": kind, "pace": pace}
        run = session("pictures", **tables | {"network": {**tables["network"], "e": encoder}})
        g, e = run.game.g.net, run.game.g.encoder
        before = [[w.detach().clone() for w in net.parameters()] for net in (g, e)]
        run.play(1)
        return tuple(
            max(float((w.detach() - old).abs().max()) for w, old in zip(net.parameters(), olds, strict=True))
            for net, olds in zip((g, e), before, strict=True)
        )

    assert steps(1.0) == pytest.approx((1e-2, 1e-2), rel=1e-2)
    assert steps(5.0) == pytest.approx((1e-2, 5e-2), rel=1e-2)


def test_initial_weights_are_independent_of_other_networks() -> None:
    """An encoder does not change the initial weights of the players, nor does a larger one."""
    runs = [session("pictures")]
    for width in (2, 4):
        network = {**with_encoder("pictures")["network"], "e": {"kind": "dcgan", "width": width}}
        runs.append(session("pictures", network=network))
    first, *others = (run.saved() for run in runs)
    for other in others:
        shared = {name: tensor for name, tensor in other.items() if "g.encoder" not in name and "g/encoder" not in name}
        assert unequal(first, shared) == []


@every(ENCODERS)
def test_a_saved_game_without_discriminator_is_built_without_its_data(kind: str) -> None:
    """It needs the number of training samples beside their shape, as there may be a code for each."""
    run = Session(encoding("pictures", "reconstruction", kind), source("pictures")).play(1)
    blind = build_game(run.recipe, DataSpec((1, 8, 8), num_samples=40), ComputeSettings(CPU, "fp32"), run.streams)
    load_game_tensors(blind, run.saved())
    assert unequal(dict(blind.state_dict()), dict(run.game.state_dict())) == []
    latents, ours, theirs = run.moves[0].latents, blind.sampling_network().eval(), run.game.sampling_network().eval()
    assert torch.equal(ours(latents), theirs(latents))


@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_saved_game_is_built_without_its_data(norm: str) -> None:
    """A run is sampled even if its data is gone, from the shape and the number of classes."""
    run = session("pictures", network=both_players({"kind": "dcgan", "width": 2, "norm": norm})).play(1)
    blind = build_game(run.recipe, DataSpec((1, 8, 8)), ComputeSettings(CPU, "fp32"), run.streams)
    load_game_tensors(blind, run.saved())
    latents, ours, theirs = run.moves[0].latents, blind.sampling_network().eval(), run.game.sampling_network().eval()
    assert torch.equal(ours(latents), theirs(latents))


@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_saved_encoder_is_built_without_its_data(norm: str) -> None:
    """The same holds for an encoder, whichever batch its norm was calibrated with."""
    tables = suited("pictures", "elbo")
    tables["network"] = {**tables["network"], "e": {"kind": "dcgan", "width": 2, "norm": norm}}
    run = session("pictures", **tables).play(1)
    blind = build_game(run.recipe, DataSpec((1, 8, 8), num_samples=40), ComputeSettings(CPU, "fp32"), run.streams)
    load_game_tensors(blind, run.saved())
    assert unequal(dict(blind.state_dict()), dict(run.game.state_dict())) == []


# ---------------------------------------------------------------- tempos and optimisers


def paced(world: str, kind: str, **changes: Any) -> Session:
    """A game with this tempo; without a discriminator if G moves alone."""
    tables = suited(world, "reconstruction") if TEMPOS[kind]().build().step_kind == "alone" else {}
    return session(world, **tables | {"tempo": {"kind": kind}} | changes)


@every(TEMPOS)
def test_tempo_keeps_its_bounds_and_both_players_move(kind: str) -> None:
    """In a real run, the players move in their order in each step, and neither exceeds `max_moves`.

    In a game for one both is one: whoever is not there never moves.
    """
    run, steps = paced("points", kind, steps=30), 30
    tempo = run.game.tempo
    assert tempo.step_kind in STEP_FUNCTIONS
    run.play(steps)
    moves = [(m.context.step, m.context.side, m.context.turn) for m in run.moves]
    count = Counter((step, side) for step, side, _ in moves)
    order = tempo.order if tempo.step_kind == "alternate" else tuple(Side)
    assert moves == [(at, side, turn) for at in range(steps) for side in order for turn in range(count[at, side])]
    for side, most in ((Side.D, tempo.max_moves.d), (Side.G, tempo.max_moves.g)):
        assert max(count[at, side] for at in range(steps)) <= most
        there = side in run.game.players
        assert (sum(count[at, side] for at in range(steps)) > 0) == there
        assert (most > 0) == there
        assert tempo.should_move(context(side=side), None) == there
        assert not tempo.should_move(context(side=side, turn=most), None)


@every(TEMPOS)
@pytest.mark.parametrize("world", WORLDS)
def test_tempo_trains_and_resumes(kind: str, world: str) -> None:
    assert changed_by_resuming(paced(world, kind), 3) == []


@every(OPTIMIZERS)
@pytest.mark.parametrize("world", WORLDS)
def test_optimizer_trains_and_resumes(kind: str, world: str) -> None:
    part = both_players({"kind": kind, "lr": {"kind": "linear", "start": 1e-2, "end": 1e-3}})
    assert changed_by_resuming(session(world, optimizer=part), 3) == []


@every(OPTIMIZERS)
def test_optimizer_follows_the_schedule(kind: str) -> None:
    """At rate 0 no weight changes; at ten times the rate the first step is ten times as long."""

    def length(lr: Any) -> float:
        run = session("points", optimizer=both_players({"kind": kind, "lr": lr}))
        before = [w.detach().clone() for w in run.game.d.weights]
        run.play(1)
        moved = [(w - b).square().sum() for w, b in zip(run.game.d.weights, before, strict=True)]
        return math.sqrt(float(torch.stack(moved).sum().detach()))

    assert length(0.0) == 0
    assert length(1e-2) == pytest.approx(10 * length(1e-3), rel=1e-3)
    assert length(Linear(start=1e-2, end=0.0).model_dump()) == pytest.approx(length(1e-2), rel=1e-6)
