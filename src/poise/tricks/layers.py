"""Layers inserted into G after its hidden activations: noise (tip T14b) and dropout that stays on (tip T18).

Both remain active when samples are generated. In training each layer draws from its own random stream; otherwise it
draws from PyTorch's global generator, which `poise sample` seeds. If the strength follows a schedule, samples are
generated with the strength of the last step; it is saved with the layer.

`layer_noise`: h + sigma eps, eps ~ N(0, I), after every hidden activation (ganhacks 13, after Zhao et al. 2017), or
    after the `last_layers` last ones only. After the last activation, G(z) is h A + b with noise of covariance
    sigma^2 A A^T added, whatever z is, so its samples never lie on a set of lower dimension than the image of A.
`standing_dropout`: each value of a map is 0 with probability `rate`, else divided by 1 - rate, after the first
    `layers` activations (Isola et al. 2017, arXiv:1611.07004: rate 0.5 in three layers, the only noise in their G).
    In the paper dropout comes before the activation; for ReLU and LeakyReLU, which commute with positive factors, that
    is the same. A network that is published with such dropout names the places (`DropoutSlot`), which are used instead:
    in the paper's U-Net these are the three innermost layers of the decoder, not the first layers of the encoder, and
    what is concatenated from the encoder is not dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import LayerContext, NetworkTransform
from poise.core.random_streams import empty_with_flat_view, normal_like
from poise.core.schedules import Schedulable, Schedule, bounds, current_value, in_range
from poise.core.types import Side
from poise.errors import RecipeError
from poise.networks.blocks import ACTIVATIONS, DropoutSlot
from poise.networks.noise_input import NoiseInput
from poise.tricks.base import TrickConfig, TrickContext

HIDDEN = (
    *ACTIVATIONS.values(),
    *(nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.SELU, nn.CELU, nn.Softplus, nn.Hardswish, nn.Sigmoid),
)

EVERY = slice(None)


class ActivationWithLayers(nn.Sequential):
    """An activation, followed by the layers that tricks have inserted, in the recipe's order."""


