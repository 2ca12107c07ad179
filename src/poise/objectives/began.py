"""Boundary equilibrium (Berthelot, Schumm & Metz 2017, arXiv:1703.10717).

D is an autoencoder with error L. It is charged L(x) - k L(G(z)), G is charged L(G(z)), and a controller moves k so
that E L(G(z)) stays `gamma` times E L(x): gamma is the diversity ratio, lower for sharper and fewer pictures.
The paper's k has the index t of the training step, in which each player moves once. Where G has several moves in a
step, its first one moves k, so that `lambda_k` has the same effect at every tempo.
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
    """k + lambda_k (gamma L(x) - L(G(z))), held to [0, 1]; L's are means, 0-dim."""
    return (k + lambda_k * (gamma * real - fake)).clamp(0, 1)


def convergence(real: Tensor, fake: Tensor, gamma: float) -> Tensor:
    """M = L(x) + |gamma L(x) - L(G(z))|, 0-dim: falls as the reals are rebuilt better and the balance is kept."""
    return real + (gamma * real - fake).abs()


class Began(Objective):
    """`gamma` in [0, 1]; `lambda_k` is the controller's gain; `k` its value at the start."""

    kind: Literal["began"] = "began"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"energy"})
    is_separable: ClassVar[bool] = False
    gamma: float = Field(default=0.5, ge=0, le=1)
    lambda_k: float = Field(default=1e-3, ge=0)
    k: float = Field(default=0.0, ge=0, le=1)

    def build(self) -> ObjectiveModule[Began]:
        """See `Balance`."""
        return BeganModule(self)


class BeganModule(ObjectiveModule[Began]):
    """The costs at the present k, and the controller that moves it once in each step, after G's first move."""

    def __init__(self, told: Began) -> None:
        super().__init__(told)
        self.register_buffer("k", torch.tensor(told.k))
        self.register_buffer("real", torch.tensor(0.0))

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None, context: MoveContext) -> Losses:
        """E[L(x)] - k E[L(G(z))]."""
        return -real, self.k * fake

    def g_losses(self, fake: Tensor, real: Tensor | None, context: MoveContext) -> Losses:
        """E[L(G(z))]."""
        return (-fake,)

    @torch.no_grad()
    def after_update(self, move: MoveData) -> None:
        """D's move leaves E L(x); G's first one in a step moves k, and each tells `g/k` and `g/convergence` (M)."""
        if move.context.side is Side.D:
            self.real.copy_(-move.score("real").mean())
            return
        fake = -move.score("fake").mean()
        move.logged["convergence"] = convergence(self.real, fake, self.config.gamma)
        if move.context.turn == 0:
            turned = next_k(self.k, self.real, fake, self.config.gamma, self.config.lambda_k)
            self.k.copy_(torch.where(self.real > 0, turned, self.k))  # where G begins, D has seen no reals yet
        move.logged["k"] = self.k.clone()
