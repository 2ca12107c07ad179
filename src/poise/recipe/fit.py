"""One function decides what fits together; every finding names the field, the reason, the tip and the cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from poise.core import Shape
from poise.errors import RecipeError
from poise.recipe.model import Recipe


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


def fit(recipe: Recipe, shape: Shape | None = None) -> Findings:
    """What of `recipe` does not fit. `shape` is the data's, where it is known already."""
    findings = Findings()
    _targets(recipe, findings)
    _own_scores(recipe, findings)
    _twice(recipe, findings)
    if shape is not None:
        _networks(recipe, shape, findings)
    return findings


def _targets(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_targets and not recipe.objective.takes_targets:
            reason = f"'{trick.name()}' changes D's targets, and the objective '{recipe.objective.name()}' has none"
            findings.refusals.append(
                Finding(
                    f"tricks.{i}",
                    reason,
                    trick.tip,
                    "take objective 'non_saturating', or leave the trick out",
                )
            )


def _own_scores(recipe: Recipe, findings: Findings) -> None:
    norm = getattr(recipe.network.d, "norm", "none")
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_own_scores and norm == "batch":
            reason = (
                f"'{trick.name()}' penalises each picture's own slope, and batch norm in D ties the pictures together"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, "T05a", 'set network.d.norm to "none"'))


def _twice(recipe: Recipe, findings: Findings) -> None:
    for i, name in enumerate(recipe.trick_names()):
        if name != recipe.tricks[i].name():
            reason = f"'{recipe.tricks[i].name()}' stands in the recipe more than once and acts each time"
            findings.warnings.append(
                Finding(f"tricks.{i}", reason, recipe.tricks[i].tip, "leave one out unless it is meant")
            )


def _networks(recipe: Recipe, shape: Shape, findings: Findings) -> None:
    for side, network in (("g", recipe.network.g), ("d", recipe.network.d)):
        misfit = network.misfit(shape)
        if misfit is not None:
            seen = f"{shape[1]}x{shape[2]} pictures" if len(shape) == 3 else "points"
            findings.refusals.append(Finding(f"network.{side}", f"{misfit[0]}; the data is {seen}", "T08a", misfit[1]))
