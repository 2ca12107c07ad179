"""Checks for settings that are valid but probably not intended. Each is a warning with a reason and a cure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from poise.core.config import Config
from poise.core.schedules import Ramp, Schedule, Staircase, bounds
from poise.data.config import PointsConfig, ToyConfig
from poise.data.torchvision_data import CHARACTERS, VisionConfig
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.fractions import check_fractions
from poise.recipe.checks.idle_fields import check_idle_fields
from poise.recipe.checks.misleading_targets import check_targets
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun


def find_suspicious(recipe: Recipe, findings: Findings) -> None:
    """Add a warning for each suspicious setting of the recipe."""
    for rule in (
        _output_range,
        _sparse_gradients,
        _critic_momentum,
        _lazy_penalties,
        _mirrored_characters,
        _style_mixing,
        _head_start,
        _duplicates,
        _noisy_consistency,
        _class_pairs,
        _hidden_codes,
        _unused,
        _mixed_batches,
        _sync_batch_norm,
        _constant_schedules,
        check_fractions,
        check_targets,
        check_idle_fields,
    ):
        rule(recipe, findings)


def unused_labels_note(recipe: Recipe, classes: int) -> list[str]:
    """A note if the user's own images have classes that the recipe does not use."""
    translates = recipe.network.direction is not None
    if recipe.uses_labels or translates or classes < 2 or "path" not in type(recipe.data).model_fields:
        return []
    return [f"this recipe does not use the {classes:,} classes of the data; the recipe 'cgan' would use them"]


def untrained_layers_note(recipe: Recipe) -> list[str]:
    """A note for each player whose frozen layers have random weights, because it starts from no run."""
    started = () if recipe.init is None else recipe.init.players
    frozen = [trick for trick in recipe.tricks if trick.tag() == "frozen_layers"]
    return [
        f"{side.upper()}'s frozen layers keep random weights, because {side.upper()} starts from no run (--init-from)"
        for side in ("d", "g")
        if side not in started and any(getattr(trick, side) for trick in frozen)
    ]


def _output_range(recipe: Recipe, findings: Findings) -> None:
    """G's output range should be that of the data: [-1, 1] for images, unbounded for points."""
    output = getattr(recipe.network.g, "output", None)
    points = isinstance(recipe.data, PointsConfig)
    reasons = {
        "sigmoid": "a sigmoid's output is at least 0, but images are in [-1, 1]: G can't generate dark pixels",
        "linear": "a linear output is unbounded, but images are in [-1, 1]: D detects every value outside that range",
    }
    default = type(recipe.network.g).model_fields["output"].default if output else None
    if not points and output in reasons and output != default:  # R3GAN's G has a linear output by design
        findings.warnings.append(Finding("network.g.output", reasons[output], "T01", 'set it to "tanh"'))
    if points and output in ("tanh", "sigmoid"):
        reason = f"a {output}'s output is at most 1, but points may lie beyond"
        findings.warnings.append(Finding("network.g.output", reason, "T01", 'set it to "linear"'))


def _sparse_gradients(recipe: Recipe, findings: Findings) -> None:
    """G learns through D's gradient, which max pooling and ReLU in D make sparse."""
    if getattr(recipe.network.d, "down", "") == "max":
        reason = "max pooling passes the gradient to one pixel in four only"
        findings.warnings.append(Finding("network.d.down", reason, "T06a", 'use "average" or "conv"'))
    d = recipe.network.d
    if (
        getattr(d, "activation", "") == "relu" and d is not None and not d.has_skip_connections
    ):  # the D of SNGAN and SAGAN has skip connections
        reason = "a ReLU passes no gradient where its input is negative, but G learns from D's gradient alone"
        findings.warnings.append(Finding("network.d.activation", reason, "T06a", 'use "leaky_relu"'))


def _critic_momentum(recipe: Recipe, findings: Findings) -> None:
    """A critic with clipped weights is unstable under momentum (Arjovsky 2017, section 4); WGAN-GP uses none either."""
    if not recipe.objective.needs_lipschitz_bound:
        return
    optimizer = recipe.optimizer.d
    betas = getattr(optimizer, "betas", None)
    where, momentum = ("betas", betas[0]) if betas is not None else ("momentum", getattr(optimizer, "momentum", 0.0))
    if max(bounds(momentum)) > 0:
        reason = f"'{recipe.objective.tag()}' is unstable with momentum in the critic's optimiser"
        cure = "set the first beta to 0.0" if where == "betas" else "set it to 0.0, or use rmsprop"
        findings.warnings.append(Finding(f"optimizer.d.{where}", reason, "T10", cure))


