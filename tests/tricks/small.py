"""Small games around a discriminator whose input gradient is known, and helpers that the tests of the tricks share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Linear, Shift, context
from poise.core.hooks import InputTransform, Trick
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import DiscriminatorOutput, MoveContext, Origin, Side
from poise.engine.batches import RealBatches
from poise.engine.game import Discriminate, Game, discriminate_separately
from poise.engine.step import discriminate
from poise.engine.step_metrics import StepMetrics
from poise.latents import Gaussian
from poise.objectives.pointwise import NonSaturating
from poise.tempo import Ratio

N = 8


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class FixedBatches(RealBatches):
    """Batches with the same real samples and labels in every move."""

    def __init__(self, real: Tensor, labels: Tensor | None = None) -> None:
        self.real, self.labels = real, labels

    def load(
        self, context: MoveContext, *, real: bool = True, labels: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        return self.real.clone() if real else None, self.labels if labels else None


class Quadratic(nn.Module):
    """D(x) = x'Ax / 2: its input gradient is (A + A')x / 2."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a.clone())

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=((x @ self.a) * x).sum(1) / 2)


class TanhDiscriminator(nn.Module):
    """D(x) = <w2, tanh(W1 x)>, which returns its hidden layer as features and, if it has a head, class logits."""

    def __init__(self, inputs: int = 2, width: int = 5, classes: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.first = nn.Parameter(randn(width, inputs, seed=seed))
        self.second = nn.Parameter(randn(width, seed=seed + 1))
        self.head = nn.Parameter(randn(classes, width, seed=seed + 2)) if classes else None

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        hidden = torch.tanh(x @ self.first.T)
        return DiscriminatorOutput(hidden @ self.second, hidden, None if self.head is None else hidden @ self.head.T)


class DoublingTransform(InputTransform):
    """D sees twice the sample; `origins` lists the origins of its inputs."""

    def __init__(self) -> None:
        super().__init__("doubled")
        self.origins: list[Origin] = []

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        self.origins.append(origin)
        return 2 * images


def game_of(
    *tricks: Trick,
    d: nn.Module | None = None,
    judge: Discriminate = discriminate_separately,
    lr: float = 0.0,
    labelled: bool = False,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Game:
    """A game on the plane with plain gradient descent, by default with learning rate 0; G only shifts its input."""
    nets: dict[Side, nn.Module] = {Side.D: d or Linear([0.5, -0.25]), Side.G: Shift([0.3, 0.1])}
    players = {
        side: Player(side, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": lr})
        for side, net in nets.items()
    }
    objective, tempo = NonSaturating().build(), Ratio(1, 1)
    return Game(
        players[Side.D], players[Side.G], objective, Gaussian(dim=2), tempo, list(tricks), judge, autocast, labelled
    )


def discriminated(
    d: nn.Module,
    real: Tensor,
    fake: Tensor,
    *differentiated: Origin,
    transforms: tuple[InputTransform, ...] = (),
    judge: Discriminate = discriminate_separately,
) -> MoveData:
    """The data of D's move after D has been run and before any loss is computed."""
    move = MoveData(context(), torch.zeros(len(fake), 2), fake, real, differentiated=differentiated)
    discriminate(game_of(*transforms, d=d, judge=judge), move)
    return move


def gradients(net: nn.Module) -> list[Tensor]:
    """Copies of the gradients of a network's parameters, zero where there is none."""
    return [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in net.parameters()]


def logged_means(metrics: StepMetrics) -> dict[str, float]:
    """The means of the logged values."""
    return {name: stat.mean for name, stat in metrics.reduce().items()}


def central_difference(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-6) -> Tensor:
    """The gradient of each f(x)_i with respect to x_i by central differences, same shape as x."""
    columns = []
    for index in range(x.shape[1]):
        step = torch.zeros_like(x)
        step[:, index] = h
        columns.append((f(x + step) - f(x - step)) / (2 * h))
    return torch.stack(columns, 1)


class GradCounter:
    """Counts the calls of `torch.autograd.grad`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._grad = torch.autograd.grad
        monkeypatch.setattr(torch.autograd, "grad", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._grad(*args, **kwargs)


def as_float64(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values as a NumPy array."""
    return tensor.detach().double().numpy()
