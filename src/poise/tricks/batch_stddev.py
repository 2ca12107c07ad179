"""Minibatch standard deviation (tip T16): D sees the variation within a group of samples as an extra feature map.

The standard deviation of each feature at each pixel over the group, averaged to one number per group, is repeated over
the map and concatenated to the input of D's last hidden convolution, which gets one more input channel (Karras et al.
2018, arXiv:1710.10196, section 3). As there, a convolution that computes the score itself does not count. Groups and
formula are those of StyleGAN2's code (Karras et al. 2020, arXiv:1912.04958): groups of 4, sample i in group i mod
(N / 4), sqrt(variance + 1e-8). If the batch size is not divisible by the group size, its largest divisor below that is
used.

A fully connected D gets the number at its last hidden linear layer. A batch or instance norm after that layer would
subtract the number again, because it is constant over a map and often over a whole batch; in such a D the number is
concatenated to the input of the layer that computes the score.
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
from poise.networks.base import WithClassifier, WithCodes
from poise.networks.conditioning import Channels, Projection
from poise.networks.norms import WithReferenceBatch
from poise.networks.translation import JudgeTarget, separate_networks
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.batch_discrimination import WithBatchStatistic
from poise.tricks.packing import PackedDiscriminator

WeightLayer = nn.Conv2d | nn.Linear
"""A layer whose input can be widened."""


def group_size(num_samples: int, group: int) -> int:
    """The largest divisor of `num_samples` that is at most `group`; 1 if there are no samples."""
    return next((size for size in range(min(group, num_samples), 0, -1) if num_samples % size == 0), 1)


def group_stddev(maps: Tensor, group: int) -> Tensor:
    """Mean standard deviation over groups, N, from N x C x H x W or N x F; sample i is in group i mod (N / group).

    The root is that of variance + 1e-8, so that its gradient is finite if all samples of a group are equal.
    """
    n = len(maps)
    size = group_size(n, group)
    groups = to_float32(maps).reshape(size, n // size, maps.shape[1:].numel())
    variance = (groups - groups.mean(0)).square().mean(0)  # `Tensor.var` is a hundred times slower over axis 0
    return variance.add(1e-8).sqrt().mean(1).repeat(len(groups))


class WithGroupStddev(nn.Module):
    """A layer whose input is extended by a map: the standard deviation over groups.

    Args:
        layer: the layer, which takes one more input channel (one more for each of its groups).
        group: the number of samples that are compared.
        num_reference: the number of samples at the start of the batch that are a reference batch and compared among
            themselves.
    """

    mixes_samples = True

    def __init__(self, layer: WeightLayer, group: int, num_reference: int = 0) -> None:
        super().__init__()
        self.layer, self.group, self.num_reference = layer, group, num_reference

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for the maps and their standard deviation."""
        with torch.autocast(x.device.type, enabled=False):  # similar samples would be equal in bfloat16
            parts = (x[: self.num_reference], x[self.num_reference :]) if self.num_reference else (x,)
            stddev = torch.cat([group_stddev(part, self.group) for part in parts]).to(x.dtype)
        extra = stddev[(..., *(None for _ in x.shape[1:]))]
        conv_groups = getattr(self.layer, "groups", 1)
        if conv_groups == 1:
            return self.layer(torch.cat((x, extra.expand(-1, 1, *x.shape[2:])), 1))
        grouped = x.unflatten(1, (conv_groups, -1))
        extra = extra[:, :, None].expand(-1, conv_groups, 1, *x.shape[2:])
        return self.layer(torch.cat((grouped, extra), 2).flatten(1, 2))


