"""Rebuilding: its costs against PyTorch's own densities, the bound against a likelihood that is known, and descent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, MultivariateNormal, Normal
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from contracts.tiny import context, for_one, session, suited
from poise.core.latent_codes import gaussian_kl, sample_codes
from poise.core.move import MoveData
from poise.core.schedules import Linear
from poise.core.types import EncoderOutput, ReconstructedBatch, Side
from poise.errors import RecipeError
from poise.objectives.reconstruction import (
    MIN_PROBABILITY,
    Distance,
    Elbo,
    Likelihood,
    Reconstruction,
    bernoulli_nll,
    binarize,
    gaussian_nll,
    reconstruction_error,
)
from poise.recipe.decode import decode

SHAPES = [(5, 2), (3, 1, 4, 4), (2, 3, 8, 8)]


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two piles, float64."""
    real, rebuilt = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
    return real, rebuilt


def black_and_white(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


# ---------------------------------------------------------------- residuals


@pytest.mark.parametrize("shape", SHAPES)
def test_residuals_are_numpys(shape: tuple[int, ...]) -> None:
    real, rebuilt = pair(shape)
    missed = (rebuilt - real).numpy().reshape(len(real), -1)
    np.testing.assert_allclose(reconstruction_error(real, rebuilt, "l1").numpy(), np.abs(missed).mean(1), rtol=1e-12)
    np.testing.assert_allclose(reconstruction_error(real, rebuilt, "l2").numpy(), (missed**2).mean(1), rtol=1e-12)
    for delta in (0.3, 1.0, 5.0):
        size = np.abs(missed)
        huber = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean(1)
        np.testing.assert_allclose(reconstruction_error(real, rebuilt, "huber", delta).numpy(), huber, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_their_mean_is_pytorchs_loss(shape: tuple[int, ...]) -> None:
    real, rebuilt = pair(shape)
    assert float(reconstruction_error(real, rebuilt, "l1").mean()) == pytest.approx(float(l1_loss(rebuilt, real)))
    assert float(reconstruction_error(real, rebuilt, "l2").mean()) == pytest.approx(float(mse_loss(rebuilt, real)))
    told = float(huber_loss(rebuilt, real, delta=0.7))
    assert float(reconstruction_error(real, rebuilt, "huber", 0.7).mean()) == pytest.approx(told)


@pytest.mark.parametrize("distance", ["l1", "l2", "huber"])
def test_residuals_gradients_and_half_precision(distance: Distance) -> None:
    real, rebuilt = pair((3, 2, 2))
    assert torch.autograd.gradcheck(lambda r: reconstruction_error(real, r, distance, 0.5), (rebuilt.requires_grad_(),))
    assert reconstruction_error(real, real, distance).tolist() == [0.0] * 3
    half = reconstruction_error(real.bfloat16(), rebuilt.detach().bfloat16(), distance)
    assert half.dtype == torch.float32
    exact = reconstruction_error(real.bfloat16().double(), rebuilt.detach().bfloat16().double(), distance)
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=0)


# ---------------------------------------------------------------- nats


@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli_nats_are_pytorchs(shape: tuple[int, ...]) -> None:
    real, rebuilt = black_and_white(shape), pair(shape)[1].tanh()
    right = -Bernoulli(probs=(rebuilt + 1) / 2).log_prob((real + 1) / 2).flatten(1).sum(1)
    ours = bernoulli_nll(real, rebuilt)
    assert ours.shape == (len(real),)
    torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(bernoulli_nll(real.float(), rebuilt.float()).double(), right, rtol=1e-5, atol=1e-4)


def test_a_coin_that_was_sure_and_wrong_costs_what_the_edge_says() -> None:
    white, black = torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)
    most = 4 * -math.log(MIN_PROBABILITY)
    assert most / 4 == pytest.approx(13.8, abs=0.02)
    for real, rebuilt in ((white, black), (black, white), (white, 3 * black)):
        assert float(bernoulli_nll(real.double(), rebuilt.double())) == pytest.approx(most, rel=1e-9)
        assert float(bernoulli_nll(real, rebuilt)) == pytest.approx(most, rel=1e-2)
    for sure in (white, black):
        assert 0 <= float(bernoulli_nll(sure, sure)) < 1e-5


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_nats_are_pytorchs(shape: tuple[int, ...], sigma: float) -> None:
    real, rebuilt = pair(shape)
    right = -Normal(rebuilt, sigma).log_prob(real).flatten(1).sum(1)
    ours = gaussian_nll(real, rebuilt, sigma)
    assert ours.shape == (len(real),)
    torch.testing.assert_close(ours, right, rtol=1e-11, atol=1e-11)
    assert gaussian_nll(real.bfloat16(), rebuilt.bfloat16(), sigma).dtype == torch.float32


def test_gradients_of_nats() -> None:
    real, rebuilt = black_and_white((3, 4)), pair((3, 4))[1].tanh().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: bernoulli_nll(real, r), (rebuilt,))
    assert torch.autograd.gradcheck(lambda r: gaussian_nll(real, r, 0.7), (rebuilt,))


