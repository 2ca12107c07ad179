"""What is found about a recipe before it runs: the field, the reason, the tip, the cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from poise.errors import RecipeError


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

    def refuse(self, error: RecipeError) -> None:
        """Add what was raised somewhere to the refusals."""
        found = f", found {error.found}" if error.found else ""
        self.refusals.append(Finding(error.where, f"{error.what}{found}", "", error.cure))

    def raise_first(self) -> None:
        """Raises RecipeError for the first refusal, if there is one."""
        for finding in self.refusals:
            raise RecipeError(finding.message, where=finding.field, cure=finding.cure)
