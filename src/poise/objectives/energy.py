"""The energy-based game (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126): low energy where the data is.

D gives every sample an energy, the length of an autoencoder's residual. It lowers the energy of reals and lifts
that of fakes up to a margin; G lowers the energy of its fakes. D's score is minus the energy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core import Judgement, Moment, Targets
from poise.dials import Dial, value, within
from poise.objectives.base import Costs, Objective, Rule


def push(energy: Tensor, margin: float) -> Tensor:
    """[m - E(G(z))]^+: what D pays for fakes whose energy is below the margin; per sample, B."""
    return relu(margin - energy)


class Energy(Objective):
    """`margin` m in units of the energy. At m = 0 fakes cost D nothing: a dial from 0 pretrains it on reals alone."""

    kind: Literal["energy"] = "energy"
    reads: ClassVar[frozenset[Judgement]] = frozenset({"energy"})
    by_pile: ClassVar[bool] = False
    margin: Annotated[Dial, within(0)] = 10.0

    def readings(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/real_energy`, `d/fake_energy`: mean energies of both piles."""
        return {"real_energy": -real.mean(), "fake_energy": -fake.mean()}

    def build(self) -> Rule[Energy]:
        """See `EnergyRule`."""
        return EnergyRule(self)


class EnergyRule(Rule[Energy]):
    """The game at the moment's margin."""

    def d_costs(self, real: Tensor, fake: Tensor, targets: Targets | None, moment: Moment) -> Costs:
        """E[E(x)] + E[[m - E(G(z))]^+] (equation 1)."""
        return -real, push(-fake, value(self.told.margin, moment))

    def g_costs(self, fake: Tensor, real: Tensor | None, moment: Moment) -> Costs:
        """E[E(G(z))] (equation 2)."""
        return (-fake,)
