"""Self-attention over a map (Zhang, Goodfellow, Metaxas & Odena 2019, arXiv:1805.08318, section 3; tip M03)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.core.double_backward import Conv2d


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax over places j of <query_i, key_j>, times value_j: B x C' x H x W each, B x C'' x H x W out.

    Written out, because the fused kernel has no second derivative, which a gradient penalty needs.
    """
    at, seen, told = query.flatten(2), key.flatten(2), value.flatten(2)
    weights = torch.softmax(at.transpose(1, 2) @ seen, dim=-1)
    return (told @ weights.transpose(1, 2)).unflatten(2, query.shape[2:])


class SelfAttention(nn.Module):
    """x + gamma v(attend(f(x), g(x), h(x))), all of them 1 x 1 convolutions to an eighth of the channels and back.

    gamma starts at 0: local detail first, then evidence from elsewhere.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key, self.value = (Conv2d(channels, inner, 1) for _ in range(3))
        self.out = Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W; the same shape."""
        return x + self.gamma * self.out(attend(self.query(x), self.key(x), self.value(x)))
