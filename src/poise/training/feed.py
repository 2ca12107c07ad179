"""The feed: which reals a move gets, as a function of (seed, step, turn), ready on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core import Moment
from poise.data.source import Source, to_signed


class Feed:
    """Batches of `source` on `device`; `most` is the most moves that D can get in a step.

    G's move k sees the reals of D's move k, so that an objective that compares pairs them (Jolicoeur-
    Martineau 2019) and G's looking never shifts D's order. The labels G is asked for are that batch's too:
    classes come as often as they do in the data.
    """

    def __init__(self, source: Source, device: torch.device, most: int) -> None:
        self.source, self.device, self.most = source, device, most

    def draw(self, moment: Moment, *, reals: bool = True, labels: bool = False) -> tuple[Tensor | None, Tensor | None]:
        """This move's reals, B x shape in [-1, 1], and their labels, B; None for what is not asked for."""
        asked = moment.step * self.most + min(moment.turn, self.most - 1), moment.batch, moment.dice
        images, classes = None, None
        if reals:
            images, classes = self.source.batch(*asked)
        elif labels:
            classes = self.source.labels_of(*asked)
        ready = None if images is None else self._ready(images)
        if not labels:
            return ready, None
        if classes is None:
            raise ValueError("this data has no labels")  # `fit` refuses such a recipe with a cure
        return ready, classes.to(self.device)

    def _ready(self, images: Tensor) -> Tensor:
        return to_signed(images, self.device) if images.dtype == torch.uint8 else images.to(self.device)
