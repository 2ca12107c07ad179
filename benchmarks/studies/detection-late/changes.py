"""Tricks that spoil a healthy run late, for plan.toml."""

from typing import Any

import torch
from torch import Tensor

from poise.core.hooks import GradientTransform, InputTransform


class RangeChange(InputTransform):
    """From step `at` on real images fade, x -> 0.25 x + 0.75, within 600 steps: as if another data set was read."""

    def __init__(self, name: str, at: int) -> None:
        super().__init__(name)
        self.at = at

    def transform_input(self, images: Tensor, origin: Any, context: Any) -> Tensor:
        """The images; real ones with less contrast."""
        share = 0.75 * min(1.0, max(0.0, (context.step - self.at) / 600))
        return images if origin != "real" else torch.lerp(images, torch.ones(()), share)


class HalfPrecision(GradientTransform):
    """Gradients are scaled by 2^16 and stored as float16, as in mixed precision with a constant scale.

    From step `at` on the scale doubles every 20 steps, until gradients overflow.
    """

    def __init__(self, name: str, at: int) -> None:
        super().__init__(name)
        self.at = at

    def transform_gradients(self, player: Any, move: Any) -> None:
        """Round the gradients to float16 and back; what is too large becomes infinite."""
        scale = 2.0 ** (10 + max(0, move.context.step - self.at) // 20)
        for weight in player.weights:
            if weight.grad is not None:
                weight.grad = (weight.grad * scale).half().float() / scale
