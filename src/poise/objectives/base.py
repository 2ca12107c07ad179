"""The base classes of objectives.

An `Objective` is the configuration in a recipe. It holds two pure functions of D's scores, the losses of D and of G,
and declares what they need. `Objective.build` returns an `ObjectiveModule`, which computes the losses during training
and holds state, if there is any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from poise.core.config import ComponentConfig
from poise.core.move import MoveData
from poise.core.types import EncoderOutput, MoveContext, OutputKind, Side, Targets
from poise.retired import OBJECTIVE_MEMBERS, adopt, attribute_of

Losses = tuple[Tensor, ...]
"""Per-sample losses: one tensor (B) for each expectation in the paper's formula. The mean is taken later."""


class Objective(ComponentConfig):
    """The configuration of an objective, with its formulas.

    The formulas are elementwise in the scores, so that they hold for B scores as well as for B x P, those of P patches
    of each sample; formulas with means take them over all scores.

    The class attributes declare what an objective needs; the compatibility check compares them with the rest of the
    recipe. A move minimises the *sum* of the mean losses, as the papers write it. The logged rows show their *average*,
    the loss per discriminated sample, so that both players have the same value at equilibrium.
    """

    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"score"})
    """The accepted meanings of D's output: an unbounded score, the negative of an energy (at most 0), or both. Empty
    for an objective that trains without a discriminator (`reconstruction.py`)."""

    needs_code_variance: ClassVar[bool] = False
    """Whether it needs an encoder that returns the variance of each latent code, and not only the code."""

    accepts_targets: ClassVar[bool] = False
    """Whether D's loss is that of a classifier, whose targets can be smoothed, flipped, ..."""

    g_target_span: ClassVar[float | None] = None
    """By how much a change of the target in G's loss by 1 changes the loss per unit of D's score; None if G's loss is
    not that of a classifier whose target can be smoothed."""

    is_relativistic: ClassVar[bool] = False
    """Whether G's loss depends on D's scores of the real samples too."""

    needs_lipschitz_bound: ClassVar[bool] = False
    """Whether its losses are unbounded unless D's Lipschitz constant is limited, by weight clipping, a gradient penalty
    or spectral norm."""

    is_separable: ClassVar[bool] = True
    """Whether D's loss is a sum of one term for the real and one for the fake samples, by formulas that do not change
    during training."""

    allows_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16."""

    has_per_sample_g_loss: ClassVar[bool] = True
    """Whether each of G's losses depends on one fake sample only, so that some samples can be left out."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        adopt(cls, OBJECTIVE_MEMBERS)

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """Each player's loss per discriminated sample if D cannot tell real from fake; empty if undefined."""
        return {}

    @property
    def decision_threshold(self) -> float | None:
        """The score between real and fake; None if only differences of scores have a meaning."""
        return None

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """D's losses.

        Args:
            real: D's scores of the real samples, B, or B x P for P patches.
            fake: D's scores of the fake samples, B or B x P.
            targets: the targets of the classification; None for hard ones, 1 and 0.
        """
        raise NotImplementedError

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """G's losses.

        Args:
            fake: D's scores of the fake samples, B, or B x P for P patches.
            real: D's scores of the real samples, B or B x P, if the objective `is_relativistic`; None otherwise.
        """
        raise NotImplementedError

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Further metrics of D's move, such as a distance: 0-dim, by name."""
        return {}

    def build(self) -> ObjectiveModule[Any]:
        """The module for training. Override it if the losses depend on the training step or on state."""
        return ObjectiveModule(self)


ObjectiveT = TypeVar("ObjectiveT", bound=Objective)


class ObjectiveModule(nn.Module, Generic[ObjectiveT]):
    """An objective during training. Its buffers are saved and resumed.

    Args:
        config: the objective's configuration, whose formulas are used unless a subclass overrides them.
    """

    def __init__(self, config: ObjectiveT) -> None:
        super().__init__()
        self.config = config
        self.is_relativistic = config.is_relativistic

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """See `Objective.d_losses`."""
        return self.config.d_losses(real, fake, targets)

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """See `Objective.g_losses`."""
        return self.config.g_losses(fake, real)

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """Without a discriminator: the real samples as this objective uses them, such as a binarised copy."""
        return real

    def reconstruction_loss(self, move: MoveData) -> Tensor:
        """Without a discriminator: the loss of a move, 0-dim."""
        raise NotImplementedError

    def after_update(self, move: MoveData) -> None:
        """Update the state after the optimiser's step, and log metrics of the move."""
        if move.context.side is Side.D:
            move.logged |= self.config.extra_metrics(move.score("real").detach(), move.score("fake").detach())


class ReconstructionObjective(Objective):
    """The base class of objectives without a discriminator: G reconstructs real samples from their latent codes."""

    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset()
    has_per_sample_g_loss: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    @property
    def decision_threshold(self) -> float | None:
        """None, as there are no scores."""
        return None

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """The real samples as the objective uses them: by default unchanged."""
        return real

    def loss_parts(self, real: Tensor, reconstruction: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """The parts of the loss by name, per sample, B; one of them is `reconstruction`.

        Args:
            real: the real samples, B x shape.
            reconstruction: their reconstructions, B x shape.
            codes: the encoder's output.
        """
        raise NotImplementedError

    def total_loss(self, means: Mapping[str, Tensor], context: MoveContext) -> Tensor:
        """The loss that is minimised, 0-dim.

        Args:
            means: the batch mean of each part, 0-dim, by name.
            context: the context of the move.
        """
        return means["reconstruction"]

    def build(self) -> ObjectiveModule[Any]:
        """See `ReconstructionModule`."""
        return ReconstructionModule(self)


class ReconstructionModule(ObjectiveModule[ReconstructionObjective]):
    """A reconstruction objective during training; it logs each part of the loss."""

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """See `ReconstructionObjective.prepare_real`."""
        return self.config.prepare_real(real, context)

    def reconstruction_loss(self, move: MoveData) -> Tensor:
        """See `ReconstructionObjective.total_loss`."""
        batch = move.reconstruction
        parts = self.config.loss_parts(move.samples("real"), batch.images, batch.codes)
        means = {name: part.mean() for name, part in parts.items()}
        move.logged |= {name: mean.detach() for name, mean in means.items()}
        return self.config.total_loss(means, move.context)

    def after_update(self, move: MoveData) -> None:
        """Does nothing: there are no scores to compute metrics from."""


__getattr__ = attribute_of(__name__)
