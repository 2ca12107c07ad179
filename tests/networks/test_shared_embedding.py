"""The shared embedding: what it passes to the network, which networks take it, and that it reaches every norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import recipe
from poise.networks.base import GeneratorConfig
from poise.networks.biggan import BigGANGeneratorConfig
from poise.networks.conditioning import ClassNormConfig, ConcatConfig, GeneratorConditioning
from poise.networks.dcgan import DCGANGeneratorConfig
from poise.networks.r3gan import R3GANGeneratorConfig
from poise.networks.shared_embedding import SharedEmbeddingConfig
from poise.recipe.checks.compatibility import check_compatibility

SHAPE = (1, 8, 8)
CLASSES = 3
LABELS = torch.tensor([0, 2, 1, 1, 0])


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Inputs(nn.Module):
    """Returns its inputs."""

    def forward(self, latents: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        return latents, embedding


def test_the_embedding_is_passed_beside_z() -> None:
    net: Any = SharedEmbeddingConfig(dim=4).wrap(Inputs(), CLASSES, 0.5)
    z = torch.randn(5, 3)
    latents, embedding = net(z, LABELS)
    assert torch.equal(latents, z)
    assert torch.equal(embedding, 0.5 * net.embedding.weight[LABELS])


def test_the_matrix_starts_orthogonal() -> None:
    few: Any = SharedEmbeddingConfig(dim=4).wrap(Inputs(), CLASSES)
    table = few.embedding.weight.detach()
    assert torch.allclose(table @ table.T, torch.eye(CLASSES), atol=1e-6), "classes"
    many: Any = SharedEmbeddingConfig(dim=4).wrap(Inputs(), 9)
    table = many.embedding.weight.detach()
    assert torch.allclose(table.T @ table, torch.eye(4), atol=1e-6), "dimensions, if there are more classes"


def test_it_reaches_every_conditional_norm() -> None:
    entry, network = SharedEmbeddingConfig(dim=4), BigGANGeneratorConfig(width=2, norm="batch")
    net: Any = entry.wrap(network.build_for(entry, 6, SHAPE), CLASSES)
    net.eval()
    z = torch.randn(1, 6).expand(3, -1)
    a, b, c = net(z, torch.tensor([0, 1, 1]))
    assert torch.allclose(b, c, atol=1e-6)
    assert not torch.allclose(a, b, atol=1e-4)
    net(z, torch.tensor([0, 1, 1])).square().sum().backward()
    assert net.embedding.weight.grad[:2].abs().sum(1).gt(0).all()
    assert not net.embedding.weight.grad[2].any()
    layers = [weight for name, weight in net.named_parameters() if ".gain." in name or ".shift." in name]
    assert len(layers) == 4
    assert all(weight.grad[:, :4].any() for weight in layers)


@pytest.mark.parametrize(("conditioning", "inputs"), [(None, 6), (ConcatConfig(dim=3), 9), (ClassNormConfig(), 6)])
def test_other_conditionings_build_a_network_that_takes_latents_alone(conditioning: Any, inputs: int) -> None:
    for network in (BigGANGeneratorConfig(width=2), DCGANGeneratorConfig(width=2)):
        assert network.build_for(conditioning, 6, SHAPE)(torch.randn(2, inputs)).shape == (2, *SHAPE)


def test_a_network_that_takes_no_embedding_is_refused() -> None:
    refusals = check_compatibility(recipe("labelled", conditioning={"g": {"kind": "shared_embedding"}})).refusals
    assert [(one.field, "biggan" in one.cure) for one in refusals] == [("conditioning.g", True)]


@pytest.mark.parametrize(
    ("conditioning", "network", "cure"),
    [
        (SharedEmbeddingConfig(), DCGANGeneratorConfig(norm="batch"), "biggan"),
        (SharedEmbeddingConfig(), DCGANGeneratorConfig(norm="virtual"), "biggan"),
        (SharedEmbeddingConfig(), BigGANGeneratorConfig(norm="virtual"), "layer"),
        (SharedEmbeddingConfig(), BigGANGeneratorConfig(), None),
        (SharedEmbeddingConfig(), BigGANGeneratorConfig(norm="group"), None),
        (ClassNormConfig(), BigGANGeneratorConfig(), None),
        (ClassNormConfig(), BigGANGeneratorConfig(norm="group"), "batch"),
        (ClassNormConfig(), R3GANGeneratorConfig(), "batch"),
    ],
)
def test_incompatible_generators(
    conditioning: GeneratorConditioning, network: GeneratorConfig, cure: str | None
) -> None:
    mismatch = network.conditioning_incompatibility(conditioning)
    assert (mismatch is None) == (cure is None)
    assert cure is None or cure in mismatch[1]
