"""One embedding of the label for all layers of G (Brock, Donahue & Simonyan 2019, arXiv:1809.11096, section 3; T17).

Unlike the other ways to condition G (`conditioning.py`), it needs a network whose module takes the embeddings, B x dim,
beside z. The config of such a network overrides `GeneratorConfig.build_for` and `conditioning_incompatibility`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.networks.conditioning import GeneratorConditioning, Incompatibility

NO_EMBEDDING = (
    "this generator has no layers that use an embedding of the label",
    'use network.g kind "biggan", or conditioning.g kind "concat" or "class_norm"',
)


class SharedEmbeddingConfig(GeneratorConditioning):
    """An embedding of dimension `dim`, used in every norm of a BigGAN generator (Brock 2019, arXiv:1809.11096)."""

    kind: Literal["shared_embedding"] = "shared_embedding"
    dim: int = Field(default=128, ge=1, le=4096)

    def incompatibility(self, norm: str) -> Incompatibility | None:
        """Refused, whatever the norm, by all generators that don't declare that they take an embedding."""
        return NO_EMBEDDING

    def wrap(self, net: nn.Module, num_classes: int, scale: float = 1.0) -> nn.Module:
        """See `SharedEmbedding`."""
        return SharedEmbedding(net, num_classes, self.dim, scale)


class SharedEmbedding(nn.Module):
    """G(z, y) = net(z, scale x embedding of y), with an embedding whose matrix is initially orthogonal.

    With at most `dim` classes their embeddings are initially orthogonal vectors of length `scale`. The embedding is
    never spectrally normalised, as in BigGAN.
    """

    takes_labels = True
    class_layers = ("embedding",)

    def __init__(self, net: nn.Module, num_classes: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.embedding, self.scale = net, nn.Embedding(num_classes, dim), scale
        nn.init.orthogonal_(self.embedding.weight)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The samples."""
        embedded = self.embedding(labels)
        return self.net(latents, embedded if self.scale == 1 else self.scale * embedded)
