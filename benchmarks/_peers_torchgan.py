"""torchgan's trainer with its own DCGAN and losses.

Source: torchgan/torchgan, `models/dcgan.py`, `models/model.py`, `losses/loss.py`, `losses/functional.py` and
`trainer/base_trainer.py`. Its settings for digits are those of `tutorials/Tutorial 1. Introduction to TorchGAN.ipynb`,
which trains on MNIST at 32 x 32: 32 channels next to the image, least squares, Adam at 1e-4 for G and 3e-4 for D,
batches of 64. For colour they are those of the starter example for CIFAR-10 in
`docs/source/getting_started/basic_example.rst`: 16 channels, the non-saturating loss, Adam at 2e-4, batches of 128. In
both, beta1 is 0.5, latents have 100 dimensions and D ends with a LeakyReLU.

Steps of these networks and of the loop below are bit for bit those of torchgan 0.1.0, from the same weights and random
numbers. The trainer calls its losses in the order in which the examples list them: G is updated first, with latents of
its own, then D. D's fake samples are generated with a graph that is then not used. What the trainer logs is left out,
which favours it. It samples with G in evaluation mode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from _peers import Draw, Facts, count_parameters, in_blocks

LATENT, BETAS, SLOPE = 100, (0.5, 0.999), 0.2


@dataclass(frozen=True)
class Settings:
    """What the examples choose: `step_channels`, the batch size, the learning rates and the losses."""

    width: int
    batch: int
    lr_g: float
    lr_d: float
    least_squares: bool


DIGITS = Settings(32, 64, 1e-4, 3e-4, least_squares=True)
COLOUR = Settings(16, 128, 2e-4, 2e-4, least_squares=False)


def generator(channels: int, width: int) -> nn.Sequential:
    """Maps latents, B x 100 x 1 x 1, to images."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 4 * width, 4, 1, 0, bias=False)]
    for outputs in (4 * width, 2 * width, width):
        if outputs < 4 * width:
            layers += [nn.ConvTranspose2d(2 * outputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())


def discriminator(channels: int, width: int) -> nn.Sequential:
    """Maps images to scores, B x 1 x 1 x 1."""
    layers = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
    for inputs in (width, 2 * width):
        layers += [nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * inputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False), nn.LeakyReLU(SLOPE))


def initialize(module: nn.Module) -> None:
    """The initial weights of a convolution."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight)


class TorchGAN:
    """torchgan's DCGAN and trainer; see `System`."""

    ended = False

    def __init__(self, facts: Facts, settings: Settings) -> None:
        self.batch = self.images_per_step = settings.batch
        self.least_squares = settings.least_squares
        loss = "least squares" if settings.least_squares else "non-saturating"
        rates = " / ".join(f"{rate:g}" for rate in (settings.lr_g, settings.lr_d))
        self.settings = f"step_channels {settings.width}, batch {settings.batch}, Adam {rates}, {loss}"
        self.g, self.d = generator(facts.channels, settings.width), discriminator(facts.channels, settings.width)
        self.g.apply(initialize)
        self.d.apply(initialize)
        self.parameters = count_parameters(self.g, self.d)
        self.optimizer_g = Adam(self.g.parameters(), lr=settings.lr_g, betas=BETAS)
        self.optimizer_d = Adam(self.d.parameters(), lr=settings.lr_d, betas=BETAS)

    def fake(self, n: int) -> Tensor:
        """n samples with their graph."""
        return self.g(torch.randn(n, LATENT, 1, 1))

    def loss(self, scores: Tensor, target: int) -> Tensor:
        """How far the scores are from being those of real (1) or fake images (0)."""
        if self.least_squares:
            return 0.5 * (scores - target).square().mean()
        return softplus(-scores if target else scores).mean()

    def step(self, draw: Draw) -> None:
        """See `System.step`."""
        self.optimizer_g.zero_grad()
        self.loss(self.d(self.fake(self.batch)), 1).backward()
        self.optimizer_g.step()
        self.optimizer_d.zero_grad()
        real = self.d(draw(self.batch).images)
        fake = self.d(self.fake(self.batch).detach())
        (self.loss(real, 1) + self.loss(fake, 0)).backward()
        self.optimizer_d.step()

    def sample(self, n: int) -> Tensor:
        """See `System.sample`."""
        self.g.eval()
        samples = in_blocks(self.fake, n, self.batch)
        self.g.train()
        return samples


def torchgan(facts: Facts, *, tiny: bool) -> TorchGAN:
    """The settings of torchgan's example for digits, or for CIFAR-10 if the images are in colour."""
    settings = DIGITS if facts.channels == 1 else COLOUR
    return TorchGAN(facts, replace(settings, width=4, batch=8) if tiny else settings)
