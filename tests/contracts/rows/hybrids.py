"""Rows of the loss terms that combine a GAN and an autoencoder: what they add to the loss of G and its encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from contracts.rows.base import Play, Row, flat, weights
from contracts.tiny import BATCH, Played, Session, unequal
from poise.core.types import EncoderOutput, Side
from poise.networks.base import call_network

WEIGHT = 0.5
"""Neither 0 nor 1, so that a missing weight is detected."""

FROZEN_D = {"kind": "adam", "lr": 1e-9}
"""A D that hardly learns, so that runs with and without the trick are compared by the same features."""


def encoder_weights(run: Session) -> dict[str, Tensor]:
    """The weights of G's encoder by name, not copied."""
    return dict(run.game.g.encoder.named_parameters())


def expected_gradient(run: Session, side: Side, loss: Tensor) -> Tensor:
    """The gradient of a loss in a player's weights, 0 where a weight has none."""
    parameters = run.game.players[side].weights
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return flat([torch.zeros_like(w) if grad is None else grad for w, grad in zip(parameters, grads, strict=True)])


def gradient(run: Session, side: Side) -> Tensor:
    """The gradient of the player's last step, 0 where a weight has none."""
    return flat([torch.zeros_like(w) if w.grad is None else w.grad for w in run.game.players[side].weights])