# ---------------------------------------------------------------- coins


def test_coins_are_black_or_white_with_the_grey_as_their_chance() -> None:
    greys = torch.linspace(-1, 1, 9)
    flips = 20_000
    thrown = binarize(greys.expand(flips, 9), torch.Generator().manual_seed(0))
    assert set(thrown.unique().tolist()) == {-1.0, 1.0}
    assert thrown.dtype == torch.float32
    error = ((1 - greys.square()) / flips).sqrt()
    assert bool(((thrown.mean(0) - greys).abs() <= 5 * error).all())
    assert bool((thrown[:, 0] == -1).all())
    assert bool((thrown[:, -1] == 1).all())


def test_coins_are_a_function_of_the_generator_and_leave_the_pictures_alone() -> None:
    grey = torch.zeros(4, 1, 8, 8)
    one, same, other = (binarize(grey, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not grey.any()
    lying = torch.zeros(4, 8, 8, 1).permute(0, 3, 1, 2)
    assert torch.equal(binarize(lying, torch.Generator().manual_seed(1)), one)


def test_only_a_bernoulli_sees_coins() -> None:
    grey = torch.zeros(4, 1, 8, 8)
    at = context(side=Side.G)
    assert Elbo(likelihood="gaussian").prepare_real(grey, at) is grey
    assert Reconstruction().build().prepare_real(grey, at) is grey
    thrown = Elbo(likelihood="bernoulli").build().prepare_real(grey, at)
    assert torch.equal(thrown, binarize(grey, at.generator("coins")))
    assert not torch.equal(thrown, Elbo(likelihood="bernoulli").prepare_real(grey, context(1, side=Side.G)))


# ---------------------------------------------------------------- what is paid


def some_codes(n: int, dim: int = 3) -> EncoderOutput:
    return EncoderOutput(*pair((n, dim), seed=5))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_parts_of_the_bound(likelihood: Likelihood) -> None:
    shape = (4, 1, 3, 3)
    real, rebuilt, codes = black_and_white(shape), pair(shape)[1].tanh(), some_codes(4)
    parts = Elbo(likelihood=likelihood, sigma=0.3, beta=7.0).loss_parts(real, rebuilt, codes)
    missed = bernoulli_nll(real, rebuilt) if likelihood == "bernoulli" else gaussian_nll(real, rebuilt, 0.3)
    assert list(parts) == ["reconstruction", "kl", "elbo"]
    assert torch.equal(parts["reconstruction"], missed)
    assert torch.equal(parts["kl"], gaussian_kl(codes.mean, codes.log_var))
    torch.testing.assert_close(parts["elbo"], -(parts["reconstruction"] + parts["kl"]))
    half = EncoderOutput(codes.mean.bfloat16(), codes.log_var.bfloat16())
    rough = Elbo(likelihood=likelihood).loss_parts(real.bfloat16(), rebuilt.bfloat16(), half)
    assert {part.dtype for part in rough.values()} == {torch.float32}


def paid(objective: Elbo | Reconstruction, at: int = 0) -> tuple[float, dict[str, float]]:
    """What a move of ten costs, and its readings."""
    real, rebuilt, codes = black_and_white((4, 1, 3, 3)), pair((4, 1, 3, 3))[1].tanh(), some_codes(4)
    move = MoveData(context(at, side=Side.G, steps=10), codes.mean, rebuilt, real)
    move.reconstruct_fn = lambda: ReconstructedBatch(codes, codes.mean, rebuilt)
    rule = objective.build()
    cost = rule.reconstruction_loss(move)
    rule.after_update(move)
    assert cost.shape == ()
    return float(cost), {name: float(reading) for name, reading in move.logged.items()}


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_kl_in_what_is_paid_and_not_in_what_is_told(beta: float) -> None:
    cost, told = paid(Elbo(beta=beta))
    assert set(told) == {"reconstruction", "kl", "elbo"}
    assert cost == pytest.approx(told["reconstruction"] + beta * told["kl"], rel=1e-12)
    assert told == paid(Elbo())[1]
    assert told["elbo"] == pytest.approx(-told["reconstruction"] - told["kl"], rel=1e-12)
    assert told["kl"] > 0.1


def test_beta_is_a_dial() -> None:
    rising = Elbo(beta=Linear(start=0.0, end=2.0, until=0.5))
    for at, beta in ((0, 0.0), (1, 0.4), (5, 2.0), (9, 2.0)):
        cost, told = paid(rising, at)
        assert cost == pytest.approx(told["reconstruction"] + beta * told["kl"], rel=1e-12)


@pytest.mark.parametrize("distance", ["l1", "l2", "huber"])
def test_an_autoencoder_pays_its_distance(distance: Distance) -> None:
    cost, told = paid(Reconstruction(distance=distance, delta=0.4))
    right = reconstruction_error(black_and_white((4, 1, 3, 3)), pair((4, 1, 3, 3))[1].tanh(), distance, 0.4)
    assert told == {"reconstruction": cost}
    assert cost == pytest.approx(float(right.mean()), rel=1e-12)


def test_settings_that_mean_nothing_are_refused() -> None:
    tables = [{"kind": "elbo", "sigma": 0.0}, {"kind": "elbo", "beta": -0.1}, {"kind": "reconstruction", "delta": 0.0}]
    for table in tables:
        with pytest.raises(RecipeError, match=r"sigma|beta|delta"):
            decode({"objective": table})


# ---------------------------------------------------------------- a likelihood that is known

DRAWS = 40_000
SIGMA = 0.6
W = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.3, 0.0]], dtype=torch.float64)


