"""The losses between images, from images made by hand: which are compared, and with which weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.types import DataSpec, Side
from poise.networks.translation import Direction, Parts
from poise.tricks.base import TrickContext
from poise.tricks.translation_losses import (
    CycleConfig,
    IdentityMappingConfig,
    SelfRegularizationConfig,
    TargetL1Config,
    TranslationLoss,
    domain_l1,
)

A, B = 0.25, -0.5
"""The grey of every image of the two domains."""


def flat(a: float, b: float, parts: Parts) -> Tensor:
    """Four samples with an image of each domain, all of one grey."""
    return torch.cat((torch.full((4, parts[0], 3, 5), a), torch.full((4, parts[1], 3, 5), b)), 1)


def g_of(direction: Direction, parts: Parts) -> torch.nn.Module:
    """G_AB(x) = 0.5 x + 0.25 and G_BA(x) = 2 x, which keep the first channel's grey."""

    class G(torch.nn.Module):
        def forward(self, samples: Tensor) -> Tensor:
            a, b = samples[:, :1], samples[:, parts[0] : parts[0] + 1]
            there = (0.5 * a + 0.25).expand(-1, parts[1], -1, -1)
            back = (2 * b).expand(-1, parts[0], -1, -1)
            return torch.cat((samples[:, : parts[0]] if direction == "a_to_b" else back, there), 1)

    return G()


def value(kind: str, direction: Direction, parts: Parts = (1, 1)) -> float:
    """The loss of the trick for samples of (A, B)."""
    config = {
        "target_l1": TargetL1Config,
        "cycle": CycleConfig,
        "identity_mapping": IdentityMappingConfig,
        "self_regularization": SelfRegularizationConfig,
    }[kind]()
    trick = config.build(kind, TrickContext({}, DataSpec((sum(parts), 3, 5), parts=parts), direction=direction))
    assert isinstance(trick, TranslationLoss)
    assert trick.sides == {Side.G}
    latents, g = flat(A, B, parts), g_of(direction, parts)
    return float(trick.loss(MoveData(context(side=Side.G), latents, g(latents), generate_fn=g)))


def there(x: float) -> float:
    return 0.5 * x + 0.25


def back(x: float) -> float:
    return 2 * x


@pytest.mark.parametrize("parts", [(1, 1), (1, 3), (2, 1)])
def test_the_distance_to_the_target(parts: Parts) -> None:
    assert value("target_l1", "a_to_b", parts) == pytest.approx(abs(there(A) - B))
    both = (abs(there(A) - B) + abs(back(B) - A)) / 2
    assert value("target_l1", "both_ways", parts) == pytest.approx(both), "domains have equal weights"


@pytest.mark.parametrize("parts", [(1, 1), (1, 3), (2, 1)])
def test_the_cycle(parts: Parts) -> None:
    expected = (abs(back(there(A)) - A) + abs(there(back(B)) - B)) / 2
    assert value("cycle", "both_ways", parts) == pytest.approx(expected)


def test_the_identity() -> None:
    expected = (abs(there(B) - B) + abs(back(A) - A)) / 2
    assert value("identity_mapping", "both_ways") == pytest.approx(expected)
    assert value("identity_mapping", "a_to_b") == pytest.approx(abs(there(B) - B))


def test_self_regularization() -> None:
    assert value("self_regularization", "a_to_b") == pytest.approx(abs(there(A) - A))
    expected = (abs(there(A) - A) + abs(back(B) - B)) / 2
    assert value("self_regularization", "both_ways") == pytest.approx(expected)


def test_self_regularization_within_a_domain() -> None:
    shape = (3, 4, 4)
    trick = SelfRegularizationConfig().build("own", TrickContext({}, DataSpec(shape), direction="same"))
    assert isinstance(trick, TranslationLoss)
    latents = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    move = MoveData(context(side=Side.G), latents, latents.flip(0))
    assert float(trick.loss(move)) == pytest.approx(float((latents - latents.flip(0)).abs().mean()))


def test_a_distance_is_the_mean_over_values_then_over_domains() -> None:
    images, targets = torch.randn(4, 4, 2, 2), torch.randn(4, 4, 2, 2)
    difference = (images - targets).abs()
    first, second = difference[:, :1].mean(), difference[:, 1:].mean()
    assert domain_l1(images, targets, (1, 3), (0, 1)) == pytest.approx(float((first + second) / 2))
    assert domain_l1(images, targets, (1, 3), (1,)) == pytest.approx(float(second))
    vectors = domain_l1(torch.ones(2, 5), torch.zeros(2, 5), (2, 3), (0, 1))
    assert float(vectors) == 1.0
    assert domain_l1(images.bfloat16(), targets.bfloat16(), (1, 3), (0,)).dtype == torch.float32


def test_the_published_weights() -> None:
    assert TargetL1Config().weight == 100.0
    assert CycleConfig().weight == 10.0
    assert IdentityMappingConfig().weight == 5.0
