"""Building blocks of networks: activations, resampling layers, first and last layers, and initialisation."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.double_backward import Conv2d, ConvTranspose2d
from poise.core.types import Shape
from poise.networks.map_sizes import Size
from poise.networks.norms import Norm

Activation = Literal["leaky_relu", "relu", "prelu", "gelu", "elu", "tanh"]
Up = Literal["transposed", "pixel_shuffle", "nearest", "bilinear"]
Down = Literal["conv", "average", "max"]
Output = Literal["auto", "tanh", "linear", "sigmoid"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}
SLOPE = 0.2
"""The negative slope of every LeakyReLU of this package (Radford 2015), except in `unrolled.py`."""

HE_GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""The gain that preserves the scale of a signal through a linear layer and a LeakyReLU with this slope."""

OUTPUTS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity, "sigmoid": nn.Sigmoid}


def activation(name: Activation) -> nn.Module:
    """The activation called `name`; `leaky_relu` has negative slope 0.2, as in Radford 2015.

    LeakyReLU and ReLU work in place, as their backward pass needs only their output. Their input must therefore be the
    output of a linear layer or a norm that is not used elsewhere.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(SLOPE, inplace=True)
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


def upsampling(name: Up, in_channels: int, out_channels: int, *, bias: bool) -> list[nn.Module]:
    """Layers that double the sides of a feature map.

    `transposed` and `pixel_shuffle` can cause checkerboard artefacts, where their weights are uneven.

    Args:
        name: `transposed` is a 4 x 4 transposed convolution with stride 2 (Radford 2015). `pixel_shuffle` is a 3 x 3
            convolution to four times the channels, which are rearranged in space (Shi 2016, arXiv:1609.05158).
            `nearest` and `bilinear` interpolate and then apply a 3 x 3 convolution (Odena 2016).
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: whether the convolution has a bias.
    """
    if name == "transposed":
        return [ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)]
    if name == "pixel_shuffle":
        return [nn.Conv2d(in_channels, 4 * out_channels, 3, 1, 1, bias=bias), nn.PixelShuffle(2)]
    return [interpolation(name), nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias)]


def interpolation(name: Literal["nearest", "bilinear"]) -> nn.Module:
    """A layer without weights that doubles the sides of a feature map."""
    return nn.Upsample(scale_factor=2, mode=name, align_corners=False if name == "bilinear" else None)


def downsampling(name: Down, in_channels: int, out_channels: int, *, bias: bool) -> list[nn.Module]:
    """Layers that halve the sides of a feature map.

    Args:
        name: `conv` is a 4 x 4 convolution with stride 2 (Radford 2015). `average` and `max` are a 3 x 3 convolution
            and a pooling layer; max-pooling has sparse gradients.
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: whether the convolution has a bias.
    """
    if name == "conv":
        return [Conv2d(in_channels, out_channels, 4, 2, 1, bias=bias)]
    pool = nn.AvgPool2d(2) if name == "average" else nn.MaxPool2d(2)
    return [Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias), pool]


def output_activation(name: Output, shape: Shape) -> nn.Module:
    """The last activation of G; `auto` is tanh for images in [-1, 1] and linear for points in the plane."""
    if name == "auto":
        name = "tanh" if len(shape) == 3 else "linear"
    return OUTPUTS[name]()


class ProjectAndReshape(nn.ConvTranspose2d):
    """Latents, B x in, to a first feature map, B x out x h x w: "project and reshape".

    This is a transposed convolution of a 1 x 1 map, with its weight (in x out x h x w) and initialisation. It is
    computed as a single matrix product, as convolution kernels take several times as long.

    Args:
        latent: the dimension of the latents.
        channels: the channels of the map.
        base: height and width of the map.
        bias: whether there is a bias.
    """

    matrix_dim = 0

    def __init__(self, latent: int, channels: int, base: Size, *, bias: bool) -> None:
        super().__init__(latent, channels, base, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """B x in to B x out x h x w, in channels_last format."""
        rows = latents @ self.weight.permute(0, 2, 3, 1).flatten(1)
        maps = rows.unflatten(1, (*self.kernel_size, self.out_channels))  # no batch size, which an export would fix
        return (maps if self.bias is None else maps + self.bias).permute(0, 3, 1, 2)


class MapToScore(nn.Conv2d):
    """The last feature map, B x in x h x w, to a score per sample, B: a convolution over the whole map."""

    def __init__(self, channels: int, base: Size) -> None:
        super().__init__(channels, 1, base)

    def forward(self, maps: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """B x in x h x w to B scores."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(maps.permute(0, 2, 3, 1).flatten(1), weight, self.bias).flatten(0)


@torch.no_grad()
def init_dcgan_(net: nn.Module, std: float = 0.02) -> None:
    """DCGAN's initialisation, in place (Radford 2015, arXiv:1511.06434, section 4).

    Weights ~ N(0, `std`), biases 0, and the scales of batch norms ~ N(1, `std`). The paper says "all weights"; centring
    the scales at 1 follows its released code.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, _BatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DropoutSlot(nn.Identity):
    """Where a network has dropout in its published form, which stays on when samples are generated.

    The trick `standing_dropout` fills the slots with an index below its number of layers; without it nothing is
    dropped.

    Args:
        index: the number of the layer; two networks side by side count separately.
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index


def channel_widths(width: int, max_width: int, count: int) -> list[int]:
    """The channels of `count` maps, starting at the image: doubled with each halving, up to `max_width`."""
    return [min(max_width, width << k) for k in range(count)]


Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.no_grad()
def init_he_(layer: Layer, gain: float = HE_GAIN) -> Layer:
    """Weights ~ N(0, gain^2 / fan_in) (He et al. 2015, arXiv:1502.01852), in place; biases 0.

    fan_in is the number of inputs that one output sums over. For a transposed convolution this is the size of the
    kernel divided by that of the stride, per channel.
    """
    fan_in: float = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        taps = 1 if isinstance(layer, ProjectAndReshape) else math.prod(layer.kernel_size) / math.prod(layer.stride)
        fan_in = layer.in_channels * taps
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def init_weights_(net: nn.Module, norm: Norm) -> None:
    """DCGAN's small initial weights (`init_dcgan_`) with a norm, which rescales them; He's (`init_he_`) without."""
    init_dcgan_(net)
    for module in net.modules() if norm == "none" else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            init_he_(module)  # type: ignore[bad-specialization]
