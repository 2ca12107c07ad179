"""StudioGAN's DCGAN and SNGAN for CIFAR-10.

Source: POSTECH-CVLab/PyTorch-StudioGAN, `src/configs/CIFAR10/DCGAN.yaml` and `SNGAN.yaml` with the defaults of
`src/config.py`; networks from `src/models/deep_conv.py` and `resnet.py` with the layers of `src/utils/ops.py`; the loop
from `src/worker.py`.

- Both: Gaussian latents of 128 dimensions, batches of 64, Adam at 2e-4 with betas 0.5 and 0.999 and epsilon 1e-6,
  orthogonal initial weights, ReLU, batch norms with epsilon 1e-4, flipped images, no averaged weights.
- DCGAN: transposed convolutions, a D of pairs of convolutions with batch norm, the non-saturating loss, two updates of
  D per step.
- SNGAN: residual networks of 256 channels in G and 128 in D, spectral norm in D, the hinge loss, five updates of D per
  step. It is conditional: batch norms of G depend on the class, and D has a projection. So it uses the labels, which
  the others don't.

D is updated first, each time with new real images; its fake samples don't change G's running statistics, with which
samples are drawn. Its `-mpc` (mixed precision) is for CUDA only, so everything is in float32. Digits are not flipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu, softplus
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam

from _peers import Draw, Facts, count_parameters, in_blocks

LATENT, BATCH, LR, BETAS, EPSILON = 128, 64, 2e-4, (0.5, 0.999), 1e-6


def batch_norm(channels: int, *, affine: bool = True) -> nn.BatchNorm2d:
    """A batch norm with StudioGAN's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-4, affine=affine)


def initialize(module: nn.Module) -> None:
    """Orthogonal weights and no bias in every layer but norms."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
        nn.init.orthogonal_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


def normalize(module: nn.Module) -> None:
    """Add spectral norm to a layer; its estimate starts from the initial weight, so this comes after `initialize`."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
        spectral_norm(module, eps=1e-6)


class PlainGenerator(nn.Module):
    """G of the DCGAN: 4 x 4 maps, three transposed convolutions and a convolution.

    Args:
        channels: those of an image.
        width: the number of channels next to the image.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(LATENT, 8 * width * 16), nn.Unflatten(1, (8 * width, 4, 4))]
        for outputs in (4 * width, 2 * width, width):
            layers += [nn.ConvTranspose2d(2 * outputs, outputs, 4, 2, 1), batch_norm(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents, B x 128, to images; the labels are not used."""
        return self.layers(latents)


class PlainDiscriminator(nn.Module):
    """D of the DCGAN: three pairs of convolutions, another one, and a linear layer of the sum over all places."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for outputs in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), batch_norm(outputs), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(outputs, outputs, 4, 2, 1), batch_norm(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers += [nn.Conv2d(4 * width, 8 * width, 3, 1, 1), batch_norm(8 * width), nn.ReLU(inplace=True)]
        self.layers, self.score = nn.Sequential(*layers), nn.Linear(8 * width, 1)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images to scores, B; the labels are not used."""
        return self.score(self.layers(images).sum((2, 3))).flatten()


class ConditionalNorm(nn.Module):
    """A batch norm whose gain, around 1, and bias are linear in the one-hot class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = batch_norm(channels, affine=False)
        self.gain, self.bias = (nn.Linear(classes, channels, bias=False) for _ in range(2))

    def forward(self, maps: Tensor, one_hot: Tensor) -> Tensor:
        """Normalise maps of images whose classes are `one_hot`, B x classes."""
        gain, bias = (layer(one_hot)[:, :, None, None] for layer in (self.gain, self.bias))
        return self.norm(maps) * (1 + gain) + bias


class UpBlock(nn.Module):
    """A residual block of G, which doubles the sides."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionalNorm(width, classes), ConditionalNorm(width, classes)
        self.skip = nn.Conv2d(width, width, 1)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, maps: Tensor, one_hot: Tensor) -> Tensor:
        """Maps, B x C x H x W, to B x C x 2H x 2W."""
        out = self.conv1(interpolate(relu(self.norm1(maps, one_hot)), scale_factor=2))
        out = self.conv2(relu(self.norm2(out, one_hot)))
        return out + self.skip(interpolate(maps, scale_factor=2))


class ResidualGenerator(nn.Module):
    """G of the SNGAN: 4 x 4 maps and three residual blocks."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.start = nn.Sequential(nn.Linear(LATENT, 16 * width), nn.Unflatten(1, (width, 4, 4)))
        self.blocks = nn.ModuleList(UpBlock(width, classes) for _ in range(3))
        last = nn.Conv2d(width, channels, 3, padding=1)
        self.end = nn.Sequential(batch_norm(width), nn.ReLU(inplace=True), last, nn.Tanh())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents, B x 128, and classes, B, to images."""
        maps, one_hot = self.start(latents), nn.functional.one_hot(labels, self.classes).float()
        for block in self.blocks:
            maps = block(maps, one_hot)
        return self.end(maps)


