"""Rows of the tricks that make a hybrid of a GAN and an autoencoder: what they charge G and its encoder for."""

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
"""Neither nothing nor one, so that a weight that is left out is seen."""

STILL = {"kind": "adam", "lr": 1e-9}
"""A D that hardly learns, so that with and without are seen by the same eyes."""


def encoder_weights(run: Session) -> dict[str, Tensor]:
    """Those of G's encoder by name, live."""
    return dict(run.game.g.encoder.named_parameters())


def pull(run: Session, side: Side, cost: Tensor) -> Tensor:
    """The gradient of a cost worked out by hand, in a player's weights, 0 where it does not reach."""
    found = run.game.players[side].weights
    grads = torch.autograd.grad(cost, found, allow_unused=True)
    return flat([torch.zeros_like(w) if grad is None else grad for w, grad in zip(found, grads, strict=True)])


def pulled(run: Session, side: Side) -> Tensor:
    """What the player's last step went by, 0 where a weight had no gradient."""
    return flat([torch.zeros_like(w) if w.grad is None else w.grad for w in run.game.players[side].weights])


def alike(ours: Tensor, theirs: Tensor) -> bool:
    """But for rounding."""
    return float((ours - theirs).norm()) < 1e-4 * float(theirs.norm())


def nats(codes: EncoderOutput) -> Tensor:
    """KL of each code's region to N(0, I), B, axis by axis."""
    assert codes.log_var is not None
    region = Normal(codes.mean, codes.log_var.exp().sqrt())
    return kl_divergence(region, Normal(torch.zeros(()), torch.ones(()))).sum(1)


def stays_near_the_prior(play: Play) -> None:
    """G's first row is the mean KL of the move's codes, which the encoder pays for and nobody else.

    Where something else draws the codes apart, that KL of the same reals stays lower than with hardly any weight.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move = run.of(Side.G)[0]
    assert played_move.real is not None
    codes = fresh.game.g.encoder(played_move.real)
    rebuilt = played_move.move.reconstruction
    assert codes.mean.shape == codes.log_var.shape == (BATCH, run.recipe.latent.dim)
    assert torch.allclose(rebuilt.codes.mean, codes.mean, atol=1e-6)
    assert torch.allclose(rebuilt.codes.log_var, codes.log_var, atol=1e-6)
    eps = torch.empty(BATCH, run.recipe.latent.dim).normal_(generator=played_move.context.generator("codes"))
    assert torch.allclose(rebuilt.latents, codes.mean + codes.log_var.exp().sqrt() * eps, atol=1e-6)
    told = run.metrics.reduce()
    assert told["g/posterior_kl"].mean == pytest.approx(float(nats(codes).mean().detach()), rel=1e-5)
    assert "d/posterior_kl" not in told
    assert "g/posterior_kl" not in without.metrics.reduce()
    score = call_network(run.game.d.net, fresh.game.g.net(played_move.latents), None).score
    cost = softplus(-score).mean() + WEIGHT * nats(codes).mean()
    assert alike(pulled(run, Side.G), pull(fresh, Side.G, cost))
    for side in Side:
        assert unequal(weights(run, side), weights(without, side)) == []
    assert without.of(Side.G)[0].real is None, "nobody else asks for the reals"

    def late(weight: float) -> float:
        drawn_apart: list[dict[str, Any]] = [
            {"kind": "feature_reconstruction", "weight": 10.0},
            {"kind": "posterior_kl", "weight": weight},
        ]
        held = play(True, 40, tricks=drawn_apart)
        return float(nats(held.game.g.encoder(played_move.real)).mean().detach())

    assert late(WEIGHT) < 0.5 * late(1e-9)


def gap(d: torch.nn.Module, real: Tensor, rebuilt: Tensor) -> Tensor:
    """Half the squared distance of D's features, picture by picture, their mean."""
    of_real, of_rebuilt = (call_network(d, origin, None).features for origin in (real, rebuilt))
    return torch.stack([(of_real[k] - of_rebuilt[k]).pow(2).sum() / 2 for k in range(BATCH)]).mean()


def rebuilds_for_d(play: Play) -> None:
    """G's first row is half the squared distance to the reals in D's features; G and its encoder pay for it.

    After some steps what is rebuilt is nearer than without. D pays nothing.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move, d = run.of(Side.G)[0], run.game.d.net
    assert played_move.real is not None
    codes = fresh.game.g.encoder(played_move.real)
    assert codes.log_var is None
    missed = gap(d, played_move.real, fresh.game.g.net(codes.mean))
    told = run.metrics.reduce()
    assert told["g/feature_reconstruction"].mean == pytest.approx(float(missed.detach()), rel=1e-4)
    assert "d/feature_reconstruction" not in told
    assert "g/feature_reconstruction" not in without.metrics.reduce()
    score = call_network(d, fresh.game.g.net(played_move.latents), None).score
    assert alike(pulled(run, Side.G), pull(fresh, Side.G, softplus(-score).mean() + WEIGHT * missed))
    before, now = encoder_weights(fresh), encoder_weights(run)
    assert unequal(before, now) == sorted(now), "every weight of the encoder learns"
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    still = {**run.recipe.canonical()["optimizer"], "d": STILL}

    def late(on: bool) -> float:
        held = play(on, 40, optimizer=still)
        rebuilt = held.game.g.net(held.game.g.encoder(played_move.real).mean)
        return float(gap(fresh.game.d.net, played_move.real, rebuilt).detach())

    assert late(True) < 0.7 * late(False)


def is_judged(play: Play) -> None:
    """Both rows are what the objective charges for the rebuilt; D and G learn from it, the encoder never does."""
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)

    def rebuilt(played_move: Played) -> Tensor:
        """As G made them before its first move: with a gradient in its own weights, and none in the encoder's."""
        assert played_move.real is not None
        return fresh.game.g.net(fresh.game.g.encoder(played_move.real).mean.detach())

    first, second = run.of(Side.D)[0], run.of(Side.G)[0]
    d = fresh.game.d.net
    real, fake = (call_network(d, origin, None).score for origin in (first.real, first.fake))
    taken = softplus(call_network(d, rebuilt(first).detach(), None).score).mean()
    told = run.metrics.reduce()
    assert told["d/judged_reconstruction"].mean == pytest.approx(float(taken.detach()), rel=1e-5)
    cost = softplus(-real).mean() + softplus(fake).mean() + WEIGHT * taken
    assert alike(pulled(run, Side.D), pull(fresh, Side.D, cost))
    assert not alike(pulled(run, Side.D), pulled(without, Side.D))

    d = run.game.d.net
    fooled = softplus(-call_network(d, rebuilt(second), None).score).mean()
    assert told["g/judged_reconstruction"].mean == pytest.approx(float(fooled.detach()), rel=1e-4)
    cost = softplus(-call_network(d, fresh.game.g.net(second.latents), None).score).mean() + WEIGHT * fooled
    assert alike(pulled(run, Side.G), pull(fresh, Side.G, cost))
    assert not any(name.endswith("/judged_reconstruction") for name in without.metrics.reduce())

    run.play(4)
    assert unequal(encoder_weights(run), encoder_weights(fresh)) == []
    assert all(weight.grad is None for weight in encoder_weights(run).values())
    assert unequal(weights(run, Side.G), weights(fresh, Side.G))


ROWS = {
    "feature_reconstruction": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, acts=rebuilds_for_d),
    "judged_reconstruction": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, acts=is_judged),
    "posterior_kl": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, acts=stays_near_the_prior),
}
