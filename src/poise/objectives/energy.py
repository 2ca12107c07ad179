"""The energy-based game (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126): low energy where the data is.

D gives every sample an energy, the length of an autoencoder's residual. It lowers the energy of reals and lifts
that of fakes up to a margin; G lowers the energy of its fakes. D's score is minus the energy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import MoveContext, OutputKind, Targets
from poise.objectives.base import Losses, Objective, ObjectiveModule


def margin_loss(energy: Tensor, margin: float) -> Tensor:
    """[m - E(G(z))]^+: what D pays for fakes whose energy is below the margin; per sample, B."""
    return relu(margin - energy)


class Energy(Objective):
    """`margin` m in units of the energy. At m = 0 fakes cost D nothing: a dial from 0 pretrains it on reals alone."""

    kind: Literal["energy"] = "energy"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"energy"})
    is_separable: ClassVar[bool] = False
    margin: Annotated[Schedulable, in_range(0)] = 10.0

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/real_energy`, `d/fake_energy`: mean energies of both piles."""
        return {"real_energy": -real.mean(), "fake_energy": -fake.mean()}

    def build(self) -> ObjectiveModule[Energy]:
        """See `EnergyRule`."""
        return EnergyModule(self)


class EnergyModule(ObjectiveModule[Energy]):
    """The game at the moment's margin."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """E[E(x)] + E[[m - E(G(z))]^+] (equation 1)."""
        return -real, margin_loss(-fake, current_value(self.config.margin, context))

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """E[E(G(z))] (equation 2)."""
        return (-fake,)
