"""LeCam regularisation (Tseng et al. 2021, arXiv:2104.03310; tip M03): keep D's scores close to their running means.

With running means a_R, a_F of D's scores of real and generated samples, D's loss gets the term
E [D(x) - a_F]^+^2 + E [a_R - D(G(z))]^+^2: how far the scores of each batch are on their own side of the other's mean.
This is the form in the authors' released code; equation 4 of the paper has no [.]^+, which is the same wherever D ranks
a sample correctly. There the means are updated before the term is computed, here after the update. Meant for small
training sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu

from poise.core.hooks import LossTerm, PostUpdate
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, in_range
from poise.core.types import Origin, Side, to_float32
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


def lecam(real: Tensor, fake: Tensor, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """E [D(x) - a_F]^+^2 + E [a_R - D(G(z))]^+^2, 0-dim, from scores (B each) and running means (0-dim)."""
    real, fake = to_float32(real), to_float32(fake)
    return relu(real - mean_fake).square().mean() + relu(mean_real - fake).square().mean()


class LeCamConfig(TrickConfig):
    """`weight` is the paper's lambda (0.3 for BigGAN on a tenth of CIFAR-10); `decay` is that of the running means."""

    kind: Literal["lecam"] = "lecam"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Tseng et al. 2021, arXiv:2104.03310"

    weight: Annotated[Schedulable, in_range(0)] = 0.3
    decay: float = Field(default=0.99, ge=0, lt=1)

    def build(self, name: str, context: TrickContext) -> LeCam:
        """See `LeCam`."""
        return LeCam(name, self.weight, self.decay)


class LeCam(LossTerm, PostUpdate):
    """Adds the term to D's loss and updates the running means after D's update."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def __init__(self, name: str, weight: Schedulable, decay: float) -> None:
        super().__init__(name, weight)
        self.decay = decay
        self.register_buffer("sums", torch.zeros(2))
        """Running sums of the mean scores of real and of generated samples; `gathered` is their total weight."""
        self.register_buffer("gathered", torch.zeros(()))

    def loss(self, move: MoveData) -> Tensor:
        """See `lecam`; 0 in the first step, when there are no means yet."""
        real, fake = move.score("real"), move.score("fake")
        mean_real, mean_fake = self.sums / self.gathered.clamp_min(1e-12)
        return lecam(real, fake, mean_real, mean_fake) * (self.gathered > 0)

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """sum <- decay sum + (1 - decay) mean score; the same average of ones corrects the bias of the zero start.

        Scores that are not finite are left out, as the update is, since the sums would stay so.
        """
        means = move.context.ranks.mean(torch.stack((move.score("real").mean(), move.score("fake").mean())))
        is_finite = means.isfinite().all()
        self.sums.copy_(torch.where(is_finite, self.sums.lerp(means, 1 - self.decay), self.sums))
        ones = torch.ones_like(self.gathered)
        self.gathered.copy_(torch.where(is_finite, self.gathered.lerp(ones, 1 - self.decay), self.gathered))
