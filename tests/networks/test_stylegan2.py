"""StyleGAN2's networks: shapes, layers and their styles, noise, mixing, conditioning and the minibatch trick.

Equality with the authors' code is documented in the module; here each part is compared with its formula.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import recipe, session
from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.networks.base import intermediate_space, mixes_samples
from poise.networks.conditioning import Concat, Projection
from poise.networks.equalized import ACTIVATION_GAIN, EqualizedConv2d
from poise.networks.smoothing import upsample
from poise.networks.stylegan2 import (
    ResidualDown,
    StyledConv2d,
    StyleGAN2DiscriminatorConfig,
    StyleGAN2Generator,
    StyleGAN2GeneratorConfig,
    ToImage,
)
from poise.networks.styles import modulated_conv2d
from poise.runs.generate import generate
from poise.tricks.base import TrickContext
from poise.tricks.batch_stddev import MinibatchStddevConfig, WithGroupStddev
from poise.truncation import truncated_layers


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def generator(size: int = 16, **options: Any) -> Any:
    options = {"width": 4, "widest": 8, "style_dim": 6} | options
    return StyleGAN2GeneratorConfig(**options).build(5, (3, size, size))


def discriminator(size: int = 16, channels: int = 3) -> Any:
    return StyleGAN2DiscriminatorConfig(width=4, widest=8).build((channels, size, size))


@pytest.mark.parametrize("size", [8, 32, 64])
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes_and_channels(size: int, channels: int) -> None:
    g = StyleGAN2GeneratorConfig(width=2, widest=8, style_dim=6).build(5, (channels, size, size))
    images = g(torch.randn(2, 5))
    assert images.shape == (2, channels, size, size)
    doublings = int(math.log2(size)) - 2
    maps = [layer.weight.shape[0] for layer in g.synthesis.layers if isinstance(layer, StyledConv2d)]  # type: ignore[union-attr]
    sizes = [min(8, 2 << k) for k in range(doublings + 1)][::-1]
    assert maps == [sizes[0], *(width for width in sizes[1:] for _ in range(2))]
    assert g.broadcast.num_layers == 2 * doublings + 2
    output = discriminator(size, channels)(images)
    assert (output.score.shape, output.features.shape) == ((2,), (2, 8))


def test_a_side_need_not_equal_the_other() -> None:
    """The networks themselves have no square built in."""
    shape = (3, 16, 24)
    g = StyleGAN2GeneratorConfig(width=2, widest=4).build(5, shape)
    d = StyleGAN2DiscriminatorConfig(width=2, widest=4).build(shape)
    images = g(torch.randn(2, 5))
    assert images.shape == (2, *shape)
    assert d(images).score.shape == (2,)


@pytest.mark.parametrize(("size", "refused"), [(8, False), (24, False), (27, True), (256, False), (4, True)])
def test_which_sizes_are_supported(size: int, refused: bool) -> None:
    for config in (StyleGAN2GeneratorConfig(), StyleGAN2DiscriminatorConfig()):
        assert (config.incompatibility((3, size, size)) is not None) is refused
        assert config.incompatibility((2,)) is not None


def test_each_layer_gets_its_own_w_and_the_image_that_of_the_next_layer() -> None:
    g = generator(16).eval()
    styles = torch.randn(1, 6, 6)
    used: list[tuple[str, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        k = next(k for k in range(6) if torch.equal(inputs[1], styles[:, k]))
        used.append((type(layer).__name__, k))

    for layer in g.synthesis.layers:
        layer.register_forward_pre_hook(note)
    g.synthesis(styles)
    conv, image = StyledConv2d.__name__, ToImage.__name__
    assert used == [
        *((conv, 0), (image, 1)),
        *((conv, 1), (conv, 2), (image, 3)),
        *((conv, 3), (conv, 4), (image, 5)),
    ]


def test_the_image_is_the_sum_of_the_upsampled_images_of_all_sizes() -> None:
    g = generator(16).eval()
    outputs: list[Tensor] = []
    for layer in g.synthesis.layers:
        if isinstance(layer, ToImage):
            layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    images = g(torch.randn(2, 5))
    first, second, third = outputs
    kernel = g.synthesis.kernel
    assert torch.allclose(images, upsample(upsample(first, kernel) + second, kernel) + third, atol=1e-5)


def test_a_layer_is_the_formula() -> None:
    layer = StyledConv2d(3, 5, 4, (6, 6), "constant", None).eval()
    layer.bias.data.normal_()
    layer.noise_strength.data.fill_(0.7)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    styles = w @ layer.affine.weight.T / 2 + 1
    y = modulated_conv2d(x, layer.weight, styles) + 0.7 * layer.constant_noise + layer.bias[:, None, None]
    assert torch.allclose(layer(x, w), ACTIVATION_GAIN * nn.functional.leaky_relu(y, 0.2), atol=1e-5)


def test_noise_has_no_effect_at_first_and_then_the_chosen_one() -> None:
    z = torch.randn(3, 5)
    for kind in ("constant", "random", "none"):
        g = generator(noise=kind, style_mixing=0.0)
        assert torch.equal(g(z), g(z)), "its strength is 0"
        for name, weight in g.named_parameters():
            if name.endswith("noise_strength"):
                weight.data.fill_(0.5)
        assert torch.equal(g(z), g(z)) is (kind == "none")
        g.eval()
        assert torch.equal(g(z), g(z)) is (kind != "random")


def test_the_mean_of_a_random_layer_is_the_layer_without_noise() -> None:
    layers = {kind: StyledConv2d(3, 5, 4, (6, 6), kind, None).eval() for kind in ("constant", "random", "none")}  # type: ignore[arg-type]
    assert layers["constant"].mean_layer() is None
    assert layers["none"].mean_layer() is None
    random, x, w = layers["random"], torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    without_noise = random(x, w)
    random.noise_strength.data.fill_(0.7)
    mean = random.mean_layer()
    assert mean is not None
    assert torch.equal(mean(x, w), without_noise)
    assert set(mean.state_dict()) == set(layers["none"].state_dict())
    assert not torch.equal(random(x, w), random(x, w)), "the layer itself still draws"


@pytest.mark.parametrize("batch", [2, 5])
def test_an_exported_graph_has_any_batch_size_and_truncation(batch: int) -> None:
    """`torch.export` traces with a batch of 3 and with the truncation as an input."""

    class Truncated(nn.Module):
        def __init__(self, g: nn.Module) -> None:
            super().__init__()
            self.g = g

        def forward(self, latents: Tensor, psi: Tensor) -> Tensor:
            self.g.broadcast.truncation = psi  # type: ignore[union-attr]
            try:
                return self.g(latents)
            finally:
                self.g.broadcast.truncation = 1.0  # type: ignore[union-attr]

    net = Truncated(generator(8)).eval()
    net.g.broadcast.w_mean.normal_()  # type: ignore[union-attr]
    size = torch.export.Dim("batch", min=1, max=64)
    example = torch.randn(3, 5), torch.tensor(0.7)
    exported = torch.export.export(net, example, dynamic_shapes=({0: size}, None)).module()
    for psi in (0.2, 1.0):
        inputs = torch.randn(batch, 5), torch.tensor(psi)
        assert torch.allclose(exported(*inputs), net(*inputs), atol=1e-5)


@pytest.mark.parametrize("noise", ["constant", "random"])
def test_sample_i_does_not_depend_on_the_number_of_samples(noise: str) -> None:
    g = generator(8, noise=noise)
    for name, weight in g.named_parameters():
        if name.endswith("noise_strength"):
            weight.data.fill_(0.5)
    z, streams = torch.randn(40, 5), RandomStreams(3)
    whole = generate(g, z, streams=streams)
    assert torch.equal(generate(g, z[:5], streams=streams), whole[:5])
    assert torch.equal(generate(g, z[:35], streams=streams), whole[:35])


def test_styles_are_mixed_in_training_only() -> None:
    g, z = generator(style_mixing=1.0, noise="none"), torch.randn(2, 5)
    assert not torch.allclose(g(z), g(z))
    g.eval()
    assert torch.equal(g(z), g(z))


def test_mixed_samples_keep_their_label() -> None:
    """Mixing replaces z and not the embedding of the label."""
    g = StyleGAN2GeneratorConfig(width=4, style_dim=6, style_mixing=1.0, noise="none").build(5 + 3, (3, 8, 8))
    g.num_label_inputs = 3
    net = Concat(g, 4, 3)
    seen: list[Tensor] = []
    g.mapping.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    net(torch.randn(2, 5), torch.tensor([1, 3]))
    first, second = seen
    assert torch.equal(first[:, 5:], second[:, 5:])
    assert not torch.isclose(first[:, :5], second[:, :5]).any()


def test_truncation_to_zero_gives_one_image_through_the_wrapper() -> None:
    g = StyleGAN2GeneratorConfig(width=4, style_dim=6).build(5 + 3, (3, 8, 8))
    g.num_label_inputs = 3
    net = Concat(g, 4, 3).eval()
    z, labels = torch.randn(3, 5), torch.tensor([0, 1, 3])
    assert not torch.allclose(net(z, labels)[0], net(z, labels)[1])
    with truncated_layers(net, 0.0) as found:
        images = net(z, labels)
    assert found
    assert torch.allclose(images, images[:1].expand_as(images), atol=1e-6)


def test_a_block_of_d_is_the_formula() -> None:
    """Both branches halve the side, and their sum is divided by sqrt(2)."""
    block = ResidualDown(4, 6)
    x = torch.randn(2, 4, 8, 8)
    act = nn.LeakyReLU(0.2)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    smooth = torch.outer(taps, taps).expand(4, 1, 4, 4)
    hidden = act(block.conv0(x)) * math.sqrt(2)
    hidden = nn.functional.conv2d(hidden, smooth, padding=2, groups=4)
    main = act(block.conv1(hidden)) * math.sqrt(2)
    around = block.skip(nn.functional.conv2d(x, smooth, padding=1, groups=4)[:, :, ::2, ::2])
    assert torch.allclose(block(x), (main + around) / math.sqrt(2), atol=1e-5)
    assert block(x).shape == (2, 6, 4, 4)


def test_the_minibatch_trick_acts_before_the_last_convolution() -> None:
    d = discriminator(16)
    trick = MinibatchStddevConfig().build("stddev", TrickContext({}, None))  # type: ignore[arg-type]
    d = trick.transform_network(Side.D, d)
    (found,) = (module for module in d.modules() if isinstance(module, WithGroupStddev))
    assert isinstance(found.layer, EqualizedConv2d)
    assert found.layer.weight.shape == (8, 9, 3, 3)
    assert d.trunk[[type(m) for m in d.trunk].index(WithGroupStddev) - 1].__class__ is ResidualDown
    assert d(torch.randn(8, 3, 16, 16)).score.shape == (8,)
    assert mixes_samples(d)


def test_projection_uses_the_features() -> None:
    d = Projection(discriminator(8), 3)
    assert d(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])).score.shape == (4,)


def test_the_initial_scale_of_images_and_scores() -> None:
    images = generator(32, width=16, widest=64, style_dim=64)(torch.randn(16, 5))
    assert 0.3 < float(images.detach().std()) < 3
    scores = StyleGAN2DiscriminatorConfig(width=16, widest=64).build((3, 32, 32))(torch.randn(64, 3, 32, 32)).score
    assert float(scores.detach().abs().mean()) < 3


@pytest.mark.parametrize("world", ["pictures", "labelled"])
def test_every_weight_has_a_gradient(world: str) -> None:
    players = {
        "g": {"kind": "stylegan2", "width": 2, "widest": 4, "style_dim": 4},
        "d": {"kind": "stylegan2", "width": 2, "widest": 4},
    }
    changes = {"conditioning": {"g": {"kind": "concat", "dim": 2}, "d": {"kind": "projection"}}}
    tricks = [{"kind": "path_length", "every": 1}, {"kind": "r1"}, {"kind": "minibatch_stddev"}]
    run = session(world, *tricks, network=players, **(changes if world == "labelled" else {}))
    g = next(module for module in run.game.g.net.modules() if isinstance(module, StyleGAN2Generator))
    assert g.num_label_inputs == (2 if world == "labelled" else 0)
    before = {side: [w.detach().clone() for w in player.net.parameters()] for side, player in run.game.players.items()}
    run.play(2)
    for side, player in run.game.players.items():
        named = zip(player.net.named_parameters(), before[side], strict=True)
        assert [name for (name, weight), old in named if torch.equal(weight, old)] == []
    assert recipe(world, network=players).network.g.has_skip_connections


def test_images_are_synthesised_from_w() -> None:
    """As `poise project` does it, which looks for w by these two methods."""
    g, z = generator(style_mixing=0.9, noise="none").eval(), torch.randn(3, 5)
    space = intermediate_space(g)
    assert space is not None
    torch.testing.assert_close(space.synthesize(space.map_latents(z, None)), g(z))