class DownBlock(nn.Module):
    """A residual block of D. Its input is activated in place, so the skip connection starts from activated maps.

    Args:
        inputs: the channels of its input.
        width: those of its output.
        first: whether its input is an image, which is not activated and is made smaller before the skip connection's
            convolution.
        halves: whether it halves the sides.
    """

    def __init__(self, inputs: int, width: int, *, first: bool = False, halves: bool = True) -> None:
        super().__init__()
        self.first, self.pool = first, nn.AvgPool2d(2) if halves else nn.Identity()
        self.skip = nn.Conv2d(inputs, width, 1) if halves else nn.Identity()
        self.conv1, self.conv2 = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to B x width x H/2 x W/2, or x H x W."""
        maps = maps if self.first else relu(maps)
        skip = self.skip(self.pool(maps)) if self.first else self.pool(self.skip(maps))
        return self.pool(self.conv2(relu(self.conv1(maps)))) + skip


class ResidualDiscriminator(nn.Module):
    """D of the SNGAN: four residual blocks, of which the first two halve the sides, and a projection of the class."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = [DownBlock(channels, width, first=True), DownBlock(width, width)]
        blocks += [DownBlock(width, width, halves=False) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.score, self.embedding = nn.Linear(width, 1), nn.Embedding(classes, width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images and classes, B, to scores, B."""
        features = relu(self.blocks(images)).sum((2, 3))
        return self.score(features).flatten() + (self.embedding(labels) * features).sum(1)


class Loss(NamedTuple):
    """The losses of D, of real and fake scores, and of G."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]


VANILLA = Loss(lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda fake: softplus(-fake).mean())
HINGE = Loss(lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda fake: -fake.mean())


class StudioGAN:
    """StudioGAN's loop; see `System`.

    Args:
        facts: the training images.
        g: maps latents and classes to images.
        d: maps images and classes to scores.
        loss: the losses.
        d_updates: the number of updates of D per step.
        batch: the batch size.
        settings: see `System`.
    """

    ended = False

    def __init__(
        self, facts: Facts, g: nn.Module, d: nn.Module, loss: Loss, d_updates: int, batch: int, settings: str
    ) -> None:
        self.facts, self.g, self.d, self.loss = facts, g, d, loss
        self.d_updates, self.batch, self.images_per_step = d_updates, batch, d_updates * batch
        self.settings = f"{settings}, batch {batch}, Adam {LR:g}, {d_updates} updates of D per step"
        self.parameters = count_parameters(g, d)
        self.optimizer_g, self.optimizer_d = (Adam(net.parameters(), lr=LR, betas=BETAS, eps=EPSILON) for net in (g, d))

    def fake(self, n: int) -> tuple[Tensor, Tensor]:
        """n samples and their classes, which are drawn at random."""
        labels = torch.randint(self.facts.classes, (n,))
        return self.g(torch.randn(n, LATENT), labels), labels

    def train_player(self, *, g: bool) -> None:
        """Let only G, or only D, have gradients, and only G's own update change its running statistics."""
        self.g.requires_grad_(g)
        self.d.requires_grad_(not g)
        for module in self.g.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = g

    def step(self, draw: Draw) -> None:
        """See `System.step`."""
        self.train_player(g=False)
        for _ in range(self.d_updates):
            images, labels = draw(self.batch)
            if self.facts.flips:
                images = torch.where(torch.rand(self.batch, 1, 1, 1) < 0.5, images.flip(3), images)
            self.optimizer_d.zero_grad()
            fakes, fake_labels = self.fake(self.batch)
            real = self.d(images, labels)
            self.loss.d(real, self.d(fakes, fake_labels)).backward()
            self.optimizer_d.step()
        self.train_player(g=True)
        self.optimizer_g.zero_grad()
        self.loss.g(self.d(*self.fake(self.batch))).backward()
        self.optimizer_g.step()

    def sample(self, n: int) -> Tensor:
        """See `System.sample`."""
        self.g.eval()
        samples = in_blocks(lambda size: self.fake(size)[0], n, self.batch)
        self.g.train()
        return samples


def studiogan_dcgan(facts: Facts, *, tiny: bool) -> StudioGAN:
    """`configs/CIFAR10/DCGAN.yaml`."""
    width = 4 if tiny else 64
    g, d = PlainGenerator(facts.channels, width), PlainDiscriminator(facts.channels, width)
    g.apply(initialize)
    d.apply(initialize)
    return StudioGAN(facts, g, d, VANILLA, 2, 8 if tiny else BATCH, "DCGAN.yaml")


def studiogan_sngan(facts: Facts, *, tiny: bool) -> StudioGAN:
    """`configs/CIFAR10/SNGAN.yaml`."""
    width = 2 if tiny else 64
    g = ResidualGenerator(facts.channels, 4 * width, facts.classes)
    d = ResidualDiscriminator(facts.channels, 2 * width, facts.classes)
    g.apply(initialize)
    d.apply(initialize)
    d.apply(normalize)
    return StudioGAN(facts, g, d, HINGE, 5, 8 if tiny else BATCH, "SNGAN.yaml (conditional)")
