"""What augmentations are made of: pictures moved, cut and coloured, each by its own draw, differentiably twice.

Pictures are B x C x H x W in [-1, 1]. A penalty on D's slope at the raw picture goes backward through the augmentation
twice, so everything here is indexing and arithmetic: PyTorch's `grid_sample` has no second derivative.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.core.types import Shape

Generator = torch.Generator


def per_sample(like: Tensor, numbers: Tensor) -> Tensor:
    """One number for each sample, B, ready to be broadcast over `like`."""
    return numbers.view(-1, *(1 for _ in like.shape[1:]))


def uniform(images: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """B numbers in [low, high)."""
    draws = torch.rand(len(images), generator=generator, device=images.device, dtype=images.dtype)
    return draws.mul_(high - low).add_(low)


def random_integers(images: Tensor, low: int, high: int, generator: Generator) -> Tensor:
    """B whole numbers from `low` to `high`, both included."""
    return torch.randint(low, high + 1, (len(images),), generator=generator, device=images.device)


def shift_images(
    images: Tensor, down: Tensor, right: Tensor, most: int, edge: Literal["constant", "reflect"] = "constant"
) -> Tensor:
    """Each picture moved by so many pixels, B each, at most `most` either way.

    Args:
        images: B x C x H x W.
        down: whole numbers, B.
        right: whole numbers, B.
        most: below the side.
        edge: what comes in at the edges, as `torch.nn.functional.pad` calls it: grey (0), or the picture's reflection.
    """
    height, width = images.shape[2:]
    padded = pad(images, (most, most, most, most), mode=edge).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=images.device) - down[:, None] + most
    columns = torch.arange(width, device=images.device) - right[:, None] + most
    samples = torch.arange(len(images), device=images.device)
    return padded[samples[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def erase_square(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Each picture with a square of `side` pixels made grey (0), its corner at (top, left), B each, may be outside."""
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device) - top[:, None]
    right = torch.arange(width, device=images.device) - left[:, None]
    inside = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :]
    return images * (~inside)[:, None]


def reflect_indices(places: Tensor, size: int) -> Tensor:
    """Whole places folded back into 0 to size - 1, as by mirrors at the outer edges of the first and the last."""
    folded = places.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def resample_images(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Each picture read at other places, bilinearly: x and y in pixels, B x H x W each; beyond the edge it is mirrored.

    At whole places it is the picture itself, exactly.
    """
    height, width = images.shape[2:]
    flat = images.flatten(2)
    left, above = x.floor(), y.floor()
    out: Tensor | None = None
    for down, share_y in ((0, above + 1 - y), (1, y - above)):
        for right, share_x in ((0, left + 1 - x), (1, x - left)):
            row = reflect_indices(above.long() + down, height)
            column = reflect_indices(left.long() + right, width)
            place = (row * width + column).flatten(1)[:, None].expand(-1, images.shape[1], -1)
            read = flat.gather(2, place).view_as(flat) * (share_x * share_y).flatten(1)[:, None].to(images.dtype)
            out = read if out is None else out + read
    assert out is not None
    return out.view(images.shape)


def requires_images(shape: Shape) -> tuple[str, str] | None:
    """What an augmentation says of samples that are no pictures."""
    cure = "leave the trick out, or take instance_noise"
    if len(shape) != 3:
        return "this moves and colours pictures, and the data is points", cure
    return ("this moves and turns pictures, which must be square for that", cure) if shape[1] != shape[2] else None
