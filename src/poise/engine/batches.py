"""The batches of real samples: which ones a move gets is a function of (seed, step, turn)."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext
from poise.data.source import SizedSource, Source
from poise.utils.images import to_float


class RealBatches:
    """Loads the real samples of each move onto the device.

    G's move k gets the real samples of D's move k. So a relativistic objective compares the same pairs in both moves
    (Jolicoeur-Martineau 2019), and G's moves don't change the order in which D sees the data. G is conditioned on the
    labels of the same batch, which makes classes as frequent as they are in the data.

    Args:
        source: the training data.
        device: where the samples are needed.
        max_d_moves: the largest number of moves that D can make in a step.
    """

    def __init__(self, source: Source, device: torch.device, max_d_moves: int) -> None:
        self.source, self.device, self.max_d_moves = source, device, max_d_moves

    def load(
        self, context: MoveContext, *, real: bool = True, labels: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """This move's real samples, B x shape in [-1, 1], and their labels, B; None for what is not requested.

        Raises:
            ValueError: labels are requested and the data has none.
        """
        batch = self._batch(context)
        images, classes = None, None
        if real:
            images, classes = self.source.batch(*batch)
        elif labels:
            classes = self.source.batch_labels(*batch)
        samples = None if images is None else self._to_device(images)
        if not labels:
            return samples, None
        if classes is None:
            raise ValueError("this data has no labels")  # `check_compatibility` refuses such a recipe with a cure
        return samples, classes.to(self.device)

    def indices(self, context: MoveContext) -> Tensor:
        """The indices of this move's real samples in the data, int64, B.

        Raises:
            ValueError: the data is endless.
        """
        if not isinstance(self.source, SizedSource):
            raise ValueError("endless data has no indices")  # `check_players` refuses such a recipe with a cure
        return self.source.batch_indices(*self._batch(context)).to(self.device)

    def _batch(self, context: MoveContext) -> tuple[int, int, RandomStreams]:
        """The arguments of `Source.batch`: the batch's index, its size, the streams that order the data."""
        index = context.step * self.max_d_moves + min(context.turn, self.max_d_moves - 1)
        return index, context.batch_size, context.streams

    def _to_device(self, images: Tensor) -> Tensor:
        return to_float(images, self.device) if images.dtype == torch.uint8 else images.to(self.device)
