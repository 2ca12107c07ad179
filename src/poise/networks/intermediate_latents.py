"""Generators with an intermediate latent space W, as StyleGAN has: z is mapped to w, and w to the sample.

Such a module has the two methods of `HasIntermediateLatents`, and in evaluation mode it computes
synthesize(map_latents(z)). Nothing else has to be declared.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn

from poise.networks.conditioning import Concat


class HasIntermediateLatents(Protocol):
    """A generator with an intermediate latent space."""

    def map_latents(self, latents: Tensor) -> Tensor:
        """The intermediate latents w, B x dim of w, of the module's inputs, B x dim (z, or z and a label's embedding).

        Neither truncated nor mixed.
        """
        ...

    def synthesize(self, w: Tensor) -> Tensor:
        """The samples, B x shape, of intermediate latents, B x dim of w; differentiable."""
        ...


class IntermediateSpace(NamedTuple):
    """The intermediate latent space of a network.

    Attributes:
        net: the network, including what conditions it on the label.
        mapped: the module inside it, or itself, that has the space.
    """

    net: nn.Module
    mapped: HasIntermediateLatents

    def map_latents(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """w, B x dim of w, of latents of the network, B x dim, and labels, B."""
        if isinstance(self.net, Concat):
            assert labels is not None, "this generator takes labels"
            latents = self.net.inputs(latents, labels)
        return self.mapped.map_latents(latents)

    def synthesize(self, w: Tensor) -> Tensor:
        """The samples of w, B x dim of w."""
        return self.mapped.synthesize(w)


def intermediate_space(net: nn.Module) -> IntermediateSpace | None:
    """The intermediate latent space of a generator; None if it has none."""
    inner = net.net if isinstance(net, Concat) else net
    has_space = all(callable(getattr(inner, name, None)) for name in ("map_latents", "synthesize"))
    return IntermediateSpace(net, cast(HasIntermediateLatents, inner)) if has_space else None
