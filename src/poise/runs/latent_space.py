"""The latent spaces of a generator in which an image is projected: z, or the intermediate w of a StyleGAN."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.latents import Latent
from poise.networks.base import IntermediateSpace, call_network
from poise.utils.printing import count_noun

Space = Literal["z", "w"]

NUM_MEAN = 1024
"""The number of latents from which the mean and the spread of w are computed."""

LAYER_STREAM = ("sample/layers", 0)
"""The random stream of layers that draw in evaluation too: that of the first block of samples (see `generate`)."""


class Start(NamedTuple):
    """A latent at which the optimisation may start.

    Attributes:
        latent: 1 x dim.
        description: what it is, such as "the mean of w".
        encoded: whether it is the code of an encoder, which need not be typical of the prior.
    """

    latent: Tensor
    description: str
    encoded: bool = False


class LatentSpace(Protocol):
    """A space in which a latent is optimised, for one label.

    Attributes:
        coordinate_std: the standard deviation of one coordinate of its latents.
        spread: the root of the mean squared distance of its latents from their mean.
    """

    coordinate_std: float
    spread: float

    def starts(self) -> list[Start]:
        """The latents among which the nearest to a target is the start."""
        ...

    def start_from_code(self, code: Tensor, description: str) -> Start:
        """The start at an encoder's latent z, 1 x dim of z."""
        ...

    def synthesize(self, latents: Tensor) -> Tensor:
        """The samples of latents, B x dim; differentiable."""
        ...

    def constrain(self, latents: Tensor, start: Start) -> Tensor:
        """The latents, B x dim, moved to the nearest ones that are allowed after this start; differentiable."""
        ...


class ZSpace:
    """The latents z of the prior. They stay typical of it (see `Latent.project_to_typical`).

    A code of an encoder need not be typical. If it is the start, the latents have no greater norm than the code or than
    the prior's `max_norm`, whichever is greater: G has hardly been trained on longer ones.

    Args:
        net: the generator.
        latent: the prior.
        label: the label of all samples; None if the generator takes none.
        latents: the random latents to start from, K x dim.
        streams: the random streams of layers that draw in evaluation too; they draw the same in each call.
    """

    def __init__(
        self, net: nn.Module, latent: Latent, label: int | None, latents: Tensor, streams: RandomStreams
    ) -> None:
        self.net, self.latent, self.label, self.latents, self.streams = net, latent, label, latents, streams
        self.coordinate_std = latent.std
        self.spread = latent.std * latent.dim**0.5

    def starts(self) -> list[Start]:
        """The random latents."""
        what = f"the nearest of {count_noun(len(self.latents), 'random sample')}"
        return [Start(z[None], what) for z in self.latents]

    def start_from_code(self, code: Tensor, description: str) -> Start:
        """The code itself."""
        return Start(code, description, encoded=True)

    def synthesize(self, latents: Tensor) -> Tensor:
        """See `LatentSpace`."""
        self.streams.seed_global(*LAYER_STREAM)
        return call_network(self.net, latents, repeat_label(self.label, latents)).float()

    def constrain(self, latents: Tensor, start: Start) -> Tensor:
        """See the class."""
        if not start.encoded:
            return self.latent.project_to_typical(latents)
        max_norm = max(self.latent.max_norm, float(start.latent.norm()))
        norms = latents.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return self.latent.project(latents * (max_norm / norms).clamp_max(1.0))


class WSpace:
    """The intermediate latents w, all of which are allowed; the start is their mean (Karras et al. 2020, appendix D).

    Args:
        space: the intermediate space.
        label: the label of all samples; None if the generator takes none.
        latents: random latents z from which the mean and the spread of w are computed, N x dim.
        streams: see `ZSpace`.
    """

    def __init__(self, space: IntermediateSpace, label: int | None, latents: Tensor, streams: RandomStreams) -> None:
        self.space, self.label, self.streams = space, label, streams
        w = self._map(latents)
        self.mean = w.mean(0, keepdim=True)
        self.spread = float((w - self.mean).square().sum(1).mean().sqrt())
        self.coordinate_std = self.spread / w.shape[1] ** 0.5

    def starts(self) -> list[Start]:
        """The mean of w."""
        return [Start(self.mean, "the mean of w")]

    def start_from_code(self, code: Tensor, description: str) -> Start:
        """The w of the code."""
        return Start(self._map(code), description, encoded=True)

    def synthesize(self, latents: Tensor) -> Tensor:
        """See `LatentSpace`."""
        self.streams.seed_global(*LAYER_STREAM)
        return self.space.synthesize(latents).float()

    def constrain(self, latents: Tensor, start: Start) -> Tensor:
        """The latents themselves."""
        return latents

    @torch.no_grad()
    def _map(self, latents: Tensor) -> Tensor:
        """The w of latents z, B x dim."""
        return self.space.map_latents(latents, repeat_label(self.label, latents)).float()


def repeat_label(label: int | None, latents: Tensor) -> Tensor | None:
    """The label for each latent, int64, B; None if there is none."""
    return None if label is None else torch.full((len(latents),), label)
