"""What an objective is: two pure functions on D's output, what it declares about itself, and a rule at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from poise.core.config import ComponentConfig
from poise.core.move import MoveData
from poise.core.types import EncoderOutput, MoveContext, OutputKind, Side, Targets
from poise.retired import OBJECTIVE_MEMBERS, adopt, attribute_of

Losses = tuple[Tensor, ...]
"""Per-sample costs, one tensor (B) for every expectation in the paper's formula; means are taken at the end."""


class Objective(ComponentConfig):
    """An objective declares what it reads and takes; the fit check holds it to that.

    A move descends the *sum* of the means of the costs, as the papers write it. The rows show their
    *mean*, the cost per judged picture, so that the equilibrium lies at the same height for both players.
    """

    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"score"})
    """What D's number may be: a free score, the minus of an energy (which is never above 0), or either; nothing in a
    game for one (`rebuilding.py`)."""

    needs_code_variance: ClassVar[bool] = False
    """Whether it reads the region a code may lie in, not only the code."""

    accepts_targets: ClassVar[bool] = False
    """Whether D's side is a classification whose targets may be softened, flipped, ..."""

    is_relativistic: ClassVar[bool] = False
    """Whether G's cost looks at the real pile too (relativistic)."""

    needs_lipschitz_bound: ClassVar[bool] = False
    """Whether its costs run off unless something holds D's slope (weight clipping, a penalty, spectral norm)."""

    is_separable: ClassVar[bool] = True
    """Whether D pays for each pile by itself, first for the reals, then for the fakes, by a formula that stays."""

    allows_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16."""

    has_per_sample_g_loss: ClassVar[bool] = True
    """Whether each of G's costs is about one fake, so that some of them can be left out."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        adopt(cls, OBJECTIVE_MEMBERS)

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """Each player's cost per judged picture where D can't tell real from fake; empty where undefined."""
        return {}

    @property
    def decision_threshold(self) -> float | None:
        """The score of a sample that D can't place; None where scores mean something in comparison only."""
        return None

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """What D pays, from its scores (B) on both piles; no targets means hard ones, 1 and 0."""
        raise NotImplementedError

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """What G pays, from D's scores (B); `real` is there if the objective `compares`."""
        raise NotImplementedError

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Numbers of D's move with a meaning of their own (a distance, say), 0-dim, by name."""
        return {}

    def build(self) -> ObjectiveModule[Any]:
        """The objective at work: these formulas, unless it must know the time or remember something."""
        return ObjectiveModule(self)


ObjectiveT = TypeVar("ObjectiveT", bound=Objective)


class ObjectiveModule(nn.Module, Generic[ObjectiveT]):
    """An objective at work in a game: what it costs in this very move. A buffer here is saved and resumed.

    Args:
        config: the entry it came from, whose formulas hold unless a subclass has its own.
    """

    def __init__(self, config: ObjectiveT) -> None:
        super().__init__()
        self.config = config
        self.is_relativistic = config.is_relativistic

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """See `Objective.d_costs`."""
        return self.config.d_losses(real, fake, targets)

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """See `Objective.g_costs`."""
        return self.config.g_losses(fake, real)

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """In a game for one: the reals as this objective takes them."""
        return real

    def reconstruction_loss(self, move: MoveData) -> Tensor:
        """In a game for one: what the move costs, 0-dim."""
        raise NotImplementedError

    def after_update(self, move: MoveData) -> None:
        """Keep what the next move must know of this one, once its step is done."""
        if move.context.side is Side.D:
            move.logged |= self.config.extra_metrics(move.score("real").detach(), move.score("fake").detach())


class ReconstructionObjective(Objective):
    """What games for one share: nothing is read of D, and costs are told by name."""

    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset()
    has_per_sample_g_loss: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    @property
    def decision_threshold(self) -> float | None:
        """There is no score."""
        return None

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """The reals as they are taken."""
        return real

    def loss_parts(self, real: Tensor, rebuilt: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """What rebuilding came to, per sample, B, by name; `reconstruction` is always there."""
        raise NotImplementedError

    def total_loss(self, told: Mapping[str, Tensor], context: MoveContext) -> Tensor:
        """What of the parts' means is paid, 0-dim."""
        return told["reconstruction"]

    def build(self) -> ObjectiveModule[Any]:
        """See `RebuildingRule`."""
        return ReconstructionModule(self)


class ReconstructionModule(ObjectiveModule[ReconstructionObjective]):
    """A game for one at work: it pays, and the rows show each part."""

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """See `Rebuilding.seen`."""
        return self.config.prepare_real(real, context)

    def reconstruction_loss(self, move: MoveData) -> Tensor:
        """See `Rebuilding.paid`."""
        rebuilt = move.reconstruction
        parts = self.config.loss_parts(move.samples("real"), rebuilt.images, rebuilt.codes)
        means = {name: part.mean() for name, part in parts.items()}
        move.logged |= {name: mean.detach() for name, mean in means.items()}
        return self.config.total_loss(means, move.context)

    def after_update(self, move: MoveData) -> None:
        """Nothing."""


__getattr__ = attribute_of(__name__)
