"""Checks that the parts of a recipe fit together. Every finding names the field, the reason, the tip and the cure."""

from __future__ import annotations

from math import prod

from poise.core.types import Shape
from poise.networks.base import DiscriminatorConfig
from poise.networks.translation import Parts
from poise.recipe.checks.domains import check_domains
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.players import check_players
from poise.recipe.checks.suspicious import find_suspicious
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun

LARGE_POOL = 500
"""The size in megabytes beyond which a pool of images is warned about."""


def check_compatibility(
    recipe: Recipe, shape: Shape | None = None, classes: int | None = None, parts: Parts | None = None
) -> Findings:
    """Find what does not fit together in a recipe, and what is suspicious about it.

    Args:
        recipe: the recipe.
        shape: the shape of one sample of the data; None if it is not known yet.
        classes: the number of classes of the data; None if it is not known yet.
        parts: the number of channels of each domain in a sample, empty for ordinary data; None if it is not known yet.
    """
    findings = Findings()
    check_players(recipe, findings)
    check_domains(recipe, parts, findings)
    if findings.refusals:
        return findings
    if recipe.network.d is not None:
        for rule in (_output_kind, _input_gradients):
            rule(recipe, recipe.network.d, findings)
    for rule in (_targets, _sample_selection, _separate_fake_loss, _packing, _score_signs, _pools):
        rule(recipe, findings)
    _conditioning(recipe, classes, findings)
    _min_batch(recipe, shape, findings)
    find_suspicious(recipe, findings)
    if shape is not None:
        _sample_shape(recipe, shape, findings)
    return findings


def _output_kind(recipe: Recipe, d: DiscriminatorConfig, findings: Findings) -> None:
    """The objective must accept D's output: an unbounded score or an energy."""
    objective = recipe.objective
    for i, trick in enumerate(recipe.tricks):
        if trick.modifies_score and d.output_kind == "energy":
            reason = f"'{trick.tag()}' adds to D's score, but an energy is D's reconstruction error and nothing else"
            cure = "remove the trick, or use 'pulling_away' or 'packing' instead"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
    if d.output_kind in objective.output_kinds:
        return
    if d.output_kind == "energy":
        reason = f"'{objective.tag()}' needs scores of either sign, but those of an autoencoder D are never above 0"
        cure = "use objective 'energy' or 'began', or another network.d"
    else:
        reason = f"'{objective.tag()}' needs an energy, which the discriminator '{d.tag()}' does not return"
        cure = "use network.d kind 'autoencoder', or 'flat_autoencoder' for points"
    findings.refusals.append(Finding("objective", reason, "T08b", cure))


def _targets(recipe: Recipe, findings: Findings) -> None:
    """A trick that changes the targets of D or G needs an objective that has them."""
    for i, trick in enumerate(recipe.tricks):
        changes_d = trick.needs_targets and not recipe.objective.accepts_targets
        if changes_d or (trick.needs_g_target and recipe.objective.g_target_span is None):
            whose = "D's targets" if changes_d else "the target of G's loss"
            reason = f"'{trick.tag()}' changes {whose}, but the objective '{recipe.objective.tag()}' has none"
            cure = "use objective 'non_saturating', or remove the trick"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _input_gradients(recipe: Recipe, d: DiscriminatorConfig, findings: Findings) -> None:
    """Gradient penalties need independent samples, and a Wasserstein critic needs a bound on its input gradient."""
    spectral = recipe.spectral_norm_bounds_d
    coupling = [f"'{one.tag()}'" for one in recipe.tricks if one.couples_samples and not one.penalised_with_others]
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_independent_scores and (d.uses_batch_statistics or coupling):
            what = "batch norm in D" if d.uses_batch_statistics else coupling[0]
            reason = (
                f"'{trick.tag()}' penalises the input gradient of each sample on its own, but {what} makes each score "
                "depend on the whole batch"
            )
            cure = (
                'set network.d.norm to "none"'
                if d.uses_batch_statistics
                else "remove one of the two unless this is intended"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05a", cure))
        if trick.tag() == "weight_clipping" and spectral:
            reason = "spectral norm divides D's weights by their spectral norm, so clipping them has almost no effect"
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05b", "remove one of the two"))
    if recipe.objective.needs_lipschitz_bound and not spectral and not any(t.bounds_lipschitz for t in recipe.tricks):
        reason = f"nothing bounds D's input gradient, so the loss '{recipe.objective.tag()}' is unbounded as well"
        findings.warnings.append(Finding("objective", reason, "T06b", "add the trick 'wgan_gp' or 'weight_clipping'"))


def _conditioning(recipe: Recipe, classes: int | None, findings: Findings) -> None:
    """The data must have labels, G must get them if D does, and the conditioning must fit the networks."""
    conditioning, classifies = recipe.labels, "classes" in recipe.required_outputs

    def refuse(where: str, reason: str, tip: str, cure: str) -> None:
        findings.refusals.append(Finding(where, reason, tip, cure))

    if recipe.uses_labels and classes is not None and classes < 2:
        reason = "the data has no class labels" if not classes else "the data has only one class"
        removal = "the conditioning and the classifier" if classifies else "the conditioning (--set 'conditioning={}')"
        cure = f"sort the images into one folder per class, or remove {removal}"
        refuse("conditioning", f"this recipe uses class labels, but {reason}", "T13", cure)
    judged = next((f"'{trick.tag()}' compares with the label" for trick in recipe.tricks if trick.needs_labels), "")
    if conditioning.g is None and (conditioning.d is not None or classifies or judged):
        reason = "D is conditioned on the class" if conditioning.d is not None else "D classifies the generated samples"
        reason = judged if conditioning.d is None and not classifies else reason
        refuse(
            "conditioning.g",
            f"{reason}, but G is not conditioned on it",
            "T13",
            f'add conditioning.g = {{kind = "{"concat" if recipe.network.direction is None else "channels"}"}}',
        )
    unchecked = conditioning.d is None and not classifies and not judged
    if recipe.has_discriminator and conditioning.g is not None and unchecked:
        reason = "G is conditioned on the class, but nothing checks whether its samples match it"
        cure = 'add conditioning.d = {kind = "projection"}, or the trick "auxiliary_classifier"'
        findings.warnings.append(Finding("conditioning.d", reason, "T13", cure))
    if conditioning.g is not None and (mismatch := recipe.network.g.conditioning_incompatibility(conditioning.g)):
        refuse("conditioning.g", mismatch[0], "T17", mismatch[1])
    d = recipe.network.d
    if conditioning.d and d and (mismatch := conditioning.d.incompatibility(getattr(d, "norm", "none"), d.output_kind)):
        refuse("conditioning.d", mismatch[0], "T17", mismatch[1])


def _sample_selection(recipe: Recipe, findings: Findings) -> None:
    """Selecting samples for G needs a loss for each sample."""
    for i, trick in enumerate(recipe.tricks):
        if trick.selects_samples and not recipe.objective.has_per_sample_g_loss:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' drops fake samples, but each loss of '{kind}' contains the mean over all of them"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "use objective 'relativistic'"))


def _separate_fake_loss(recipe: Recipe, findings: Findings) -> None:
    """Some tricks need a loss of the fake samples alone."""
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_separate_fake_loss and not recipe.objective.is_separable:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' needs the loss of the fake samples alone, which '{kind}' does not have"
            cure = "use objective 'non_saturating', or remove the trick"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _packing(recipe: Recipe, findings: Findings) -> None:
    """The batch size must be a multiple of the pack size, and a pack has no single label."""
    for i, trick in enumerate(recipe.tricks):
        where = f"tricks.{i}"
        if trick.pack > 1 and recipe.batch % recipe.pack:
            reason = f"D scores packs of {recipe.pack} samples, but a batch of {recipe.batch} is not a multiple of that"
            cure = f"set batch to {max(1, recipe.batch // recipe.pack) * recipe.pack}"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))
        if trick.pack > 1 and (recipe.labels.d is not None or "classes" in recipe.required_outputs):
            reason = "D scores packs of several samples, which have no common label"
            cure = "remove D's conditioning or classifier, or the packing"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))


