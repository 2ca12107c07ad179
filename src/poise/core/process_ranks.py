"""Several ranks, connected by `torch.distributed`: gloo between CPUs, NCCL between CUDA devices.

Collectives are made of flattened tensors, one for each type of number, so that their cost doesn't grow with the number
of tensors.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from poise.core.rank_store import store_of_start
from poise.core.ranks import Ranks
from poise.errors import RankLost, RecipeError

TIMEOUT = "POISE_RANK_TIMEOUT"
"""The environment variable for the seconds after which a rank that doesn't answer counts as lost."""

DEFAULT_TIMEOUT = 1800.0
"""As in PyTorch. A rank waits that long while rank 0 evaluates or writes."""


MAX_TIMEOUT = 7 * 86400.0
"""A week; longer times do not fit into the numbers that gloo counts with."""


@contextmanager
def connected_ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """Connect the ranks that a launcher has started, of which there are several, for the duration of the block.

    A process group that exists already is used and kept.

    Args:
        device: the device, as the user names it.

    Yields:
        The ranks, and the name of this rank's device: of several CUDA devices, the one with the rank's number on its
        machine.

    Raises:
        RecipeError: a device is given that all ranks would share, there is none for this one, or the time to wait is
            none.
        RankLost: another rank did not start.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    uses_cuda = device.startswith("cuda") or (device == "auto" and available > 0)
    if device.startswith("cuda:"):
        cure = 'write "cuda": each rank takes the device with its own number'
        raise RecipeError("can't be one device for several ranks", where="--device", found=f"'{device}'", cure=cure)
    if uses_cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        if torch.device(device).index >= available:
            cure = f"start one rank for each CUDA device of a machine, found {available}, or write --device cpu"
            raise RecipeError("this rank has no device of its own", where="--device", found=f"'{device}'", cure=cure)
        torch.cuda.set_device(device)  # on which NCCL communicates
    if dist.is_initialized():
        yield ProcessRanks(), device
        return
    _connect("nccl" if uses_cuda else "gloo", _timeout())
    try:
        yield ProcessRanks(), device
    finally:
        dist.destroy_process_group()  # the other ranks notice that this one has left


def _connect(backend: str, seconds: float) -> None:
    """Create the default process group with the other ranks of this start.

    Raises:
        RankLost: another rank did not start.
    """
    timeout = timedelta(seconds=seconds)
    with lost_ranks():
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=timeout)))
        store.set_timeout(timeout)
        own = store_of_start(store, rank, size, seconds)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def _timeout() -> float:
    """The seconds that `TIMEOUT` has, or the default.

    Raises:
        RecipeError: it is no time.
    """
    text = os.environ.get(TIMEOUT, "").strip()
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        cure = f"give seconds, more than 0 and up to {MAX_TIMEOUT:,.0f}, such as 600"
        raise RecipeError("is not a time to wait for a rank", where=TIMEOUT, found=f"'{text}'", cure=cure)
    return seconds


def reason_of(error: BaseException) -> str:
    """The first sentence of an error's message, without the place in PyTorch's code that it may begin with."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split("] ", 1)[-1].split(". ", 1)[0].strip().rstrip(".")


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Convert the errors of a collective, when another rank has died or doesn't answer, to `RankLost`."""
    try:
        yield
    except RuntimeError as error:
        what = "the connection to another rank is lost"
        raise RankLost(what, found=reason_of(error), cure="start all ranks again") from None


class _Mean(torch.autograd.Function):
    """The mean over all ranks.

    A value on one rank acts on the losses of all ranks, with a weight of 1 / ranks. The gradients that the ranks
    compute are averaged afterwards, so that its gradient must be the mean of those with respect to the mean.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        """The mean."""
        ctx.ranks = ranks
        return ranks.mean(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The mean of the gradients; differentiable in the same way."""
        return ctx.ranks.differentiable_mean(grads[0]), None


class ProcessRanks(Ranks):
    """The processes of the default process group of `torch.distributed`.

    NCCL sends tensors of the rank's CUDA device alone, to which others are copied and back.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None

    @torch.no_grad()
    def gather(self, part: Tensor) -> Tensor:
        """See `Ranks.gather`; the memory format stays."""
        last = part.dim() == 4 and part.is_contiguous(memory_format=torch.channels_last)
        own = (part.permute(0, 2, 3, 1) if last else part).to(self._device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with lost_ranks():
            dist.all_gather(parts, own)
        whole = torch.cat(parts).to(part.device)
        return whole.permute(0, 3, 1, 2) if last else whole

    @torch.no_grad()
    def mean(self, value: Tensor) -> Tensor:
        """See `Ranks.mean`."""
        value = value.clone()
        self.average([value])
        return value

    def differentiable_mean(self, value: Tensor) -> Tensor:
        """See `Ranks.differentiable_mean`."""
        return _Mean.apply(value, self)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks.average`: one all-reduce of all of them, flattened."""

        def reduce(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat.div_(self.size)

        self._for_flattened(tensors, reduce)

    def copy_from_leader(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks.copy_from_leader`."""
        self._for_flattened(tensors, lambda flat: dist.broadcast(flat, 0))

    @torch.no_grad()
    def _for_flattened(self, tensors: Sequence[Tensor], function: Callable[[Tensor], object]) -> None:
        """Apply a function, in place, to the concatenation of all tensors of the same type and device."""
        groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            groups[tensor.dtype, tensor.device].append(tensor)
        for group in groups.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group]).to(self._device)
            with lost_ranks():
                function(flat)
            for tensor, values in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(values.view(tensor.shape))

    def highest(self, number: int) -> int:
        """See `Ranks.highest`."""
        code = torch.tensor(number, device=self._device or "cpu")
        with lost_ranks():
            dist.all_reduce(code, dist.ReduceOp.MAX)
            return int(code)

    def texts(self, text: str) -> list[str]:
        """See `Ranks.texts`."""
        found = [""] * self.size
        with lost_ranks():
            dist.all_gather_object(found, text)
        return found
