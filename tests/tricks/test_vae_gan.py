"""The terms of a VAE-GAN by hand: what each costs, and whose weights each reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import by_hand, context, misfits, recipe, session, suited, with_encoder
from poise.core.hooks import LossTerm
from poise.core.latent_codes import gaussian_kl
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.schedules import Linear as Ramp
from poise.core.types import DataSpec, EncoderOutput, Side
from poise.engine.game import Game
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.latents import Gaussian
from poise.objectives.base import Objective
from poise.objectives.hinge import Hinge
from poise.objectives.least_squares import LeastSquares
from poise.objectives.pointwise import NonSaturating
from poise.objectives.wasserstein import Wasserstein
from poise.tricks.base import TrickContext
from poise.tricks.vae_gan import (
    FeatureReconstruction,
    FeatureReconstructionConfig,
    HybridConfig,
    JudgedReconstruction,
    JudgedReconstructionConfig,
    PosteriorKL,
    PosteriorKLConfig,
    feature_reconstruction_loss,
)
from tricks.small import Bent, Given, N, cloud, shown

ENTRIES = (PosteriorKLConfig, FeatureReconstructionConfig, JudgedReconstructionConfig)
REAL = cloud(N, 2, seed=4) + 1


class Regions(nn.Module):
    """A code's region by one linear layer: mean and log of the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * cloud(4, 2, seed=7))

    def forward(self, x: Tensor) -> EncoderOutput:
        return EncoderOutput(*(x @ self.weight.T).chunk(2, 1))


