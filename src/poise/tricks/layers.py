"""Layers that surgery puts into G: noise (tip T14b) and standing dropout (tip T18), behind its hidden activations.

Both stay on when samples are drawn. In training each layer has a stream of random numbers of its own; outside it
draws from PyTorch's global generator, which `poise sample` sets. Where the strength is a dial that moves, samples are
drawn with the one that the last step had; it is saved with the layer.

`layer_noise`: h + sigma eps, eps ~ N(0, I), behind every hidden activation (ganhacks 13, after Zhao et al. 2017).
`standing_dropout`: each number of a map is 0 with probability `rate`, else divided by 1 - rate, behind the first
    `layers` activations (Isola et al. 2017, arXiv:1611.07004: half of three layers, the only noise their G has). There
    it stands before the activation; for ReLU and LeakyReLU, which a factor passes through, that is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import LayerContext, NetworkTransform
from poise.core.random_streams import filling, normal_like
from poise.core.schedules import Schedulable, Schedule, bounds, current_value, in_range
from poise.core.types import Side
from poise.errors import RecipeError
from poise.networks.blocks import ACTIVATIONS
from poise.tricks.base import TrickConfig, TrickContext

HIDDEN = (
    *ACTIVATIONS.values(),
    *(nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.SELU, nn.CELU, nn.Softplus, nn.Hardswish, nn.Sigmoid),
)


class ActivationWithLayers(nn.Sequential):
    """An activation, and what surgery has put behind it, in the recipe's order."""


def hidden_activations(net: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Each activation that a layer with weights follows, in order: the module it is in, its name there, itself.

    The order is that in which modules are registered; a network of the user's must register them as it calls them, an
    activation for each place.
    """
    waiting: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, HIDDEN):
                waiting.append((parent, name, child))
    order = {id(module): k for k, module in enumerate(net.modules())}
    weighted = [k for k, m in enumerate(net.modules()) if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    last = max(weighted, default=-1)
    found = [place for place in waiting if order[id(place[2])] < last]
    return sorted(found, key=lambda place: order[id(place[2])])


def insert_after_activations_(net: nn.Module, make: Callable[[int], nn.Module], most: int | None = None) -> int:
    """Put `make(k)` behind the k-th hidden activation, for the first `most` or all, in place; returns how many."""
    places = hidden_activations(net)[:most]
    for k, (parent, name, child) in enumerate(places):
        if isinstance(parent, ActivationWithLayers):
            parent.append(make(k))
        else:
            setattr(parent, name, ActivationWithLayers(child, make(k)))
    return len(places)


def add_layer_noise(maps: Tensor, sigma: float, generator: torch.Generator | None) -> Tensor:
    """h + sigma eps, same shape."""
    return maps + normal_like(maps, sigma, generator)


def dropout(maps: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """h m / (1 - rate), m ~ Bernoulli(1 - rate), same shape; its mean is h."""
    draws, row = filling(maps, torch.float32)  # bfloat16 knows 256 rates only
    row.uniform_(generator=generator)  # faster than bernoulli_
    return maps * (draws >= rate) / (1 - rate)


class StochasticLayer(nn.Module):
    """A layer that draws, in training and in sampling alike.

    A strength that moves is kept in the buffer `strength_reached`, float32, 0-dim: that of the last step which the
    layer was passed in, at first that of step 0. A constant one has no buffer. In a copy of a network (an average, a
    past self) it is the strength of the network that was copied; a past self that plays has today's.

    Args:
        act: what is done to the maps, given a strength above 0 and a generator.
        strength: how much; where it is 0, the maps are passed on as they are.
        clock: when it is.
        stream: what its random numbers are called.
    """

    strength_reached: Tensor

    def __init__(self, act: Callable[..., Tensor], strength: Schedulable, clock: LayerContext, stream: str) -> None:
        super().__init__()
        self.act, self.strength, self.clock, self.stream = act, strength, clock, stream
        if isinstance(strength, Schedule):
            self.register_buffer("strength_reached", torch.tensor(strength.value_at(0.0)))

    def forward(self, maps: Tensor) -> Tensor:
        """The same shape."""
        strength = self.current()
        return self.act(maps, strength, self.clock.generator(self.stream)) if strength else maps

    def current(self) -> float:
        """The strength of the move that is being made; between moves the last one that was."""
        if not isinstance(self.strength, Schedule):
            return self.strength
        if self.clock.current is None:
            return float(self.strength_reached)
        now = current_value(self.strength, self.clock.current)
        self.strength_reached.fill_(now)
        return now

    def extra_repr(self) -> str:
        """For `print(net)`."""
        return f"{self.act.__name__}, {' to '.join(f'{end:g}' for end in bounds(self.strength))}"


class LayerNoiseConfig(TrickConfig):
    """`sigma` in units of the maps, which norms and first weights keep near one."""

    kind: Literal["layer_noise"] = "layer_noise"
    tip: ClassVar[str] = "T14b"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Zhao, Mathieu & LeCun 2017, arXiv:1609.03126; ganhacks 13"

    sigma: Annotated[Schedulable, in_range(0)] = 0.1

    def build(self, name: str, context: TrickContext) -> InsertLayers:
        """See `InLayers`."""
        return InsertLayers(name, add_layer_noise, self.sigma, None)


class StandingDropoutConfig(TrickConfig):
    """`rate` of the numbers behind the first `layers` hidden activations are dropped, also when sampling."""

    kind: Literal["standing_dropout"] = "standing_dropout"
    tip: ClassVar[str] = "T18"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Isola et al. 2017, arXiv:1611.07004; ganhacks 17"

    rate: Annotated[Schedulable, in_range(0, below=1)] = 0.5
    layers: int = Field(default=3, ge=1)

    def build(self, name: str, context: TrickContext) -> InsertLayers:
        """See `InLayers`."""
        return InsertLayers(name, dropout, self.rate, self.layers)


class InsertLayers(NetworkTransform):
    """Puts its layers into G."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, act: Callable[..., Tensor], strength: Schedulable, most: int | None) -> None:
        super().__init__(name)
        constant = len(set(bounds(strength))) == 1  # a dial that never moves is the number that it stands at
        self.act, self.strength, self.most = act, bounds(strength)[0] if constant else strength, most

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The same network, with a layer more behind its activations.

        Raises:
            RecipeError: it has no activation that is a module.
        """

        def layer(k: int) -> StochasticLayer:
            return StochasticLayer(self.act, self.strength, self.layer_context, f"{self.name}/{k}")

        if self.strength and not insert_after_activations_(net, layer, self.most):
            cure = "register activations as modules (nn.ReLU, not relu()) where they are called, or leave the trick out"
            raise RecipeError(f"'{self.name}' finds no hidden activation in G", where="network.g", cure=cure)
        return net
