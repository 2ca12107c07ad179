"""Which part of a sample G and D read: every direction and every kind of judging, in packs too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput
from poise.networks.conditioning import SourceChannelsConfig
from poise.networks.dcgan import DCGANDiscriminatorConfig
from poise.networks.linear import LinearMapConfig
from poise.networks.norms import Norm
from poise.networks.patch import PatchDiscriminatorConfig
from poise.networks.translation import (
    Direction,
    JudgeEach,
    JudgeTarget,
    build_judges,
    build_translation,
    part_shapes,
    separate_networks,
    split_parts,
    swap_domains,
)
from poise.networks.translator import ResidualTranslatorConfig
from poise.tricks.packing import PackedDiscriminator, pack_samples

PARTS = (1, 3)
SHAPE = (4, 8, 8)
TINY = ResidualTranslatorConfig(width=2, blocks=1, downsamplings=1)


def samples(n: int = 4, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def test_the_parts_of_samples_and_of_packs() -> None:
    images = samples()
    a, b = split_parts(images, PARTS)
    assert torch.equal(a, images[:, :1])
    assert torch.equal(b, images[:, 1:])
    packed_a, packed_b = split_parts(pack_samples(images, 2), PARTS)
    assert torch.equal(packed_a, pack_samples(a, 2))
    assert torch.equal(packed_b, pack_samples(b, 2))
    assert part_shapes(SHAPE, PARTS) == [(1, 8, 8), (3, 8, 8)]
    assert part_shapes((8, 8, 8), PARTS) == [(2, 8, 8), (6, 8, 8)]
    vectors = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert swap_domains(vectors, (2, 2)).tolist() == [[3.0, 4.0, 1.0, 2.0]]


def test_from_a_to_b() -> None:
    images, net = samples(), build_translation(TINY, "a_to_b", SHAPE, PARTS)
    output = net(images)
    assert torch.equal(output[:, :1], images[:, :1]), "the source stays beside its translation"
    assert torch.equal(output[:, 1:], net.net(images[:, :1]))
    other = torch.cat((images[:, :1], torch.randn(4, 3, 8, 8)), 1)
    assert torch.equal(net(other), output), "G does not see the target"


def test_both_ways() -> None:
    images, net = samples(), build_translation(TINY, "both_ways", SHAPE, PARTS)
    there, back = net.networks["a_to_b"], net.networks["b_to_a"]  # type: ignore[index]
    output = net(images)
    assert torch.equal(output[:, :1], back(images[:, 1:]))
    assert torch.equal(output[:, 1:], there(images[:, :1]))
    again = net(output)
    torch.testing.assert_close(again[:, :1], back(there(images[:, :1])))
    torch.testing.assert_close(again[:, 1:], there(back(images[:, 1:])))
    weights = [[weight.clone() for weight in one.parameters()] for one in (there, back)]
    assert not torch.equal(weights[0][2], weights[1][2]), "two networks, with weights of their own"
    assert separate_networks(nn.Sequential(net)) == [there, back]


def test_the_same_domain() -> None:
    net = build_translation(TINY, "same", (3, 8, 8), ())
    assert separate_networks(net) == [net]
    assert net(samples(shape=(3, 8, 8))).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("direction", ["same", "a_to_b"])
def test_labels_are_channels_of_the_image_that_g_starts_from(direction: Direction) -> None:
    images, labels = samples(), torch.tensor([0, 1, 2, 1])
    net: Any = build_translation(TINY, direction, SHAPE, PARTS, SourceChannelsConfig(dim=5), 3)
    assert net.takes_labels
    output, inner = net(images, labels), net.net if direction == "a_to_b" else net
    source = images[:, :1] if direction == "a_to_b" else images
    embedded = inner.embedding(labels)[:, :, None, None].expand(-1, -1, 8, 8)
    expected = inner.net(torch.cat((source, embedded), 1))
    assert torch.equal(output[:, -expected.shape[1] :], expected)
    assert output.shape == images.shape
    assert inner.embedding.weight.shape == (3, 5)


@pytest.mark.parametrize(("norm", "matters"), [("none", True), ("batch", True), ("instance", False)])
def test_an_instance_norm_removes_the_label(norm: Norm, matters: bool) -> None:
    """It is the reason for which instance norms and labels are refused together."""
    config, labels = ResidualTranslatorConfig(width=2, blocks=1, downsamplings=1, norm=norm), SourceChannelsConfig()
    assert (config.conditioning_incompatibility(labels) is None) == matters
    net, images = build_translation(config, "same", SHAPE, (), labels, 3), samples()
    one, other = (net(images, torch.tensor(label)).detach() for label in ([0, 0, 1, 1], [1, 2, 2, 0]))
    assert (float((one - other).abs().max()) > 1e-4) == matters


def test_vectors() -> None:
    net = build_translation(LinearMapConfig(), "both_ways", (5,), (2, 3))
    with torch.no_grad():
        net.networks["a_to_b"].weight.fill_(1.0)  # type: ignore[index]
    assert net(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])).tolist() == [[3.0, 4.0, 3.0, 3.0, 3.0]]


@pytest.mark.parametrize("pack", [1, 2])
def test_d_judges_the_whole_sample(pack: int) -> None:
    torch.manual_seed(0)
    net = build_judges(DCGANDiscriminatorConfig(width=2), "all", (4 * pack, 8, 8), PARTS)
    torch.manual_seed(0)
    ordinary = DCGANDiscriminatorConfig(width=2).build((4 * pack, 8, 8))
    images = pack_samples(samples(), pack)
    assert torch.equal(net(images).score, ordinary(images).score)


@pytest.mark.parametrize("pack", [1, 2])
def test_d_judges_the_target_alone(pack: int) -> None:
    images = samples()
    net = build_judges(DCGANDiscriminatorConfig(width=2, norm="none"), "b", (4 * pack, 8, 8), PARTS)
    assert isinstance(net, JudgeTarget)
    output = PackedDiscriminator(net, pack)(images)
    expected = net.net(pack_samples(images[:, 1:], pack))
    assert torch.equal(output.score, expected.score)
    assert output.features is not None
    assert output.features.shape == (4 // pack, net.width)


@pytest.mark.parametrize("pack", [1, 2])
def test_a_network_judges_each_domain(pack: int) -> None:
    images = samples()
    net = build_judges(PatchDiscriminatorConfig(width=2, layers=1, norm="none"), "each", (4 * pack, 8, 8), PARTS)
    assert isinstance(net, JudgeEach)
    output = PackedDiscriminator(net, pack)(images)
    by_domain = [
        net.networks[name](pack_samples(part, pack)) for name, part in (("a", images[:, :1]), ("b", images[:, 1:]))
    ]
    assert torch.equal(output.score, torch.cat([one.score for one in by_domain], 1))
    assert output.features is not None
    assert torch.equal(output.features, torch.cat([one.features for one in by_domain], 1))
    assert output.features.shape[1] == net.width


def test_single_scores_are_put_side_by_side() -> None:
    net = build_judges(DCGANDiscriminatorConfig(width=2, norm="none"), "each", SHAPE, PARTS)
    assert net(samples()).score.shape == (4, 2)


class WithoutFeatures(nn.Module):
    """A D that returns a score alone."""

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.flatten(1).mean(1))


def test_features_are_those_of_both_or_none() -> None:
    with_features = DCGANDiscriminatorConfig(width=2).build((3, 8, 8))
    net = JudgeEach({"a": WithoutFeatures(), "b": with_features}, PARTS)
    assert net.width is None
    assert net(samples()).features is None
    assert JudgeTarget(WithoutFeatures(), PARTS).width is None
