"""The loops that `throughput.py` races: plain ones, hand-written ones, and poise's own.

A hand-written loop is told its networks, optimisers and where reals and latents come from, so that it can
be fed poise's own random numbers and be shown to do the same mathematics (`difference`).
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

ROW = 50
LATENT = 100
RING_LATENT, RING_WIDTH, MODES, SIGMA = 16, 128, 8, 0.01

Draw = Callable[[], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Contestant(Protocol):
    """A trainer that is timed."""

    def run(self, steps: int) -> None:
        """Train for `steps` steps of two moves, D's and G's."""


class Nets(NamedTuple):
    """Both players' networks."""

    d: nn.Module
    g: nn.Module


class Draws(NamedTuple):
    """Where a hand-written loop's numbers come from; each call draws the next ones."""

    real: Draw
    latent: Draw


class Project(nn.ConvTranspose2d):
    """G's first layer: a transposed convolution of a 1 x 1 map is a matrix product, and ten times as fast so."""

    def forward(self, latents: Tensor) -> Tensor:  # type: ignore[override]
        """B x latent to a map in channels_last."""
        maps = latents @ self.weight.permute(0, 2, 3, 1).reshape(self.in_channels, -1)
        return maps.view(len(latents), *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)


class Judge(nn.Conv2d):
    """D's last layer: a convolution that covers its whole map is a matrix product."""

    def forward(self, maps: Tensor) -> Tensor:
        """A map in channels_last to B x 1."""
        return linear(maps.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


def dcgan(width: int, *, fast: bool) -> Nets:
    """DCGAN-64's players; `fast` are the same functions in channels_last, their narrow ends as products."""
    g: list[nn.Module] = [] if fast else [nn.Unflatten(1, (LATENT, 1, 1))]
    g += [(Project if fast else nn.ConvTranspose2d)(LATENT, 8 * width, 4, bias=False)]
    g += [nn.BatchNorm2d(8 * width), nn.LeakyReLU(0.2, inplace=True)]
    d: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for k in (4, 2, 1):
        g += [nn.ConvTranspose2d(2 * k * width, k * width, 4, 2, 1, bias=False)]
        g += [nn.BatchNorm2d(k * width), nn.LeakyReLU(0.2, inplace=True)]
    for k in (2, 4, 8):
        d += [nn.Conv2d(k * width // 2, k * width, 4, 2, 1, bias=False)]
        d += [nn.BatchNorm2d(k * width), nn.LeakyReLU(0.2, inplace=True)]
    g += [nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh()]
    d += [(Judge if fast else nn.Conv2d)(8 * width, 1, 4)]
    layout = torch.channels_last if fast else torch.contiguous_format
    return Nets(nn.Sequential(*d).to(memory_format=layout), nn.Sequential(*g).to(memory_format=layout))


def mlp() -> Nets:
    """The ring's players."""

    def net(here: int, there: int) -> nn.Sequential:
        hidden = [nn.Linear(here, RING_WIDTH), nn.LeakyReLU(0.2, inplace=True)]
        hidden += [nn.Linear(RING_WIDTH, RING_WIDTH), nn.LeakyReLU(0.2, inplace=True)]
        return nn.Sequential(*hidden, nn.Linear(RING_WIDTH, there))

    return Nets(net(2, 1), net(RING_LATENT, 2))


def random_pictures(count: int) -> ImageDataset:
    """`count` pictures of noise, 3 x 64 x 64."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return ImageDataset(noise)


def picture_draws(source: ImageDataset, batch: int) -> Draws:
    """Batches of shuffled pictures, normalised as poise does it, in channels_last; Gaussian latents."""
    pool, order = torch.from_numpy(source.images), torch.randperm(len(source)).split(batch)
    at = 0

    def real() -> Tensor:
        nonlocal at
        at = (at + 1) % len(order)
        return to_float(pool[order[at]])

    return Draws(real, lambda: torch.randn(batch, LATENT))


def ring_draws(batch: int) -> Draws:
    """Points of the ring, Gaussian latents."""
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    modes = torch.stack((angle.cos(), angle.sin()), 1)

    def real() -> Tensor:
        return torch.randn(batch, 2).mul_(SIGMA).add_(modes[torch.randint(MODES, (batch,))])

    return Draws(real, lambda: torch.randn(batch, RING_LATENT))


class ByHand:
    """What both loops below are made of; of tricks they know R1 and averaged weights."""

    def __init__(self, nets: Nets, draws: Draws, recipe: Recipe, *, fused: bool) -> None:
        self.d, self.g = nets
        self.draws, self.batch, self.done = draws, recipe.batch, 0
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
                raise NotImplementedError(f"the hand-written loops do not know this trick: {trick!r}")

    def penalty(self, real: Tensor, said: Tensor) -> Tensor:
        """R1 times gamma: half the squared slope of D's score at the reals."""
        (slope,) = torch.autograd.grad(said.sum(), real, create_graph=True)
        return slope.square().sum(1).mean() * (self.gamma / 2)

    def beta(self) -> float:
        """How much of the average stays after this step."""
        return 0.5 ** (self.batch / min(self.half_life, self.ramp_up * self.done * self.batch))


class Plain(ByHand):
    """The loop that most tutorials write.

    Two backward passes for D, G through a D that collects gradients which nobody reads, PyTorch's default
    layout and Adam, and five numbers fetched for the log in every step. G is trained on the very fakes that
    D has just seen, so that a step makes them once; poise and the hand-written loop draw new ones for G.
    """

    def __init__(self, nets: Nets, loss: Loss, draws: Draws, recipe: Recipe) -> None:
        super().__init__(nets, draws, recipe, fused=False)
        self.loss = loss
        self.log: list[tuple[float, ...]] = []

    def run(self, steps: int) -> None:
        """See `Contestant`."""
        d, g, loss = self.d, self.g, self.loss
        for _ in range(steps):
            d.zero_grad()
            real = self.draws.real().contiguous().requires_grad_(self.gamma > 0)
            said = d(real).view(-1)
            one, zero = torch.ones_like(said), torch.zeros_like(said)
            cost_real = loss(said, one) + (self.penalty(real, said) if self.gamma else 0)
            cost_real.backward()
            on_real = said.mean().item()
            fake = g(self.draws.latent())
            said = d(fake.detach()).view(-1)
            cost_fake = loss(said, zero)
            cost_fake.backward()
            on_fake = said.mean().item()
            self.optimizer_d.step()
            g.zero_grad()
            said = d(fake).view(-1)
            cost_g = loss(said, one)
            cost_g.backward()
            on_new = said.mean().item()
            self.log.append(((cost_real + cost_fake).item(), cost_g.item(), on_real, on_fake, on_new))
            self.optimizer_g.step()
            self.done += 1
            if self.mean is not None:
                beta = self.beta()
                for old, new in zip(self.mean.parameters(), g.parameters(), strict=True):
                    old.mul_(beta).add_(new.detach(), alpha=1 - beta)


class HandWritten(ByHand):
    """The fastest loop known to us with the mathematics of poise's step, and nothing else.

    One backward for D, no gradients for D's weights in G's move, fakes without a graph in D's move, fused
    Adam, no log. D judges both piles in one pass where that is no other mathematics (a batch norm in D) and
    no detour (a penalty on one pile).
    """

    def __init__(self, nets: Nets, draws: Draws, recipe: Recipe, *, bf16: bool = False) -> None:
        super().__init__(nets, draws, recipe, fused=True)
        self.bf16 = bf16
        self.together = not self.gamma and not any(isinstance(m, nn.BatchNorm2d) for m in self.d.modules())

    def run(self, steps: int) -> None:
        """See `Contestant`."""
        for _ in range(steps):
            cost = self.cost_d(self.draws.real())
            for weight in self.weights_d:
                weight.grad = None
            cost.backward()
            self.optimizer_d.step()
            for weight in self.weights_d:
                weight.requires_grad_(False)
            with self.numerics():
                fake = to_float32(self.d(to_float32(self.g(self.draws.latent()))))
            for weight in self.weights_g:
                weight.grad = None
            (-logsigmoid(fake).mean()).backward()
            self.optimizer_g.step()
            for weight in self.weights_d:
                weight.requires_grad_(True)
            self.done += 1
            if self.mean is not None:
                with torch.no_grad():
                    torch._foreach_lerp_(self.weights_mean, self.weights_g, 1 - self.beta())

    def cost_d(self, real: Tensor) -> Tensor:
        """What D pays for reals and new fakes."""
        with self.numerics():
            with torch.no_grad():
                fake = to_float32(self.g(self.draws.latent()))
            if self.together:
                both = to_float32(self.d(torch.cat((real, fake))))
                on_real, on_fake = both[: len(real)], both[len(real) :]
            else:
                real.requires_grad_(self.gamma > 0)
                on_real, on_fake = to_float32(self.d(real)), to_float32(self.d(fake))
        cost = -logsigmoid(on_real).mean() - logsigmoid(-on_fake).mean()
        return cost + self.penalty(real, on_real) if self.gamma else cost

    def numerics(self) -> AbstractContextManager[object]:
        """The context of the forward passes."""
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()


class Poise:
    """poise's own step on its own game, its readings worked out every 50 steps and at the end of a block."""

    def __init__(self, recipe: Recipe, source: Source, compute: ComputeSettings) -> None:
        self.recipe, self.streams, self.done = recipe, RandomStreams(recipe.seed, compute.device), 0
        self.game = build_game(recipe, source.spec(), compute, self.streams)
        self.batches = RealBatches(source, compute.device, self.game.tempo.max_moves.d)
        self.metrics = StepMetrics()

    def run(self, steps: int) -> None:
        """See `Contestant`."""
        for last in range(steps - 1, -1, -1):
            context = MoveContext(self.done, self.recipe.steps, self.recipe.batch, self.streams)
            self.streams.seed_global("step", self.done)
            alternate(self.game, self.batches, context, self.metrics)
            self.done += 1
            if self.done % ROW == 0 or last == 0:
                self.metrics.reduce()


def adam(net: nn.Module, recipe: Recipe, *, fused: bool) -> torch.optim.Adam:
    """Adam as the recipe has it; PyTorch's default variant if not `fused`."""
    entry = recipe.optimizer.d
    assert isinstance(entry, AdamConfig)
    assert isinstance(entry.lr, float)
    return torch.optim.Adam(net.parameters(), entry.lr, entry.betas, entry.eps, fused=fused or None)


def difference(poise: Poise, hand: HandWritten, steps: int) -> float:
    """How far apart `steps` steps lead: the worst tensor, relative to its length.

    Both start with poise's weights and are fed what poise draws. In float64, because in float32 the last
    bit decides on which side of a kink an activation falls, and Adam makes a whole step of the difference.
    """
    nets = [(hand.d, poise.game.players[Side.D].net), (hand.g, poise.game.players[Side.G].net)]
    nets += [] if hand.mean is None else [(hand.mean, poise.game.sampling_network())]
    for mine, other in nets:
        mine.load_state_dict(dict(zip(mine.state_dict(), other.state_dict().values(), strict=True)))
        for net in (mine, other):
            net.double().register_forward_pre_hook(lambda _, given: (given[0].double(),))
    contexts = [MoveContext(step, steps, poise.recipe.batch, RandomStreams(poise.recipe.seed)) for step in range(steps)]
    moves = (context.for_move(side, 0) for context in contexts for side in (Side.D, Side.G))
    latents = (poise.recipe.latent.sample(move.batch_size, move.generator("latents")) for move in moves)
    reals = (poise.batches.load(context)[0] for context in contexts)
    hand.draws = Draws(reals.__next__, latents.__next__)
    hand.run(steps)
    poise.run(steps)
    return max(float((a - b).norm() / b.norm()) for pair in nets for a, b in zip(*map(tensors, pair), strict=True))


def tensors(net: nn.Module) -> list[Tensor]:
    """Weights and statistics."""
    return [x.detach().double() for x in (*net.parameters(), *net.buffers())]