class Mixing(nn.Module):
    """G(z) = tanh(Wz)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cloud(2, 2, seed=8))

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents @ self.weight.T)


def hybrid(*tricks: LossTerm, d: nn.Module | None = None, objective: Objective | None = None) -> Game:
    """A game on the plane at rate 0, whose G has an encoder."""
    d, g, encoder = d or Bent(), Mixing(), Regions()
    game = by_hand(*tricks, d=d, g=g, objective=objective, latent=Gaussian(dim=2), lr=0.0)
    both = torch.optim.SGD([*g.parameters(), *encoder.parameters()], lr=1.0)
    player = Player(Side.G, g, both, lambda _: {"lr": 0.0}, encoder)
    return Game(game.d, player, game.objective, game.latent, game.tempo, list(tricks))


Pulls = dict[str, Tensor | None]


def played(side: Side, game: Game) -> tuple[Pulls, dict[str, float], MoveData]:
    """One move: the gradients of G, its encoder and D, the row, the exchange."""
    metrics = StepMetrics()
    move = make_move(game, Given(REAL), context(side=side), metrics)
    assert game.g.encoder is not None
    nets = {"g": game.g.net, "e": game.g.encoder, "d": game.d.net}
    pulls = {name: next(net.parameters()).grad for name, net in nets.items()}
    return {name: None if grad is None else grad.clone() for name, grad in pulls.items()}, shown(metrics), move


def own_pulls(cost: Callable[[nn.Module, nn.Module, nn.Module, MoveData], Tensor], move: MoveData) -> dict[str, Tensor]:
    """Gradients of a cost that is written out, from fresh networks: zero where nothing reaches."""
    d, g, encoder = Bent(), Mixing(), Regions()
    weights = {"g": g.weight, "e": encoder.weight, "d": d.first}
    found = torch.autograd.grad(cost(d, g, encoder, move), list(weights.values()), allow_unused=True)
    pairs = zip(weights.items(), found, strict=True)
    return {name: torch.zeros_like(weight) if grad is None else grad for (name, weight), grad in pairs}


def latents_of(codes: EncoderOutput, move: MoveData) -> Tensor:
    """The draw that this move makes."""
    assert codes.log_var is not None
    eps = torch.empty(codes.mean.shape).normal_(generator=move.context.generator("codes"))
    return codes.mean + (codes.log_var / 2).exp() * eps


def grown(with_it: Pulls, without: Pulls, name: str) -> Tensor:
    a, b = with_it[name], without[name]
    assert a is not None
    return a if b is None else a - b


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize(("n", "width"), [(1, 1), (7, 5), (64, 100)])
def test_the_gap_is_numpys(n: int, width: int) -> None:
    x, y = (cloud(n, width, seed=seed, dtype=torch.float64) for seed in (1, 2))
    gap = feature_reconstruction_loss(x, y)
    np.testing.assert_allclose(gap.numpy(), ((x.numpy() - y.numpy()) ** 2).sum(1) / 2, rtol=1e-12)
    assert feature_reconstruction_loss(x, x).tolist() == [0.0] * n


def test_the_gap_is_a_gaussians_but_for_a_constant() -> None:
    x, y, z = (cloud(6, 4, seed=seed, dtype=torch.float64) for seed in (1, 2, 3))
    nats = [-torch.distributions.Normal(other, 1.0).log_prob(x).sum(1) for other in (y, z)]
    torch.testing.assert_close(feature_reconstruction_loss(x, y) - feature_reconstruction_loss(x, z), nats[0] - nats[1])


# ---------------------------------------------------------------- each term by itself


def test_posterior_kl_charges_g_alone_and_reaches_the_encoder_alone() -> None:
    none, silent, _ = played(Side.G, hybrid(PosteriorKL("kl", 0.0)))
    one, row, move = played(Side.G, hybrid(PosteriorKL("kl", 1.0)))
    three, _, _ = played(Side.G, hybrid(PosteriorKL("kl", 3.0)))
    assert "g/kl" not in silent

    def cost(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return gaussian_kl(*encoder(REAL)).mean()

    right = own_pulls(cost, move)["e"]
    assert float(right.norm()) > 0.01
    assert row["g/kl"] == pytest.approx(float(gaussian_kl(*Regions()(REAL)).mean().detach()), rel=1e-5)
    assert none["e"] is None
    torch.testing.assert_close(grown(one, none, "e"), right)
    torch.testing.assert_close(grown(three, none, "e"), 3 * right)
    torch.testing.assert_close(one["g"], none["g"])
    assert one["d"] is None
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)
    ds, ds_row, _ = played(Side.D, hybrid(PosteriorKL("kl", 1.0)))
    assert "d/kl" not in ds_row
    assert ds["e"] is None


def test_feature_reconstruction_reaches_g_and_the_encoder_and_not_d() -> None:
    none, silent, _ = played(Side.G, hybrid(FeatureReconstruction("match", 0.0)))
    one, row, move = played(Side.G, hybrid(FeatureReconstruction("match", 1.0)))
    three, _, _ = played(Side.G, hybrid(FeatureReconstruction("match", 3.0)))
    assert "g/match" not in silent

    def cost(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        rebuilt = g(latents_of(encoder(REAL), move))
        return feature_reconstruction_loss(d(REAL).features, d(rebuilt).features).mean()

    right = own_pulls(cost, move)
    assert row["g/match"] == pytest.approx(float(cost(Bent(), Mixing(), Regions(), move).detach()), rel=1e-5)
    for name in ("g", "e"):
        assert float(right[name].norm()) > 0.01
        torch.testing.assert_close(grown(one, none, name), right[name], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(grown(three, none, name), 3 * right[name], atol=1e-6, rtol=1e-4)
    assert one["d"] is None
    assert FeatureReconstruction.sides == {Side.G}


def test_the_reals_features_take_no_gradient() -> None:
    """Nor D's weights: an exchange whose reals and whose D want one."""
    d = Bent()
    game = hybrid(FeatureReconstruction("match", 1.0), d=d)
    real = REAL.clone().requires_grad_()
    with game.in_move(at := context(side=Side.G)):
        move = MoveData(at, torch.zeros(N, 2), torch.zeros(N, 2), real)
        move.reconstruct_fn = game.reconstruct_fn(Given(REAL), at, REAL, None)
        move.outputs = {"real": d(real)}
        move.discriminate_fn = game.discriminate_fn(d, at)
        cost = FeatureReconstruction("match", 1.0).loss(move)
    cost.backward()
    assert float(cost.detach()) > 0
    assert real.grad is None
    assert all(weight.grad is None for weight in d.parameters())
    assert game.g.encoder is not None
    assert all(weight.grad is not None for weight in [*game.g.net.parameters(), *game.g.encoder.parameters()])


