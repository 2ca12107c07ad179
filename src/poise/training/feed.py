"""The feed: which reals a move gets, as a function of (seed, step, turn), ready on the device."""

from __future__ import annotations

import torch

from poise.core import Batch, Moment
from poise.data.source import Source, to_signed


class Feed:
    """Batches of `source` on `device`; `most` is the most moves that D can get in a step.

    G's move k sees the reals of D's move k, so that an objective that compares pairs them (Jolicoeur-
    Martineau 2019) and G's looking never shifts D's order.
    """

    def __init__(self, source: Source, device: torch.device, most: int) -> None:
        self.source, self.device, self.most = source, device, most

    def batch(self, moment: Moment) -> Batch:
        """The batch of this move."""
        index = moment.step * self.most + min(moment.turn, self.most - 1)
        images, labels = self.source.batch(index, moment.batch, moment.dice)
        ready = to_signed(images, self.device) if images.dtype == torch.uint8 else images.to(self.device)
        return Batch(ready, None if labels is None else labels.to(self.device))