def linear_gaussian() -> tuple[Tensor, float, EncoderOutput]:
    """A sample x, log p(x), and the posterior N(mean, var): z ~ N(0, I), x ~ N(Wz, sigma^2 I), W'W diagonal."""
    w = torch.linalg.qr(W).Q * torch.tensor([1.3, 0.7], dtype=torch.float64)
    x = torch.tensor([0.8, -1.1, 0.4], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    likely = MultivariateNormal(torch.zeros(3, dtype=torch.float64), w @ w.T + SIGMA**2 * eye).log_prob(x)
    var = 1 / (1 + (w.T @ w).diagonal() / SIGMA**2)
    return x, float(likely), EncoderOutput(var * (w.T @ x) / SIGMA**2, var.log())


def bound(codes: EncoderOutput) -> tuple[float, float]:
    """The bound of x in the mean over draws, and its standard error."""
    x, _, _ = linear_gaussian()
    w = torch.linalg.qr(W).Q * torch.tensor([1.3, 0.7], dtype=torch.float64)
    assert codes.log_var is not None
    many = EncoderOutput(codes.mean.expand(DRAWS, 2), codes.log_var.expand(DRAWS, 2))
    z = sample_codes(many, torch.Generator().manual_seed(0))
    elbo = Elbo(likelihood="gaussian", sigma=SIGMA).loss_parts(x.expand(DRAWS, 3), z @ w.T, many)["elbo"]
    return float(elbo.mean()), float(elbo.std()) / DRAWS**0.5


def test_with_the_true_posterior_the_bound_is_the_likelihood() -> None:
    _, likely, posterior = linear_gaussian()
    found, error = bound(posterior)
    assert found == pytest.approx(likely, abs=5 * error)
    assert error < 0.02


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 0.0), (-0.5, 0.0), (0.0, 1.0), (0.0, -1.5), (0.3, 0.8)])
def test_with_any_other_it_is_lower_by_the_kl_between_them(shift: float, stretch: float) -> None:
    _, likely, (mean, log_var) = linear_gaussian()
    assert log_var is not None
    other = EncoderOutput(mean + shift, log_var + stretch)
    found, error = bound(other)
    assert found < likely - 5 * error
    true, wrong = Normal(mean, (log_var / 2).exp()), Normal(other.mean, (other.log_var / 2).exp())
    gap = float(torch.distributions.kl_divergence(wrong, true).sum())
    assert found == pytest.approx(likely - gap, abs=5 * error)


# ---------------------------------------------------------------- in a game for one


def test_the_bound_rises() -> None:
    run = session("pictures", **suited("pictures", "elbo"))
    levels = []
    for _ in range(3):
        told = run.play(10).metrics.reduce()
        levels.append(told["g/elbo"].mean)
        assert set(told) == {"g/reconstruction", "g/kl", "g/elbo", "g/grad_norm"}
    assert levels[0] < levels[1] < levels[2]
    assert levels[2] - levels[0] > 0.1


@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_the_residual_falls(world: str) -> None:
    run = session(world, **suited(world, "reconstruction"))
    first = run.play(5).metrics.reduce()["g/reconstruction"].mean
    run.play(25).metrics.reduce()
    told = run.play(5).metrics.reduce()
    assert set(told) == {"g/reconstruction", "g/grad_norm"}
    assert told["g/reconstruction"].mean < 0.95 * first


def test_what_is_told_is_what_the_move_saw() -> None:
    run = session("pictures", **suited("pictures", "elbo")).play(1)
    (played,) = run.moves
    move, told = played.move, run.metrics.reduce()
    parts = Elbo().loss_parts(move.samples("real"), move.reconstruction.images, move.reconstruction.codes)
    for name, part in parts.items():
        assert told[f"g/{name}"].mean == pytest.approx(float(part.mean().detach()), rel=1e-5)
    assert torch.equal(move.fake, move.reconstruction.images)
    assert torch.equal(move.latents, move.reconstruction.latents)


def test_a_bernoulli_game_sees_coins_and_every_move_others() -> None:
    tables = for_one("pictures") | {"objective": {"kind": "elbo", "likelihood": "bernoulli"}}
    run = session("pictures", **tables).play(6)
    again = session("pictures", **tables).play(6)
    for played_move in run.moves:
        assert set(played_move.real.unique().tolist()) == {-1.0, 1.0}
        grey, _ = run.batches.load(played_move.context)
        assert torch.equal(played_move.real, binarize(grey, played_move.context.generator("coins")))
    assert all(torch.equal(a.real, b.real) for a, b in zip(run.moves, again.moves, strict=True))