def widen_input_(layer: WeightLayer) -> None:
    """Give a layer one more input channel, in place, and keep its weights.

    The new weights are drawn from the empirical distribution of the present ones: each is one of them, chosen at
    random. Spectral norm and weight norm are kept.

    Raises:
        RecipeError: the weight has another parametrisation.
    """
    restore_norm = _remove_norm_(layer)
    with torch.no_grad():
        old = layer.weight.detach()
        indices = torch.randint(old.numel(), (len(old), 1, *old.shape[2:]))
        widened = torch.cat((old, old.flatten()[indices.to(old.device)]), 1)
    layer.weight = nn.Parameter(widened, requires_grad=layer.weight.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.in_features += 1
    else:
        layer.in_channels += layer.groups
    restore_norm()


def _remove_norm_(layer: WeightLayer) -> Callable[[], object]:
    """Remove the parametrisation of a layer's weight, in place, and return a function that restores it."""
    if not is_parametrized(layer, "weight"):
        if isinstance(layer._parameters.get("weight"), nn.Parameter):
            return lambda: None
        description = "a hook"
    else:
        parametrizations: list[Any] = list(layer.parametrizations["weight"])  # type: ignore[index]
        first, *others = parametrizations
        kind = "" if others else type(first).__name__
        if kind == "_SpectralNorm":
            remove_parametrizations(layer, "weight", leave_parametrized=False)
            iterations = first.n_power_iterations
            return partial(spectral_norm, layer, n_power_iterations=iterations, eps=first.eps, dim=first.dim)
        if kind == "_WeightNorm":
            remove_parametrizations(layer, "weight")
            return partial(weight_norm, layer, dim=first.dim)
        description = type(first).__name__
    raise RecipeError(
        f"'minibatch_stddev' can't widen D's last layer, whose weight is computed by {description}",
        where="network.d",
        cure="use torch.nn.utils.parametrizations.spectral_norm or weight_norm, or remove the trick",
    )


WRAPPERS = (
    *(WithReferenceBatch, Channels, WithClassifier, WithCodes, WithBatchStatistic, PackedDiscriminator, Projection),
    JudgeTarget,
)
"""Modules that wrap a network; their own layers do not count."""


def unwrap(net: nn.Module) -> nn.Module:
    """The network inside all wrappers."""
    while isinstance(net, WRAPPERS):
        net = net.net
    return net


def find_last_hidden(net: nn.Module) -> tuple[nn.Module, str] | None:
    """The last hidden convolution, or else the last hidden linear layer: its parent module and its name there.

    If a norm layer after it would remove a constant map, it is the layer that computes the score. The order of layers
    is that in which modules are registered. None if there is no layer with weights.
    """
    attention_modules = {
        id(m) for attention in net.modules() if isinstance(attention, SelfAttention) for m in attention.modules()
    }
    children = [
        (parent, name, child)
        for parent in net.modules()
        if id(parent) not in attention_modules
        for name, child in parent.named_children()
    ]
    position = {id(module): k for k, module in enumerate(net.modules())}
    children.sort(key=lambda child: position[id(child[2])])
    convolutions = [child for child in children if isinstance(child[2], nn.Conv2d)]
    linears = [child for child in children if isinstance(child[2], nn.Linear)]
    hidden = [child for child in convolutions if getattr(child[2], "out_channels", 1) > 1]
    output_layer = [child for child in children if isinstance(child[2], WeightLayer)][-1:]
    found = hidden[-1:] or linears[-2:-1] or output_layer
    norms = [position[id(m)] for m in net.modules() if isinstance(m, _BatchNorm | _InstanceNorm)]
    if found and norms and max(norms) > position[id(found[0][2])]:
        found = output_layer
    return found[0][:2] if found else None


class MinibatchStddevConfig(TrickConfig):
    """Groups of `group` samples, 4 in the authors' code; 1 turns the trick off."""

    kind: Literal["minibatch_stddev"] = "minibatch_stddev"
    tip: ClassVar[str] = "T16"
    source: ClassVar[str] = "Karras et al. 2018, arXiv:1710.10196"

    group: int = Field(default=4, ge=1, le=65536)

    @property
    def modifies_score(self) -> bool:
        """True unless the group size is 1: D's last layers get an input that does not come from the sample alone."""
        return self.group > 1

    @property
    def keeps_spectral_norm(self) -> bool:
        """True: the layer that gets the map keeps its norm, and the slope of a standard deviation is at most 1."""
        return True

    @property
    def couples_samples(self) -> bool:
        """True unless the group size is 1."""
        return self.group > 1

    @property
    def penalised_with_others(self) -> bool:
        """True: with WGAN-GP's penalty in the paper, and with R1 in StyleGAN (Karras et al. 2019, 2020)."""
        return True

    def comparison_group(self, num_scores: int) -> int | None:
        """The size of a group."""
        return group_size(num_scores, self.group) if self.group > 1 else None

    def build(self, name: str, context: TrickContext) -> MinibatchStddev:
        """See `MinibatchStddev`."""
        return MinibatchStddev(name, self.group)


class MinibatchStddev(NetworkTransform):
    """Widens a layer of D and replaces it by `WithGroupStddev`."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    def __init__(self, name: str, group: int) -> None:
        super().__init__(name)
        self.group = group

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The same network, with an extra feature map.

        Raises:
            RecipeError: it has no convolution and no linear layer, or a weight that cannot be widened.
        """
        if self.group == 1:
            return net
        num_reference = 0
        for module in net.modules():
            if isinstance(module, WithReferenceBatch):
                num_reference = len(module.reference)
        for part in separate_networks(net):
            self._widen(unwrap(part), num_reference)
        return net

    def _widen(self, net: nn.Module, num_reference: int) -> None:
        """Widen a layer of one network, in place."""
        found = find_last_hidden(net)
        if found is None:
            cure = "use nn.Conv2d or nn.Linear as a module, or remove the trick"
            raise RecipeError(
                f"'{self.name}' finds no convolution and no linear layer in D", where="network.d", cure=cure
            )
        parent, name = found
        layer = getattr(parent, name)
        widen_input_(layer)
        setattr(parent, name, WithGroupStddev(layer, self.group, num_reference))
