"""The feed: which reals a move gets, as a function of (seed, step, turn), ready on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core import Moment
from poise.data.source import Finite, Source, to_signed
from poise.randomness import Dice


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
        asked = self._asked(moment)
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

    def places(self, moment: Moment) -> Tensor:
        """Where in the data this move's reals stand, int64, B; for data that has an end."""
        if not isinstance(self.source, Finite):
            raise ValueError("this data has no places")  # `fit` refuses such a recipe with a cure
        return self.source.places(*self._asked(moment)).to(self.device)

    def _asked(self, moment: Moment) -> tuple[int, int, Dice]:
        """Which batch, of what size, in what order."""
        return moment.step * self.most + min(moment.turn, self.most - 1), moment.batch, moment.dice

    def _ready(self, images: Tensor) -> Tensor:
        return to_signed(images, self.device) if images.dtype == torch.uint8 else images.to(self.device)
