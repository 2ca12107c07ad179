"""Gradient penalties under bfloat16: D's gradient by double backward beside the one in float32.

Measured for a DCGAN critic of width 16 at 32 x 32, at its initial weights and at three and six times as much: the
cosine of both gradients is above 0.9995, and they differ by 1.6 to 3.1 % of their length. bfloat16 keeps 8 bits: 0.4 %
for each rounding. WGAN-GP's gradient is a multiple of ||slope|| - 1, so that close to length one, where it vanishes,
no relative error bounds it; these slopes are not there.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import context
from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.engine.game import Discriminate, discriminate_jointly, discriminate_separately
from poise.engine.step import discriminate
from poise.networks.dcgan import DCGANDiscriminatorConfig
from poise.tricks.gradient_penalties import R1, R2
from poise.tricks.unit_gradient_penalties import WGANGP
from tricks.small import game_of

PENALTIES: dict[str, list[LossTerm]] = {
    "r1 + r2": [R1("r1", 1.0), R2("r2", 1.0)],
    "wgan_gp": [WGANGP("gp", 1.0, 1, "two")],
}


def critic(seed: int, scale: float) -> nn.Module:
    torch.manual_seed(seed)
    d = DCGANDiscriminatorConfig(width=16, norm="none").build((1, 32, 32))
    with torch.no_grad():
        for weight in d.parameters():
            weight.mul_(scale)
    return d


def charged(d: nn.Module, terms: list[LossTerm], precision: str, judge: Discriminate) -> tuple[float, Tensor]:
    """What the penalties come to, and their gradient with respect to all of D's weights, as the step takes it."""
    generator = torch.Generator().manual_seed(5)
    real, fake = torch.rand(2, 16, 1, 32, 32, generator=generator) * 2 - 1
    sloped = tuple(sorted(frozenset().union(*(term.needs_input_gradient for term in terms))))
    move = MoveData(context(), torch.zeros(16, 2), fake.clone(), real.clone(), differentiated=sloped)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bf16")
    game = game_of(*terms, d=d, judge=judge, autocast=autocast)
    with game.autocast():
        discriminate(game, move)
    assert move.outputs["real"].score.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    costs = [term.loss(move) for term in terms]
    assert all(cost.dtype == torch.float32 for cost in costs)
    total = torch.stack(costs).sum()
    grads = torch.autograd.grad(total, list(d.parameters()), materialize_grads=True)
    assert all(grad.dtype == torch.float32 for grad in grads)
    return float(total.detach()), torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
def test_the_gradient_agrees_with_float32(penalty: str, judge: Discriminate, scale: float) -> None:
    for seed in range(2):
        d = critic(seed, scale)
        (exact, wanted), (cost, found) = (charged(d, PENALTIES[penalty], p, judge) for p in ("fp32", "bf16"))
        assert cost == pytest.approx(exact, rel=0.02)
        assert torch.cosine_similarity(wanted, found, dim=0) > 0.999
        assert (found - wanted).norm() < 0.05 * wanted.norm()
        assert not torch.equal(found, wanted)
