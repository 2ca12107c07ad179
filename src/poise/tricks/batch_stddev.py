"""Minibatch standard deviation (tip T16): D sees how much a group of samples varies, as an extra feature map.

The standard deviation over the group of each feature at each pixel, averaged to one number per group, is repeated over
the map and concatenated to the input of D's last convolution, which gets one more input channel (Karras et al. 2018,
arXiv:1710.10196, section 3). As there, a convolution that makes the score itself does not count. Groups and formula
are those of StyleGAN2's code (Karras et al. 2020, arXiv:1912.04958): groups of 4, sample i in group i mod (N / 4),
sqrt(variance + 1e-8). Where the batch does not divide by the group, its largest divisor below that is taken.

A fully connected D gets the number at its last hidden linear layer. A batch or instance norm behind the layer would
subtract the number again, since it is the same for a whole map and often for a whole batch; in such a D the number
joins the layer that makes the score.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from poise.core.hooks import NetworkTransform
from poise.core.types import Side, to_float32
from poise.errors import RecipeError
from poise.networks.attention import SelfAttention
from poise.networks.base import WithClassifier
from poise.networks.conditioning import Channels, Projection
from poise.networks.norms import WithReferenceBatch
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.batch_discrimination import WithBatchStatistic
from poise.tricks.packing import PackedDiscriminator

Linearly = nn.Conv2d | nn.Linear
"""A layer that can get one more input."""


def group_of(n: int, group: int) -> int:
    """The largest divisor of n that is at most `group`."""
    return next(size for size in range(min(group, n), 0, -1) if n % size == 0)


def group_stddev(maps: Tensor, group: int) -> Tensor:
    """Mean standard deviation over groups, N, from N x C x H x W or N x F; sample i is in group i mod (N / group).

    The root is taken of variance + 1e-8, so that it has a slope where a group is all alike.
    """
    n = len(maps)
    groups = to_float32(maps).reshape(group_of(n, group), -1, maps[0].numel())
    variance = (groups - groups.mean(0)).square().mean(0)  # PyTorch's own takes a hundred times as long this way up
    return variance.add(1e-8).sqrt().mean(1).repeat(len(groups))


class WithGroupStddev(nn.Module):
    """A layer whose input has a map more: the standard deviation over groups.

    Args:
        layer: the layer, which takes one more input channel (one more for each of its groups).
        group: how many samples are compared.
        leading: how many samples at the beginning of the batch are a reference batch, compared among themselves.
    """

    mixes_samples = True

    def __init__(self, layer: Linearly, group: int, leading: int = 0) -> None:
        super().__init__()
        self.layer, self.group, self.leading = layer, group, leading

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of the maps and their standard deviation."""
        with torch.autocast(x.device.type, enabled=False):  # near copies are all alike in bfloat16
            parts = (x[: self.leading], x[self.leading :]) if self.leading else (x,)
            spread = torch.cat([group_stddev(part, self.group) for part in parts]).to(x.dtype)
        more = spread[(..., *(None for _ in x.shape[1:]))]
        count = getattr(self.layer, "groups", 1)
        if count == 1:
            return self.layer(torch.cat((x, more.expand(-1, 1, *x.shape[2:])), 1))
        grouped = x.unflatten(1, (count, -1))
        more = more[:, :, None].expand(-1, count, 1, *x.shape[2:])
        return self.layer(torch.cat((grouped, more), 2).flatten(1, 2))


