"""Counts the operations of a step."""

from __future__ import annotations

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
