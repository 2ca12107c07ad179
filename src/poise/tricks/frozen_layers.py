"""Frozen layers (FreezeD: Mo, Cho & Shin 2020, arXiv:2002.10964): the lower layers of D keep their weights.

In fine-tuning, D's layers next to the image compute general features that a few hundred images are not enough to learn
again. FreezeD keeps the first layers of D as they are in the pretrained network and trains the others, which is less
prone to overfitting. The same is possible for G, whose layers are counted from the latent.

A frozen layer is a constant function of its input: its weights are not trained, and it always runs in evaluation mode,
so that a batch norm uses its running statistics, spectral norm its last estimate of the singular vectors, and neither
changes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import is_parametrized

from poise.core.hooks import NetworkTransform
from poise.core.types import Side
from poise.errors import RecipeError
from poise.networks.conditioning import ClassBatchNorm
from poise.networks.norms import VirtualBatchNorm
from poise.networks.translation import separate_networks
from poise.tricks.base import TrickConfig, TrickContext
from poise.utils.printing import count_noun

Layer = list[nn.Module | nn.Parameter]
"""The modules of a layer, and parameters that belong to no module inside it."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ATTACHED = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, VirtualBatchNorm, ClassBatchNorm, nn.PReLU)
"""Modules with weights that belong to the layer before them: norms and activations."""


def layers_in_order(net: nn.Module) -> list[Layer]:
    """The layers of a network, from its input to its output.

    A layer is an item of an `nn.Sequential` or another container (a convolution, a residual block as a whole), or a
    module without children elsewhere. Norms and activations with weights belong to the layer before them, parameters
    of a module that has layers to the first of these. Every weight belongs to a layer. The order is that in which
    modules are registered; heads and label embeddings that are added to a network come last.
    """
    layers: list[Layer] = []
    pending: Layer = []

    def visit(module: nn.Module, *, is_item: bool) -> None:
        children = [child for child in module.children() if next(child.parameters(), None) is not None]
        if isinstance(module, ATTACHED) and layers:
            layers[-1].append(module)
        elif children and not is_parametrized(module) and (isinstance(module, CONTAINERS) or not is_item):
            pending.extend(module.parameters(recurse=False))
            for child in children:
                visit(child, is_item=isinstance(module, CONTAINERS))
        else:
            layers.append([*pending, module])
            pending.clear()

    if next(net.parameters(), None) is not None:
        visit(net, is_item=False)
    return layers


def freeze_(layer: Layer) -> None:
    """Turn off the gradients of a layer and keep it in evaluation mode, in place; copies of it are frozen too."""
    for part in layer:
        part.requires_grad_(False)
        if isinstance(part, nn.Module):
            part.register_forward_pre_hook(_set_evaluation_mode)


def _set_evaluation_mode(module: nn.Module, inputs: object) -> None:
    if module.training:
        module.eval()


class FrozenLayersConfig(TrickConfig):
    """Freezes the first `d` layers of D, counted from the image, and the first `g` of G, counted from the latent."""

    kind: Literal["frozen_layers"] = "frozen_layers"
    tip: ClassVar[str] = "M03"
    duplicate_note: ClassVar[str] = "only the larger numbers make a difference"
    source: ClassVar[str] = "Mo et al. 2020, arXiv:2002.10964 (FreezeD)"

    d: int = Field(default=1, ge=0)
    g: int = Field(default=0, ge=0)

    @property
    def needs_discriminator(self) -> bool:  # type: ignore[bad-override]
        """Whether layers of D are frozen."""
        return self.d > 0

    def build(self, name: str, context: TrickContext) -> FrozenLayers:
        """See `FrozenLayers`."""
        return FrozenLayers(name, {Side.D: self.d, Side.G: self.g})


class FrozenLayers(NetworkTransform):
    """Freezes the first layers of the networks, after other tricks have changed them."""

    rank: ClassVar[int] = 1

    def __init__(self, name: str, counts: dict[Side, int]) -> None:
        super().__init__(name)
        self.counts = counts

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The same network, with frozen layers; see `layers_in_order`.

        Raises:
            RecipeError: the network has no layer more than that, so that nothing would be trained.
        """
        for part in separate_networks(net):
            self._freeze(side, part)
        return net

    def _freeze(self, side: Side, net: nn.Module) -> None:
        """Freeze the first layers of one network, in place."""
        count, layers = self.counts[side], layers_in_order(net)
        if count and count >= len(layers):
            what = f"{side.upper()} has {count_noun(len(layers), 'layer')}, of which at least one must be trained"
            cure = f"use at most {max(0, len(layers) - 1)}"
            raise RecipeError(what, where=f"tricks.{self.name}.{side}", found=str(count), cure=cure)
        for layer in layers[:count]:
            freeze_(layer)