def _lazy_penalties(recipe: Recipe, findings: Findings) -> None:
    """A penalty in every few steps only failed on toy data and stacked digits (Huang 2024, appendix E)."""
    small = isinstance(recipe.data, ToyConfig) or recipe.data.tag() == "stacked_digits"
    for i, trick in enumerate(recipe.tricks):
        every = getattr(trick, "every", 1)
        if small and trick.needs_independent_scores and every > 1:
            reason = f"'{trick.tag()}' acts in only one step of {every}, but lazy penalties fail on toy data"
            findings.warnings.append(Finding(f"tricks.{i}.every", reason, "T06b", "set it to 1"))


def _mirrored_characters(recipe: Recipe, findings: Findings) -> None:
    """The flip of a digit or letter is usually not a valid one."""
    kind = recipe.data.tag()
    name = recipe.data.dataset if isinstance(recipe.data, VisionConfig) else kind
    if name not in ("digits", "stacked_digits", *CHARACTERS):
        return
    shows = f"'{name}' shows characters, most of which are wrong when flipped"
    if recipe.mirrors_images:
        findings.warnings.append(Finding("data.mirror", f"{shows}: G would learn these too", "M02", "set it to false"))
    for i, trick in enumerate(recipe.tricks):
        if trick.tag() == "consistency" and getattr(trick, "mirror", 0) and any(bounds(getattr(trick, "weight", 0))):
            reason = f"{shows}, but 'consistency' trains D to score them like the others"
            findings.warnings.append(Finding(f"tricks.{i}.mirror", reason, trick.tip, "set it to 0"))


def _style_mixing(recipe: Recipe, findings: Findings) -> None:
    """The second z of mixed styles is Gaussian, and should be distributed as the first one is."""
    mixes = getattr(recipe.network.g, "style_mixing", 0) > 0
    if mixes and recipe.latent.tag() in ("uniform", "truncated", "codes"):
        reason = f"the second z of mixed styles is Gaussian, but the latents are '{recipe.latent.tag()}'"
        cure = 'set it to 0, or use latents of kind "gaussian"'
        findings.warnings.append(Finding("network.g.style_mixing", reason, "T03", cure))


def _head_start(recipe: Recipe, findings: Findings) -> None:
    """A head start must end before the run does, and D should not become perfect in it."""
    head_start = getattr(recipe.tempo, "head_start", 0)
    if head_start >= recipe.steps:
        steps = count_noun(head_start, "step")
        reason = f"D trains alone for {steps}, but the run has {recipe.steps:,}: G is never trained"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", "make it shorter, or the run longer"))
    elif head_start and "score" in recipe.objective.output_kinds:
        reason = "a D that trains alone separates real from fake perfectly, which leaves G without a gradient"
        cure = "remove it, or use objective 'energy' with a margin that rises from 0"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", cure))


def _duplicates(recipe: Recipe, findings: Findings) -> None:
    """A trick should occur once."""
    for i, (name, trick) in enumerate(zip(recipe.trick_names(), recipe.tricks, strict=True)):
        repeated = name != trick.trick_name and not trick.may_repeat
        if repeated and not trick.has_sampling_network:  # `_unused` warns about two averages
            reason = f"'{trick.trick_name}' occurs more than once in the recipe: {trick.duplicate_note}"
            cure = "remove all but one unless this is intended"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _noisy_consistency(recipe: Recipe, findings: Findings) -> None:
    """Consistency regularisation should not penalise D's response to instance noise."""
    kinds = [trick.tag() for trick in recipe.tricks]
    if "consistency" in kinds and "instance_noise" in kinds:
        reason = "'consistency' compares D's scores of two noisy copies, so it penalises the effect of the noise too"
        cure = "remove the noise, or use a smaller weight"
        findings.warnings.append(Finding(f"tricks.{kinds.index('consistency')}", reason, "M03", cure))


def _class_pairs(recipe: Recipe, findings: Findings) -> None:
    """Where each real sample is paired with a fake one of its class, a fake sample from a pool breaks the pair."""
    pairing = ["the objective"] if recipe.objective.is_relativistic else []
    pairing += [f"'{trick.tag()}'" for trick in recipe.tricks if trick.tag() == "wgan_gp"]
    for i, trick in enumerate(recipe.tricks):
        if trick.num_stored and recipe.uses_labels and pairing:
            reason = (
                f"{pairing[0]} pairs each real sample with a fake one of its class, but '{trick.tag()}' inserts fake "
                "samples of other classes"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "remove one of the two"))


