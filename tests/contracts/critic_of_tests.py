"""A frozen critic of fixed weights: three classes of an image, by a linear function of its pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CriticOfTests(nn.Module):
    """Images, B x shape, to the logits of three classes."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        weight = torch.randn(3, size, generator=torch.Generator().manual_seed(3)) / size**0.5
        self.register_buffer("weight", weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T
