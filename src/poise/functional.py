"""Losses, penalties, latents and measures as plain functions of tensors, for any training loop: `poise.functional`.

Each is one of the formulas that poise itself trains and measures with; here they stand under one name, with nothing of
a recipe or a run around them. A discriminator `d` is anything that takes samples, B x shape, and returns scores, B or
B x 1, or a `poise.core.Verdict`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from poise.core.config import did_you_mean, find_components
from poise.core.types import DiscriminatorOutput, Targets
from poise.errors import RecipeError
from poise.latents import gaussian, lerp, slerp, sphere, truncated, uniform
from poise.measure.classifier_scores import inception_score
from poise.measure.diversity import diversity, vendi
from poise.measure.fid import fid
from poise.measure.kid import kid
from poise.measure.memorization import authenticity, copying_test
from poise.measure.modes import count_modes
from poise.measure.ndb import ndb
from poise.measure.prdc import prdc
from poise.objectives.base import Objective
from poise.retired import attribute_of
from poise.tricks.gradient_penalties import zero_centred_penalty
from poise.tricks.instance_noise import add_noise
from poise.tricks.lecam import lecam
from poise.tricks.pulling_away import pulling_away
from poise.tricks.unit_gradient_penalties import Sides, interpolate_pairs, perturb_real, unit_norm_penalty

__all__ = [
    "add_noise",
    "authenticity",
    "copying_test",
    "count_modes",
    "d_loss",
    "diversity",
    "dragan",
    "fid",
    "g_loss",
    "gaussian",
    "inception_score",
    "input_gradient",
    "kid",
    "lecam",
    "lerp",
    "ndb",
    "prdc",
    "pulling_away",
    "r1",
    "r2",
    "slerp",
    "sphere",
    "truncated",
    "uniform",
    "vendi",
    "wgan_gp",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def d_loss(
    kind: str, real: Tensor, fake: Tensor, *, targets: tuple[Tensor, Tensor] | None = None, **options: Any
) -> Tensor:
    """What the discriminator pays: the sum of the mean costs over both batches, as the papers write it; 0-dim.

    Args:
        kind: an objective as recipes call it: "non_saturating", "hinge", "least_squares", "wasserstein", ...
        real: D's scores of real samples, B.
        fake: D's scores of generated samples, B.
        targets: what D shall say of each real and each fake, B each, in place of 1 and 0 (soft or flipped labels).
        options: fields of the objective's table in a recipe.

    Raises:
        RecipeError: there is no such objective, or it has no such option.
    """
    costs = _objective(kind, options).d_losses(real, fake, None if targets is None else Targets(*targets))
    return sum((cost.mean() for cost in costs[1:]), costs[0].mean())


def g_loss(kind: str, fake: Tensor, real: Tensor | None = None, **options: Any) -> Tensor:
    """What the generator pays; 0-dim.

    Args:
        kind: see `d_loss`.
        fake: D's scores of generated samples, B.
        real: D's scores of real samples, B; only relativistic objectives read them.
        options: see `d_loss`.

    Raises:
        RecipeError: see `d_loss`; or `real` is missing.
    """
    objective = _objective(kind, options)
    if objective.is_relativistic and real is None:
        raise RecipeError("compares real with fake", where=kind, cure="give g_loss the scores of real samples too")
    costs = objective.g_losses(fake, real)
    return sum((cost.mean() for cost in costs[1:]), costs[0].mean())


def _objective(kind: str, options: dict[str, Any]) -> Objective:
    known = {name: entry for name, entry in find_components(Objective, "poise.objectives").items() if _of_scores(entry)}
    if kind not in known:
        raise RecipeError("no such objective", where="kind", found=f"'{kind}'", cure=did_you_mean(kind, list(known)))
    try:
        made = known[kind].model_validate({"kind": kind, **options})
    except ValueError as error:
        raise RecipeError("has no such options", where=kind, found=str(options), cure=str(error)) from None
    assert isinstance(made, Objective)
    return made


def _of_scores(entry: type[Any]) -> bool:
    """Whether it is a function of scores alone: no game for one, and nothing that is remembered from step to step."""
    own_rule = entry.build is not Objective.build
    return bool(entry.output_kinds) and not own_rule


def input_gradient(d: Callable[[Tensor], Any], samples: Tensor) -> Tensor:
    """The gradient of D's scores with respect to its input, B x shape, itself differentiable."""
    at = samples.detach().requires_grad_()
    said = d(at)
    score = said.score if isinstance(said, DiscriminatorOutput) else said
    return torch.autograd.grad(score.sum(), at, create_graph=True)[0]


def r1(d: Callable[[Tensor], Any], real: Tensor) -> Tensor:
    """R1 = 1/2 E ||grad_x D(x)||^2 over real samples (Mescheder et al. 2018, arXiv:1801.04406); 0-dim, times gamma."""
    return zero_centred_penalty(input_gradient(d, real)).mean()


def r2(d: Callable[[Tensor], Any], fake: Tensor) -> Tensor:
    """The same over generated samples."""
    return zero_centred_penalty(input_gradient(d, fake)).mean()


def wgan_gp(
    d: Callable[[Tensor], Any],
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator | None = None,
    sides: Sides = "two",
) -> Tensor:
    """E (||grad D(x)|| - 1)^2 on lines from real to fake (Gulrajani et al. 2017, arXiv:1704.00028); times lambda."""
    generator = generator or _default(real.device)
    return unit_norm_penalty(input_gradient(d, interpolate_pairs(real, fake, generator)), sides).mean()


def dragan(
    d: Callable[[Tensor], Any],
    real: Tensor,
    spread: float = 0.5,
    generator: torch.Generator | None = None,
    sides: Sides = "two",
) -> Tensor:
    """The same around real samples, `spread` in their standard deviations (Kodali et al. 2017, arXiv:1705.07215)."""
    generator = generator or _default(real.device)
    return unit_norm_penalty(input_gradient(d, perturb_real(real, spread, generator)), sides).mean()


def _default(device: torch.device) -> torch.Generator:
    """A generator that follows from PyTorch's own."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


__getattr__ = attribute_of(__name__)
