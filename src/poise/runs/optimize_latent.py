"""Optimises one latent until its sample is near a target, and records how it gets there.

It is the optimisation of StyleGAN2's projector (Karras et al. 2020, arXiv:1912.04958, appendix D): Adam, with a
learning rate that rises at the beginning and falls at the end, and with noise on the latent that fades out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise.runs.latent_space import LatentSpace, Start
from poise.utils.progress import Progress, no_progress

LEARNING_RATE, RAMP_UP, RAMP_DOWN = 0.1, 0.05, 0.25
"""The largest learning rate, per standard deviation of a coordinate, and the fractions in which it rises and falls."""

NOISE, NOISE_END = 0.05, 0.75
"""The standard deviation of the noise at step 0, per spread of the latents, and the fraction at which it has ended."""

NUM_LOGGED, NUM_SNAPSHOTS = 50, 6
"""The number of steps at which the distance is logged, and of those whose samples are kept, besides the start."""


def learning_rate(step: int, steps: int) -> float:
    """0.1 min(1, t / 0.05) (1 - cos(pi min(1, (1 - t) / 0.25))) / 2 at t = step / steps, for coordinates of std 1."""
    t = step / steps
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / RAMP_DOWN))
    return LEARNING_RATE * fall * min(1.0, t / RAMP_UP)


def noise_std(step: int, steps: int) -> float:
    """0.05 max(0, 1 - t / 0.75)^2 at t = step / steps, for latents whose rms distance from their mean is 1."""
    return NOISE * max(0.0, 1 - step / steps / NOISE_END) ** 2


def snapshot_steps(steps: int) -> list[int]:
    """Up to six steps after 0 and before the last, at steps (k / 7)^2: denser at the beginning, where more changes."""
    spaced = {round(steps * (k / (NUM_SNAPSHOTS + 1)) ** 2) for k in range(1, NUM_SNAPSHOTS + 1)}
    return sorted(spaced - {0, steps})


def logged_steps(steps: int) -> list[int]:
    """The steps at which the distance is logged: about 50 with equal intervals, the snapshots, and both ends."""
    return sorted({*range(0, steps, max(1, steps // NUM_LOGGED)), *snapshot_steps(steps), steps})


@dataclass
class Trajectory:
    """The course of an optimisation; distances and samples are those without noise.

    Attributes:
        distances: the distance from the target at each logged step, the start at step 0.
        snapshots: the samples, C x H x W, of the start and of `snapshot_steps`.
        best_step: the logged step with the smallest distance.
        latent: its latent, dim.
        image: its sample, C x H x W in [-1, 1].
    """

    distances: dict[int, float] = field(default_factory=dict)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    best_step: int = 0
    latent: Tensor = field(default_factory=lambda: torch.empty(0))
    image: Tensor = field(default_factory=lambda: torch.empty(0))

    def log(self, step: int, distance: float, latent: Tensor, image: Tensor) -> None:
        """Add a step; a distance that is not finite is never the best."""
        self.distances[step] = distance
        if step == 0 or distance < self.distances[self.best_step]:
            self.best_step, self.latent, self.image = step, latent.clone(), image


def optimize_latent(
    space: LatentSpace,
    start: Start,
    distance: Callable[[Tensor], Tensor],
    steps: int,
    generator: torch.Generator,
    progress: Progress = no_progress,
) -> Trajectory:
    """Minimise distance(space.synthesize(latent)) over one latent.

    Args:
        space: where the latent lies.
        start: the initial latent.
        distance: maps samples, B x shape, to their distances from the target, B; differentiable.
        steps: the number of steps.
        generator: the random numbers of the noise.
        progress: called with the step and the distance.
    """
    latent = space.constrain(start.latent, start).clone().requires_grad_()
    optimizer = torch.optim.Adam([latent])
    logged, shown, trajectory = set(logged_steps(steps)), {0, *snapshot_steps(steps)}, Trajectory()
    for step in range(steps + 1):
        if step in logged:
            with torch.no_grad():
                sample = space.synthesize(latent)
                trajectory.log(step, float(distance(sample)), latent.detach()[0], sample[0])
            progress(f"step {step:,} of {steps:,}, distance {trajectory.distances[step]:.3g}", step / steps)
            if step in shown:
                trajectory.snapshots[step] = sample[0]
        if step < steps:
            optimizer.param_groups[0]["lr"] = space.coordinate_std * learning_rate(step, steps)
            noise = torch.randn(latent.shape, generator=generator) * (space.spread * noise_std(step, steps))
            loss = distance(space.synthesize(space.constrain(latent + noise, start))).sum()
            (latent.grad,) = torch.autograd.grad(loss, [latent])
            optimizer.step()
            with torch.no_grad():
                latent.copy_(space.constrain(latent, start))
    return trajectory
