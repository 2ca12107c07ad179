"""Frames of a GAN on 2-D points while it trains: generated points, D's score around them, and where G is pushed.

`runs/frames.py` describes what is stored. The latents are always the same, networks are in evaluation mode and random
layers draw from a stream of their own, so a run with frames is bit-identical to one without. G is the one that trains,
with its non-averaged weights, because the arrows are its gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext, Side
from poise.data.source import Source
from poise.engine.game import Game
from poise.latents import Latent
from poise.networks.base import call_network, mixes_samples
from poise.recipe.model import Recipe
from poise.runs.frames import GRID, POINTS, REALS, Records, Region, encode_frame, encode_header

MAX_SHARE = 0.03
"""The largest share of the time of training that frames may take; above it they become fewer."""


class FrameClock:
    """Says when the next frame is due: at most `rate` times a second, and never above `MAX_SHARE` of the time.

    Args:
        rate: the largest number of frames per second, above 0.
        now: the clock, in seconds.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.perf_counter) -> None:
        self.rate, self._now = rate, now
        self._start = self._next = now()
        self._spent = 0.0

    def is_due(self) -> bool:
        """Whether a frame is due."""
        now = self._now()
        return now >= self._next and self._spent <= MAX_SHARE * (now - self._start)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A context in which a frame is drawn and written; its time counts."""
        began = self._now()
        try:
            yield
        finally:
            self._spent += self._now() - began
            self._next = began + 1 / self.rate


def has_frames(recipe: Recipe, source: Source) -> bool:
    """Whether frames are drawn of a run: its samples are points in the plane, and `log.frames` is not 0."""
    return tuple(source.shape) == (2,) and recipe.log.frames > 0


class FrameDrawer:
    """Draws the frames of one run.

    Args:
        recipe: the recipe.
        source: the training data, points in the plane.
        latent: the distribution of the latents.
        streams: the run's random streams.

    Attributes:
        region: the part of the plane that is shown.
        header: the header of the file of frames.
    """

    def __init__(self, recipe: Recipe, source: Source, latent: Latent, streams: RandomStreams) -> None:
        real = source.preview(REALS).float()
        self.region, self.header = Region.around(real.numpy()), encode_header(real.numpy())
        self.streams, self.pack = streams, recipe.pack
        self.threshold = recipe.objective.decision_threshold
        self.steps, self.batch_size = recipe.steps, recipe.batch
        size = POINTS + -POINTS % self.pack  # whole packs
        self.latents = latent.sample(size, streams("frames"))
        self.real = real.to(streams.device)
        self.cells = torch.from_numpy(self.region.cell_centres()).to(streams.device)

    def draw(self, game: Game, step: int) -> Records:
        """The frame of a game after `step` steps. Without a discriminator it has the points alone."""
        nets = [player.net for player in game.players.values()]
        with evaluation_mode(*nets), self.streams.seeded_global("frames/layers"):
            with torch.no_grad():
                points = call_network(game.g.net, self.latents, None).float()
            if game.d is None:
                return encode_frame(step, self.region, points[:POINTS].cpu().numpy())
            pushes = self._pushes(game, game.d.net, points, step)
            scores = self._scores(game.d.net)
        shown, arrows = (part[:POINTS].cpu().numpy() for part in (points, pushes))
        return encode_frame(step, self.region, shown, arrows, scores.cpu().numpy(), self.threshold)

    def _pushes(self, game: Game, d: nn.Module, points: Tensor, step: int) -> Tensor:
        """The negative gradient of G's loss by each of n points, n x 2, times n, so that it does not depend on n.

        The loss is the objective's alone: tricks that add terms, or that change D's input, have no part in it.
        """
        context = MoveContext(step, self.steps, self.batch_size, self.streams, Side.G)
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            real = None
            if game.objective.is_relativistic:
                real = call_network(d, self.real[torch.arange(len(points)) % REALS], None).score
            fake = call_network(d, points, None).score
            loss = torch.stack([part.float().mean() for part in game.objective.g_losses(fake, real, context)]).sum()
            (gradient,) = torch.autograd.grad(loss, points)
        return -len(points) * gradient

    @torch.no_grad()
    def _scores(self, d: nn.Module) -> Tensor:
        """D's score at each cell of the grid, GRID * GRID.

        A D that scores packs gets each cell in a pack with the first real points. One that compares the samples of a
        batch gets the cells in four batches, each of which is spread over the whole region.
        """
        batches = 4 if mixes_samples(d) else 1
        scores = torch.empty(GRID * GRID, device=self.cells.device)
        for first in range(batches):
            packs = with_companions(self.cells[first::batches], self.real, self.pack)
            scores[first::batches] = call_network(d, packs, None).score.float()
        return scores


def with_companions(points: Tensor, others: Tensor, pack: int) -> Tensor:
    """Each of n points followed by the first pack - 1 of `others`, which are repeated if need be: n * pack x 2."""
    companions = others[torch.arange(pack - 1) % len(others)].expand(len(points), -1, -1)
    return torch.cat((points[:, None], companions), 1).flatten(0, 1)


@contextmanager
def evaluation_mode(*nets: nn.Module) -> Iterator[None]:
    """A context in which networks are in evaluation mode; their modes are restored afterwards."""
    with ExitStack() as restore:
        for net in nets:
            restore.callback(net.train, net.training)
            net.eval()
        yield