def nearly_equal(actual: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding."""
    return float((actual - expected).norm()) < 1e-4 * float(expected.norm())


def kl_of_codes(codes: EncoderOutput) -> Tensor:
    """KL(q(z | x) || N(0, I)) of each code, B, axis by axis."""
    assert codes.log_var is not None
    posterior = Normal(codes.mean, codes.log_var.exp().sqrt())
    return kl_divergence(posterior, Normal(torch.zeros(()), torch.ones(()))).sum(1)


def check_posterior_kl(play: Play) -> None:
    """G's first logged value is the mean KL of the move's codes; only the encoder is trained by it.

    If another term drives the codes apart, the KL of the same real samples stays lower than with a negligible weight.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move = run.of(Side.G)[0]
    assert played_move.real is not None
    codes = fresh.game.g.encoder(played_move.real)
    reconstruction = played_move.move.reconstruction
    assert codes.mean.shape == codes.log_var.shape == (BATCH, run.recipe.latent.dim)
    assert torch.allclose(reconstruction.codes.mean, codes.mean, atol=1e-6)
    assert torch.allclose(reconstruction.codes.log_var, codes.log_var, atol=1e-6)
    eps = torch.empty(BATCH, run.recipe.latent.dim).normal_(generator=played_move.context.generator("codes"))
    assert torch.allclose(reconstruction.latents, codes.mean + codes.log_var.exp().sqrt() * eps, atol=1e-6)
    logged = run.metrics.reduce()
    assert logged["g/posterior_kl"].mean == pytest.approx(float(kl_of_codes(codes).mean().detach()), rel=1e-5)
    assert "d/posterior_kl" not in logged
    assert "g/posterior_kl" not in without.metrics.reduce()
    score = call_network(run.game.d.net, fresh.game.g.net(played_move.latents), None).score
    loss = softplus(-score).mean() + WEIGHT * kl_of_codes(codes).mean()
    assert nearly_equal(gradient(run, Side.G), expected_gradient(fresh, Side.G, loss))
    for side in Side:
        assert unequal(weights(run, side), weights(without, side)) == []
    assert without.of(Side.G)[0].real is None, "no other part needs the real samples"

    def late(weight: float) -> float:
        tricks: list[dict[str, Any]] = [
            {"kind": "feature_reconstruction", "weight": 10.0},
            {"kind": "posterior_kl", "weight": weight},
        ]
        later = play(True, 40, tricks=tricks)
        return float(kl_of_codes(later.game.g.encoder(played_move.real)).mean().detach())

    assert late(WEIGHT) < 0.5 * late(1e-9)


def feature_distance(d: torch.nn.Module, real: Tensor, reconstruction: Tensor) -> Tensor:
    """Half the squared distance of D's features, image by image; the mean."""
    real_features, features = (call_network(d, origin, None).features for origin in (real, reconstruction))
    return torch.stack([(real_features[k] - features[k]).pow(2).sum() / 2 for k in range(BATCH)]).mean()


def check_feature_reconstruction(play: Play) -> None:
    """G's first logged value is half the squared distance in D's features; it trains G and its encoder, but not D.

    After some steps, reconstructions are closer than without.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move, d = run.of(Side.G)[0], run.game.d.net
    assert played_move.real is not None
    codes = fresh.game.g.encoder(played_move.real)
    assert codes.log_var is None
    distance = feature_distance(d, played_move.real, fresh.game.g.net(codes.mean))
    logged = run.metrics.reduce()
    assert logged["g/feature_reconstruction"].mean == pytest.approx(float(distance.detach()), rel=1e-4)
    assert "d/feature_reconstruction" not in logged
    assert "g/feature_reconstruction" not in without.metrics.reduce()
    score = call_network(d, fresh.game.g.net(played_move.latents), None).score
    assert nearly_equal(
        gradient(run, Side.G), expected_gradient(fresh, Side.G, softplus(-score).mean() + WEIGHT * distance)
    )
    before, now = encoder_weights(fresh), encoder_weights(run)
    assert unequal(before, now) == sorted(now), "every weight of the encoder learns"
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    optimizer = {**run.recipe.canonical()["optimizer"], "d": FROZEN_D}

    def late(on: bool) -> float:
        later = play(on, 40, optimizer=optimizer)
        reconstruction = later.game.g.net(later.game.g.encoder(played_move.real).mean)
        return float(feature_distance(fresh.game.d.net, played_move.real, reconstruction).detach())

    assert late(True) < 0.7 * late(False)


def check_judged_reconstruction(play: Play) -> None:
    """The logged values are the objective's losses of reconstructions; they train D and G, but not the encoder."""
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)

    def reconstruct(played_move: Played) -> Tensor:
        """G's reconstructions before its first move, with a gradient in G's weights and none in the encoder's."""
        assert played_move.real is not None
        return fresh.game.g.net(fresh.game.g.encoder(played_move.real).mean.detach())

    first, second = run.of(Side.D)[0], run.of(Side.G)[0]
    d = fresh.game.d.net
    real, fake = (call_network(d, origin, None).score for origin in (first.real, first.fake))
    d_loss = softplus(call_network(d, reconstruct(first).detach(), None).score).mean()
    logged = run.metrics.reduce()
    assert logged["d/judged_reconstruction"].mean == pytest.approx(float(d_loss.detach()), rel=1e-5)
    loss = softplus(-real).mean() + softplus(fake).mean() + WEIGHT * d_loss
    assert nearly_equal(gradient(run, Side.D), expected_gradient(fresh, Side.D, loss))
    assert not nearly_equal(gradient(run, Side.D), gradient(without, Side.D))

    d = run.game.d.net
    g_loss = softplus(-call_network(d, reconstruct(second), None).score).mean()
    assert logged["g/judged_reconstruction"].mean == pytest.approx(float(g_loss.detach()), rel=1e-4)
    loss = softplus(-call_network(d, fresh.game.g.net(second.latents), None).score).mean() + WEIGHT * g_loss
    assert nearly_equal(gradient(run, Side.G), expected_gradient(fresh, Side.G, loss))
    assert not any(name.endswith("/judged_reconstruction") for name in without.metrics.reduce())

    run.play(4)
    assert unequal(encoder_weights(run), encoder_weights(fresh)) == []
    assert all(weight.grad is None for weight in encoder_weights(run).values())
    assert unequal(weights(run, Side.G), weights(fresh, Side.G))


ROWS = {
    "feature_reconstruction": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=check_feature_reconstruction),
    "judged_reconstruction": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=check_judged_reconstruction),
    "posterior_kl": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=check_posterior_kl),
}
