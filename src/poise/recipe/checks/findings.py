"""The result of checking a recipe: refusals and warnings, each with its field, reason, tip and cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from poise.errors import PoiseError, RecipeError


class Finding(NamedTuple):
    """One problem of a recipe.

    Attributes:
        field: the dotted path of the field.
        message: the reason.
        tip: the id of the tip that explains it.
        cure: what to change.
    """

    field: str
    message: str
    tip: str
    cure: str


@dataclass
class Findings:
    """The problems of a recipe.

    Attributes:
        refusals: problems that stop a run before anything is written.
        warnings: problems that are printed once.
    """

    refusals: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def refuse(self, error: PoiseError) -> None:
        """Add an error that was raised elsewhere to the refusals."""
        found = f", found {error.found}" if error.found else ""
        self.refusals.append(Finding(error.where, f"{error.what}{found}", "", error.cure))

    def raise_first(self) -> None:
        """Raise `RecipeError` for the first refusal, if there is one."""
        for finding in self.refusals:
            raise RecipeError(finding.message, where=finding.field, cure=finding.cure)
