"""One function decides what fits together; every finding names the field, the reason, the tip and the cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from poise.core import Shape
from poise.errors import RecipeError
from poise.recipe.model import Recipe

HEAVY = 500
"""Megabytes beyond which a pool of pictures is spoken of."""


class Finding(NamedTuple):
    """One thing that does not fit, or only doubtfully."""

    field: str
    message: str
    tip: str
    cure: str


@dataclass
class Findings:
    """Refusals stop a run before anything is written; warnings are said once."""

    refusals: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def raise_first(self) -> None:
        """Raises RecipeError for the first refusal, if there is one."""
        for finding in self.refusals:
            raise RecipeError(finding.message, where=finding.field, cure=finding.cure)


def fit(recipe: Recipe, shape: Shape | None = None, classes: int | None = None) -> Findings:
    """What of `recipe` does not fit. `shape` and `classes` are the data's, where they are known already."""
    findings = Findings()
    _judgement(recipe, findings)
    _targets(recipe, findings)
    _slopes(recipe, findings)
    _sparse(recipe, findings)
    _labels(recipe, classes, findings)
    _head_start(recipe, findings)
    _twice(recipe, findings)
    _flips(recipe, findings)
    _noisy_copies(recipe, findings)
    _pairs(recipe, findings)
    _idle(recipe, findings)
    _mixed(recipe, findings)
    _picks(recipe, findings)
    _packs(recipe, findings)
    _signs(recipe, findings)
    if shape is not None:
        _networks(recipe, shape, findings)
    return findings


def _judgement(recipe: Recipe, findings: Findings) -> None:
    objective, d = recipe.objective, recipe.network.d
    for i, trick in enumerate(recipe.tricks):
        if trick.adds_to_score and d.says == "energy":
            reason = f"'{trick.tag()}' adds to D's score, and an energy says how well D rebuilds, nothing else"
            cure = "leave the trick out, or take the trick 'pulling_away' or 'packing'"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
    if d.says in objective.reads:
        return
    if d.says == "energy":
        reason = f"'{objective.tag()}' reads a score of either sign, and an autoencoder's is never above 0"
        cure = "take objective 'energy' or 'began', or another network.d"
    else:
        reason = f"'{objective.tag()}' reads an energy, which D '{d.tag()}' does not have"
        cure = "take network.d kind 'autoencoder', or 'flat_autoencoder' for points"
    findings.refusals.append(Finding("objective", reason, "T08b", cure))


def _targets(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_targets and not recipe.objective.takes_targets:
            reason = f"'{trick.tag()}' changes D's targets, and the objective '{recipe.objective.tag()}' has none"
            cure = "take objective 'non_saturating', or leave the trick out"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _slopes(recipe: Recipe, findings: Findings) -> None:
    """What penalises a picture's own slope, and whether anything bounds a critic that wants bounds."""
    d = recipe.network.d
    spectral = getattr(d, "norm", "none") in ("spectral", "spectral_batch")
    ties = [f"'{trick.tag()}'" for trick in recipe.tricks if trick.ties_samples]
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_own_scores and (d.mixing or ties):
            what = "batch norm in D" if d.mixing else ties[0]
            reason = f"'{trick.tag()}' penalises each picture's own slope, and {what} ties the pictures together"
            cure = 'set network.d.norm to "none"' if d.mixing else "leave one of the two out unless it is meant"
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05a", cure))
        if trick.tag() == "weight_clipping" and spectral:
            reason = "spectral norm divides D's weights by their size, so clipping them changes next to nothing"
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05b", "leave one of the two out"))
    if recipe.objective.needs_slope_bound and not spectral and not any(t.bounds_slope for t in recipe.tricks):
        reason = f"nothing bounds D's slope, so the cost '{recipe.objective.tag()}' has no bound either"
        findings.warnings.append(Finding("objective", reason, "T06b", "add the trick 'wgan_gp' or 'weight_clipping'"))


def _sparse(recipe: Recipe, findings: Findings) -> None:
    if getattr(recipe.network.d, "down", "") == "max":
        reason = "a max pool hands the gradient to one pixel in four"
        findings.warnings.append(Finding("network.d.down", reason, "T06a", 'take "average" or "conv"'))


def _labels(recipe: Recipe, classes: int | None, findings: Findings) -> None:
    """Labels must be there, G must be told them if D asks for them, and each shell must fit its network."""
    told, asked = recipe.labels, "classes" in recipe.reads

    def refuse(where: str, reason: str, tip: str, cure: str) -> None:
        findings.refusals.append(Finding(where, reason, tip, cure))

    if recipe.labelled and classes is not None and classes < 2:
        reason = "the data has no labels" if not classes else "the data has one class only"
        cure = "give each class a folder of its own, or leave conditioning and classifier out"
        refuse("conditioning", f"{reason}, and this recipe reads them", "T13", cure)
    if told.g is None and (told.d is not None or asked):
        who = "D is told the label" if told.d is not None else "D names the class of a fake"
        refuse("conditioning.g", f"{who}, and G is not told any", "T13", 'add conditioning.g = {kind = "concat"}')
    if told.g is not None and told.d is None and not asked:
        reason = "G is told the label, and nothing asks whether its pictures fit it"
        cure = 'add conditioning.d = {kind = "projection"}, or the trick "auxiliary_classifier"'
        findings.warnings.append(Finding("conditioning.d", reason, "T13", cure))
    norms = {side: getattr(network, "norm", "none") for side, network in recipe.network}
    if told.g is not None and (misfit := told.g.misfit(norms["g"])):
        refuse("conditioning.g", misfit[0], "T17", misfit[1])
    if told.d is not None and (misfit := told.d.misfit(norms["d"], recipe.network.d.says)):
        refuse("conditioning.d", misfit[0], "T17", misfit[1])


def _head_start(recipe: Recipe, findings: Findings) -> None:
    alone = getattr(recipe.tempo, "head_start", 0)
    if alone >= recipe.steps:
        reason = f"D moves alone for {alone:,} steps, and the run has {recipe.steps:,}: G never moves"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", "make it shorter, or the run longer"))
    elif alone and "score" in recipe.objective.reads:
        reason = "a D that moves alone wins outright, and leaves G no slope to climb"
        cure = "leave it out, or take objective 'energy' with a margin that rises from 0"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", cure))


def _twice(recipe: Recipe, findings: Findings) -> None:
    for i, name in enumerate(recipe.trick_names()):
        if name != recipe.tricks[i].called:
            reason = f"'{recipe.tricks[i].called}' stands in the recipe more than once and acts each time"
            findings.warnings.append(
                Finding(f"tricks.{i}", reason, recipe.tricks[i].tip, "leave one out unless it is meant")
            )


def _flips(recipe: Recipe, findings: Findings) -> None:
    there = [trick.tag() for trick in recipe.tricks]
    for i, kind in enumerate(there):
        if kind == "noisy_labels" and "soft_labels" in there[i:]:
            reason = "'soft_labels' draws all targets anew, so flips that were made before it are lost"
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T07b", "put 'noisy_labels' behind 'soft_labels'"))


def _noisy_copies(recipe: Recipe, findings: Findings) -> None:
    there = [trick.tag() for trick in recipe.tricks]
    if "consistency" in there and "instance_noise" in there:
        reason = "'consistency' compares D's scores of two noisy copies, so D pays for what the noise does as well"
        cure = "leave the noise out, or take a smaller weight"
        findings.warnings.append(Finding(f"tricks.{there.index('consistency')}", reason, "M03", cure))


def _pairs(recipe: Recipe, findings: Findings) -> None:
    """What pairs a real with the fake beside it wants both of one class, which a fake from a pool need not be."""
    pairing = ["the objective"] if recipe.objective.compares else []
    pairing += [f"'{trick.tag()}'" for trick in recipe.tricks if trick.tag() == "wgan_gp"]
    for i, trick in enumerate(recipe.tricks):
        if trick.keeps and recipe.labelled and pairing:
            reason = (
                f"{pairing[0]} pairs each real with a fake of its class, and '{trick.tag()}' brings fakes of others"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "leave one of the two out"))


