"""What networks are put together from, and what a network's recipe entry promises."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core import Shape
from poise.entries import Part

Norm = Literal["batch", "none"]
Activation = Literal["leaky_relu", "relu", "prelu", "gelu", "tanh"]
Output = Literal["auto", "tanh", "linear", "sigmoid"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
OUTPUTS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity, "sigmoid": nn.Sigmoid}


def activation(name: Activation) -> nn.Module:
    """The activation called `name`; `leaky_relu` has slope 0.2, as in Radford 2015.

    The two that need nothing but their result to go backward write over their input: it is always a linear
    layer's or a norm's output here, which nobody reads again.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(0.2, inplace=True)
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


def output(name: Output, shape: Shape) -> nn.Module:
    """G's last activation; `auto` is tanh for pictures in [-1, 1] and linear for points of the plane."""
    if name == "auto":
        name = "tanh" if len(shape) == 3 else "linear"
    return OUTPUTS[name]()


class ToMap(nn.ConvTranspose2d):
    """Latents, B x in, to a first map, B x out x base x base: "project and reshape".

    The transposed convolution of a 1 x 1 map, with its weight (in x out x base x base) and its initial values,
    worked out as the one matrix product that it is; convolution kernels take several times as long for it.
    """

    def __init__(self, latent: int, channels: int, base: int, *, bias: bool) -> None:
        super().__init__(latent, channels, base, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """A map, in channels_last."""
        rows = latents @ self.weight.permute(0, 2, 3, 1).flatten(1)
        maps = rows.view(len(latents), *self.kernel_size, self.out_channels)
        return (maps if self.bias is None else maps + self.bias).permute(0, 3, 1, 2)


class FromMap(nn.Conv2d):
    """A last map, B x in x base x base, to one number per sample, B: a convolution that covers its whole map."""

    def __init__(self, channels: int, base: int) -> None:
        super().__init__(channels, 1, base)

    def forward(self, maps: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """B numbers."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(maps.permute(0, 2, 3, 1).flatten(1), weight, self.bias).flatten(0)


@torch.no_grad()
def normal_(net: nn.Module, std: float = 0.02) -> None:
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


def mixes_samples(net: nn.Module) -> bool:
    """Whether a sample's output depends on the other samples of its batch (a batch norm, say).

    A module that does so in another way says it by an attribute `mixes_samples = True`.
    """
    return any(isinstance(m, _BatchNorm) or getattr(m, "mixes_samples", False) for m in net.modules())


class Network(Part):
    """A network's recipe entry."""

    likes_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16: worth it for convolutions, not for tiny layers."""

    def misfit(self, shape: Shape) -> tuple[str, str] | None:
        """Why the network can't make or judge samples of `shape`, and the cure; None if it can."""
        return None


class Generator(Network):
    """Latents, B x dim, to samples, B x shape."""

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """The module, initial weights drawn from PyTorch's global generator."""
        raise NotImplementedError


class Discriminator(Network):
    """Samples, B x shape, to a `Verdict`."""

    def build(self, shape: Shape) -> nn.Module:
        """The module, initial weights drawn from PyTorch's global generator."""
        raise NotImplementedError
