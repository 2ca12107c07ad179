"""What a network's recipe entry promises, how networks are asked, and the shells that give a player a head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.config import ComponentConfig
from poise.core.types import DiscriminatorOutput, EncoderOutput, OutputKind, Shape
from poise.networks.norms import BATCH_STATISTICS_NORMS, apply_norm, match_spectral_norm_


class NetworkConfig(ComponentConfig):
    """A network's recipe entry."""

    allows_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16: worth it for convolutions, not for tiny layers."""

    has_skip_connections: ClassVar[bool] = False
    """Whether paths lead around its activations, so that a gradient reaches its input whatever these let through."""

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether it keeps statistics over the batch."""
        return getattr(self, "norm", "none") in BATCH_STATISTICS_NORMS

    def min_batch(self, shape: Shape | None) -> int:
        """The least batch that it can be trained with: two, where a norm takes its means over the batch alone."""
        return 1

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Why the network can't make or judge samples of `shape`, and the cure; None if it can."""
        return None

    def apply_norm(self, net: nn.Module, reference: Tensor) -> nn.Module:
        """What this player's norm does to the network as a whole (`norms.finished`)."""
        return apply_norm(net, getattr(self, "norm", "none"), reference)


class GeneratorConfig(NetworkConfig):
    """Latents, B x dim, to samples, B x shape."""

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """The module, initial weights drawn from PyTorch's global generator."""
        raise NotImplementedError


class DiscriminatorConfig(NetworkConfig):
    """Samples, B x shape, to a `Verdict`. The module's `width` is the length of its features, if it has any."""

    @property
    def output_kind(self) -> OutputKind:
        """Whether its number is free, or the minus of an energy."""
        return "score"

    def build(self, shape: Shape) -> nn.Module:
        """The module, initial weights drawn from PyTorch's global generator."""
        raise NotImplementedError


class EncoderConfig(NetworkConfig):
    """Samples, B x shape, to `Codes`; `pace` is what G's rate is multiplied with for the encoder's weights."""

    by_index: ClassVar[bool] = False
    """Whether it knows samples by their places in the data, and no others."""

    pace: float = Field(default=1.0, gt=0)

    def build(self, shape: Shape, numbers: int, count: int) -> nn.Module:
        """What makes `numbers` numbers of a sample, initial weights drawn from PyTorch's global generator.

        Args:
            shape: of a sample.
            numbers: how many a code has: the latents' dim, or twice that where the region is asked for.
            count: how many samples there are to train on.
        """
        raise NotImplementedError


def call_network(net: nn.Module, x: Tensor, labels: Tensor | None) -> Any:
    """What `net` answers to `x`; it is told the labels if it listens to them (`takes_labels = True`)."""
    return net(x, labels) if getattr(net, "takes_labels", False) else net(x)


def call_encoder(encoder: nn.Module, images: Tensor, places: Callable[[], Tensor]) -> EncoderOutput:
    """What `encoder` says of samples; one that knows them by their places (`takes_places = True`) is told these."""
    return encoder(places()) if getattr(encoder, "takes_places", False) else encoder(images)


def mixes_samples(net: nn.Module) -> bool:
    """Whether a sample's output depends on the other samples of its batch (a batch norm, say).

    A module that does so in another way says it by an attribute `mixes_samples = True`.
    """
    return any(isinstance(m, _BatchNorm) or getattr(m, "mixes_samples", False) for m in net.modules())


class WithClassifier(nn.Module):
    """D with an auxiliary classifier: logits of the classes from its features (Odena 2017, arXiv:1610.09585)."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.takes_labels = getattr(net, "takes_labels", False)
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.head = net, nn.Linear(self.width, classes)
        match_spectral_norm_(self.head, net)

    def forward(self, images: Tensor, *labels: Tensor) -> DiscriminatorOutput:
        """What D says."""
        said: DiscriminatorOutput = self.net(images, *labels)
        assert said.features is not None
        return said._replace(classes=self.head(said.features))


class EncoderModule(nn.Module):
    """Numbers as codes.

    Args:
        net: samples, or their places, to B x numbers.
        has_variance: whether half of the numbers are the log of the variance of the region that a code may lie in.
    """

    def __init__(self, net: nn.Module, *, has_variance: bool) -> None:
        super().__init__()
        self.net, self.has_variance = net, has_variance
        self.takes_places = isinstance(net, nn.Embedding)

    def forward(self, x: Tensor) -> EncoderOutput:
        """B x shape, or B places."""
        said = self.net(x)
        return EncoderOutput(*said.chunk(2, 1)) if self.has_variance else EncoderOutput(said)