OBJECTIVES: list[tuple[Objective, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    (NonSaturating(), softplus, lambda s: softplus(-s)),
    (LeastSquares(), lambda s: s.square() / 2, lambda s: (s - 1).square() / 2),
    (Hinge(), lambda s: (1 + s).relu(), lambda s: -s),
    (Wasserstein(), lambda s: s, lambda s: -s),
]
every_objective = pytest.mark.parametrize(
    ("objective", "for_d", "for_g"), OBJECTIVES, ids=[str(one[0].tag()) for one in OBJECTIVES]
)


@every_objective
def test_in_gs_move_the_decoder_is_charged_for_the_rebuilt_and_the_encoder_is_not(
    objective: Objective, for_d: object, for_g: Callable[[Tensor], Tensor]
) -> None:
    judged, idle = (JudgedReconstruction("judged", weight, objective) for weight in (1.0, 0.0))
    none, silent, _ = played(Side.G, hybrid(idle, objective=objective))
    one, row, move = played(Side.G, hybrid(judged, objective=objective))

    def cost(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return for_g(d(g(latents_of(encoder(REAL), move).detach())).score).mean()

    right = own_pulls(cost, move)["g"]
    assert float(right.norm()) > 0.01
    assert row["g/judged"] == pytest.approx(float(cost(Bent(), Mixing(), Regions(), move).detach()), rel=1e-5)
    torch.testing.assert_close(grown(one, none, "g"), right, atol=1e-6, rtol=1e-4)
    assert one["e"] is None or not one["e"].any()
    assert one["d"] is None
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)


@every_objective
def test_in_ds_move_d_is_charged_and_neither_decoder_nor_encoder(
    objective: Objective, for_d: Callable[[Tensor], Tensor], for_g: object
) -> None:
    judged, idle = (JudgedReconstruction("judged", weight, objective) for weight in (1.0, 0.0))
    none, silent, _ = played(Side.D, hybrid(idle, objective=objective))
    one, row, move = played(Side.D, hybrid(judged, objective=objective))

    def cost(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return for_d(d(g(latents_of(encoder(REAL), move)).detach()).score).mean()

    right = own_pulls(cost, move)["d"]
    assert float(right.norm()) > 0.001
    assert row["d/judged"] == pytest.approx(float(cost(Bent(), Mixing(), Regions(), move).detach()), rel=1e-5)
    torch.testing.assert_close(grown(one, none, "d"), right, atol=1e-6, rtol=1e-4)
    assert one["g"] is None
    assert one["e"] is None
    assert not move.reconstruction.images.requires_grad
    assert row["d/adversarial"] == pytest.approx(silent["d/adversarial"], rel=1e-6)


def test_equal_weights_give_the_encoder_so_many_times_the_gradient_of_1() -> None:
    """The paper's gradient of the encoder, but for a factor, whatever the decoder is asked beside."""
    pulls = []
    for gamma in (1.0, 0.05):
        tricks = (
            PosteriorKL("kl", gamma),
            FeatureReconstruction("match", gamma),
            JudgedReconstruction("judged", 1.0, NonSaturating()),
        )
        pulls.append(played(Side.G, hybrid(*tricks))[0])
    assert pulls[0]["e"] is not None
    assert float(pulls[0]["e"].norm()) > 0.01
    torch.testing.assert_close(pulls[1]["e"], 0.05 * pulls[0]["e"], atol=1e-8, rtol=1e-5)
    assert not torch.allclose(pulls[1]["g"], 0.05 * pulls[0]["g"], rtol=1e-2)


def test_all_three_see_the_same_rebuilt() -> None:
    """One draw from each region in a move, whoever asks first."""
    calls: list[Tensor] = []
    tricks = (PosteriorKL("kl", 1.0), FeatureReconstruction("match", 1.0))
    game = hybrid(*tricks, JudgedReconstruction("judged", 1.0, NonSaturating()))
    assert game.g.encoder is not None
    game.g.encoder.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    for side in Side:
        calls.clear()
        played(side, game)
        assert len(calls) == 1
        assert torch.equal(calls[0], REAL)


# ---------------------------------------------------------------- in a recipe


def test_entries_say_what_they_read() -> None:
    for entry in ENTRIES:
        assert entry().needs_codes
        assert not entry(weight=0.0).needs_codes
        assert entry(weight=Ramp(start=0.0, end=1.0)).needs_codes
        assert entry(weight=Ramp(start=1.0, end=0.0)).needs_codes
    assert [entry().needs_code_variance for entry in ENTRIES] == [True, False, False]
    assert [bool(entry().required_outputs) for entry in ENTRIES] == [False, True, False]
    assert [entry().needs_separate_fake_loss for entry in ENTRIES] == [False, False, True]
    assert [entry.needs_discriminator for entry in ENTRIES] == [False, True, True]
    assert not any(
        entry(weight=0.0).required_outputs or entry(weight=0.0).needs_separate_fake_loss for entry in ENTRIES
    )
    assert not PosteriorKLConfig(weight=0.0).needs_code_variance


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_build_terms_of_their_weight(entry: type[HybridConfig]) -> None:
    trick = entry(weight=0.3).build("its_name", TrickContext({}, DataSpec((2,)), objective=Hinge()))
    assert isinstance(trick, LossTerm)
    assert (trick.name, trick.weight, trick.every) == ("its_name", 0.3, 1)
    assert trick.needs_real
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": entry.tag(), "weight": -1.0}, **with_encoder("points"))


@pytest.mark.parametrize("objective", ["relativistic", "relativistic_average", "energy", "began"])
def test_what_has_no_cost_of_fakes_by_itself_is_refused(objective: str) -> None:
    for weight, refused in ((1.0, True), (0.0, False)):
        tables = suited("pictures", objective)
        tables["network"] = {**with_encoder("pictures")["network"], **tables.get("network", {})}
        told = recipe("pictures", {"kind": "judged_reconstruction", "weight": weight}, **tables)
        fields = [finding.field for finding in misfits(told, "pictures").refusals]
        assert fields == (["tricks.0"] if refused else [])


@pytest.mark.parametrize(
    "objective", ["non_saturating", "minimax", "least_squares", "hinge", "wasserstein", "kl_divergence"]
)
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_all_three_play_with_the_others(objective: str, world: str) -> None:
    tricks = [{"kind": entry.tag()} for entry in ENTRIES]
    tables: dict[str, Any] = {**with_encoder(world), "objective": {"kind": objective}}
    assert misfits(recipe(world, *tricks, **tables), world).refusals == []
    run = session(world, *tricks, **tables)
    before = run.saved()
    told = run.play(3).metrics.reduce()
    assert {"g/posterior_kl", "g/feature_reconstruction", "g/judged_reconstruction"} <= set(told)
    assert "d/judged_reconstruction" in told
    assert not {"d/posterior_kl", "d/feature_reconstruction"} & set(told)
    after = run.saved()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values() if tensor.is_floating_point())
    moved = [
        name for name in before if name.startswith("game/g.encoder") and not torch.equal(before[name], after[name])
    ]
    assert moved


def test_by_itself_feature_reconstruction_brings_features_together() -> None:
    """With a weight that drowns the adversarial cost, and a D that hardly moves."""
    still = {"g": {"kind": "adam", "lr": 1e-2}, "d": {"kind": "sgd", "lr": 1e-12}}
    tricks = [{"kind": "feature_reconstruction", "weight": 30.0}]
    run = session("pictures", *tricks, optimizer=still, **with_encoder("pictures"))
    first = run.play(5).metrics.reduce()["g/feature_reconstruction"].mean
    run.play(30).metrics.reduce()
    assert run.play(5).metrics.reduce()["g/feature_reconstruction"].mean < 0.9 * first
