"""Losses, penalties, latents and measures as plain functions of tensors, for any PyTorch training loop.

They are the formulas that poise itself trains and measures with, independent of recipes and runs. A discriminator `d`
is any callable that takes samples, B x shape, and returns scores, B, B x 1, or B x P for P patches, or a
`poise.core.types.DiscriminatorOutput`. Where a function takes what D returned, it takes either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from poise.core.config import ComponentConfig, did_you_mean, find_components
from poise.core.double_backward import input_gradients
from poise.core.types import DiscriminatorOutput, Targets, check_floats, for_patches, per_sample, to_float32
from poise.core.validation import validate
from poise.errors import RecipeError
from poise.interpolation import lerp, slerp
from poise.latents import gaussian, sphere, truncated, uniform
from poise.measure.classifier_scores import inception_score
from poise.measure.diversity import diversity, vendi
from poise.measure.feature_functions import feature_extractor
from poise.measure.fid import fid
from poise.measure.kid import kid
from poise.measure.memorization import authenticity, copying_test
from poise.measure.modes import count_modes
from poise.measure.ndb import ndb
from poise.measure.prdc import prdc
from poise.objectives.base import Objective
from poise.retired import attribute_of
from poise.tricks.averaged_weights import ema_update_
from poise.tricks.diff_augment import diff_augment
from poise.tricks.gradient_penalties import zero_centred_penalty
from poise.tricks.instance_noise import add_noise
from poise.tricks.lecam import lecam as lecam_of_scores
from poise.tricks.pulling_away import pulling_away as pulling_away_of_codes
from poise.tricks.unit_gradient_penalties import Sides, interpolate_pairs, perturb_real, unit_norm_penalty
from poise.truncation import truncate_gaussian
from poise.utils.printing import describe_type

__all__ = [
    "add_noise",
    "authenticity",
    "copying_test",
    "count_modes",
    "d_loss",
    "diff_augment",
    "diversity",
    "dragan",
    "ema_update_",
    "feature_extractor",
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
    "truncate_gaussian",
    "truncated",
    "uniform",
    "vendi",
    "wgan_gp",
]


def __dir__() -> list[str]:
    return sorted(__all__)


Output = Tensor | DiscriminatorOutput
"""What a discriminator returns for a batch."""


def d_loss(
    kind: str,
    real: Output,
    fake: Output,
    *,
    targets: tuple[Tensor | float, Tensor | float] | None = None,
    **options: Any,
) -> Tensor:
    """The loss of the discriminator: the sum of the mean losses of both batches, as in the papers; 0-dim.

    Where it is a sum, the `d/adversarial` of `rows.jsonl` and of `poise.Monitor` is half of it.

    Args:
        kind: the name of an objective in recipes: "non_saturating", "hinge", "least_squares", "wasserstein", ... Not
            "energy" and "began", whose losses depend on the step or on a state, nor "reconstruction" and "elbo",
            which have no D.
        real: D's output for real samples: scores, B, B x 1, or B x P for P patches, or a `DiscriminatorOutput`.
        fake: D's output for generated samples, in the same form.
        targets: the targets of the real and of the fake samples in place of 1 and 0 (soft or flipped labels): one for
            each sample or for each score, or a number, the target of all samples. Bool and integer tensors are
            converted. Only objectives whose D classifies have targets.
        options: options of the objective, as in the table `objective` of a recipe.

    Raises:
        RecipeError: there is no such objective, it has no such option or no targets, or the shapes do not fit.
    """
    objective = _make_objective(kind, options)
    if targets is not None and not objective.accepts_targets:
        raise RecipeError("this objective has no targets", where=kind, cure='leave them out, or use "non_saturating"')
    scores = _scores(real, kind, "real"), _scores(fake, kind, "fake")
    _check_pairs(objective, kind, *scores)
    aligned = None
    if targets is not None:
        is_sequence = isinstance(targets, tuple | list) or (isinstance(targets, Tensor) and targets.dim() > 0)
        if not is_sequence or len(targets) != 2:
            what = "needs two targets, of the real and of the fake samples"
            raise RecipeError(what, where=kind, found=str(len(targets)) if is_sequence else describe_type(targets))
        aligned = Targets(*(_targets_of(*one, kind) for one in zip(targets, scores, strict=True)))
    losses = objective.d_losses(*scores, aligned)
    return sum((loss.mean() for loss in losses[1:]), losses[0].mean())


def g_loss(kind: str, fake: Output, real: Output | None = None, **options: Any) -> Tensor:
    """The loss of the generator; 0-dim.

    Args:
        kind: see `d_loss`.
        fake: D's output for generated samples; see `d_loss`.
        real: D's output for real samples, in the same form; required by relativistic objectives only.
        options: see `d_loss`.

    Raises:
        RecipeError: see `d_loss`; or `real` is missing.
    """
    objective = _make_objective(kind, options)
    if objective.is_relativistic and real is None:
        raise RecipeError("is relativistic", where=kind, cure="pass the scores of real samples to g_loss, too")
    fake_scores, real_scores = _scores(fake, kind, "fake"), None
    if real is not None:
        real_scores = _scores(real, kind, "real")
        _check_pairs(objective, kind, real_scores, fake_scores)
    losses = objective.g_losses(fake_scores, real_scores)
    return sum((loss.mean() for loss in losses[1:]), losses[0].mean())


def lecam(real: Output, fake: Output, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """E [D(x) - a_F]^+^2 + E [a_R - D(G(z))]^+^2 (Tseng et al. 2021, arXiv:2104.03310).

    0-dim, at least 0; to be multiplied by the paper's lambda (0.3). The means are over all scores, those of patches
    included. The caller keeps the running means: the trick `lecam` has a <- 0.99 a + 0.01 E D after each update of D,
    divided by the total weight of the scores so far.

    Args:
        real: D's output for real samples; see `d_loss`.
        fake: D's output for generated samples; see `d_loss`.
        mean_real: a_R, the running mean of the scores of real samples, 0-dim. A tensor of another shape would be
            broadcast.
        mean_fake: a_F, the running mean of the scores of generated samples, 0-dim.
    """
    return lecam_of_scores(_score_of(real), _score_of(fake), mean_real, mean_fake)


def pulling_away(codes: Output) -> Tensor:
    """1 / (N (N - 1)) sum over i != j of cos(S_i, S_j)^2 (Zhao et al. 2017, arXiv:1609.03126, section 2.4), 0-dim.

    From 0 for orthogonal codes S_i to 1 for parallel ones; 0 for a single code. It is added to G's loss, with the
    weight 0.1 in the paper.

    Args:
        codes: D's features of generated samples, N x F, or a `DiscriminatorOutput` that has them.

    Raises:
        RecipeError: the output has no features.
    """
    if isinstance(codes, DiscriminatorOutput):
        if codes.features is None:
            raise RecipeError("needs D's features, which this output does not have", where="pulling_away")
        codes = codes.features
    return pulling_away_of_codes(codes)


def _score_of(output: Output) -> Tensor:
    """The scores of what D returned, in their shape."""
    return output.score if isinstance(output, DiscriminatorOutput) else output


def _scores(output: Output, kind: str, name: str) -> Tensor:
    """Scores as B, or B x P if a sample has several, so that they do not broadcast with each other by accident.

    Those of 16 bits become float32, as in training: squares of half-precision scores overflow at 256.

    Raises:
        RecipeError: there are none.
    """
    scores = _score_of(output)
    if not scores.numel() or not scores.dim():
        found = " x ".join(map(str, scores.shape)) or "a scalar"
        raise RecipeError(f"needs the scores of {name} samples, B", where=kind, found=found)
    flat = to_float32(scores).reshape(len(scores), -1)
    return flat[:, 0] if flat.shape[1] == 1 else flat


def _check_pairs(objective: Objective, kind: str, real: Tensor, fake: Tensor) -> None:
    """Refuse different numbers of scores if the objective compares pairs."""
    if objective.is_relativistic and objective.has_per_sample_g_loss and real.shape != fake.shape:
        found = " and ".join(" x ".join(map(str, scores.shape)) for scores in (real, fake))
        raise RecipeError("compares each real with one fake sample", where=kind, found=found)


def _targets_of(targets: Tensor | float, scores: Tensor, kind: str) -> Tensor:
    """Targets in a shape that fits the scores, and in their precision.

    Raises:
        RecipeError: they are neither one for each score nor one for each sample, nor a number.
    """
    if not isinstance(targets, Tensor):
        try:
            return torch.full_like(scores, float(targets))
        except (TypeError, ValueError):
            what = "needs a tensor or a number as the target of samples"
            raise RecipeError(what, where=kind, found=describe_type(targets)) from None
    targets = targets.to(scores.dtype)
    if targets.numel() == scores.numel():
        return targets.reshape(scores.shape)
    if targets.numel() == len(scores):
        return for_patches(targets.reshape(-1), scores)
    found = f"{' x '.join(map(str, targets.shape))} for scores {' x '.join(map(str, scores.shape))}"
    raise RecipeError("needs one target for each sample", where=kind, found=found)


def _make_objective(kind: str, options: dict[str, Any]) -> Objective:
    """The objective, built once for the same options; an option of a type that can't be hashed is refused."""
    try:
        return _build_objective(kind, **options)
    except TypeError:
        return _build_objective.__wrapped__(kind, **options)


