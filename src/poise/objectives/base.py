"""What an objective is: two pure functions on D's output, what it declares about itself, and a rule at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from poise.core import Codes, Exchange, Judgement, Moment, Side, Targets
from poise.entries import Part

Costs = tuple[Tensor, ...]
"""Per-sample costs, one tensor (B) for every expectation in the paper's formula; means are taken at the end."""


class Objective(Part):
    """An objective declares what it reads and takes; the fit check holds it to that.

    A move descends the *sum* of the means of the costs, as the papers write it. The rows show their
    *mean*, the cost per judged picture, so that the equilibrium lies at the same height for both players.
    """

    reads: ClassVar[frozenset[Judgement]] = frozenset({"score"})
    """What D's number may be: a free score, the minus of an energy (which is never above 0), or either; nothing in a
    game for one (`rebuilding.py`)."""

    reads_region: ClassVar[bool] = False
    """Whether it reads the region a code may lie in, not only the code."""

    takes_targets: ClassVar[bool] = False
    """Whether D's side is a classification whose targets may be softened, flipped, ..."""

    compares: ClassVar[bool] = False
    """Whether G's cost looks at the real pile too (relativistic)."""

    needs_slope_bound: ClassVar[bool] = False
    """Whether its costs run off unless something holds D's slope (weight clipping, a penalty, spectral norm)."""

    by_pile: ClassVar[bool] = True
    """Whether D pays for each pile by itself, first for the reals, then for the fakes, by a formula that stays."""

    likes_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16."""

    by_sample: ClassVar[bool] = True
    """Whether each of G's costs is about one fake, so that some of them can be left out."""

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """Each player's cost per judged picture where D can't tell real from fake; empty where undefined."""
        return {}

    @property
    def undecided(self) -> float | None:
        """The score of a sample that D can't place; None where scores mean something in comparison only."""
        return None

    def d_costs(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Costs:
        """What D pays, from its scores (B) on both piles; no targets means hard ones, 1 and 0."""
        raise NotImplementedError

    def g_costs(self, fake: Tensor, real: Tensor | None) -> Costs:
        """What G pays, from D's scores (B); `real` is there if the objective `compares`."""
        raise NotImplementedError

    def readings(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Numbers of D's move with a meaning of their own (a distance, say), 0-dim, by name."""
        return {}

    def build(self) -> Rule[Any]:
        """The objective at work: these formulas, unless it must know the time or remember something."""
        return Rule(self)


Told = TypeVar("Told", bound=Objective)


class Rule(nn.Module, Generic[Told]):
    """An objective at work in a game: what it costs in this very move. A buffer here is saved and resumed.

    Args:
        told: the entry it came from, whose formulas hold unless a subclass has its own.
    """

    def __init__(self, told: Told) -> None:
        super().__init__()
        self.told = told
        self.compares = told.compares

    def d_costs(self, real: Tensor, fake: Tensor, targets: Targets | None, moment: Moment) -> Costs:
        """See `Objective.d_costs`."""
        return self.told.d_costs(real, fake, targets)

    def g_costs(self, fake: Tensor, real: Tensor | None, moment: Moment) -> Costs:
        """See `Objective.g_costs`."""
        return self.told.g_costs(fake, real)

    def seen(self, real: Tensor, moment: Moment) -> Tensor:
        """In a game for one: the reals as this objective takes them."""
        return real

    def alone(self, exchange: Exchange) -> Tensor:
        """In a game for one: what the move costs, 0-dim."""
        raise NotImplementedError

    def remember(self, exchange: Exchange) -> None:
        """Keep what the next move must know of this one, once its step is done."""
        if exchange.moment.side is Side.D:
            exchange.readings |= self.told.readings(exchange.score("real").detach(), exchange.score("fake").detach())


class Rebuilding(Objective):
    """What games for one share: nothing is read of D, and costs are told by name."""

    reads: ClassVar[frozenset[Judgement]] = frozenset()
    by_sample: ClassVar[bool] = False
    by_pile: ClassVar[bool] = False

    @property
    def undecided(self) -> float | None:
        """There is no score."""
        return None

    def seen(self, real: Tensor, moment: Moment) -> Tensor:
        """The reals as they are taken."""
        return real

    def parts(self, real: Tensor, rebuilt: Tensor, codes: Codes) -> dict[str, Tensor]:
        """What rebuilding came to, per sample, B, by name; `reconstruction` is always there."""
        raise NotImplementedError

    def paid(self, told: Mapping[str, Tensor], moment: Moment) -> Tensor:
        """What of the parts' means is paid, 0-dim."""
        return told["reconstruction"]

    def build(self) -> Rule[Any]:
        """See `RebuildingRule`."""
        return RebuildingRule(self)


class RebuildingRule(Rule[Rebuilding]):
    """A game for one at work: it pays, and the rows show each part."""

    def seen(self, real: Tensor, moment: Moment) -> Tensor:
        """See `Rebuilding.seen`."""
        return self.told.seen(real, moment)

    def alone(self, exchange: Exchange) -> Tensor:
        """See `Rebuilding.paid`."""
        rebuilt = exchange.rebuilt
        parts = self.told.parts(exchange.pile("real"), rebuilt.images, rebuilt.codes)
        means = {name: part.mean() for name, part in parts.items()}
        exchange.readings |= {name: mean.detach() for name, mean in means.items()}
        return self.told.paid(means, exchange.moment)

    def remember(self, exchange: Exchange) -> None:
        """Nothing."""
