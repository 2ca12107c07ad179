"""What an objective is: two pure functions on D's output, and what it declares about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from poise.core import Side, Targets
from poise.entries import Part

Costs = tuple[Tensor, ...]
"""Per-sample costs, one tensor (B) for every expectation in the paper's formula; means are taken at the end."""


class Objective(Part):
    """An objective declares what it reads and takes; the fit check holds it to that.

    A move descends the *sum* of the means of the costs, as the papers write it. The rows show their
    *mean*, the cost per judged picture, so that the equilibrium lies at the same height for both players.
    """

    takes_targets: ClassVar[bool] = False
    """Whether D's side is a classification whose targets may be softened, flipped, ..."""

    compares: ClassVar[bool] = False
    """Whether G's cost looks at the real pile too (relativistic)."""

    equilibrium: ClassVar[Mapping[Side, float]] = {}
    """Each player's cost per judged picture where D can't tell real from fake; empty where undefined."""

    def d_costs(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Costs:
        """What D pays, from its scores (B) on both piles; no targets means hard ones, 1 and 0."""
        raise NotImplementedError

    def g_costs(self, fake: Tensor, real: Tensor | None) -> Costs:
        """What G pays, from D's scores (B); `real` is there if the objective `compares`."""
        raise NotImplementedError