def hidden_activations(net: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Each activation that a layer with weights follows, in order: its parent module, its name there, and itself.

    The order is that in which modules are registered. A user's network must therefore register them in the order in
    which it calls them, with a separate activation module for each call.
    """
    activations: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, HIDDEN):
                activations.append((parent, name, child))
    order = {id(module): k for k, module in enumerate(net.modules())}
    weighted = [k for k, m in enumerate(net.modules()) if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    last = max(weighted, default=-1)
    hidden = [activation for activation in activations if order[id(activation[2])] < last]
    return sorted(hidden, key=lambda activation: order[id(activation[2])])


def insert_after_activations_(net: nn.Module, make_layer: Callable[[int], nn.Module], where: slice = EVERY) -> int:
    """Insert `make_layer(k)` after the k-th of the hidden activations that `where` selects, in place.

    Returns:
        The number of inserted layers.
    """
    activations = hidden_activations(net)[where]
    for k, (parent, name, child) in enumerate(activations):
        if isinstance(parent, ActivationWithLayers):
            parent.append(make_layer(k))
        else:
            setattr(parent, name, ActivationWithLayers(child, make_layer(k)))
    return len(activations)


def fill_dropout_slots_(net: nn.Module, make_layer: Callable[[int], nn.Module], max_layers: int) -> int:
    """Replace each slot for dropout with an index below `max_layers` by `make_layer(k)`, k = 0, 1, ..., in place.

    Returns:
        The number of slots that were filled.
    """
    slots = [
        (parent, name)
        for parent in net.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropoutSlot) and child.index < max_layers
    ]
    for k, (parent, name) in enumerate(slots):
        setattr(parent, name, make_layer(k))
    return len(slots)


def add_layer_noise(
    maps: Tensor, sigma: float, generator: torch.Generator | None, noise: Tensor | None = None
) -> Tensor:
    """h + sigma eps, same shape; eps is `noise`, if that is given, and else drawn from N(0, I)."""
    return maps + (normal_like(maps, sigma, generator) if noise is None else sigma * noise)


def dropout(maps: Tensor, rate: float, generator: torch.Generator | None, noise: Tensor | None = None) -> Tensor:
    """h m / (1 - rate), m ~ Bernoulli(1 - rate), same shape; its mean is h.

    If `noise`, eps ~ N(0, I), is given, m is 1 where the normal distribution function of eps is at least `rate`.
    """
    if noise is not None:
        draws = torch.special.ndtr(noise)
    else:
        draws, row = empty_with_flat_view(maps, torch.float32)  # bfloat16 has 256 distinct rates only
        row.uniform_(generator=generator)  # faster than bernoulli_
    return maps * (draws >= rate) / (1 - rate)


class StochasticLayer(nn.Module):
    """A layer with random numbers, in training and in sampling alike.

    A scheduled strength is kept in the buffer `strength_reached`, float32, 0-dim: that of the last step in which the
    layer was called, and before that of step 0. A constant strength has no buffer. A copy of a network (an average, a
    past self) has the strength of the network at the time of the copy; during a move, a past self uses the current
    strength.

    Args:
        function: maps activations, a strength above 0, a generator and, optionally, numbers to be used instead of
            drawn ones to activations of the same shape.
        strength: the strength; if it is 0, activations are passed on unchanged.
        layer_context: gives the current move.
        stream: the name of its random stream.
    """

    strength_reached: Tensor

    def __init__(
        self, function: Callable[..., Tensor], strength: Schedulable, layer_context: LayerContext, stream: str
    ) -> None:
        super().__init__()
        self.function, self.strength, self.layer_context, self.stream = function, strength, layer_context, stream
        self.noise_input: NoiseInput | None = None
        if isinstance(strength, Schedule):
            self.register_buffer("strength_reached", torch.tensor(strength.value_at(0.0)))

    def forward(self, maps: Tensor) -> Tensor:
        """The transformed maps, of the same shape."""
        strength = self.current_strength()
        if not strength:
            return maps
        if self.noise_input is not None:
            return self.function(maps, strength, None, self.noise_input(maps.shape))
        return self.function(maps, strength, self.layer_context.generator(self.stream))

    def take_noise_as_input(self) -> NoiseInput | None:
        """See `NoiseInput`; the strength stays what it is now. None if it is 0."""
        self.strength = self.current_strength()
        self.noise_input = NoiseInput() if self.strength else None
        return self.noise_input

    def current_strength(self) -> float:
        """The strength of the current move; between moves that of the last move."""
        if not isinstance(self.strength, Schedule):
            return self.strength
        if self.layer_context.current is None:
            return float(self.strength_reached)
        strength = current_value(self.strength, self.layer_context.current)
        self.strength_reached.fill_(strength)
        return strength

    def extra_repr(self) -> str:
        """See `nn.Module.extra_repr`."""
        return f"{self.function.__name__}, {' to '.join(f'{end:g}' for end in bounds(self.strength))}"


class LayerNoiseConfig(TrickConfig):
    """`sigma` is in units of the activations, which norms and initial weights keep near one.

    Noise is added after the `last_layers` last hidden activations, or after all of them if that is not given.
    """

    kind: Literal["layer_noise"] = "layer_noise"
    tip: ClassVar[str] = "T14b"
    needs_discriminator: ClassVar[bool] = False
    changes_generator: ClassVar[bool] = True
    source: ClassVar[str] = "Zhao, Mathieu & LeCun 2017, arXiv:1609.03126; ganhacks 13"

    sigma: Annotated[Schedulable, in_range(0)] = 0.1
    last_layers: int | None = Field(default=None, ge=1)

    def build(self, name: str, context: TrickContext) -> InsertLayers:
        """See `InsertLayers`."""
        where = EVERY if self.last_layers is None else slice(-self.last_layers, None)
        return InsertLayers(name, add_layer_noise, self.sigma, where)


class StandingDropoutConfig(TrickConfig):
    """`rate` of the values after the first `layers` hidden activations are dropped, also when samples are generated."""

    kind: Literal["standing_dropout"] = "standing_dropout"
    tip: ClassVar[str] = "T18"
    needs_discriminator: ClassVar[bool] = False
    changes_generator: ClassVar[bool] = True
    source: ClassVar[str] = "Isola et al. 2017, arXiv:1611.07004; ganhacks 17"

    rate: Annotated[Schedulable, in_range(0, below=1)] = 0.5
    layers: int = Field(default=3, ge=1)

    def build(self, name: str, context: TrickContext) -> InsertDropout:
        """See `InsertDropout`."""
        return InsertDropout(name, self.rate, self.layers)


class InsertLayers(NetworkTransform):
    """Inserts a `StochasticLayer` after those hidden activations of G that `where` selects."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, function: Callable[..., Tensor], strength: Schedulable, where: slice = EVERY) -> None:
        super().__init__(name)
        is_constant = len(set(bounds(strength))) == 1  # a constant schedule is replaced by its value
        self.function, self.where = function, where
        self.strength = bounds(strength)[0] if is_constant else strength

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The same network, with the inserted layers.

        Raises:
            RecipeError: it has no hidden activation that is a module.
        """

        def make_layer(k: int) -> StochasticLayer:
            return StochasticLayer(self.function, self.strength, self.layer_context, f"{self.name}/{k}")

        if self.strength and not self.insert_(net, make_layer):
            cure = "register activations as modules (nn.ReLU, not relu()) where they are called, or remove the trick"
            raise RecipeError(f"'{self.name}' finds no hidden activation in G", where="network.g", cure=cure)
        return net

    def insert_(self, net: nn.Module, make_layer: Callable[[int], nn.Module]) -> int:
        """Insert the layers, in place; returns their number."""
        return insert_after_activations_(net, make_layer, self.where)


class InsertDropout(InsertLayers):
    """Inserts dropout where the network has a slot for it, else after the first `layers` hidden activations of G."""

    def __init__(self, name: str, rate: Schedulable, layers: int) -> None:
        super().__init__(name, dropout, rate, slice(layers))
        self.layers = layers

    def insert_(self, net: nn.Module, make_layer: Callable[[int], nn.Module]) -> int:
        """See `fill_dropout_slots_` and `insert_after_activations_`."""
        return fill_dropout_slots_(net, make_layer, self.layers) or super().insert_(net, make_layer)
