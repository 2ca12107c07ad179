"""The ranks of a run: the processes that train it together, each on its part of every batch.

A `Ranks` is one process alone: all of its methods return at once. `poise.core.process_ranks` has several processes. A
method that communicates must be called by all ranks, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Ranks:
    """One process, which has the whole batch.

    Attributes:
        rank: the number of this process, from 0. Rank 0 leads: it alone writes.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def simultaneous(self) -> Ranks:
        """The ranks that compute at the same time, to which this one's tensors can be gathered."""
        return self

    def part(self, batch: Tensor) -> Tensor:
        """This rank's part, B / size x ..., of a tensor with the entries of the whole batch, B x ...

        Part r has the entries r B / size to (r + 1) B / size - 1; B is a multiple of the number of ranks.
        """
        if self.size == 1:
            return batch
        count = len(batch) // self.size
        return batch[self.rank * count : (self.rank + 1) * count]

    def gather(self, part: Tensor) -> Tensor:
        """The entries of the whole batch, B x ..., from the parts of all ranks, in their order; without a gradient."""
        return part

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks; without a gradient."""
        return value

    def differentiable_mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks, twice differentiable.

        Its gradient is that of the mean of all ranks' losses. All ranks must compute and differentiate the same graph,
        as the backward pass communicates as well.
        """
        return value

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all ranks, in place."""

    def copy_from_leader(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""

    def highest(self, number: int) -> int:
        """The highest number that any rank gives. Waits for the other ranks."""
        return number

    def texts(self, text: str) -> list[str]:
        """The texts that the ranks give, in their order. Waits for the other ranks."""
        return [text]


ALONE = Ranks()
"""A process that trains alone."""


class PartOfRank(Ranks):
    """One of the parts that a rank divides its part of the batch into, when it accumulates gradients.

    The parts are numbered like ranks: part k of n on rank r is number r n + k. They are computed one after another, so
    what is gathered or averaged are the k-th parts of all ranks.

    Args:
        ranks: the ranks.
        number: the number of the part on its rank, from 0.
        parts: the number of parts on each rank.
    """

    def __init__(self, ranks: Ranks, number: int, parts: int) -> None:
        self.ranks, self.number = ranks, number
        self.rank, self.size = ranks.rank * parts + number, ranks.size * parts

    @property
    def simultaneous(self) -> Ranks:
        """See `Ranks.simultaneous`."""
        return self.ranks

    def gather(self, part: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        return self.ranks.gather(part)

    def mean(self, value: Tensor) -> Tensor:
        """See `Ranks.mean`."""
        return self.ranks.mean(value)

    def differentiable_mean(self, value: Tensor) -> Tensor:
        """See `Ranks.differentiable_mean`."""
        return self.ranks.differentiable_mean(value)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks.average`."""
        self.ranks.average(tensors)
