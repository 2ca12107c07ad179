"""What networks are put together from: activations, ways up and down, first and last layers, first weights."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.double_backward import Conv2d
from poise.core.types import Shape
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
"""Of every LeakyReLU here, as in Radford 2015."""

HE_GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""What keeps a signal's size through a linear layer and such a LeakyReLU."""

OUTPUTS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity, "sigmoid": nn.Sigmoid}


def activation(name: Activation) -> nn.Module:
    """The activation called `name`; `leaky_relu` has slope 0.2, as in Radford 2015.

    The two that need nothing but their result to go backward write over their input: it is always a linear
    layer's or a norm's output here, which nobody reads again.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(SLOPE, inplace=True)
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


def upsampling(name: Up, here: int, there: int, *, bias: bool) -> list[nn.Module]:
    """Twice the side of a map. Strided and shuffled ones leave checkerboards where their weights are uneven.

    `transposed`: 4 x 4, stride 2 (Radford 2015); `pixel_shuffle`: 3 x 3 to four times the channels, laid out in
    space (Shi 2016, arXiv:1609.05158); `nearest`, `bilinear`: enlarged, then 3 x 3 (Odena 2016).
    """
    if name == "transposed":
        return [nn.ConvTranspose2d(here, there, 4, 2, 1, bias=bias)]
    if name == "pixel_shuffle":
        return [nn.Conv2d(here, 4 * there, 3, 1, 1, bias=bias), nn.PixelShuffle(2)]
    return [enlarged(name), nn.Conv2d(here, there, 3, 1, 1, bias=bias)]


def enlarged(name: Literal["nearest", "bilinear"]) -> nn.Module:
    """Twice the side, without weights."""
    return nn.Upsample(scale_factor=2, mode=name, align_corners=False if name == "bilinear" else None)


def downsampling(name: Down, here: int, there: int, *, bias: bool) -> list[nn.Module]:
    """Half the side of a map: 4 x 4 with stride 2 (Radford 2015), or 3 x 3 and a pool (max: sparse gradients)."""
    if name == "conv":
        return [Conv2d(here, there, 4, 2, 1, bias=bias)]
    pool = nn.AvgPool2d(2) if name == "average" else nn.MaxPool2d(2)
    return [Conv2d(here, there, 3, 1, 1, bias=bias), pool]


def output(name: Output, shape: Shape) -> nn.Module:
    """G's last activation; `auto` is tanh for pictures in [-1, 1] and linear for points of the plane."""
    if name == "auto":
        name = "tanh" if len(shape) == 3 else "linear"
    return OUTPUTS[name]()


class ProjectAndReshape(nn.ConvTranspose2d):
    """Latents, B x in, to a first map, B x out x base x base: "project and reshape".

    The transposed convolution of a 1 x 1 map, with its weight (in x out x base x base) and its initial values,
    worked out as the one matrix product that it is; convolution kernels take several times as long for it.
    """

    matrix_dim = 0

    def __init__(self, latent: int, channels: int, base: int, *, bias: bool) -> None:
        super().__init__(latent, channels, base, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """A map, in channels_last."""
        rows = latents @ self.weight.permute(0, 2, 3, 1).flatten(1)
        maps = rows.view(len(latents), *self.kernel_size, self.out_channels)
        return (maps if self.bias is None else maps + self.bias).permute(0, 3, 1, 2)


class MapToScore(nn.Conv2d):
    """A last map, B x in x base x base, to one number per sample, B: a convolution that covers its whole map."""

    def __init__(self, channels: int, base: int) -> None:
        super().__init__(channels, 1, base)

    def forward(self, maps: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """B numbers."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(maps.permute(0, 2, 3, 1).flatten(1), weight, self.bias).flatten(0)


@torch.no_grad()
def init_dcgan_(net: nn.Module, std: float = 0.02) -> None:
    """DCGAN's initial weights, in place (Radford 2015, arXiv:1511.06434, section 4).

    Every weight ~ N(0, 0.02), every bias 0. A batch norm's scale ~ N(1, 0.02): the paper says "all weights";
    centring the scale on one is what its released code does.
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


SMALLEST, LARGEST = 8, 256


def square_incompatibility(who: str, shape: Shape, depth: int | None) -> tuple[str, str] | None:
    """Why a network that halves or doubles maps can't do with `shape`, and the cure; None if it can."""
    if len(shape) != 3:
        return f"a {who} makes pictures, and this data is points", "take network kind 'mlp'"
    size = shape[1]
    legal = [2**k for k in range(SMALLEST.bit_length() - 1, LARGEST.bit_length())]
    if size not in legal or shape[1] != shape[2]:
        below, above = [s for s in legal if s < size][-1:], [s for s in legal if s > size][:1]
        near = " or ".join(str(s) for s in below + above)
        return f"a {who} needs a power of two from {SMALLEST} to {LARGEST} as picture size", f"set data.size to {near}"
    if depth is not None and size >> depth < 2:
        return f"depth {depth} leaves no map of a {size}-pixel picture", f"at most {size.bit_length() - 2}"
    return None


def num_halvings(size: int, depth: int | None) -> int:
    """How often a map is halved from the picture's side: `depth`, or down to 4 (2 for size 8)."""
    return depth or max(2, size.bit_length() - 3)


def channel_widths(width: int, widest: int, count: int) -> list[int]:
    """Channels of `count` maps from the picture inwards: doubled with each halving, up to `widest`."""
    return [min(widest, width << k) for k in range(count)]


Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.no_grad()
def init_he_(layer: Layer, gain: float = HE_GAIN) -> Layer:
    """Weights ~ N(0, gain^2 / fan_in) (He et al. 2015, arXiv:1502.01852), in place; biases 0.

    fan_in counts the numbers that one output sums over: of a transposed convolution, kernel / stride per channel.
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
    """DCGAN's small weights (`normal_`) where a norm makes up for them, He's where nothing does."""
    init_dcgan_(net)
    for module in net.modules() if norm == "none" else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            init_he_(module)  # type: ignore[bad-specialization]
