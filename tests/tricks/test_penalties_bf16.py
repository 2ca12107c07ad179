"""Gradient penalties under bfloat16: D's gradient by double backward, compared with the one in float32.

Measured for a DCGAN critic of width 16 at 32 x 32, at its initial weights and at three and six times these: the cosine
of both gradients is above 0.9995, and they differ by 1.6 to 3.1 % of their norm. bfloat16 keeps 8 bits, so each
rounding has an error of 0.4 %. WGAN-GP's gradient is a multiple of ||gradient|| - 1, so no relative error bounds it
close to norm one, where it vanishes; these gradients are not close to it.
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


def penalty_and_gradient(
    d: nn.Module, terms: list[LossTerm], precision: str, judge: Discriminate
) -> tuple[float, Tensor]:
    """The sum of the penalties, and its gradient with respect to all of D's weights, as the step computes it."""
    generator = torch.Generator().manual_seed(5)
    real, fake = torch.rand(2, 16, 1, 32, 32, generator=generator) * 2 - 1
    origins = tuple(sorted(frozenset().union(*(term.needs_input_gradient for term in terms))))
    move = MoveData(context(), torch.zeros(16, 2), fake.clone(), real.clone(), differentiated=origins)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bf16")
    game = game_of(*terms, d=d, judge=judge, autocast=autocast)
    with game.autocast():
        discriminate(game, move)
    assert move.outputs["real"].score.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    losses = [term.loss(move) for term in terms]
    assert all(loss.dtype == torch.float32 for loss in losses)
    total = torch.stack(losses).sum()
    grads = torch.autograd.grad(total, list(d.parameters()), materialize_grads=True)
    assert all(grad.dtype == torch.float32 for grad in grads)
    return float(total.detach()), torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
def test_the_gradient_agrees_with_float32(penalty: str, judge: Discriminate, scale: float) -> None:
    for seed in range(2):
        d = critic(seed, scale)
        (exact, expected), (loss, actual) = (
            penalty_and_gradient(d, PENALTIES[penalty], p, judge) for p in ("fp32", "bf16")
        )
        assert loss == pytest.approx(exact, rel=0.02)
        assert torch.cosine_similarity(expected, actual, dim=0) > 0.999
        assert (actual - expected).norm() < 0.05 * expected.norm()
        assert not torch.equal(actual, expected)
