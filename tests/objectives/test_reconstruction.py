"""Reconstruction: the losses compared with PyTorch's densities, the bound with a known likelihood, and training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, MultivariateNormal, Normal
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from contracts.tiny import context, session, suited, without_discriminator
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
    """Random real samples and reconstructions, float64."""
    real, reconstruction = (
        torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
    )
    return real, reconstruction


def black_and_white(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


# ---------------------------------------------------------------- residuals


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_errors_match_numpy(shape: tuple[int, ...]) -> None:
    real, reconstruction = pair(shape)
    residual = (reconstruction - real).numpy().reshape(len(real), -1)
    np.testing.assert_allclose(
        reconstruction_error(real, reconstruction, "l1").numpy(), np.abs(residual).mean(1), rtol=1e-12
    )
    np.testing.assert_allclose(
        reconstruction_error(real, reconstruction, "l2").numpy(), (residual**2).mean(1), rtol=1e-12
    )
    for delta in (0.3, 1.0, 5.0):
        size = np.abs(residual)
        huber = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean(1)
        np.testing.assert_allclose(
            reconstruction_error(real, reconstruction, "huber", delta).numpy(), huber, rtol=1e-12
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_errors_match_pytorchs_losses(shape: tuple[int, ...]) -> None:
    real, reconstruction = pair(shape)
    assert float(reconstruction_error(real, reconstruction, "l1").mean()) == pytest.approx(
        float(l1_loss(reconstruction, real))
    )
    assert float(reconstruction_error(real, reconstruction, "l2").mean()) == pytest.approx(
        float(mse_loss(reconstruction, real))
    )
    expected = float(huber_loss(reconstruction, real, delta=0.7))
    assert float(reconstruction_error(real, reconstruction, "huber", 0.7).mean()) == pytest.approx(expected)


@pytest.mark.parametrize("distance", ["l1", "l2", "huber"])
def test_gradients_and_half_precision_of_reconstruction_errors(distance: Distance) -> None:
    real, reconstruction = pair((3, 2, 2))
    assert torch.autograd.gradcheck(
        lambda r: reconstruction_error(real, r, distance, 0.5), (reconstruction.requires_grad_(),)
    )
    assert reconstruction_error(real, real, distance).tolist() == [0.0] * 3
    half = reconstruction_error(real.bfloat16(), reconstruction.detach().bfloat16(), distance)
    assert half.dtype == torch.float32
    exact = reconstruction_error(real.bfloat16().double(), reconstruction.detach().bfloat16().double(), distance)
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=0)


# ---------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli_nll_matches_pytorch(shape: tuple[int, ...]) -> None:
    real, reconstruction = black_and_white(shape), pair(shape)[1].tanh()
    expected = -Bernoulli(probs=(reconstruction + 1) / 2).log_prob((real + 1) / 2).flatten(1).sum(1)
    actual = bernoulli_nll(real, reconstruction)
    assert actual.shape == (len(real),)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        bernoulli_nll(real.float(), reconstruction.float()).double(), expected, rtol=1e-5, atol=1e-4
    )


def test_the_loss_of_a_confident_wrong_pixel_is_bounded() -> None:
    white, black = torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)
    maximum = 4 * -math.log(MIN_PROBABILITY)
    assert maximum / 4 == pytest.approx(13.8, abs=0.02)
    for real, reconstruction in ((white, black), (black, white), (white, 3 * black)):
        assert float(bernoulli_nll(real.double(), reconstruction.double())) == pytest.approx(maximum, rel=1e-9)
        assert float(bernoulli_nll(real, reconstruction)) == pytest.approx(maximum, rel=1e-2)
    for sure in (white, black):
        assert 0 <= float(bernoulli_nll(sure, sure)) < 1e-5


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_nll_matches_pytorch(shape: tuple[int, ...], sigma: float) -> None:
    real, reconstruction = pair(shape)
    expected = -Normal(reconstruction, sigma).log_prob(real).flatten(1).sum(1)
    actual = gaussian_nll(real, reconstruction, sigma)
    assert actual.shape == (len(real),)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    assert gaussian_nll(real.bfloat16(), reconstruction.bfloat16(), sigma).dtype == torch.float32


def test_gradients_of_the_likelihoods() -> None:
    real, reconstruction = black_and_white((3, 4)), pair((3, 4))[1].tanh().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: bernoulli_nll(real, r), (reconstruction,))
    assert torch.autograd.gradcheck(lambda r: gaussian_nll(real, r, 0.7), (reconstruction,))


# ---------------------------------------------------------------- binarisation


def test_binarised_pixels_are_white_with_the_grey_level_as_probability() -> None:
    greys = torch.linspace(-1, 1, 9)
    flips = 20_000
    binary = binarize(greys.expand(flips, 9), torch.Generator().manual_seed(0))
    assert set(binary.unique().tolist()) == {-1.0, 1.0}
    assert binary.dtype == torch.float32
    error = ((1 - greys.square()) / flips).sqrt()
    assert bool(((binary.mean(0) - greys).abs() <= 5 * error).all())
    assert bool((binary[:, 0] == -1).all())
    assert bool((binary[:, -1] == 1).all())


def test_binarisation_depends_on_the_generator_and_does_not_modify_its_input() -> None:
    grey = torch.zeros(4, 1, 8, 8)
    one, same, other = (binarize(grey, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not grey.any()
    channels_last = torch.zeros(4, 8, 8, 1).permute(0, 3, 1, 2)
    assert torch.equal(binarize(channels_last, torch.Generator().manual_seed(1)), one)


def test_only_the_bernoulli_likelihood_binarises() -> None:
    grey = torch.zeros(4, 1, 8, 8)
    at = context(side=Side.G)
    assert Elbo(likelihood="gaussian").prepare_real(grey, at) is grey
    assert Reconstruction().build().prepare_real(grey, at) is grey
    binary = Elbo(likelihood="bernoulli").build().prepare_real(grey, at)
    assert torch.equal(binary, binarize(grey, at.generator("coins")))
    assert not torch.equal(binary, Elbo(likelihood="bernoulli").prepare_real(grey, context(1, side=Side.G)))


# ---------------------------------------------------------------- losses


def random_codes(n: int, dim: int = 3) -> EncoderOutput:
    return EncoderOutput(*pair((n, dim), seed=5))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_parts_of_the_bound(likelihood: Likelihood) -> None:
    shape = (4, 1, 3, 3)
    real, reconstruction, codes = black_and_white(shape), pair(shape)[1].tanh(), random_codes(4)
    parts = Elbo(likelihood=likelihood, sigma=0.3, beta=7.0).loss_parts(real, reconstruction, codes)
    nll = bernoulli_nll(real, reconstruction) if likelihood == "bernoulli" else gaussian_nll(real, reconstruction, 0.3)
    assert list(parts) == ["reconstruction", "kl", "elbo"]
    assert torch.equal(parts["reconstruction"], nll)
    assert torch.equal(parts["kl"], gaussian_kl(codes.mean, codes.log_var))
    torch.testing.assert_close(parts["elbo"], -(parts["reconstruction"] + parts["kl"]))
    half = EncoderOutput(codes.mean.bfloat16(), codes.log_var.bfloat16())
    rough = Elbo(likelihood=likelihood).loss_parts(real.bfloat16(), reconstruction.bfloat16(), half)
    assert {part.dtype for part in rough.values()} == {torch.float32}


def compute_loss(objective: Elbo | Reconstruction, at: int = 0) -> tuple[float, dict[str, float]]:
    """The loss and the logged values of one move, in a run of ten steps."""
    real, reconstruction, codes = black_and_white((4, 1, 3, 3)), pair((4, 1, 3, 3))[1].tanh(), random_codes(4)
    move = MoveData(context(at, side=Side.G, steps=10), codes.mean, reconstruction, real)
    move.reconstruct_fn = lambda: ReconstructedBatch(codes, codes.mean, reconstruction)
    module = objective.build()
    loss = module.reconstruction_loss(move)
    module.after_update(move)
    assert loss.shape == ()
    return float(loss), {name: float(value) for name, value in move.logged.items()}


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weights_the_kl_in_the_loss_but_not_in_the_logged_values(beta: float) -> None:
    loss, logged = compute_loss(Elbo(beta=beta))
    assert set(logged) == {"reconstruction", "kl", "elbo"}
    assert loss == pytest.approx(logged["reconstruction"] + beta * logged["kl"], rel=1e-12)
    assert logged == compute_loss(Elbo())[1]
    assert logged["elbo"] == pytest.approx(-logged["reconstruction"] - logged["kl"], rel=1e-12)
    assert logged["kl"] > 0.1


def test_beta_can_be_a_schedule() -> None:
    rising = Elbo(beta=Linear(start=0.0, end=2.0, until=0.5))
    for at, beta in ((0, 0.0), (1, 0.4), (5, 2.0), (9, 2.0)):
        loss, logged = compute_loss(rising, at)
        assert loss == pytest.approx(logged["reconstruction"] + beta * logged["kl"], rel=1e-12)


@pytest.mark.parametrize("distance", ["l1", "l2", "huber"])
def test_the_loss_of_an_autoencoder_is_its_reconstruction_error(distance: Distance) -> None:
    loss, logged = compute_loss(Reconstruction(distance=distance, delta=0.4))
    expected = reconstruction_error(black_and_white((4, 1, 3, 3)), pair((4, 1, 3, 3))[1].tanh(), distance, 0.4)
    assert logged == {"reconstruction": loss}
    assert loss == pytest.approx(float(expected.mean()), rel=1e-12)


def test_invalid_settings_are_refused() -> None:
    tables = [{"kind": "elbo", "sigma": 0.0}, {"kind": "elbo", "beta": -0.1}, {"kind": "reconstruction", "delta": 0.0}]
    for table in tables:
        with pytest.raises(RecipeError, match=r"sigma|beta|delta"):
            decode({"objective": table})


# ---------------------------------------------------------------- a known likelihood

DRAWS = 40_000
SIGMA = 0.6
W = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.3, 0.0]], dtype=torch.float64)


def linear_gaussian() -> tuple[Tensor, float, EncoderOutput]:
    """A sample x, log p(x), and the posterior N(mean, var): z ~ N(0, I), x ~ N(Wz, sigma^2 I), W'W diagonal."""
    w = torch.linalg.qr(W).Q * torch.tensor([1.3, 0.7], dtype=torch.float64)
    x = torch.tensor([0.8, -1.1, 0.4], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    log_likelihood = MultivariateNormal(torch.zeros(3, dtype=torch.float64), w @ w.T + SIGMA**2 * eye).log_prob(x)
    var = 1 / (1 + (w.T @ w).diagonal() / SIGMA**2)
    return x, float(log_likelihood), EncoderOutput(var * (w.T @ x) / SIGMA**2, var.log())


def bound(codes: EncoderOutput) -> tuple[float, float]:
    """The mean of the bound of x over samples of z, and its standard error."""
    x, _, _ = linear_gaussian()
    w = torch.linalg.qr(W).Q * torch.tensor([1.3, 0.7], dtype=torch.float64)
    assert codes.log_var is not None
    many = EncoderOutput(codes.mean.expand(DRAWS, 2), codes.log_var.expand(DRAWS, 2))
    z = sample_codes(many, torch.Generator().manual_seed(0))
    elbo = Elbo(likelihood="gaussian", sigma=SIGMA).loss_parts(x.expand(DRAWS, 3), z @ w.T, many)["elbo"]
    return float(elbo.mean()), float(elbo.std()) / DRAWS**0.5


def test_with_the_true_posterior_the_bound_is_the_likelihood() -> None:
    _, log_likelihood, posterior = linear_gaussian()
    found, error = bound(posterior)
    assert found == pytest.approx(log_likelihood, abs=5 * error)
    assert error < 0.02


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 0.0), (-0.5, 0.0), (0.0, 1.0), (0.0, -1.5), (0.3, 0.8)])
def test_with_any_other_posterior_the_bound_is_lower_by_the_kl_between_them(shift: float, stretch: float) -> None:
    _, log_likelihood, (mean, log_var) = linear_gaussian()
    assert log_var is not None
    other = EncoderOutput(mean + shift, log_var + stretch)
    found, error = bound(other)
    assert found < log_likelihood - 5 * error
    true, wrong = Normal(mean, (log_var / 2).exp()), Normal(other.mean, (other.log_var / 2).exp())
    gap = float(torch.distributions.kl_divergence(wrong, true).sum())
    assert found == pytest.approx(log_likelihood - gap, abs=5 * error)


