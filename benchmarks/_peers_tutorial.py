"""The loop of PyTorch's DCGAN tutorial, for images of 32 x 32 pixels.

Source: pytorch/tutorials, `beginner_source/dcgan_faces_tutorial.py`. Taken from there: the layers, ngf = ndf = 64, nz =
100, batches of 128, weights N(0, 0.02) and gains of batch norms N(1, 0.02), D's sigmoid with binary cross entropy, Adam
at 2e-4 with beta1 = 0.5, and the order of a step: D on real images, D on fake ones, one update of D, then G on the same
fake images.

The tutorial's images have 64 x 64 pixels; for 32 x 32 one block of each network is left out, that with the most
channels, so that the width next to the image is 64 as in the tutorial. Its samples are drawn as there, with G in
training mode.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.optim import Adam

from _peers import Draw, Facts, count_parameters, in_blocks

LATENT, BATCH, LR, BETAS = 100, 128, 2e-4, (0.5, 0.999)


def generator(channels: int, width: int) -> nn.Sequential:
    """Maps latents, B x 100 x 1 x 1, to images."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride, padding in (
        (LATENT, 4 * width, 1, 0),
        (4 * width, 2 * width, 2, 1),
        (2 * width, width, 2, 1),
    ):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(channels: int, width: int) -> nn.Sequential:
    """Maps images to probabilities, B x 1 x 1 x 1."""
    layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for factor in (1, 2):
        layers += [nn.Conv2d(factor * width, 2 * factor * width, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(2 * factor * width), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def initialize(module: nn.Module) -> None:
    """The initial weights of a layer."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Tutorial:
    """The tutorial's networks and loop; see `System`.

    Args:
        facts: the training images.
        width: `ngf` and `ndf`.
        batch: the batch size.
    """

    ended = False

    def __init__(self, facts: Facts, width: int, batch: int) -> None:
        self.settings = f"ngf = ndf = {width}, batch {batch}, Adam {LR:g}"
        self.batch = self.images_per_step = batch
        self.g, self.d = generator(facts.channels, width), discriminator(facts.channels, width)
        self.g.apply(initialize)
        self.d.apply(initialize)
        self.parameters = count_parameters(self.g, self.d)
        self.optimizer_d, self.optimizer_g = (Adam(net.parameters(), lr=LR, betas=BETAS) for net in (self.d, self.g))

    def latents(self, n: int) -> Tensor:
        """n latents."""
        return torch.randn(n, LATENT, 1, 1)

    def step(self, draw: Draw) -> None:
        """See `System.step`; D's weights also get a gradient in G's update, which the next step discards."""
        ones, zeros = torch.ones(self.batch), torch.zeros(self.batch)
        self.d.zero_grad()
        binary_cross_entropy(self.d(draw(self.batch).images).flatten(), ones).backward()
        fake = self.g(self.latents(self.batch))
        binary_cross_entropy(self.d(fake.detach()).flatten(), zeros).backward()
        self.optimizer_d.step()
        self.g.zero_grad()
        binary_cross_entropy(self.d(fake).flatten(), ones).backward()
        self.optimizer_g.step()

    def sample(self, n: int) -> Tensor:
        """See `System.sample`."""
        return in_blocks(lambda size: self.g(self.latents(size)), n, self.batch)


def tutorial(facts: Facts, *, tiny: bool) -> Tutorial:
    """The tutorial's own settings."""
    return Tutorial(facts, 4, 8) if tiny else Tutorial(facts, 64, BATCH)


def narrow_tutorial(facts: Facts, *, tiny: bool) -> Tutorial:
    """The same with half the channels, the width of poise's default."""
    return Tutorial(facts, 2, 8) if tiny else Tutorial(facts, 32, BATCH)
