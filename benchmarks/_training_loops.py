"""The training loops that `throughput.py` compares: plain ones, hand-written ones, and poise's own.

A hand-written loop takes its networks and the functions that sample real images and latents as arguments. It can
therefore run on poise's own random numbers, which shows that both compute the same (`difference`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext, Side, to_float32
from poise.data.source import ImageDataset, Source
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.step import alternate
from poise.engine.step_metrics import StepMetrics
from poise.optimizers import AdamConfig
from poise.recipe.model import Recipe
from poise.tricks.averaged_weights import AveragedWeightsConfig
from poise.tricks.gradient_penalties import R1Config
from poise.utils.images import to_float

STEPS_PER_ROW = 50
LATENT = 100
RING_LATENT, RING_WIDTH, MODES, SIGMA = 16, 128, 8, 0.01

Sampler = Callable[[], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class TrainingLoop(Protocol):
    """A loop that is timed."""

    def run(self, steps: int) -> None:
        """Train for `steps` steps, each with one move of D and one of G."""


class Networks(NamedTuple):
    """The networks of both players."""

    d: nn.Module
    g: nn.Module


class Samplers(NamedTuple):
    """The functions that draw a batch of real samples and a batch of latents for a hand-written loop."""

    real: Sampler
    latent: Sampler


class FastProjection(nn.ConvTranspose2d):
    """G's first layer: a transposed convolution of a 1 x 1 map, computed as a matrix product, ten times as fast."""

    def forward(self, latents: Tensor) -> Tensor:  # type: ignore[override]
        """B x latent to a feature map in channels_last format."""
        maps = latents @ self.weight.permute(0, 2, 3, 1).reshape(self.in_channels, -1)
        return maps.view(len(latents), *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)


