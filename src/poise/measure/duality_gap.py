"""The duality gap: what each player could still gain against a fixed opponent (Grnarova 2019, arXiv:1811.05512).

max_D' V(G, D') - min_G' V(G', D), estimated by steps of Adam on copies of both players. It is 0 at a Nash equilibrium
and stays large on collapse and divergence. The weights of the copies are perturbed first (Sidheekh 2021,
arXiv:2012.06822), so that a saddle point where gradients vanish is not mistaken for an equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext
from poise.utils.progress import Progress, no_progress

Value = Callable[[nn.Module, nn.Module, int], Tensor]
"""V(G, D) on batch i of fresh samples, differentiable; D maximises it and G minimises it."""

STEPS, LEARNING_RATE, PERTURBATION, NUM_EVAL_BATCHES = 100, 1e-3, 1e-3, 10


def duality_gap(
    g: nn.Module,
    d: nn.Module,
    value: Value,
    generator: torch.Generator,
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
    perturbation: float = PERTURBATION,
    progress: Progress = no_progress,
) -> float:
    """The difference between the best D' and the best G' that `steps` steps of Adam find; neither player is changed.

    Each is evaluated by its mean value over ten batches that it was not trained on, numbered from -1 down. The result
    is a lower estimate, since more than a hundred steps may find better deviations, and it may be slightly below 0.
    """
    values = []
    for number, (player, opponent, sign) in enumerate(((d, g, -1.0), (g, d, 1.0))):
        trained, fixed = deepcopy(player).requires_grad_(True), deepcopy(opponent).requires_grad_(False)
        with torch.no_grad():
            for weight in trained.parameters():
                weight += perturbation * torch.randn(weight.shape, generator=generator).to(weight.device)
        optimizer = torch.optim.Adam(trained.parameters(), lr, betas=(0.5, 0.999))
        pair = (fixed, trained) if player is d else (trained, fixed)
        for step in range(steps):
            progress("duality_gap", (number + step / steps) / 2)
            optimizer.zero_grad()
            (sign * value(*pair, step)).backward()
            optimizer.step()
        with torch.no_grad():
            values.append(sum(float(value(*pair, -1 - k)) for k in range(NUM_EVAL_BATCHES)) / NUM_EVAL_BATCHES)
    return values[0] - values[1]


def _duality_gap(context: EvalContext) -> MeasuredValue:
    assert context.duality_gap_fn is not None
    return MeasuredValue(context.duality_gap_fn())


DUALITY_GAP = Measure(
    name="duality_gap",
    description="what both players could still gain against a fixed opponent, about 0 and up (Grnarova 2019); 2-D data",
    better="less",
    compute=_duality_gap,
    floor="none",
    requires=frozenset({"game"}),
    slow=True,
)
