"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738; tip M02): augment every image that D sees, real or generated.

The same random transformations are applied to real and generated images, in both players' moves, and are
differentiable. D cannot memorise a small training set, and G does not learn to generate the augmentations, because the
real images have them too. As in the authors' code:

    colour       x + b, b ~ U[-1/2, 1/2]; then the difference from grey times s ~ U[0, 2], then from the mean times
                 c ~ U[1/2, 3/2]
    translation  by up to an eighth of each side, padded with grey
    cutout       a rectangle of half of each side at a random position is set to grey
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict, field_validator
from torch import Tensor

from poise.core.config import did_you_mean, reject_value
from poise.core.hooks import InputTransform
from poise.core.types import MoveContext, Origin, Shape, check_floats
from poise.errors import RecipeError
from poise.tricks.augment_ops import (
    erase_rectangle,
    map_colours,
    per_sample,
    random_integers,
    requires_images,
    shift_images,
    uniform,
)
from poise.tricks.base import TrickConfig, TrickContext

Policy = Literal["colour", "translation", "cutout"]


def colour(
    images: Tensor, generator: torch.Generator | None, parts: tuple[int, ...] = (), *, alpha: bool = True
) -> Tensor:
    """Change the brightness, saturation and contrast of each image at random; see `augment_ops.map_colours`.

    The images of one sample get the same changes, and each of them has its own grey and its own mean.
    """
    ranges = ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5))
    brightness, saturation, contrast = (per_sample(images, uniform(images, *each, generator)) for each in ranges)

    def change(colours: Tensor) -> Tensor:
        colours = colours + brightness
        grey = colours.mean(1, keepdim=True)
        colours = (colours - grey) * saturation + grey
        mean = colours.mean((1, 2, 3), keepdim=True)
        return (colours - mean) * contrast + mean

    return map_colours(images, change, parts, alpha=alpha)


def translation(images: Tensor, generator: torch.Generator | None, ratio: float = 0.125) -> Tensor:
    """Shift each image by a random number of whole pixels, up to `ratio` of its sides."""
    vertical, horizontal = (int(side * ratio + 0.5) for side in images.shape[2:])
    down, right = (random_integers(images, -limit, limit, generator) for limit in (vertical, horizontal))
    return shift_images(images, down, right, (vertical, horizontal))


def cutout(images: Tensor, generator: torch.Generator | None, ratio: float = 0.5) -> Tensor:
    """Erase a rectangle of `ratio` of the sides from each image; its centre is anywhere in the image."""
    height, width = (int(side * ratio + 0.5) for side in images.shape[2:])
    lengths = zip(images.shape[2:], (height, width), strict=True)
    top, left = (random_integers(images, 0, side - cut % 2, generator) - cut // 2 for side, cut in lengths)
    return erase_rectangle(images, top, left, (height, width))


TRANSFORMS: dict[Policy, Callable[[Tensor, torch.Generator | None], Tensor]] = {
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}


def diff_augment(
    images: Tensor, policy: Sequence[str] = tuple(TRANSFORMS), generator: torch.Generator | None = None
) -> Tensor:
    """The images after all transformations of the policy, in its order; of the same shape and differentiable.

    DiffAugment (Zhao et al. 2020, arXiv:2006.10738). Augment everything that D sees, in both players' moves: real and
    generated images. `colour` adds b ~ U[-1/2, 1/2] and multiplies the difference from grey by s ~ U[0, 2] and then the
    difference from the mean by c ~ U[1/2, 3/2], so values may leave [-1, 1]; `translation` shifts by up to an eighth of
    each side, in whole pixels; `cutout` sets a rectangle of half of each side to grey.

    Args:
        images: B x C x H x W in [-1, 1]; the second of two channels and the fourth of four are alpha, no colours.
        policy: some of "colour", "translation" and "cutout".
        generator: random numbers, on the device of the images; by default PyTorch's global generator of that device.

    Raises:
        RecipeError: there is no such transformation, or these are not images, or images of whole numbers.
    """
    if images.dim() != 4:
        found = " x ".join(map(str, images.shape)) or "a scalar"
        raise RecipeError("needs images, B x C x H x W", where="diff_augment", found=found)
    check_floats(images, "diff_augment")
    for name in (policy,) if isinstance(policy, str) else policy:
        if name not in TRANSFORMS:
            cure = did_you_mean(name, list(TRANSFORMS))
            raise RecipeError("no such transformation", where="diff_augment", found=f"'{name}'", cure=cure)
        images = TRANSFORMS[name](images, generator)
    return images


class DiffAugmentConfig(TrickConfig):
    """`policy` lists the transformations, in this order.

    The paper uses all three if data is scarce, and fewer otherwise.
    """

    kind: Literal["diff_augment"] = "diff_augment"
    tip: ClassVar[str] = "M02"
    source: ClassVar[str] = "Zhao et al. 2020, arXiv:2006.10738"

    policy: Annotated[tuple[Policy, ...], Strict(False), Field(max_length=3)] = ("colour", "translation", "cutout")

    @field_validator("policy")
    @classmethod
    def _check_unique(cls, policy: tuple[Policy, ...]) -> tuple[Policy, ...]:
        if len(set(policy)) < len(policy):
            reject_value("contains a transformation twice", found=", ".join(policy))
        return policy

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """It needs images."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> DiffAugment:
        """See `DiffAugment`."""
        return DiffAugment(name, self.policy, context.data_spec.parts, alpha=context.alpha)


class DiffAugment(InputTransform):
    """Augments D's input, with new draws for each batch of each move.

    It acts before noise, which colour and cutout would change.

    Args:
        name: see `Trick`.
        policy: the transformations, in their order.
        parts: see `augment_ops.map_colours`.
        alpha: see `augment_ops.map_colours`.
    """

    rank: ClassVar[int] = -1

    def __init__(
        self, name: str, policy: tuple[Policy, ...], parts: tuple[int, ...] = (), *, alpha: bool = True
    ) -> None:
        super().__init__(name)
        self.policy = policy
        self.transforms = TRANSFORMS | {"colour": partial(colour, parts=parts, alpha=alpha)}

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """Apply all transformations of the policy, in its order."""
        for name in self.policy:
            images = self.transforms[name](images, context.generator(f"{self.name}/{origin}/{name}"))
        return images
