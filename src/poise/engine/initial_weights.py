"""Initial weights from other networks: the tensors of the same name and shape are copied, all others are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

InitialTensors = Mapping[str, Mapping[str, Tensor]]
"""State dicts by network: "g", "d" and "e" (G's encoder)."""


class Matches(NamedTuple):
    """How the tensors of a network compare with a state dict.

    Attributes:
        taken: the names of the tensors of the same name and shape.
        other_shape: the names of those of another shape.
        missing: the names of those that the state dict lacks.
    """

    taken: list[str]
    other_shape: list[str]
    missing: list[str]


def match_tensors(net: nn.Module, tensors: Mapping[str, Tensor]) -> Matches:
    """Compare the weights and buffers of `net` with a state dict, by name and shape."""
    matches = Matches([], [], [])
    for name, tensor in net.state_dict().items():
        if name not in tensors:
            matches.missing.append(name)
        elif tensor.shape != tensors[name].shape:
            matches.other_shape.append(name)
        else:
            matches.taken.append(name)
    return matches


@torch.no_grad()
def copy_matching_(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of the same name and shape to the weights and buffers of `net`, in place."""
    state = net.state_dict()
    for name in match_tensors(net, tensors).taken:
        state[name].copy_(tensors[name])
