"""What several benchmarks share: times, counts of operations, the peak of the processor, tables in pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

WITHOUT_KERNEL = frozenset(
    [
        "alias",
        "as_strided",
        "detach",
        "expand",
        "permute",
        "select",
        "slice",
        "squeeze",
        "t",
        "transpose",
        "unsqueeze",
        "view",
        "_unsafe_view",
    ]
)
"""Operations that only look at a tensor in another way."""


class NoModules:
    """Stands for PyTorch's record of the modules that run, which can't be kept in `torch.autograd.grad`."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def convolution_backward_flops(*args: Any, out_val: Any) -> int:
    """PyTorch's count, whose part for the gradient of the weight forgets that groups do not see each other."""
    groups, (of_input, of_weight, _) = args[9:11]
    flops = conv_backward_flop(*args[:10], [True, False, False], out_val=out_val) if of_input else 0
    if of_weight:
        flops += conv_backward_flop(*args[:10], [False, True, False], out_val=out_val) // groups
    return flops


convolution_backward_flops._get_raw = True  # type: ignore[attr-defined] - PyTorch then passes tensors and not shapes


class FlopCounter(FlopCounterMode):
    """PyTorch's counter of floating point operations, without a count for each module; see `NoModules`."""

    def __init__(self) -> None:
        mapping = {torch.ops.aten.convolution_backward: convolution_backward_flops}
        super().__init__(display=False, custom_mapping=mapping)
        self.mod_tracker: Any = NoModules()


class OperationCounter(TorchDispatchMode):
    """Counts the operations that start a kernel: all but views and the allocation of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Count, then compute."""
        name = func.overloadpacket.__name__
        self.count += not (name in WITHOUT_KERNEL or name.startswith("empty"))
        return func(*args, **(kwargs or {}))


def timed(function: Callable[[], object], repeats: int) -> list[float]:
    """The times that a function takes, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def peak_flops(
    dtype: torch.dtype,
    sides: tuple[int, ...],
    seconds: Callable[[Callable[[], object]], float],
    device: torch.device | str = "cpu",
) -> float:
    """The most floating point operations per second of a product of square matrices.

    Args:
        dtype: the type of the numbers.
        sides: the sides of the matrices.
        seconds: measures how long a function takes.
        device: where they are multiplied.
    """
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        _ = a @ b
        best = max(best, 2 * side**3 / seconds(lambda a=a, b=b: a @ b))
    return best


def median_seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The median time of a function, in seconds."""
    return median(timed(function, repeats))


def replace_block(page: str, name: str, text: str) -> str:
    """A page with another text between the comments that begin and end a block."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    return f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}"
