"""Self-attention over feature maps (Zhang, Goodfellow, Metaxas & Odena 2019, arXiv:1805.08318, section 3; tip M03).

`SelfAttention` is the layer of the paper. `PooledSelfAttention` is that of its released code, which BigGAN adopted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.core.double_backward import Conv2d


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Dot-product attention over the positions of a map: out_i = sum_j softmax_j(<query_i, key_j>) value_j.

    It is written out because PyTorch's fused kernel has no second derivative, which gradient penalties need.

    Args:
        query: B x C' x H x W; the result has this height and width.
        key: B x C' x any height and width.
        value: B x C'' x those of the keys; the result has these channels.
    """
    q, k, v = query.flatten(2), key.flatten(2), value.flatten(2)
    weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)
    return (v @ weights.transpose(1, 2)).unflatten(2, query.shape[2:])


class SelfAttention(nn.Module):
    """x + gamma out(attend(query(x), key(x), value(x))).

    The layers are 1 x 1 convolutions; the attention has an eighth of the channels. gamma starts at 0, so the network
    first uses local features and then learns to use distant ones.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = self.make_layers(channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    @staticmethod
    def make_layers(channels: int) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
        """The layers query, key, value and out."""
        inner = max(1, channels // 8)
        query, key, value = (Conv2d(channels, inner, 1) for _ in range(3))
        return query, key, value, Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        return x + self.gamma * self.out(attend(self.query(x), self.key(x), self.value(x)))


class PooledSelfAttention(SelfAttention):
    """The same, with keys and values max-pooled over 2 x 2 positions, which takes a quarter of the memory.

    Values have half of the channels, queries and keys an eighth, and no layer has a bias, as in the released code of
    SAGAN and in BigGAN (Brock et al. 2019, arXiv:1809.11096, appendix B).
    """

    @staticmethod
    def make_layers(channels: int) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
        """The layers query, key, value and out, of which key and value end in a pooling layer."""
        inner, values = max(1, channels // 8), max(1, channels // 2)
        query, key, value = (Conv2d(channels, width, 1, bias=False) for width in (inner, inner, values))
        key, value = (nn.Sequential(layer, nn.MaxPool2d(2)) for layer in (key, value))
        return query, key, value, Conv2d(values, channels, 1, bias=False)
