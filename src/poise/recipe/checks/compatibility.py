"""One function decides what fits together; every finding names the field, the reason, the tip and the cure."""

from __future__ import annotations

from math import prod

from poise.core.types import Shape
from poise.networks.base import DiscriminatorConfig
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.players import check_players
from poise.recipe.checks.suspicious import find_suspicious
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun

HEAVY = 500
"""Megabytes beyond which a pool of pictures is spoken of."""


def check_compatibility(recipe: Recipe, shape: Shape | None = None, classes: int | None = None) -> Findings:
    """What of `recipe` does not fit. `shape` and `classes` are the data's, where they are known already."""
    findings = Findings()
    check_players(recipe, findings)
    if findings.refusals:
        return findings
    if recipe.network.d is not None:
        for rule in (_judgement, _slopes):
            rule(recipe, recipe.network.d, findings)
    for rule in (_targets, _picks, _splits, _packs, _signs, _pools):
        rule(recipe, findings)
    _labels(recipe, classes, findings)
    _fewest(recipe, shape, findings)
    find_suspicious(recipe, findings)
    if shape is not None:
        _networks(recipe, shape, findings)
    return findings


def _judgement(recipe: Recipe, d: DiscriminatorConfig, findings: Findings) -> None:
    objective = recipe.objective
    for i, trick in enumerate(recipe.tricks):
        if trick.modifies_score and d.output_kind == "energy":
            reason = f"'{trick.tag()}' adds to D's score, and an energy says how well D rebuilds, nothing else"
            cure = "leave the trick out, or take the trick 'pulling_away' or 'packing'"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
    if d.output_kind in objective.output_kinds:
        return
    if d.output_kind == "energy":
        reason = f"'{objective.tag()}' reads a score of either sign, and an autoencoder's is never above 0"
        cure = "take objective 'energy' or 'began', or another network.d"
    else:
        reason = f"'{objective.tag()}' reads an energy, which D '{d.tag()}' does not have"
        cure = "take network.d kind 'autoencoder', or 'flat_autoencoder' for points"
    findings.refusals.append(Finding("objective", reason, "T08b", cure))


def _targets(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_targets and not recipe.objective.accepts_targets:
            reason = f"'{trick.tag()}' changes D's targets, and the objective '{recipe.objective.tag()}' has none"
            cure = "take objective 'non_saturating', or leave the trick out"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _slopes(recipe: Recipe, d: DiscriminatorConfig, findings: Findings) -> None:
    """What penalises a picture's own slope, and whether anything bounds a critic that wants bounds."""
    spectral = getattr(d, "norm", "none") in ("spectral", "spectral_batch")
    ties = [f"'{trick.tag()}'" for trick in recipe.tricks if trick.couples_samples]
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_independent_scores and (d.uses_batch_statistics or ties):
            what = "batch norm in D" if d.uses_batch_statistics else ties[0]
            reason = f"'{trick.tag()}' penalises each picture's own slope, and {what} ties the pictures together"
            cure = (
                'set network.d.norm to "none"'
                if d.uses_batch_statistics
                else "leave one of the two out unless it is meant"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05a", cure))
        if trick.tag() == "weight_clipping" and spectral:
            reason = "spectral norm divides D's weights by their size, so clipping them changes next to nothing"
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05b", "leave one of the two out"))
    if recipe.objective.needs_lipschitz_bound and not spectral and not any(t.bounds_lipschitz for t in recipe.tricks):
        reason = f"nothing bounds D's slope, so the cost '{recipe.objective.tag()}' has no bound either"
        findings.warnings.append(Finding("objective", reason, "T06b", "add the trick 'wgan_gp' or 'weight_clipping'"))


def _labels(recipe: Recipe, classes: int | None, findings: Findings) -> None:
    """Labels must be there, G must be told them if D asks for them, and each shell must fit its network."""
    told, asked = recipe.labels, "classes" in recipe.required_outputs

    def refuse(where: str, reason: str, tip: str, cure: str) -> None:
        findings.refusals.append(Finding(where, reason, tip, cure))

    if recipe.uses_labels and classes is not None and classes < 2:
        reason = "the data has no labels" if not classes else "the data has one class only"
        cure = "give each class a folder of its own, or leave conditioning and classifier out"
        refuse("conditioning", f"{reason}, and this recipe reads them", "T13", cure)
    if told.g is None and (told.d is not None or asked):
        who = "D is told the label" if told.d is not None else "D names the class of a fake"
        refuse("conditioning.g", f"{who}, and G is not told any", "T13", 'add conditioning.g = {kind = "concat"}')
    if recipe.has_discriminator and told.g is not None and told.d is None and not asked:
        reason = "G is told the label, and nothing asks whether its pictures fit it"
        cure = 'add conditioning.d = {kind = "projection"}, or the trick "auxiliary_classifier"'
        findings.warnings.append(Finding("conditioning.d", reason, "T13", cure))
    norms = {side: getattr(network, "norm", "none") for side, network in recipe.network}
    if told.g is not None and (misfit := told.g.incompatibility(norms["g"])):
        refuse("conditioning.g", misfit[0], "T17", misfit[1])
    d = recipe.network.d
    if told.d is not None and d is not None and (misfit := told.d.incompatibility(norms["d"], d.output_kind)):
        refuse("conditioning.d", misfit[0], "T17", misfit[1])


def _picks(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.selects_samples and not recipe.objective.has_per_sample_g_loss:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' leaves out fakes, and every cost of '{kind}' has the mean of all fakes in it"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "take objective 'relativistic'"))


def _splits(recipe: Recipe, findings: Findings) -> None:
    """What takes the cost of fakes by itself."""
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_separate_fake_loss and not recipe.objective.is_separable:
            reason = f"'{trick.tag()}' takes the cost of fakes by itself, and '{recipe.objective.tag()}' has none"
            cure = "take objective 'non_saturating', or leave the trick out"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _packs(recipe: Recipe, findings: Findings) -> None:
    """A batch must come out even in packs, and a pack has no one label."""
    for i, trick in enumerate(recipe.tricks):
        where = f"tricks.{i}"
        if trick.pack > 1 and recipe.batch % recipe.pack:
            reason = f"D judges {recipe.pack} samples at once, and a batch of {recipe.batch} does not divide by that"
            cure = f"set batch to {max(1, recipe.batch // recipe.pack) * recipe.pack}"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))
        if trick.pack > 1 and (recipe.labels.d is not None or "classes" in recipe.required_outputs):
            reason = "D judges several samples at once, which have no label in common"
            cure = "leave the labels out for D, or the packing"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))