@cache
def _known_objectives() -> dict[str, type[ComponentConfig]]:
    """The objectives that are functions of scores, by kind; to find them, a folder is read."""
    components = find_components(Objective, "poise.objectives")
    return {name: config for name, config in components.items() if _is_function_of_scores(config)}


@lru_cache(typed=True)
def _build_objective(kind: str, /, **options: Any) -> Objective:
    known = _known_objectives()
    if kind not in known:
        raise RecipeError(
            "no such objective", where="kind", found=repr(kind), cure=did_you_mean(str(kind), list(known))
        )
    fields = [name for name in known[kind].model_fields if name != "kind"]
    if unknown := next((name for name in options if name not in fields), None):
        cure = did_you_mean(unknown, fields) if fields else "it has no options"
        raise RecipeError("has no such option", where=kind, found=f"'{unknown}'", cure=cure)
    objective = validate(known[kind], {"kind": kind, **options}, kind)
    assert isinstance(objective, Objective)
    return objective


def _is_function_of_scores(config: type[Any]) -> bool:
    """Whether an objective depends on scores alone: it has a discriminator and no state between steps."""
    has_custom_module = config.build is not Objective.build
    return bool(config.output_kinds) and not has_custom_module


def input_gradient(d: Callable[[Tensor], Any], samples: Tensor) -> Tensor:
    """grad_x D(x), the gradient of each sample's score with respect to the sample, B x shape.

    The basis of the gradient penalties (Gulrajani et al. 2017, arXiv:1704.00028). It is one backward pass of the sum of
    the scores, so it is the gradient of each score only if D scores each sample by itself, without batch statistics. It
    is differentiable where gradients are enabled; under `torch.no_grad` or `inference_mode` it has no graph.

    Args:
        d: a discriminator that returns a score for each sample, B or B x 1, a score for each of P patches, B x P, of
            which the mean over the patches is differentiated, or a `DiscriminatorOutput` with such scores.
        samples: B x shape, floating point; they are detached.

    Raises:
        RecipeError: the samples are whole numbers, or D does not return one score for each.
    """
    check_floats(samples, "D")
    differentiable = torch.is_grad_enabled()
    with torch.inference_mode(mode=False), torch.enable_grad():
        samples = (samples.clone() if samples.is_inference() else samples).detach().requires_grad_()
        score = _score_of(d(samples))
        score = score.reshape(1) if len(samples) == 1 and not score.dim() else score  # a D that squeezes
        if not score.dim() or len(score) != len(samples):
            found = f"{' x '.join(map(str, score.shape)) or 'a scalar'} for {len(samples)} samples"
            raise RecipeError("must return a score for each sample, B", where="D", found=found)
        return input_gradients(per_sample(score).sum(), [samples], differentiable=differentiable)[0]