def _min_batch(recipe: Recipe, shape: Shape | None, findings: Findings) -> None:
    """A norm whose statistics are taken over the batch alone maps a batch of one to zero."""
    for side, network in recipe.network.configs.items():
        pack = recipe.pack if side == "d" else 1
        if recipe.batch % pack:
            continue  # `_packing` refuses this, and its cure changes the batch
        if (network.incompatibility(shape) if shape else None) is not None:
            continue
        if (min_batch := network.min_batch(shape)) > recipe.batch // pack:
            batch = f"a batch of {recipe.batch}" + (f", which is one pack of {pack}," if pack > 1 else "")
            reason = f"batch norm of vectors takes its statistics over the batch, but {batch} has one vector"
            cure, where = f"set batch to {min_batch * pack} or more", "batch"
            if hasattr(network, "norm"):
                cure, where = f'{cure}, or this norm to "none"', f"network.{side}.norm"
            findings.refusals.append(Finding(where, reason, "T05a", cure))


def _score_signs(recipe: Recipe, findings: Findings) -> None:
    """Some tricks need an objective whose scores have a decision threshold between real and fake."""
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_score_sign and recipe.objective.decision_threshold is None:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' needs a decision threshold for D's scores, which '{kind}' does not have"
            cure = "use objective 'non_saturating', 'hinge' or 'least_squares', or the trick 'diff_augment'"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _pools(recipe: Recipe, findings: Findings) -> None:
    """Pools share a batch of fake samples; one that replaces all of them leaves nothing for a second one."""
    replacing = [i for i, trick in enumerate(recipe.tricks) if trick.replaces_all_fakes]
    for i in replacing[1:]:
        trick = recipe.tricks[i]
        reason = f"both tricks '{trick.tag()}' replace the same fake samples, so the second one has no effect"
        findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "remove one of the two"))


def _sample_shape(recipe: Recipe, shape: Shape, findings: Findings) -> None:
    """Networks and tricks must accept the shape of the data, and a pool should fit in memory."""
    for i, trick in enumerate(recipe.tricks):
        if (mismatch := trick.incompatibility(shape)) is not None:
            findings.refusals.append(Finding(f"tricks.{i}", mismatch[0], trick.tip, mismatch[1]))
        if (megabytes := 4 * trick.num_stored * prod(shape) / 1e6) > LARGE_POOL:
            stored = count_noun(trick.num_stored, "sample")
            reason = f"'{trick.tag()}' stores {stored}: {megabytes:,.0f} MB in memory and in every checkpoint"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set a smaller 'size'"))
    for side, network in recipe.network.configs.items():
        if (mismatch := network.incompatibility(shape)) is not None:
            data = f"{shape[1]}x{shape[2]} images" if len(shape) == 3 else "points"
            reason = f"{mismatch[0]}; the data is {data}"
            findings.refusals.append(Finding(f"network.{side}", reason, "T08a", mismatch[1]))
