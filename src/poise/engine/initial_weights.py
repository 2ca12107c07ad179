"""Initial weights from other networks: the tensors of the same name and shape are copied, all others are left.

Where a tensor has a row for each class, and the classes are others or in another order, its rows are copied by the
names of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

NETWORK_NAMES = {"g": "G", "d": "D", "e": "encoder"}

WRAPPED = "net."
"""The name under which a module that wraps a network holds it: packing, batch statistics, conditioning, heads."""

MAX_LISTED = 10
"""The largest number of tensors that are listed one by one."""

InitialTensors = Mapping[str, Mapping[str, Tensor]]
"""State dicts by network: "g", "d" and "e" (G's encoder)."""


NUMBERED = re.compile(r"(\d+) - .*")
"""The name of a class that starts with its number."""

ClassRows = Sequence[int | None]
"""For each class of the data, its row in tensors of other data; None for a class that these don't have."""


def class_rows(known: Sequence[str], names: Sequence[str]) -> ClassRows | None:
    """Where the classes `names` are among the classes `known`; None if they are the same, or one of both has none.

    The class "0 - zero" of torchvision's MNIST is the class "0" of the built-in digits.
    """
    known, names = ([NUMBERED.sub(r"\1", name) for name in classes] for classes in (known, names))
    if not known or not names or known == names:
        return None
    rows = {name: row for row, name in enumerate(known)}
    return [rows.get(name) for name in names]


def class_tensors(net: nn.Module) -> set[str]:
    """The names of the weights and buffers of a network whose first dimension counts the classes.

    They are those of the layers that a module names in `class_layers`, without the singular vector of spectral norm
    that has an entry for each input.
    """
    return {
        f"{prefix}.{layer}.{name}".removeprefix(".")
        for prefix, module in net.named_modules()
        for layer in getattr(module, "class_layers", ())
        for name in getattr(module, layer).state_dict()
        if not name.endswith("._v")
    }


def fit_classes(net: nn.Module, tensors: Mapping[str, Tensor], rows: ClassRows | None) -> dict[str, Tensor]:
    """A state dict for `net` in which the tensors of `class_tensors` have the rows of the classes of `net`.

    The rows of classes that the state dict lacks are those of `net`. A tensor whose other dimensions differ is left.

    Args:
        net: the network.
        tensors: the state dict, with the names that the tensors have in `net`.
        rows: see `class_rows`; with None nothing is changed.
    """
    fitted = dict(tensors)
    if rows is None:
        return fitted
    new = [row for row, old in enumerate(rows) if old is not None]
    old = [row for row in rows if row is not None]
    state = net.state_dict()
    for name in class_tensors(net) & fitted.keys():
        source = tensors[name]
        if source.shape[1:] == state[name].shape[1:]:
            fitted[name] = state[name].detach().clone()
            fitted[name][new] = source[old].to(state[name])
    return fitted


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


def count_wrappers(net: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """How many more modules wrap `net` than the network of a state dict; below 0 if there are fewer.

    Of all numbers up to three, it is that with which most tensors have the same name and shape.
    """
    expected = net.state_dict()

    def fitting(count: int) -> int:
        named = {wrapped_name(name, count): tensor for name, tensor in tensors.items()}
        return sum(name in expected and expected[name].shape == tensor.shape for name, tensor in named.items())

    return max((0, 1, -1, 2, -2, 3, -3), key=fitting)


def wrapped_name(name: str, count: int) -> str:
    """The name of a tensor in `count` more wrappers, or in fewer if it is negative."""
    return WRAPPED * count + name if count > 0 else name.removeprefix(WRAPPED * -count)


def align_names(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names that its tensors have in `net`, which may be wrapped in more or fewer modules."""
    count = count_wrappers(net, tensors)
    return {wrapped_name(name, count): tensor for name, tensor in tensors.items()}


@torch.no_grad()
def copy_matching_(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of the same name and shape to the weights and buffers of `net`, in place."""
    state = net.state_dict()
    for name in match_tensors(net, tensors).taken:
        copy_tensor_(state[name], tensors[name])


def copy_tensor_(target: Tensor, source: Tensor) -> None:
    """Copy the values of a tensor of the same shape; `target` may be expanded, as a buffer of a user's network may."""
    _unexpanded(target).copy_(_unexpanded(source, target))


def _unexpanded(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """The part of an expanded tensor in which each memory location occurs once; the strides may be those of `like`."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, (tensor if like is None else like).stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def describe_left(label: str, net: nn.Module, source: Mapping[str, Tensor], place: str) -> list[str]:
    """A message about each tensor of a network that keeps its initial values.

    Args:
        label: the name of the network.
        net: the network.
        source: the tensors that it was to take.
        place: where these come from.
    """
    state, matches = net.state_dict(), match_tensors(net, source)
    left = [
        f"{label}: {key} keeps its initial values: its shape is {list(state[key].shape)}, "
        f"in {place} {list(source[key].shape)}"
        for key in matches.other_shape
    ]
    return left + [f"{label}: {key} keeps its initial values: {place} has no such tensor" for key in matches.missing]


def shortened(left: list[str]) -> list[str]:
    """The first ten of these messages, and the number of the others."""
    more = [f"and {len(left) - MAX_LISTED:,} more keep their initial values"] if len(left) > MAX_LISTED else []
    return [*left[:MAX_LISTED], *more]
