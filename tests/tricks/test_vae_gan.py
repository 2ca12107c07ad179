"""The loss terms of a VAE-GAN by hand: their values, and whose weights each of them trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import by_hand, context, findings_of, recipe, session, suited, with_encoder
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
from tricks.small import FixedBatches, N, TanhDiscriminator, logged_means, randn

CONFIGS = (PosteriorKLConfig, FeatureReconstructionConfig, JudgedReconstructionConfig)
REAL = randn(N, 2, seed=4) + 1


class GaussianEncoder(nn.Module):
    """A Gaussian over codes from one linear layer: mean and log-variance."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * randn(4, 2, seed=7))

    def forward(self, x: Tensor) -> EncoderOutput:
        return EncoderOutput(*(x @ self.weight.T).chunk(2, 1))


class TanhGenerator(nn.Module):
    """G(z) = tanh(Wz)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(randn(2, 2, seed=8))

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents @ self.weight.T)


def hybrid(*tricks: LossTerm, d: nn.Module | None = None, objective: Objective | None = None) -> Game:
    """A game on the plane with learning rate 0, whose G has an encoder."""
    d, g, encoder = d or TanhDiscriminator(), TanhGenerator(), GaussianEncoder()
    game = by_hand(*tricks, d=d, g=g, objective=objective, latent=Gaussian(dim=2), lr=0.0)
    optimizer = torch.optim.SGD([*g.parameters(), *encoder.parameters()], lr=1.0)
    player = Player(Side.G, g, optimizer, lambda _: {"lr": 0.0}, encoder)
    return Game(game.d, player, game.objective, game.latent, game.tempo, list(tricks))


Gradients = dict[str, Tensor | None]


def play_move(side: Side, game: Game) -> tuple[Gradients, dict[str, float], MoveData]:
    """One move: the gradients of G, its encoder and D, the logged values, and the move's data."""
    metrics = StepMetrics()
    move = make_move(game, FixedBatches(REAL), context(side=side), metrics)
    assert game.g.encoder is not None
    nets = {"g": game.g.net, "e": game.g.encoder, "d": game.d.net}
    gradients = {name: next(net.parameters()).grad for name, net in nets.items()}
    return (
        {name: None if grad is None else grad.clone() for name, grad in gradients.items()},
        logged_means(metrics),
        move,
    )


def expected_gradients(
    loss: Callable[[nn.Module, nn.Module, nn.Module, MoveData], Tensor], move: MoveData
) -> dict[str, Tensor]:
    """Gradients of a loss that is written out, for new networks: zero for weights that it does not depend on."""
    d, g, encoder = TanhDiscriminator(), TanhGenerator(), GaussianEncoder()
    weights = {"g": g.weight, "e": encoder.weight, "d": d.first}
    grads = torch.autograd.grad(loss(d, g, encoder, move), list(weights.values()), allow_unused=True)
    pairs = zip(weights.items(), grads, strict=True)
    return {name: torch.zeros_like(weight) if grad is None else grad for (name, weight), grad in pairs}


def latents_of(codes: EncoderOutput, move: MoveData) -> Tensor:
    """The latents that this move draws."""
    assert codes.log_var is not None
    eps = torch.empty(codes.mean.shape).normal_(generator=move.context.generator("codes"))
    return codes.mean + (codes.log_var / 2).exp() * eps


def added_gradient(with_it: Gradients, without: Gradients, name: str) -> Tensor:
    a, b = with_it[name], without[name]
    assert a is not None
    return a if b is None else a - b


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize(("n", "width"), [(1, 1), (7, 5), (64, 100)])
def test_the_loss_equals_numpys(n: int, width: int) -> None:
    x, y = (randn(n, width, seed=seed, dtype=torch.float64) for seed in (1, 2))
    distance = feature_reconstruction_loss(x, y)
    np.testing.assert_allclose(distance.numpy(), ((x.numpy() - y.numpy()) ** 2).sum(1) / 2, rtol=1e-12)
    assert feature_reconstruction_loss(x, x).tolist() == [0.0] * n


def test_the_loss_is_that_of_a_gaussian_up_to_a_constant() -> None:
    x, y, z = (randn(6, 4, seed=seed, dtype=torch.float64) for seed in (1, 2, 3))
    log_likelihoods = [-torch.distributions.Normal(other, 1.0).log_prob(x).sum(1) for other in (y, z)]
    torch.testing.assert_close(
        feature_reconstruction_loss(x, y) - feature_reconstruction_loss(x, z), log_likelihoods[0] - log_likelihoods[1]
    )


# ---------------------------------------------------------------- each term by itself