class FastScore(nn.Conv2d):
    """D's last layer: a convolution over the whole feature map, computed as a matrix product."""

    def forward(self, maps: Tensor) -> Tensor:
        """A feature map in channels_last format to B x 1."""
        return linear(maps.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


def dcgan(width: int, *, fast: bool) -> Networks:
    """The networks of DCGAN-64; if `fast`, in channels_last format and with matrix products as first and last layer."""
    g: list[nn.Module] = [] if fast else [nn.Unflatten(1, (LATENT, 1, 1))]
    g += [(FastProjection if fast else nn.ConvTranspose2d)(LATENT, 8 * width, 4, bias=False)]
    g += [nn.BatchNorm2d(8 * width), nn.LeakyReLU(0.2, inplace=True)]
    d: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for k in (4, 2, 1):
        g += [nn.ConvTranspose2d(2 * k * width, k * width, 4, 2, 1, bias=False)]
        g += [nn.BatchNorm2d(k * width), nn.LeakyReLU(0.2, inplace=True)]
    for k in (2, 4, 8):
        d += [nn.Conv2d(k * width // 2, k * width, 4, 2, 1, bias=False)]
        d += [nn.BatchNorm2d(k * width), nn.LeakyReLU(0.2, inplace=True)]
    g += [nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh()]
    d += [(FastScore if fast else nn.Conv2d)(8 * width, 1, 4)]
    layout = torch.channels_last if fast else torch.contiguous_format
    return Networks(nn.Sequential(*d).to(memory_format=layout), nn.Sequential(*g).to(memory_format=layout))


def mlp() -> Networks:
    """The networks for the ring."""

    def net(in_dim: int, out_dim: int) -> nn.Sequential:
        hidden = [nn.Linear(in_dim, RING_WIDTH), nn.LeakyReLU(0.2, inplace=True)]
        hidden += [nn.Linear(RING_WIDTH, RING_WIDTH), nn.LeakyReLU(0.2, inplace=True)]
        return nn.Sequential(*hidden, nn.Linear(RING_WIDTH, out_dim))

    return Networks(net(2, 1), net(RING_LATENT, 2))


def random_images(count: int) -> ImageDataset:
    """`count` images of noise, 3 x 64 x 64."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return ImageDataset(noise)


def image_samplers(source: ImageDataset, batch: int) -> Samplers:
    """Batches of shuffled images, normalised as in poise and in channels_last format, and Gaussian latents."""
    images, batches = torch.from_numpy(source.images), torch.randperm(len(source)).split(batch)
    position = 0

    def real() -> Tensor:
        nonlocal position
        position = (position + 1) % len(batches)
        return to_float(images[batches[position]])

    return Samplers(real, lambda: torch.randn(batch, LATENT))


def ring_samplers(batch: int) -> Samplers:
    """Points of the ring, and Gaussian latents."""
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    modes = torch.stack((angle.cos(), angle.sin()), 1)

    def real() -> Tensor:
        return torch.randn(batch, 2).mul_(SIGMA).add_(modes[torch.randint(MODES, (batch,))])

    return Samplers(real, lambda: torch.randn(batch, RING_LATENT))


class ManualLoop:
    """The base class of the plain and the hand-written loop. Both support the tricks R1 and averaged weights."""

    def __init__(self, nets: Networks, samplers: Samplers, recipe: Recipe, *, fused: bool) -> None:
        self.d, self.g = nets
        self.samplers, self.batch, self.steps_done = samplers, recipe.batch, 0
        self.optimizer_d, self.optimizer_g = (adam(net, recipe, fused=fused) for net in nets)
        self.weights_d, self.weights_g = list(self.d.parameters()), list(self.g.parameters())
        self.gamma, self.mean = 0.0, None
        for trick in recipe.tricks:
            if isinstance(trick, R1Config) and trick.every == 1 and isinstance(trick.gamma, float):
                self.gamma = trick.gamma
            elif isinstance(trick, AveragedWeightsConfig):
                self.half_life, self.ramp_up = trick.half_life, trick.ramp_up
                self.mean = copy.deepcopy(self.g).requires_grad_(False)
                self.weights_mean = list(self.mean.parameters())
            else:
                raise NotImplementedError(f"the hand-written loops do not support this trick: {trick!r}")

    def penalty(self, real: Tensor, score: Tensor) -> Tensor:
        """R1: gamma / 2 times the squared norm of the gradient of D's score at the real samples."""
        (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        return gradient.square().sum(1).mean() * (self.gamma / 2)

    def decay(self) -> float:
        """The decay of the averaged weights in this step."""
        return 0.5 ** (self.batch / min(self.half_life, self.ramp_up * self.steps_done * self.batch))


class Plain(ManualLoop):
    """The loop of most tutorials.

    It makes two backward passes for D, computes unused gradients of D's weights in G's move, uses PyTorch's default
    memory format and Adam, and fetches five numbers for the log in every step. G is trained on the fake samples of D's
    move, so each step generates one batch; poise and the hand-written loop generate a new batch for G.
    """

    def __init__(self, nets: Networks, loss: Loss, samplers: Samplers, recipe: Recipe) -> None:
        super().__init__(nets, samplers, recipe, fused=False)
        self.loss = loss
        self.log: list[tuple[float, ...]] = []

    def run(self, steps: int) -> None:
        """See `TrainingLoop.run`."""
        d, g, loss = self.d, self.g, self.loss
        for _ in range(steps):
            d.zero_grad()
            real = self.samplers.real().contiguous().requires_grad_(self.gamma > 0)
            score = d(real).view(-1)
            one, zero = torch.ones_like(score), torch.zeros_like(score)
            loss_real = loss(score, one) + (self.penalty(real, score) if self.gamma else 0)
            loss_real.backward()
            real_score = score.mean().item()
            fake = g(self.samplers.latent())
            score = d(fake.detach()).view(-1)
            loss_fake = loss(score, zero)
            loss_fake.backward()
            fake_score = score.mean().item()
            self.optimizer_d.step()
            g.zero_grad()
            score = d(fake).view(-1)
            loss_g = loss(score, one)
            loss_g.backward()
            new_score = score.mean().item()
            self.log.append(((loss_real + loss_fake).item(), loss_g.item(), real_score, fake_score, new_score))
            self.optimizer_g.step()
            self.steps_done += 1
            if self.mean is not None:
                decay = self.decay()
                for average, weight in zip(self.mean.parameters(), g.parameters(), strict=True):
                    average.mul_(decay).add_(weight.detach(), alpha=1 - decay)


class HandWritten(ManualLoop):
    """The fastest loop known to us that computes the same as poise's step, and nothing else.

    It makes one backward pass for D, computes no gradients of D's weights in G's move and no graph of the fake samples
    in D's move, uses the fused Adam, and logs nothing. D is run once on the concatenated real and fake samples, unless
    this changes the result (a batch norm in D) or costs time (a penalty at the real samples only).
    """

    def __init__(self, nets: Networks, samplers: Samplers, recipe: Recipe, *, bf16: bool = False) -> None:
        super().__init__(nets, samplers, recipe, fused=True)
        self.bf16 = bf16
        self.concatenates = not self.gamma and not any(isinstance(m, nn.BatchNorm2d) for m in self.d.modules())

    def run(self, steps: int) -> None:
        """See `TrainingLoop.run`."""
        for _ in range(steps):
            loss = self.d_loss(self.samplers.real())
            for weight in self.weights_d:
                weight.grad = None
            loss.backward()
            self.optimizer_d.step()
            for weight in self.weights_d:
                weight.requires_grad_(False)
            with self.autocast():
                fake = to_float32(self.d(to_float32(self.g(self.samplers.latent()))))
            for weight in self.weights_g:
                weight.grad = None
            (-logsigmoid(fake).mean()).backward()
            self.optimizer_g.step()
            for weight in self.weights_d:
                weight.requires_grad_(True)
            self.steps_done += 1
            if self.mean is not None:
                with torch.no_grad():
                    torch._foreach_lerp_(self.weights_mean, self.weights_g, 1 - self.decay())

    def d_loss(self, real: Tensor) -> Tensor:
        """D's loss for real samples and a new batch of fake ones."""
        with self.autocast():
            with torch.no_grad():
                fake = to_float32(self.g(self.samplers.latent()))
            if self.concatenates:
                both = to_float32(self.d(torch.cat((real, fake))))
                real_score, fake_score = both[: len(real)], both[len(real) :]
            else:
                real.requires_grad_(self.gamma > 0)
                real_score, fake_score = to_float32(self.d(real)), to_float32(self.d(fake))
        loss = -logsigmoid(real_score).mean() - logsigmoid(-fake_score).mean()
        return loss + self.penalty(real, real_score) if self.gamma else loss

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the forward passes, as a context manager."""
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()


class Poise:
    """poise's own step. The metrics are reduced every 50 steps and at the end of each call of `run`."""

    def __init__(self, recipe: Recipe, source: Source, compute: ComputeSettings) -> None:
        self.recipe, self.streams, self.steps_done = recipe, RandomStreams(recipe.seed, compute.device), 0
        self.game = build_game(recipe, source.spec(), compute, self.streams)
        self.batches = RealBatches(source, compute.device, self.game.tempo.max_moves.d)
        self.metrics = StepMetrics()

    def run(self, steps: int) -> None:
        """See `TrainingLoop.run`."""
        for remaining in range(steps - 1, -1, -1):
            context = MoveContext(self.steps_done, self.recipe.steps, self.recipe.batch, self.streams)
            self.streams.seed_global("step", self.steps_done)
            alternate(self.game, self.batches, context, self.metrics)
            self.steps_done += 1
            if self.steps_done % STEPS_PER_ROW == 0 or remaining == 0:
                self.metrics.reduce()


def adam(net: nn.Module, recipe: Recipe, *, fused: bool) -> torch.optim.Adam:
    """Adam with the recipe's options; in PyTorch's default implementation if not `fused`."""
    config = recipe.optimizer.d
    assert isinstance(config, AdamConfig)
    assert isinstance(config.lr, float)
    return torch.optim.Adam(net.parameters(), config.lr, config.betas, config.eps, fused=fused or None)


def difference(poise: Poise, hand: HandWritten, steps: int) -> float:
    """The largest difference between tensors of both loops after `steps` steps, relative to the norm of the tensor.

    Both loops start with poise's weights and use the samples and latents that poise draws. They run in float64: in
    float32 the last bit can decide on which side of a kink an activation lies, and Adam turns that into a whole step.
    """
    nets = [(hand.d, poise.game.players[Side.D].net), (hand.g, poise.game.players[Side.G].net)]
    nets += [] if hand.mean is None else [(hand.mean, poise.game.sampling_network())]
    for own, reference in nets:
        own.load_state_dict(dict(zip(own.state_dict(), reference.state_dict().values(), strict=True)))
        for net in (own, reference):
            net.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    contexts = [MoveContext(step, steps, poise.recipe.batch, RandomStreams(poise.recipe.seed)) for step in range(steps)]
    moves = (context.for_move(side, 0) for context in contexts for side in (Side.D, Side.G))
    latents = (poise.recipe.latent.sample(move.batch_size, move.generator("latents")) for move in moves)
    reals = (poise.batches.load(context)[0] for context in contexts)
    hand.samplers = Samplers(reals.__next__, latents.__next__)
    hand.run(steps)
    poise.run(steps)
    return max(float((a - b).norm() / b.norm()) for pair in nets for a, b in zip(*map(tensors, pair), strict=True))


def tensors(net: nn.Module) -> list[Tensor]:
    """The weights and buffers, in float64."""
    return [x.detach().double() for x in (*net.parameters(), *net.buffers())]
