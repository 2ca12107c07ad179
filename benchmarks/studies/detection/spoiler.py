"""A trick that makes D's input NaN, for the configuration `not-a-number` of plan.toml."""

from typing import Any

from torch import Tensor

from poise.core.hooks import InputTransform


class Spoiler(InputTransform):
    """Multiplies the images by NaN from step `at` on."""

    def __init__(self, name: str, at: int = 700) -> None:
        super().__init__(name)
        self.at = at

    def transform_input(self, images: Tensor, origin: Any, context: Any) -> Tensor:
        """The images, or NaN."""
        return images * float("nan") if context.step >= self.at else images