def r1(d: Callable[[Tensor], Any], real: Tensor) -> Tensor:
    """R1 = 1/2 E ||grad_x D(x)||^2 over real samples (Mescheder et al. 2018, arXiv:1801.04406, equation 9).

    0-dim, at least 0; to be multiplied by the paper's gamma.

    Args:
        d: the discriminator, see `input_gradient`.
        real: real samples, B x shape.

    Raises:
        RecipeError: see `input_gradient`.
    """
    return zero_centred_penalty(input_gradient(d, real)).mean()


def r2(d: Callable[[Tensor], Any], fake: Tensor) -> Tensor:
    """R2 = 1/2 E ||grad_x D(G(z))||^2 over generated samples (Mescheder et al. 2018, arXiv:1801.04406).

    0-dim, at least 0; to be multiplied by the paper's gamma.

    Args:
        d: the discriminator, see `input_gradient`.
        fake: generated samples, B x shape; no gradient reaches G.

    Raises:
        RecipeError: see `input_gradient`.
    """
    return zero_centred_penalty(input_gradient(d, fake)).mean()


def wgan_gp(
    d: Callable[[Tensor], Any],
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator | None = None,
    sides: Sides = "two",
) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2 between real and fake samples (Gulrajani et al. 2017, arXiv:1704.00028).

    0-dim; to be multiplied by the paper's lambda.

    Args:
        d: the discriminator, see `input_gradient`.
        real: real samples, B x shape.
        fake: generated samples, B x shape; x = u real + (1 - u) fake with one u ~ U[0, 1] for each pair.
        generator: random numbers; by default seeded from PyTorch's global generator.
        sides: "two", or "one" to penalise only gradient norms above 1.

    Raises:
        RecipeError: see `input_gradient`.
        ValueError: the samples have different shapes, or `sides` is neither "two" nor "one".
    """
    check_floats(real, "wgan_gp")
    check_floats(fake, "wgan_gp")
    generator = generator or _default_generator(real.device)
    return unit_norm_penalty(input_gradient(d, interpolate_pairs(real, fake, generator)), sides).mean()


def dragan(
    d: Callable[[Tensor], Any],
    real: Tensor,
    spread: float = 0.5,
    generator: torch.Generator | None = None,
    sides: Sides = "two",
) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2 at perturbed real samples (Kodali et al. 2017, arXiv:1705.07215).

    0-dim; to be multiplied by the paper's lambda. x = real + spread std(real) eps with eps ~ N(0, I) and the standard
    deviation over all values of the batch.

    Args:
        d: the discriminator, see `input_gradient`.
        real: real samples, B x shape.
        spread: the size of the perturbation in standard deviations of the batch, the paper's c; 0 and up.
        generator: see `wgan_gp`.
        sides: see `wgan_gp`.

    Raises:
        RecipeError: see `input_gradient`.
        ValueError: the spread is below 0, or not a number; or `sides` is neither "two" nor "one".
    """
    check_floats(real, "dragan")
    generator = generator or _default_generator(real.device)
    return unit_norm_penalty(input_gradient(d, perturb_real(real, spread, generator)), sides).mean()


def _default_generator(device: torch.device) -> torch.Generator:
    """A generator that is seeded from PyTorch's global generator."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


__getattr__ = attribute_of(__name__)
