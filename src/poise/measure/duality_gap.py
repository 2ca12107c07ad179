"""The duality gap: how much either player could still gain if the other kept still (Grnarova 2019, arXiv:1811.05512).

max_D' V(G, D') - min_G' V(G', D), estimated by steps of Adam on copies of both players. 0 at a Nash equilibrium; it
stays large on collapse and divergence. Weights of the copies start a little off (Sidheekh 2021, arXiv:2012.06822), so
that a saddle where gradients vanish does not pass for an equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext

Value = Callable[[nn.Module, nn.Module, int], Tensor]
"""V(G, D), a number that D wants great and G small, on fresh samples number i; differentiable."""

STEPS, RATE, NUDGE, JUDGES = 100, 1e-3, 1e-3, 10


def duality_gap(
    g: nn.Module,
    d: nn.Module,
    value: Value,
    generator: torch.Generator,
    steps: int = STEPS,
    rate: float = RATE,
    nudge: float = NUDGE,
) -> float:
    """The gap between the best D' and the best G' that `steps` steps of Adam find from here; both stay untouched.

    Each is judged by its mean value over ten batches that it has not seen, numbered from -1 down. An estimate from
    below: better deviations than a hundred steps find may exist, and it may come out a little under 0.
    """
    best = []
    for mover, rival, sign in ((d, g, -1.0), (g, d, 1.0)):
        copy, still = deepcopy(mover).requires_grad_(True), deepcopy(rival).requires_grad_(False)
        with torch.no_grad():
            for weight in copy.parameters():
                weight += nudge * torch.randn(weight.shape, generator=generator).to(weight.device)
        optimizer = torch.optim.Adam(copy.parameters(), rate, betas=(0.5, 0.999))
        pair = (still, copy) if mover is d else (copy, still)
        for step in range(steps):
            optimizer.zero_grad()
            (sign * value(*pair, step)).backward()
            optimizer.step()
        with torch.no_grad():
            best.append(sum(float(value(*pair, -1 - k)) for k in range(JUDGES)) / JUDGES)
    return best[0] - best[1]


def _gap(context: EvalContext) -> MeasuredValue:
    assert context.duality_gap_fn is not None
    return MeasuredValue(context.duality_gap_fn())


DUALITY_GAP = Measure(
    name="duality_gap",
    about="what both players could gain together against a still rival, about 0 and up (Grnarova 2019); toys",
    better="less",
    compute=_gap,
    floor="none",
    requires=frozenset({"game"}),
    slow=True,
)