def test_posterior_kl_trains_the_encoder_only() -> None:
    none, silent, _ = play_move(Side.G, hybrid(PosteriorKL("kl", 0.0)))
    one, row, move = play_move(Side.G, hybrid(PosteriorKL("kl", 1.0)))
    three, _, _ = play_move(Side.G, hybrid(PosteriorKL("kl", 3.0)))
    assert "g/kl" not in silent

    def loss(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return gaussian_kl(*encoder(REAL)).mean()

    expected = expected_gradients(loss, move)["e"]
    assert float(expected.norm()) > 0.01
    assert row["g/kl"] == pytest.approx(float(gaussian_kl(*GaussianEncoder()(REAL)).mean().detach()), rel=1e-5)
    assert none["e"] is None
    torch.testing.assert_close(added_gradient(one, none, "e"), expected)
    torch.testing.assert_close(added_gradient(three, none, "e"), 3 * expected)
    torch.testing.assert_close(one["g"], none["g"])
    assert one["d"] is None
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)
    d_gradients, d_row, _ = play_move(Side.D, hybrid(PosteriorKL("kl", 1.0)))
    assert "d/kl" not in d_row
    assert d_gradients["e"] is None


def test_feature_reconstruction_trains_g_and_the_encoder_but_not_d() -> None:
    none, silent, _ = play_move(Side.G, hybrid(FeatureReconstruction("match", 0.0)))
    one, row, move = play_move(Side.G, hybrid(FeatureReconstruction("match", 1.0)))
    three, _, _ = play_move(Side.G, hybrid(FeatureReconstruction("match", 3.0)))
    assert "g/match" not in silent

    def loss(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        reconstruction = g(latents_of(encoder(REAL), move))
        return feature_reconstruction_loss(d(REAL).features, d(reconstruction).features).mean()

    expected = expected_gradients(loss, move)
    assert row["g/match"] == pytest.approx(
        float(loss(TanhDiscriminator(), TanhGenerator(), GaussianEncoder(), move).detach()), rel=1e-5
    )
    for name in ("g", "e"):
        assert float(expected[name].norm()) > 0.01
        torch.testing.assert_close(added_gradient(one, none, name), expected[name], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(added_gradient(three, none, name), 3 * expected[name], atol=1e-6, rtol=1e-4)
    assert one["d"] is None
    assert FeatureReconstruction.sides == {Side.G}


def test_features_of_real_samples_have_no_gradient() -> None:
    """Nor have D's weights, even if both require one."""
    d = TanhDiscriminator()
    game = hybrid(FeatureReconstruction("match", 1.0), d=d)
    real = REAL.clone().requires_grad_()
    with game.in_move(at := context(side=Side.G)):
        move = MoveData(at, torch.zeros(N, 2), torch.zeros(N, 2), real)
        move.reconstruct_fn = game.reconstruct_fn(FixedBatches(REAL), at, REAL, None)
        move.outputs = {"real": d(real)}
        move.discriminate_fn = game.discriminate_fn(d, at)
        loss = FeatureReconstruction("match", 1.0).loss(move)
    loss.backward()
    assert float(loss.detach()) > 0
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
def test_in_gs_move_judged_reconstruction_trains_the_decoder_only(
    objective: Objective, for_d: object, for_g: Callable[[Tensor], Tensor]
) -> None:
    judged, idle = (JudgedReconstruction("judged", weight, objective) for weight in (1.0, 0.0))
    none, silent, _ = play_move(Side.G, hybrid(idle, objective=objective))
    one, row, move = play_move(Side.G, hybrid(judged, objective=objective))

    def loss(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return for_g(d(g(latents_of(encoder(REAL), move).detach())).score).mean()

    expected = expected_gradients(loss, move)["g"]
    assert float(expected.norm()) > 0.01
    assert row["g/judged"] == pytest.approx(
        float(loss(TanhDiscriminator(), TanhGenerator(), GaussianEncoder(), move).detach()), rel=1e-5
    )
    torch.testing.assert_close(added_gradient(one, none, "g"), expected, atol=1e-6, rtol=1e-4)
    assert one["e"] is None or not one["e"].any()
    assert one["d"] is None
    assert row["g/adversarial"] == pytest.approx(silent["g/adversarial"], rel=1e-6)


@every_objective
def test_in_ds_move_judged_reconstruction_trains_d_only(
    objective: Objective, for_d: Callable[[Tensor], Tensor], for_g: object
) -> None:
    judged, idle = (JudgedReconstruction("judged", weight, objective) for weight in (1.0, 0.0))
    none, silent, _ = play_move(Side.D, hybrid(idle, objective=objective))
    one, row, move = play_move(Side.D, hybrid(judged, objective=objective))

    def loss(d: nn.Module, g: nn.Module, encoder: nn.Module, move: MoveData) -> Tensor:
        return for_d(d(g(latents_of(encoder(REAL), move)).detach()).score).mean()

    expected = expected_gradients(loss, move)["d"]
    assert float(expected.norm()) > 0.001
    assert row["d/judged"] == pytest.approx(
        float(loss(TanhDiscriminator(), TanhGenerator(), GaussianEncoder(), move).detach()), rel=1e-5
    )
    torch.testing.assert_close(added_gradient(one, none, "d"), expected, atol=1e-6, rtol=1e-4)
    assert one["g"] is None
    assert one["e"] is None
    assert not move.reconstruction.images.requires_grad
    assert row["d/adversarial"] == pytest.approx(silent["d/adversarial"], rel=1e-6)


def test_equal_weights_scale_the_encoders_gradient() -> None:
    """The encoder's gradient is the paper's up to a factor, whatever other terms train the decoder."""
    gradients = []
    for gamma in (1.0, 0.05):
        tricks = (
            PosteriorKL("kl", gamma),
            FeatureReconstruction("match", gamma),
            JudgedReconstruction("judged", 1.0, NonSaturating()),
        )
        gradients.append(play_move(Side.G, hybrid(*tricks))[0])
    assert gradients[0]["e"] is not None
    assert float(gradients[0]["e"].norm()) > 0.01
    torch.testing.assert_close(gradients[1]["e"], 0.05 * gradients[0]["e"], atol=1e-8, rtol=1e-5)
    assert not torch.allclose(gradients[1]["g"], 0.05 * gradients[0]["g"], rtol=1e-2)


def test_all_three_terms_use_the_same_reconstruction() -> None:
    """One draw of latents per move, whichever term uses it first."""
    calls: list[Tensor] = []
    tricks = (PosteriorKL("kl", 1.0), FeatureReconstruction("match", 1.0))
    game = hybrid(*tricks, JudgedReconstruction("judged", 1.0, NonSaturating()))
    assert game.g.encoder is not None
    game.g.encoder.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    for side in Side:
        calls.clear()
        play_move(side, game)
        assert len(calls) == 1
        assert torch.equal(calls[0], REAL)


# ---------------------------------------------------------------- in a recipe


def test_configs_declare_their_requirements() -> None:
    for config in CONFIGS:
        assert config().needs_codes
        assert not config(weight=0.0).needs_codes
        assert config(weight=Ramp(start=0.0, end=1.0)).needs_codes
        assert config(weight=Ramp(start=1.0, end=0.0)).needs_codes
    assert [config().needs_code_variance for config in CONFIGS] == [True, False, False]
    assert [bool(config().required_outputs) for config in CONFIGS] == [False, True, False]
    assert [config().needs_separate_fake_loss for config in CONFIGS] == [False, False, True]
    assert [config.needs_discriminator for config in CONFIGS] == [False, True, True]
    assert not any(
        config(weight=0.0).required_outputs or config(weight=0.0).needs_separate_fake_loss for config in CONFIGS
    )
    assert not PosteriorKLConfig(weight=0.0).needs_code_variance


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_build_terms_with_their_weight(config: type[HybridConfig]) -> None:
    trick = config(weight=0.3).build("its_name", TrickContext({}, DataSpec((2,)), objective=Hinge()))
    assert isinstance(trick, LossTerm)
    assert (trick.name, trick.weight, trick.every) == ("its_name", 0.3, 1)
    assert trick.needs_real
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": config.tag(), "weight": -1.0}, **with_encoder("points"))


@pytest.mark.parametrize("objective", ["relativistic", "relativistic_average", "energy", "began"])
def test_objectives_without_a_separate_fake_loss_are_rejected(objective: str) -> None:
    for weight, rejected in ((1.0, True), (0.0, False)):
        tables = suited("pictures", objective)
        tables["network"] = {**with_encoder("pictures")["network"], **tables.get("network", {})}
        checked = recipe("pictures", {"kind": "judged_reconstruction", "weight": weight}, **tables)
        fields = [finding.field for finding in findings_of(checked, "pictures").refusals]
        assert fields == (["tricks.0"] if rejected else [])


@pytest.mark.parametrize(
    "objective", ["non_saturating", "minimax", "least_squares", "hinge", "wasserstein", "kl_divergence"]
)
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_all_three_work_with_every_objective(objective: str, world: str) -> None:
    tricks = [{"kind": config.tag()} for config in CONFIGS]
    tables: dict[str, Any] = {**with_encoder(world), "objective": {"kind": objective}}
    assert findings_of(recipe(world, *tricks, **tables), world).refusals == []
    run = session(world, *tricks, **tables)
    before = run.saved()
    logged = run.play(3).metrics.reduce()
    assert {"g/posterior_kl", "g/feature_reconstruction", "g/judged_reconstruction"} <= set(logged)
    assert "d/judged_reconstruction" in logged
    assert not {"d/posterior_kl", "d/feature_reconstruction"} & set(logged)
    after = run.saved()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values() if tensor.is_floating_point())
    moved = [
        name for name in before if name.startswith("game/g.encoder") and not torch.equal(before[name], after[name])
    ]
    assert moved


def test_with_a_large_weight_features_approach_each_other() -> None:
    """The weight is so large that the adversarial loss is negligible, and D hardly learns."""
    optimizer = {"g": {"kind": "adam", "lr": 1e-2}, "d": {"kind": "sgd", "lr": 1e-12}}
    tricks = [{"kind": "feature_reconstruction", "weight": 30.0}]
    run = session("pictures", *tricks, optimizer=optimizer, **with_encoder("pictures"))
    first = run.play(5).metrics.reduce()["g/feature_reconstruction"].mean
    run.play(30).metrics.reduce()
    assert run.play(5).metrics.reduce()["g/feature_reconstruction"].mean < 0.9 * first