def _hidden_codes(recipe: Recipe, findings: Findings) -> None:
    """G ignores codes if nothing rewards it for showing them. On points they have another purpose: separate modes."""
    is_points = isinstance(recipe.data, PointsConfig)
    if recipe.latent.tag() == "codes" and "codes" not in recipe.required_outputs and not is_points:
        reason = "no loss ties the codes in z to the images, so they will have no meaning"
        cure = "add the trick 'infogan', or use latent={kind=\"gaussian\", dim=100}"
        findings.warnings.append(Finding("latent", reason, "M03", cure))


def _unused(recipe: Recipe, findings: Findings) -> None:
    """Averages that nothing is sampled from, and tricks whose first action comes after the end."""
    averages = [i for i, trick in enumerate(recipe.tricks) if trick.has_sampling_network]
    for i in averages[1:]:
        first = recipe.trick_names()[averages[0]]
        reason = f"samples are generated by '{first}', so the average of '{recipe.trick_names()[i]}' is never used"
        findings.warnings.append(Finding(f"tricks.{i}", reason, recipe.tricks[i].tip, "remove one of the two"))
    for i, trick in enumerate(recipe.tricks):
        if trick.first_active_step > recipe.steps:
            first = f"step {trick.first_active_step:,}"
            reason = f"'{trick.tag()}' has no effect before {first}, but the run has {recipe.steps:,}"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set a smaller 'every'"))


def _mixed_batches(recipe: Recipe, findings: Findings) -> None:
    """Statistics over a batch that is half real and half fake differ from those of G's moves."""
    coupling = [f"'{trick.tag()}'" for trick in recipe.tricks if trick.couples_samples]
    batch_statistics = recipe.network.d is not None and recipe.network.d.uses_batch_statistics
    if recipe.judging == "together" and (batch_statistics or coupling):
        what = "batch norm in D" if batch_statistics else coupling[0]
        reason = f"{what} gets batches of half real, half fake samples in D's moves, but only fake ones in G's"
        cure = 'set judging to "apart" unless this is intended'
        findings.warnings.append(Finding("judging", reason, "T04", cure))


def _sync_batch_norm(recipe: Recipe, findings: Findings) -> None:
    """Batch norms that are not there can't be synchronised; what the user's own networks have is not known."""
    possible = [
        network.uses_batch_statistics or network.tag() == "python" for network in recipe.network.configs.values()
    ]
    if recipe.sync_batch_norm and not any(possible):
        reason = "no network has batch norm, so that this changes nothing"
        findings.warnings.append(Finding("sync_batch_norm", reason, "T05a", "remove it"))


def _constant_schedules(recipe: Recipe, findings: Findings) -> None:
    """Schedules that stay constant for the whole run, and intervals that are longer than it."""
    for path, schedule in _schedules(recipe, ""):
        first = (
            schedule.after if isinstance(schedule, Ramp) else schedule.at[0] if isinstance(schedule, Staircase) else 0.0
        )
        end = recipe.steps if schedule.over == "steps" else 1.0
        if first >= end:
            reason = f"this schedule first changes after {first:g} {schedule.over}, when the run is already over"
            findings.warnings.append(Finding(path, reason, "T11", "let it begin earlier, or train longer"))
    for i, trick in enumerate(recipe.tricks):
        every = getattr(trick, "every", 1)
        if every >= recipe.steps > 1 and not trick.first_active_step:
            steps = f"every {every:,} steps, but the run has {recipe.steps:,}"
            reason = f"'{trick.tag()}' acts {steps}: it acts only in the first"
            findings.warnings.append(Finding(f"tricks.{i}.every", reason, trick.tip, "set it lower"))


def _schedules(config: Config, path: str) -> Iterator[tuple[str, Schedule]]:
    """Every schedule of a configuration, with its dotted path."""
    for name in type(config).model_fields:
        yield from _schedules_in(getattr(config, name), f"{path}.{name}" if path else name)


def _schedules_in(value: Any, path: str) -> Iterator[tuple[str, Schedule]]:
    if isinstance(value, Schedule):
        yield path, value
    elif isinstance(value, Config):
        yield from _schedules(value, path)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _schedules_in(item, f"{path}.{i}")