def widen_input_(layer: Linearly) -> None:
    """Give a layer one more input channel, in place: old weights are kept, the new ones are drawn from their law.

    The law is the distribution of the weights that are there: each new weight is one of them, drawn at random. A
    spectrally normed or weight-normed layer stays so.

    Raises:
        RecipeError: the weight is parametrised in another way.
    """
    norm = _bared_(layer)
    with torch.no_grad():
        old = layer.weight.detach()
        pick = torch.randint(old.numel(), (len(old), 1, *old.shape[2:]))
        wider = torch.cat((old, old.flatten()[pick.to(old.device)]), 1)
    layer.weight = nn.Parameter(wider, requires_grad=layer.weight.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.in_features += 1
    else:
        layer.in_channels += layer.groups
    norm()


def _bared_(layer: Linearly) -> Callable[[], object]:
    """Take a weight's parametrisation away, in place; what puts it back."""
    if not is_parametrized(layer, "weight"):
        if isinstance(layer._parameters.get("weight"), nn.Parameter):
            return lambda: None
        how = "a hook"
    else:
        made_by: list[Any] = list(layer.parametrizations["weight"])  # type: ignore[index]
        how, *more = made_by
        kind = "" if more else type(how).__name__
        if kind == "_SpectralNorm":
            remove_parametrizations(layer, "weight", leave_parametrized=False)
            return partial(spectral_norm, layer, n_power_iterations=how.n_power_iterations, eps=how.eps, dim=how.dim)
        if kind == "_WeightNorm":
            remove_parametrizations(layer, "weight")
            return partial(weight_norm, layer, dim=how.dim)
        how = type(how).__name__
    cure = "use torch.nn.utils.parametrizations.spectral_norm or weight_norm, or leave the trick out"
    raise RecipeError(
        f"'minibatch_stddev' can't widen D's last layer, whose weight is made by {how}", where="network.d", cure=cure
    )


SHELLS = (WithReferenceBatch, Channels, WithClassifier, WithBatchStatistic, PackedDiscriminator, Projection)
"""What stands around a network; its own layers do not count."""


def unwrap(net: nn.Module) -> nn.Module:
    """The network inside all shells."""
    while isinstance(net, SHELLS):
        net = net.net
    return net


def find_last_hidden(net: nn.Module) -> tuple[nn.Module, str] | None:
    """Where the last hidden convolution is, or else the last hidden linear layer: its module and its name there.

    If a norm behind it would take a constant map away, the layer that makes the score. Layers are in the
    order in which modules are registered. None if there is no layer with weights.
    """
    attending = {
        id(m) for attention in net.modules() if isinstance(attention, SelfAttention) for m in attention.modules()
    }
    order = [
        (parent, name, child)
        for parent in net.modules()
        if id(parent) not in attending
        for name, child in parent.named_children()
    ]
    position = {id(module): k for k, module in enumerate(net.modules())}
    order.sort(key=lambda place: position[id(place[2])])
    convolutions = [place for place in order if isinstance(place[2], nn.Conv2d)]
    linears = [place for place in order if isinstance(place[2], nn.Linear)]
    hidden = [place for place in convolutions if getattr(place[2], "out_channels", 1) > 1]
    scoring = [place for place in order if isinstance(place[2], Linearly)][-1:]
    found = hidden[-1:] or linears[-2:-1] or scoring
    norms = [position[id(m)] for m in net.modules() if isinstance(m, _BatchNorm | _InstanceNorm)]
    if found and norms and max(norms) > position[id(found[0][2])]:
        found = scoring
    return found[0][:2] if found else None


class MinibatchStddevConfig(TrickConfig):
    """Groups of `group` samples, 4 in the authors' code; 1 is none."""

    kind: Literal["minibatch_stddev"] = "minibatch_stddev"
    tip: ClassVar[str] = "T16"
    source: ClassVar[str] = "Karras et al. 2018, arXiv:1710.10196"

    group: int = Field(default=4, ge=1, le=65536)

    @property
    def modifies_score(self) -> bool:
        """It gives D's last layers something beside the sample."""
        return self.group > 1

    @property
    def couples_samples(self) -> bool:
        """That is what it is for."""
        return self.group > 1

    def comparison_group(self, scores: int) -> int | None:
        """A group."""
        return group_of(scores, self.group) if self.group > 1 else None

    def build(self, name: str, context: TrickContext) -> MinibatchStddev:
        """See `MinibatchStddev`."""
        return MinibatchStddev(name, self.group)


class MinibatchStddev(NetworkTransform):
    """Widens a layer of D and puts `Told` in its place."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    def __init__(self, name: str, group: int) -> None:
        super().__init__(name)
        self.group = group

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The same network, with an extra feature map.

        Raises:
            RecipeError: it has no convolution and no linear layer, or a weight that can't be widened.
        """
        if self.group == 1:
            return net
        place = find_last_hidden(unwrap(net))
        if place is None:
            cure = "use nn.Conv2d or nn.Linear as a module, or leave the trick out"
            raise RecipeError(
                f"'{self.name}' finds no convolution and no linear layer in D", where="network.d", cure=cure
            )
        parent, name = place
        layer, leading = getattr(parent, name), 0
        widen_input_(layer)
        for module in net.modules():
            if isinstance(module, WithReferenceBatch):
                leading = len(module.reference)
        setattr(parent, name, WithGroupStddev(layer, self.group, leading))
        return net
