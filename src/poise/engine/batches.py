"""The feed: which reals a move gets, as a function of (seed, step, turn), ready on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext
from poise.data.source import SizedSource, Source
from poise.utils.images import to_float


class RealBatches:
    """Batches of `source` on `device`; `most` is the most moves that D can get in a step.

    G's move k sees the reals of D's move k, so that an objective that compares pairs them (Jolicoeur-
    Martineau 2019) and G's looking never shifts D's order. The labels G is asked for are that batch's too:
    classes come as often as they do in the data.
    """

    def __init__(self, source: Source, device: torch.device, max_d_moves: int) -> None:
        self.source, self.device, self.max_d_moves = source, device, max_d_moves

    def load(
        self, context: MoveContext, *, real: bool = True, labels: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """This move's reals, B x shape in [-1, 1], and their labels, B; None for what is not asked for."""
        asked = self._asked(context)
        images, classes = None, None
        if real:
            images, classes = self.source.batch(*asked)
        elif labels:
            classes = self.source.batch_labels(*asked)
        ready = None if images is None else self._ready(images)
        if not labels:
            return ready, None
        if classes is None:
            raise ValueError("this data has no labels")  # `fit` refuses such a recipe with a cure
        return ready, classes.to(self.device)

    def indices(self, context: MoveContext) -> Tensor:
        """Where in the data this move's reals stand, int64, B; for data that has an end."""
        if not isinstance(self.source, SizedSource):
            raise ValueError("this data has no places")  # `fit` refuses such a recipe with a cure
        return self.source.batch_indices(*self._asked(context)).to(self.device)

    def _asked(self, context: MoveContext) -> tuple[int, int, RandomStreams]:
        """Which batch, of what size, in what order."""
        return (
            context.step * self.max_d_moves + min(context.turn, self.max_d_moves - 1),
            context.batch_size,
            context.streams,
        )

    def _ready(self, images: Tensor) -> Tensor:
        return to_float(images, self.device) if images.dtype == torch.uint8 else images.to(self.device)
