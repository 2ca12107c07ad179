"""BigGAN's networks: the published shapes and counts, conditional norms, parts of z, attention, initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from contracts.tiny import recipe, session
from poise.core.types import Shape
from poise.errors import RecipeError
from poise.networks.attention import PooledSelfAttention, attend
from poise.networks.base import mixes_samples
from poise.networks.biggan import (
    BigGANDiscriminator,
    BigGANDiscriminatorConfig,
    BigGANGenerator,
    BigGANGeneratorConfig,
    ConditionalBlock,
    ConditionalNorm,
)
from poise.networks.norms import Norm
from poise.networks.resnet import DiscriminatorBlock
from poise.recipe.checks.compatibility import check_compatibility


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(latent: int, shape: Shape, embedding: int = 0, **fields: Any) -> BigGANGenerator:
    net = BigGANGeneratorConfig(**fields).build_layers(latent, shape, embedding)
    assert isinstance(net, BigGANGenerator)
    return net


def discriminator(shape: Shape, **fields: Any) -> BigGANDiscriminator:
    net = BigGANDiscriminatorConfig(**fields).build(shape)
    assert isinstance(net, BigGANDiscriminator)
    return net


def num_weights(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


# ---------------------------------------------------------------- the published networks


def test_the_papers_networks_for_128() -> None:
    """Table 4, with ch = 2: G 16 ch, 16, 8, 4, 2, 1; D ch, 2, 4, 8, 16, 16; attention at 64 x 64; z in six parts."""
    ch, shape = 2, (3, 128, 128)
    g = generator(120, shape, 128, width=ch, widest=16 * ch, attention=64)
    d = discriminator(shape, width=ch, widest=16 * ch, attention=64)
    widths = [block.branch2[1].in_channels for block in g.blocks]  # type: ignore[union-attr, index]
    assert widths == [16 * ch, 8 * ch, 4 * ch, 2 * ch, ch]
    assert g.first_shape == (16 * ch, 4, 4)
    assert g.parts == [20] * 6
    assert [type(m) for m in g.attention] == [*[nn.Identity] * 3, PooledSelfAttention, nn.Identity]
    kinds = [type(m) for m in d.trunk]
    assert kinds == [DiscriminatorBlock, PooledSelfAttention, *[DiscriminatorBlock] * 5, nn.ReLU]
    assert d.width == 16 * ch


def test_the_number_of_weights_is_that_of_the_papers_table() -> None:
    """Every layer of table 4 is counted; G has no bias before a norm, and its conditional norms have none at all."""
    ch, shape, condition = 2, (3, 128, 128), 128 + 20
    g = generator(120, shape, 128, width=ch, widest=16 * ch)
    widths = [16 * ch, 16 * ch, 8 * ch, 4 * ch, 2 * ch, ch]
    blocks = sum(2 * (a + b) * condition + 9 * a * b + (9 * b * b + b) + (a * b + b) for a, b in pairwise(widths))
    assert num_weights(g) == 21 * 16 * widths[0] + blocks + 2 * ch + (9 * ch * 3 + 3)
    d = discriminator(shape, width=ch, widest=16 * ch)
    widths = [3, *widths[::-1]]
    blocks = sum((9 * a * b + b) + (9 * b * b + b) + (a * b + b) * (a != b) for a, b in pairwise(widths))
    assert num_weights(d) == blocks + 16 * ch + 1


@pytest.mark.parametrize(
    ("size", "halvings", "widths"), [(16, 1, [2, 4, 8]), (32, 2, [2, 4, 8, 8]), (64, 4, [2, 4, 8, 8, 8])]
)
def test_d_has_two_plain_blocks_up_to_32_pixels_and_one_above(size: int, halvings: int, widths: list[int]) -> None:
    d = discriminator((1, size, size), width=2, widest=8)
    blocks = [m for m in d.trunk if isinstance(m, DiscriminatorBlock)]
    assert [block.branch[-1].__class__ is nn.AvgPool2d for block in blocks] == [
        k < halvings for k in range(len(widths))
    ]
    convolutions = [[m for m in block.branch if isinstance(m, nn.Conv2d)] for block in blocks]
    assert [second.out_channels for _, second in convolutions] == widths
    assert all(first.out_channels == second.out_channels for first, second in convolutions), "wide blocks"
    assert len(list(discriminator((1, size, size), width=2, plain=3).trunk)) == halvings + 3 + 1


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 4])
def test_every_size_and_number_of_channels(size: int, channels: int) -> None:
    shape = (channels, size, size)
    for config in (BigGANGeneratorConfig(width=1), BigGANDiscriminatorConfig(width=1)):
        assert config.incompatibility(shape) is None
    images = generator(20, shape, 3, width=1, widest=4)(torch.randn(2, 20), torch.randn(2, 3))
    assert images.shape == (2, *shape)
    assert discriminator(shape, width=1, widest=4)(images).score.shape == (2,)


# ---------------------------------------------------------------- layers


def test_the_norm_has_gain_and_shift_of_its_condition() -> None:
    """Each sample by hand, in float64."""
    net = ConditionalNorm("batch", 3, 2).double()
    x, condition = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    output = net(x, condition)
    for b in range(5):
        for c in range(3):
            normed = (x[b, c] - mean[c]) / (var[c] + 1e-5).sqrt()
            expected = (1 + net.gain.weight[c] @ condition[b]) * normed + net.shift.weight[c] @ condition[b]
            assert torch.allclose(output[b, c], expected, rtol=0, atol=1e-12)
    assert torch.allclose(net(x, torch.zeros_like(condition)), net.norm(x)), "the gain is 1 without a condition"


@pytest.mark.parametrize("norm", get_args(Norm))
def test_conditional_norms_have_no_other_scale(norm: Norm) -> None:
    """Virtual batch norm alone keeps its own."""
    own = [name for name, _ in ConditionalNorm(norm, 4, 2).named_parameters() if name.startswith("norm.")]
    assert bool(own) == (norm == "virtual")


def test_a_block_matches_the_papers_figure() -> None:
    """Figure 15 (a) with the norms' conditions; the 1 x 1 convolution and upsampling of the shortcut commute."""
    block: Any = ConditionalBlock(6, 4, "batch", "relu", 3).double()
    x, condition = torch.randn(2, 6, 4, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    up = nn.Upsample(scale_factor=2)
    h = block.branch1[2](up(relu(block.norm1(x, condition))))
    h = block.branch2[1](relu(block.norm2(h, condition)))
    before = x.clone()
    assert torch.allclose(block(x, condition), h + block.shortcut[0](up(x)), rtol=0, atol=1e-12)
    assert torch.equal(x, before), "the input is not modified"


def test_pooled_attention_is_that_of_the_released_code() -> None:
    net: Any = PooledSelfAttention(16)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(net(x), x), "gamma starts at 0"
    with torch.no_grad():
        net.gamma.fill_(0.5)
    key, value = (max_pool2d(layer[0](x), 2) for layer in (net.key, net.value))
    assert (key.shape, value.shape) == ((2, 2, 4, 4), (2, 8, 4, 4))
    assert torch.allclose(net(x), x + 0.5 * net.out(attend(net.query(x), key, value)), atol=1e-6)
    weights = torch.softmax(net.query(x).flatten(2)[1, :, 5] @ key.flatten(2)[1], 0)
    attended = (value.flatten(2)[1] * weights).sum(1)
    assert torch.allclose(attend(net.query(x), key, value)[1, :, 0, 5], attended, atol=1e-6)
    assert not any(name.endswith("bias") for name, _ in net.named_parameters())


# ---------------------------------------------------------------- the condition


def norms(g: BigGANGenerator) -> list[ConditionalNorm]:
    return [m for m in g.modules() if isinstance(m, ConditionalNorm)]


def test_every_block_gets_the_embedding_and_its_own_part_of_z() -> None:
    g = generator(9, (1, 16, 16), 4, width=2)
    seen: list[Tensor] = []
    for norm in norms(g):
        norm.register_forward_pre_hook(lambda m, x: seen.append(x[1]))
    first: list[Tensor] = []
    g.first.register_forward_pre_hook(lambda m, x: first.append(x[0]))
    z, embedding = torch.randn(3, 9), torch.randn(3, 4)
    g(z, embedding)
    assert torch.equal(first[0], z[:, :3])
    expected = [torch.cat((embedding, part), 1) for part in (z[:, 3:6], z[:, 6:])]
    assert len(seen) == 4
    assert all(torch.equal(condition, expected[k // 2]) for k, condition in enumerate(seen))


def test_without_labels_the_condition_is_the_part_of_z() -> None:
    g = generator(8, (1, 16, 16), width=2)
    assert g.parts == [3, 3, 2], "as equal as possible"
    assert [norm.gain.in_features for norm in norms(g)] == [3, 3, 2, 2]
    g.eval()
    z = torch.randn(1, 8)
    for k in range(8):  # every coordinate of z changes the image
        moved = z.clone()
        moved[0, k] += 1
        assert not torch.allclose(g(moved), g(z), atol=1e-4)


def test_a_latent_with_fewer_dimensions_than_parts_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"latent\.dim: z is split into 4 parts.*found 3; use a multiple of 4"):
        BigGANGeneratorConfig().build(3, (1, 32, 32))


# ---------------------------------------------------------------- initial weights, norms, training


def test_initial_weights_are_orthogonal() -> None:
    count = 0
    for net in (generator(9, (3, 16, 16), 4, width=4), discriminator((3, 16, 16), width=4)):
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                matrix = module.weight.detach().flatten(1)
                matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
                assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5)
                assert module.bias is None or not module.bias.any()
                count += 1
    assert count == (1 + 2 * 7 + 1) + (3 + 3 + 3 + 1)


def test_every_layer_of_both_networks_is_spectrally_normalised_by_default() -> None:
    """The largest singular value of every effective weight is 1 (Miyato 2018); initially all of them are equal."""
    g, d = BigGANGeneratorConfig(width=4, attention=8), BigGANDiscriminatorConfig(width=4, attention=8)
    shape = (1, 16, 16)
    nets = [(g.build(8, shape), torch.randn(4, 8)), (d.build(shape), torch.randn(4, *shape))]
    for net, x in nets:
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(3)
            net(x)
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        largest = [float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in layers]
        assert largest == pytest.approx([1.0] * len(layers), abs=0.05)
    assert mixes_samples(nets[0][0])
    assert not mixes_samples(nets[1][0])


def test_a_class_norm_is_possible_too() -> None:
    """BigGAN's generator is one with batch norms."""
    network = recipe("labelled").canonical()["network"] | {"g": {"kind": "biggan", "width": 2}}
    run = session("labelled", network=network, conditioning={"g": {"kind": "class_norm"}}).play(2)
    assert all(torch.isfinite(tensor).all() for tensor in run.saved().values())


def test_an_embedding_after_z_is_refused() -> None:
    """z is split into parts, so it would reach the last block only."""
    network = recipe("labelled").canonical()["network"] | {"g": {"kind": "biggan", "width": 2}}
    after_z = recipe("labelled", network=network, conditioning={"g": {"kind": "concat", "dim": 3}})
    with pytest.raises(RecipeError, match=r"conditioning.g: .* the label would reach the last block only"):
        check_compatibility(after_z).raise_first()
