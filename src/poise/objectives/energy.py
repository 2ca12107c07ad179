"""Energy-based GANs (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126).

D assigns an energy to each sample: the norm of an autoencoder's reconstruction residual. D minimises the energy of real
samples and raises that of fake samples up to a margin; G minimises the energy of its samples. D's score is the negative
of the energy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import MoveContext, OutputKind, Targets
from poise.objectives.base import Losses, Objective, ObjectiveModule


def margin_loss(energy: Tensor, margin: float) -> Tensor:
    """[m - E(G(z))]^+: D's loss for fake samples whose energy is below the margin; per sample, B."""
    return relu(margin - energy)


class Energy(Objective):
    """`margin` is m, in units of the energy.

    At m = 0 fake samples do not contribute to D's loss, so a schedule that starts at 0 pretrains D on real samples.
    """

    kind: Literal["energy"] = "energy"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"energy"})
    is_separable: ClassVar[bool] = False
    margin: Annotated[Schedulable, in_range(0)] = 10.0

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/real_energy`, `d/fake_energy`: the mean energies of the real and of the fake samples."""
        return {"real_energy": -real.mean(), "fake_energy": -fake.mean()}

    def build(self) -> ObjectiveModule[Energy]:
        """See `EnergyModule`."""
        return EnergyModule(self)


class EnergyModule(ObjectiveModule[Energy]):
    """The losses at the current value of the margin."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """E[E(x)] + E[[m - E(G(z))]^+] (equation 1)."""
        return -real, margin_loss(-fake, current_value(self.config.margin, context))

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """E[E(G(z))] (equation 2)."""
        return (-fake,)
