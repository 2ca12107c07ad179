"""Self-attention over feature maps (Zhang, Goodfellow, Metaxas & Odena 2019, arXiv:1805.08318, section 3; tip M03)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.core.double_backward import Conv2d


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Dot-product attention over the positions of a map: out_i = sum_j softmax_j(<query_i, key_j>) value_j.

    It is written out because PyTorch's fused kernel has no second derivative, which gradient penalties need.

    Args:
        query: B x C' x H x W.
        key: B x C' x H x W.
        value: B x C'' x H x W, the shape of the result.
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
        inner = max(1, channels // 8)
        self.query, self.key, self.value = (Conv2d(channels, inner, 1) for _ in range(3))
        self.out = Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        return x + self.gamma * self.out(attend(self.query(x), self.key(x), self.value(x)))
