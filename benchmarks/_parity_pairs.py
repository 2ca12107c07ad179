"""A pair of networks, ours and the authors', with equal states, and the comparison of their results.

The tensors of both correspond by name. Corresponding tensors have equal shapes, up to axes of length 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

Names = dict[str, str]
"""A name in the state of our network to that in the authors'."""

Shapes = dict[str, tuple[int, ...]]
"""A name in the state of the authors' network to its shape."""

BATCH = 8
IMAGE_CHANNELS = 3

ONLY_OURS = ("num_batches_tracked", "parametrizations.weight.0._v")
"""Ends of the names of our buffers that the authors' networks lack: the number of batches that a batch norm has seen,
which matters only without a momentum, and the right singular vector, which their spectral norm computes anew."""

ONLY_THEIRS = ("resample_filter", "sv0")
"""Ends of the names of their buffers that ours lack: the smoothing filter, a constant, and a logged singular value."""

TENSORS = {
    "parametrizations.weight.original": "weight",
    "parametrizations.weight.0._u": "u0",
    "constant_noise": "noise_const",
    "running_mean": "stored_mean",
    "running_var": "stored_var",
}
"""Tensors of a module that are called differently; all others have the same name."""


def counterparts(names: Iterable[str], modules: Mapping[str, str]) -> Names:
    """The authors' name of each tensor of our network, except for those of `ONLY_OURS`.

    Args:
        names: the names in our state.
        modules: our name of a module, or of a single tensor, to that of the authors. The longest one decides.

    Raises:
        LookupError: a tensor belongs to no module of the mapping.
    """
    result = {}
    for name in names:
        if name.endswith(ONLY_OURS):
            continue
        module = max((m for m in modules if name == m or name.startswith(f"{m}.")), key=len, default=None)
        if module is None:
            raise LookupError(f"{name} has no counterpart in the authors' network")
        tensor = name.removeprefix(module).removeprefix(".")
        result[name] = ".".join(part for part in (modules[module], TENSORS.get(tensor, tensor)) if part)
    return result


class Comparison(NamedTuple):
    """A quantity, the largest absolute difference, and the largest absolute value of the authors' result."""

    quantity: str
    difference: float
    largest: float

    def agrees(self, tolerance: float) -> bool:
        """Whether the difference is at most this share of the largest value; False for NaN and for zeros only."""
        return self.difference <= tolerance * self.largest and self.largest > 0


def compare(quantity: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Comparison:
    """Compare pairs of tensors of equal shapes up to axes of length 1."""
    pairs = [(a.detach().reshape(b.shape), b.detach()) for a, b in zip(ours, theirs, strict=True)]
    difference = torch.stack([(a - b).abs().max() for a, b in pairs]).max()
    return Comparison(quantity, difference.item(), torch.stack([b.abs().max() for _, b in pairs]).max().item())


class Pair(NamedTuple):
    """Our network, the authors' one, and the names of the tensors that correspond."""

    ours: nn.Module
    theirs: nn.Module
    names: Names

    def train(self, mode: bool = True) -> None:
        """Set both to training mode, or to evaluation mode."""
        self.ours.train(mode)
        self.theirs.train(mode)

    def weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """All parameters of ours, and those of the authors' that correspond."""
        ours, theirs = dict(self.ours.named_parameters()), dict(self.theirs.named_parameters())
        return list(ours.values()), [theirs[self.names[name]] for name in ours]

    def gradients(self, quantity: str, ours: Tensor, theirs: Tensor) -> Comparison:
        """Compare the gradients of two scalars by all weights."""
        mine, other = self.weights()
        gradients = [
            torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True)
            for total, weights in ((ours, mine), (theirs, other))
        ]
        return compare(quantity, *gradients)


@torch.no_grad()
def randomise_(net: nn.Module) -> None:
    """Move all weights and running statistics of a network away from zeros, ones and orthogonal matrices, in place.

    The singular vectors of spectral norm become those of the largest singular value.
    """
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.5 if weight.dim() < 2 else 0.1)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "w_mean")):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    for module in net.modules():
        if is_parametrized(module, "weight"):
            weight = module.parametrizations.weight
            u, _, v = torch.linalg.svd(weight.original.flatten(1).double(), full_matrices=False)
            weight[0]._u.copy_(u[:, 0])
            weight[0]._v.copy_(v[0])


class UnknownCheckoutError(Exception):
    """The authors' networks have other names or shapes than those that are known."""


@torch.no_grad()
def pair(ours: nn.Module, theirs: nn.Module, modules: Names, shapes: Shapes) -> Pair:
    """Draw a state for our network with `randomise_` and copy it to the authors' one.

    Args:
        ours: our network, changed in place.
        theirs: the authors', changed in place.
        modules: our names of modules to the authors'; see `counterparts`.
        shapes: the names and shapes of the authors' tensors, except for those of `ONLY_THEIRS`.

    Raises:
        UnknownCheckoutError: a name or a shape of the authors' tensors is another one.
    """
    randomise_(ours)
    state, found = ours.state_dict(), theirs.state_dict()
    names, known = counterparts(state, modules), {name for name in found if not name.endswith(ONLY_THEIRS)}
    wrong = {name for name in known & set(shapes) if found[name].shape != shapes[name]} | (known ^ set(shapes))
    if wrong:
        raise UnknownCheckoutError(
            f"its networks have tensors of other names or shapes: {', '.join(sorted(wrong)[:5])}"
        )
    for name, other in names.items():
        found[other].copy_(state[name].reshape(found[other].shape))
    return Pair(ours, theirs, names)