# ---------------------------------------------------------------- training


def test_the_bound_rises_during_training() -> None:
    run = session("pictures", **suited("pictures", "elbo"))
    levels = []
    for _ in range(3):
        logged = run.play(10).metrics.reduce()
        levels.append(logged["g/elbo"].mean)
        assert set(logged) == {"g/reconstruction", "g/kl", "g/elbo", "g/grad_norm"}
    assert levels[0] < levels[1] < levels[2]
    assert levels[2] - levels[0] > 0.1


@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_the_reconstruction_error_falls_during_training(world: str) -> None:
    run = session(world, **suited(world, "reconstruction"))
    first = run.play(5).metrics.reduce()["g/reconstruction"].mean
    run.play(25).metrics.reduce()
    logged = run.play(5).metrics.reduce()
    assert set(logged) == {"g/reconstruction", "g/grad_norm"}
    assert logged["g/reconstruction"].mean < 0.95 * first


def test_the_logged_values_are_those_of_the_move() -> None:
    run = session("pictures", **suited("pictures", "elbo")).play(1)
    (record,) = run.moves
    move, logged = record.move, run.metrics.reduce()
    parts = Elbo().loss_parts(move.samples("real"), move.reconstruction.images, move.reconstruction.codes)
    for name, part in parts.items():
        assert logged[f"g/{name}"].mean == pytest.approx(float(part.mean().detach()), rel=1e-5)
    assert torch.equal(move.fake, move.reconstruction.images)
    assert torch.equal(move.latents, move.reconstruction.latents)


def test_each_move_binarises_its_images_anew() -> None:
    tables = without_discriminator("pictures") | {"objective": {"kind": "elbo", "likelihood": "bernoulli"}}
    run = session("pictures", **tables).play(6)
    again = session("pictures", **tables).play(6)
    for record in run.moves:
        assert set(record.real.unique().tolist()) == {-1.0, 1.0}
        grey, _ = run.batches.load(record.context)
        assert torch.equal(record.real, binarize(grey, record.context.generator("coins")))
    assert all(torch.equal(a.real, b.real) for a, b in zip(run.moves, again.moves, strict=True))
