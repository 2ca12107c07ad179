"""Operations for augmentations: shifts, erased rectangles and bilinear resampling, with a separate draw for each image.

Images are B x C x H x W in [-1, 1]. A gradient penalty at the untransformed image differentiates through the
augmentation twice, so these operations use indexing and arithmetic only: PyTorch's `grid_sample` has no second
derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.core.types import Shape

Generator = torch.Generator | None
"""None is PyTorch's global generator of the images' device."""


def per_sample(like: Tensor, numbers: Tensor) -> Tensor:
    """Reshape one number per sample, B, so that it broadcasts over `like`."""
    return numbers.view(-1, *(1 for _ in like.shape[1:]))


def map_colours(
    samples: Tensor, change: Callable[[Tensor], Tensor], parts: tuple[int, ...] = (), *, alpha: bool = True
) -> Tensor:
    """Apply `change` to the colours of each image, B x C x H x W to the same shape, and leave alpha channels alone.

    Args:
        samples: B x C x H x W, an image, or one of each domain on top of each other.
        change: the new colours, from those of one image of each sample: its channels without alpha.
        parts: the number of channels of each image in a sample; empty if a sample is one image.
        alpha: whether the second of two channels of an image, and the fourth of four, is an alpha channel.
    """
    changed: list[Tensor] = []
    for image in samples.split(parts or (samples.shape[1],), 1):
        colours = image.shape[1] - (alpha and image.shape[1] in (2, 4))
        changed += [change(image[:, :colours]), *([image[:, colours:]] if colours < image.shape[1] else [])]
    return changed[0] if len(changed) == 1 else torch.cat(changed, 1)


def uniform(images: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """B numbers from U[low, high)."""
    draws = torch.rand(len(images), generator=generator, device=images.device, dtype=images.dtype)
    return draws.mul_(high - low).add_(low)


def random_integers(images: Tensor, low: int, high: int, generator: Generator) -> Tensor:
    """B integers from `low` to `high`, both included."""
    return torch.randint(low, high + 1, (len(images),), generator=generator, device=images.device)


def shift_images(
    images: Tensor,
    down: Tensor,
    right: Tensor,
    max_shift: tuple[int, int],
    edge: Literal["constant", "reflect"] = "constant",
) -> Tensor:
    """Shift each image by its own number of pixels.

    Args:
        images: B x C x H x W.
        down: int64, B: the shift downwards.
        right: int64, B: the shift to the right.
        max_shift: the largest shifts, vertical and horizontal, smaller than height and width.
        edge: the padding mode of `torch.nn.functional.pad`: grey (0), or the image's reflection.
    """
    (height, width), (vertical, horizontal) = images.shape[2:], max_shift
    padded = pad(images, (horizontal, horizontal, vertical, vertical), mode=edge).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=images.device) - down[:, None] + vertical
    columns = torch.arange(width, device=images.device) - right[:, None] + horizontal
    samples = torch.arange(len(images), device=images.device)
    return padded[samples[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def erase_rectangle(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Set a rectangle of (height, width) in each image to grey (0); its corner (top, left), B each, may be outside."""
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device) - top[:, None]
    right = torch.arange(width, device=images.device) - left[:, None]
    inside = ((down >= 0) & (down < size[0]))[:, :, None] & ((right >= 0) & (right < size[1]))[:, None, :]
    return images * (~inside)[:, None]


def reflect_indices(indices: Tensor, size: int) -> Tensor:
    """Map integer indices into 0 to size - 1 by reflection at the outer edges of the first and the last pixel."""
    folded = indices.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def resample_images(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample each image bilinearly at x and y, in pixels, B x H x W each; beyond the edges the image is reflected.

    At integer coordinates the result is exactly the image.
    """
    height, width = images.shape[2:]
    flat = images.flatten(2)
    left, above = x.floor(), y.floor()
    out: Tensor | None = None
    for down, weight_y in ((0, above + 1 - y), (1, y - above)):
        for right, weight_x in ((0, left + 1 - x), (1, x - left)):
            row = reflect_indices(above.long() + down, height)
            column = reflect_indices(left.long() + right, width)
            index = (row * width + column).flatten(1)[:, None].expand(-1, images.shape[1], -1)
            corner = flat.gather(2, index).view_as(flat) * (weight_x * weight_y).flatten(1)[:, None].to(images.dtype)
            out = corner if out is None else out + corner
    assert out is not None
    return out.view(images.shape)


def requires_images(shape: Shape) -> tuple[str, str] | None:
    """Why an augmentation cannot be used for samples of `shape`, and the cure; None if they are images."""
    if len(shape) == 3:
        return None
    return "it shifts and recolours images, but the data is points", "remove the trick, or use instance_noise instead"
