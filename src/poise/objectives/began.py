"""BEGAN: boundary equilibrium GANs (Berthelot, Schumm & Metz 2017, arXiv:1703.10717).

D is an autoencoder with reconstruction error L. D minimises L(x) - k L(G(z)), G minimises L(G(z)), and a controller
adjusts k so that E L(G(z)) stays `gamma` times E L(x). gamma is the diversity ratio: a lower value gives sharper and
less diverse images.

The paper updates k once per training step, in which each player moves once. If G makes several moves in a step, only
the first one updates k, so that `lambda_k` has the same effect at every tempo.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from poise.core.move import MoveData
from poise.core.types import MoveContext, OutputKind, Side, Targets
from poise.objectives.base import Losses, Objective, ObjectiveModule


def next_k(k: Tensor, real: Tensor, fake: Tensor, gamma: float, lambda_k: float) -> Tensor:
    """k + lambda_k (gamma L(x) - L(G(z))), clamped to [0, 1]; `real` and `fake` are the means of L, 0-dim."""
    return (k + lambda_k * (gamma * real - fake)).clamp(0, 1)


def convergence(real: Tensor, fake: Tensor, gamma: float) -> Tensor:
    """M = L(x) + |gamma L(x) - L(G(z))|, 0-dim.

    It falls as D reconstructs the real samples better and as the two errors approach their target ratio.
    """
    return real + (gamma * real - fake).abs()


class Began(Objective):
    """`gamma`, at most 1 in the paper; `lambda_k`, the controller's gain; `k`, its initial value."""

    kind: Literal["began"] = "began"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"energy"})
    is_separable: ClassVar[bool] = False
    gamma: float = Field(default=0.5, ge=0)
    lambda_k: float = Field(default=1e-3, ge=0)
    k: float = Field(default=0.0, ge=0, le=1)

    def build(self) -> ObjectiveModule[Began]:
        """See `BeganModule`."""
        return BeganModule(self)


class BeganModule(ObjectiveModule[Began]):
    """The losses at the current k, and the controller, which updates k once per step, after G's first move."""

    def __init__(self, config: Began) -> None:
        super().__init__(config)
        self.register_buffer("k", torch.tensor(config.k))
        self.register_buffer("real", torch.tensor(0.0))

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """E[L(x)] - k E[L(G(z))]."""
        return -real, self.k * fake

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """E[L(G(z))]."""
        return (-fake,)

    @torch.no_grad()
    def after_update(self, move: MoveData) -> None:
        """Store E L(x) after D's move. Update k after G's first move, and log `g/k` and `g/convergence` (M).

        Neither takes a value that is not finite, since k would stay so.
        """
        if move.context.side is Side.D:
            real = move.context.ranks.mean(-move.score("real").mean())
            self.real.copy_(torch.where(real.isfinite(), real, self.real))
            return
        fake = move.context.ranks.mean(-move.score("fake").mean())
        move.logged["convergence"] = convergence(self.real, fake, self.config.gamma)
        if move.context.turn == 0:
            updated = next_k(self.k, self.real, fake, self.config.gamma, self.config.lambda_k)
            is_known = (self.real > 0) & fake.isfinite()  # E L(x) is not known yet if G moves first
            self.k.copy_(torch.where(is_known, updated, self.k))
        move.logged["k"] = self.k.clone()