def _fewest(recipe: Recipe, shape: Shape | None, findings: Findings) -> None:
    """A norm that takes its means over the batch alone has nothing to subtract from a batch of one."""
    for side, network in recipe.network:
        pack = recipe.pack if side == "d" else 1
        if recipe.batch % pack:
            continue  # that comes first, and its cure changes the batch
        if network is None or (network.incompatibility(shape) if shape else None) is not None:
            continue
        if (fewest := network.min_batch(shape)) > recipe.batch // pack:
            seen = f"a batch of {recipe.batch}" + (f", which is one pack of {pack}" if pack > 1 else "")
            reason = f"batch norm of vectors takes its means over the batch, and {seen} holds one vector"
            cure, where = f"set batch to {fewest * pack} or more", "batch"
            if hasattr(network, "norm"):
                cure, where = f'{cure}, or this norm to "none"', f"network.{side}.norm"
            findings.refusals.append(Finding(where, reason, "T05a", cure))


def _signs(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_score_sign and recipe.objective.decision_threshold is None:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' reads which side of the fence D puts a real on, and '{kind}' has no fence"
            cure = "take objective 'non_saturating', 'hinge' or 'least_squares', or the trick 'diff_augment'"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _pools(recipe: Recipe, findings: Findings) -> None:
    """Pools share a batch of fakes; one that leaves nothing new leaves nothing to a second one of its sort."""
    takers = [i for i, trick in enumerate(recipe.tricks) if trick.replaces_all_fakes]
    for i in takers[1:]:
        trick = recipe.tricks[i]
        reason = f"two tricks '{trick.tag()}' would replace the same fakes, and the second one would never act"
        findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "leave one of the two out"))


def _networks(recipe: Recipe, shape: Shape, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if (misfit := trick.incompatibility(shape)) is not None:
            findings.refusals.append(Finding(f"tricks.{i}", misfit[0], trick.tip, misfit[1]))
        if (megabytes := 4 * trick.num_stored * prod(shape) / 1e6) > HEAVY:
            stored = count_noun(trick.num_stored, "sample")
            reason = f"'{trick.tag()}' keeps {stored}, {megabytes:,.0f} MB in memory and every save"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set its 'size' lower"))
    for side, network in recipe.network:
        if network is not None and (misfit := network.incompatibility(shape)) is not None:
            seen = f"{shape[1]}x{shape[2]} pictures" if len(shape) == 3 else "points"
            findings.refusals.append(Finding(f"network.{side}", f"{misfit[0]}; the data is {seen}", "T08a", misfit[1]))
