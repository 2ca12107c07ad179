"""The optimisation of one latent: schedules, and projections of a generator's own samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from networks.test_base import Mapped
from poise.core.random_streams import RandomStreams
from poise.latents import Gaussian, Latent, Sphere, Truncated, Uniform
from poise.measure.image_distance import ImageDistance
from poise.networks.base import intermediate_space
from poise.networks.conditioning import Concat
from poise.runs.latent_space import LatentSpace, Start, WSpace, ZSpace
from poise.runs.optimize_latent import (
    Trajectory,
    learning_rate,
    logged_steps,
    noise_std,
    optimize_latent,
    snapshot_steps,
)

DIM = 6
LATENTS: list[Latent] = [
    Gaussian(dim=DIM),
    Sphere(dim=DIM),
    Sphere(dim=DIM, length="sqrt_dim"),
    Uniform(dim=DIM),
    Truncated(dim=DIM, threshold=0.7),
]


class Orthogonal(nn.Module):
    """An invertible G: 4 x 4 images that are orthogonal combinations of z. Records what it was given."""

    def __init__(self) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.randn(16, DIM, generator=torch.Generator().manual_seed(2))).Q
        self.basis = nn.Parameter(basis)
        self.given: list[Tensor] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.given.append(latents.detach().clone())
        return (latents @ self.basis.T).view(-1, 1, 4, 4)


def z_space(latent: Latent, net: nn.Module, starts: int = 8, seed: int = 0) -> ZSpace:
    streams = RandomStreams(seed)
    return ZSpace(net, latent, None, latent.sample(starts, streams("start")), streams)


def optimized(space: LatentSpace, start: Start, target: Tensor, steps: int, seed: int = 0) -> Trajectory:
    real = torch.rand(20, *target.shape, generator=torch.Generator().manual_seed(9)) * 2 - 1
    return optimize_latent(space, start, ImageDistance(real, None).to(target), steps, RandomStreams(seed)("noise"))


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(0.05)
    assert rates[50] == rates[750] == pytest.approx(0.1)
    assert rates[875] == pytest.approx(0.05)
    assert 0 < rates[999] < 1e-5


def test_noise_fades_until_three_quarters() -> None:
    assert [noise_std(step, 100) for step in (0, 75, 90)] == pytest.approx([0.05, 0, 0])
    assert noise_std(30, 100) == pytest.approx(0.05 * 0.6**2)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 500, 9999])
def test_logged_steps(steps: int) -> None:
    logged, shown = logged_steps(steps), snapshot_steps(steps)
    assert logged[0] == 0
    assert logged[-1] == steps
    assert set(shown) <= set(logged) - {0, steps}
    assert len(shown) <= 6
    assert len(logged) <= 110
    if steps >= 100:
        assert len(shown) == 6


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_own_sample_is_recovered_within_the_support(latent: Latent) -> None:
    net = Orthogonal()
    truth = latent.sample(1, RandomStreams(7)("truth"))
    with torch.no_grad():
        target = net(truth)[0]
    space = z_space(latent, net)
    net.given.clear()
    trajectory = optimized(space, space.starts()[0], target, 300)
    start, end = trajectory.distances[0], trajectory.distances[trajectory.best_step]
    assert end < start / 1000
    torch.testing.assert_close(trajectory.latent, truth[0], atol=0.02 * latent.std * math.sqrt(DIM), rtol=0)
    assert torch.equal(trajectory.image, net(trajectory.latent[None])[0])
    given = torch.cat(net.given)
    assert len(given.unique(dim=0)) > 250
    torch.testing.assert_close(latent.project_to_typical(given), given)


def test_target_out_of_reach_ends_at_the_border() -> None:
    """A target whose latent is ten times too long is approached from the border of the typical latents."""
    for latent in LATENTS:
        net = Orthogonal()
        direction = torch.full((1, DIM), 10.0)
        space = z_space(latent, net)
        trajectory = optimized(space, space.starts()[0], net(direction)[0].detach(), 200)
        nearest = latent.project_to_typical(direction)[0]
        torch.testing.assert_close(trajectory.latent, nearest, atol=0.1 * latent.std, rtol=0)


@pytest.mark.parametrize("latent", [LATENTS[0], *LATENTS[2:]], ids=str)
def test_code_of_an_encoder_is_kept_and_not_exceeded(latent: Latent) -> None:
    """A code may be shorter or longer than typical latents; what is longer than both is shortened."""
    net = Orthogonal()
    space = z_space(latent, net)
    for scale in (0.01, 5.0):
        code = latent.project(scale * latent.max_norm * torch.full((1, DIM), DIM**-0.5))
        start = space.start_from_code(code, "the code of the image")
        trajectory = optimized(space, start, net(code)[0].detach(), 1)
        torch.testing.assert_close(trajectory.latent, code[0])
        limit = max(latent.max_norm, float(code.norm()))
        far = optimized(space, start, net(torch.full((1, DIM), 100.0))[0].detach(), 100)
        assert far.latent.norm() <= limit * 1.0001
        zero = torch.zeros(1, DIM, requires_grad=True)
        (gradient,) = torch.autograd.grad(space.constrain(zero, start).sum(), [zero])
        assert torch.isfinite(gradient).all()
        inner = space.constrain(torch.full((1, DIM), 0.1), start)
        torch.testing.assert_close(inner, latent.project(torch.full((1, DIM), 0.1)))


def test_projection_in_w() -> None:
    torch.manual_seed(0)
    net = Mapped()
    intermediate = intermediate_space(net)
    assert intermediate is not None
    latents = torch.randn(500, 5)
    space = WSpace(intermediate, None, latents, RandomStreams(0))
    w = net.map_latents(latents).detach()
    (start,) = space.starts()
    torch.testing.assert_close(start.latent, w.mean(0, keepdim=True))
    assert space.spread**2 == pytest.approx(float((w - w.mean(0)).square().sum(1).mean()))
    target = net(torch.full((1, 5), 2.0))[0].detach()
    trajectory = optimized(space, start, target, 400)
    assert trajectory.latent.shape == (3,)
    assert trajectory.distances[trajectory.best_step] < trajectory.distances[0] / 1000
    code = space.start_from_code(latents[:1], "the code of the image")
    torch.testing.assert_close(code.latent, w[:1])


def test_w_of_a_label() -> None:
    net = Concat(Mapped(), 4, 2)
    intermediate, latents = intermediate_space(net), torch.randn(50, 3)
    assert intermediate is not None
    means = [WSpace(intermediate, label, latents, RandomStreams(0)).mean for label in range(2)]
    for label, mean in enumerate(means):
        w = intermediate.map_latents(latents, torch.full((50,), label))
        torch.testing.assert_close(mean[0], w.mean(0).detach())
    assert not torch.allclose(*means)


def test_trajectory_is_a_function_of_the_seed() -> None:
    target = torch.rand(1, 4, 4)
    results = [
        optimized(space := z_space(LATENTS[0], Orthogonal(), seed=1), space.starts()[0], target, 40, seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(results[0].latent, results[1].latent)
    assert results[0].distances == results[1].distances
    assert not torch.equal(results[0].latent, results[2].latent)


def test_result_is_the_best_logged_step() -> None:
    """Noise and a high learning rate may lead away from a good start."""
    net = Orthogonal()
    space = z_space(LATENTS[0], net)
    truth = space.starts()[0]
    trajectory = optimized(space, truth, net(truth.latent)[0].detach(), 3)
    assert trajectory.best_step == 0
    assert max(trajectory.distances.values()) > 0
    assert torch.equal(trajectory.latent, space.constrain(truth.latent, truth)[0])
    lost = Trajectory()
    for step, distance in enumerate((1.0, math.nan, 0.5, math.nan)):
        lost.log(step, distance, torch.full((1,), float(step)), torch.zeros(1))
    assert (lost.best_step, float(lost.latent)) == (2, 2.0)


def test_random_layers_draw_the_same_in_each_step() -> None:
    """With standing dropout, a projection minimises one function."""
    net = nn.Sequential(Orthogonal(), nn.Flatten(), nn.AlphaDropout(0.5).train(), nn.Unflatten(1, (1, 4, 4)))
    space = z_space(LATENTS[0], net)
    z = space.latents[:1]
    assert torch.equal(space.synthesize(z), space.synthesize(z))