def _idle(recipe: Recipe, findings: Findings) -> None:
    """What is kept for nothing, and what comes too late."""
    shows = [i for i, trick in enumerate(recipe.tricks) if trick.shows]
    for i in shows[1:]:
        first = recipe.trick_names()[shows[0]]
        reason = f"samples come from '{first}', so what '{recipe.trick_names()[i]}' keeps is never shown"
        findings.warnings.append(Finding(f"tricks.{i}", reason, recipe.tricks[i].tip, "leave one of the two out"))
    for i, trick in enumerate(recipe.tricks):
        if trick.first_acts > recipe.steps:
            reason = f"'{trick.tag()}' does nothing before step {trick.first_acts:,}, and the run has {recipe.steps:,}"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set its 'every' lower"))


def _mixed(recipe: Recipe, findings: Findings) -> None:
    ties = [f"'{trick.tag()}'" for trick in recipe.tricks if trick.ties_samples]
    if recipe.judging == "together" and (recipe.network.d.mixing or ties):
        what = "batch norm in D" if recipe.network.d.mixing else ties[0]
        reason = f"{what} sees half reals, half fakes in D's moves, and fakes alone in G's"
        findings.warnings.append(Finding("judging", reason, "T04", 'set judging to "apart" unless it is meant'))


def _picks(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.picks and not recipe.objective.by_sample:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' leaves out fakes, and every cost of '{kind}' has the mean of all fakes in it"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "take objective 'relativistic'"))


def _packs(recipe: Recipe, findings: Findings) -> None:
    """A batch must come out even in packs, and a pack has no one label."""
    for i, trick in enumerate(recipe.tricks):
        where = f"tricks.{i}"
        if trick.pack > 1 and recipe.batch % recipe.pack:
            reason = f"D judges {recipe.pack} samples at once, and a batch of {recipe.batch} does not divide by that"
            cure = f"set batch to {max(1, recipe.batch // recipe.pack) * recipe.pack}"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))
        if trick.pack > 1 and (recipe.labels.d is not None or "classes" in recipe.reads):
            reason = "D judges several samples at once, which have no label in common"
            cure = "leave the labels out for D, or the packing"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))


def _signs(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.reads_sign and recipe.objective.undecided is None:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' reads which side of the fence D puts a real on, and '{kind}' has no fence"
            cure = "take objective 'non_saturating', 'hinge' or 'least_squares', or the trick 'diff_augment'"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _networks(recipe: Recipe, shape: Shape, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if (misfit := trick.misfit(shape)) is not None:
            findings.refusals.append(Finding(f"tricks.{i}", misfit[0], trick.tip, misfit[1]))
        if (megabytes := 4 * trick.keeps * prod(shape) / 1e6) > HEAVY:
            reason = f"'{trick.tag()}' keeps {trick.keeps:,} samples, {megabytes:,.0f} MB in memory and every save"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set its 'size' lower"))
    for side, network in (("g", recipe.network.g), ("d", recipe.network.d)):
        misfit = network.misfit(shape)
        if misfit is not None:
            seen = f"{shape[1]}x{shape[2]} pictures" if len(shape) == 3 else "points"
            findings.refusals.append(Finding(f"network.{side}", f"{misfit[0]}; the data is {seen}", "T08a", misfit[1]))
