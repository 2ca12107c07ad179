"""Conversion of images between bytes, as in files, and floats, as in networks."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]


def send(values: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device, without waiting for the device.

    A copy to a CUDA device is asynchronous from pinned memory only. PyTorch keeps a pool of that, and reuses a block
    only after the copy from it is done.
    """
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def to_float(images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8, B x H x W x C, to float32 in [-1, 1], B x C x H x W in channels_last: x / 127.5 - 1."""
    return send(images, device).to(torch.float32).div_(127.5).sub_(1.0).permute(0, 3, 1, 2)


def read_ahead(mapped: np.memmap[Any, Any], rows: Sequence[int]) -> None:
    """Ask the system to read rows of a mapped file at once, which otherwise it does one by one when each is used.

    On a virtual disk, random rows of 12 KiB were read 5 to 10 times as fast. Without such a call, nothing is done.

    Args:
        mapped: the whole array of a file.
        rows: the rows.
    """
    if hasattr(mmap, "MADV_WILLNEED"):
        size, pages = mapped.strides[0], mapped._mmap  # type: ignore[attr-defined]
        for row in rows:
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            pages.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)


def flip_where(flipped: Tensor, images: Tensor) -> Tensor:
    """Images, B x H x W x C, of which those for which `flipped`, bool, B, is true are flipped left to right."""
    return torch.where(flipped[:, None, None, None], images.flip(2), images)


def to_bytes(images: Tensor) -> Bytes:
    """Float in [-1, 1], B x C x H x W, to uint8, B x H x W x C, rounded; the inverse of `to_float`."""
    scaled = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_rgb(images: Tensor, *, alpha: bool = True) -> Tensor:
    """Convert images, B x C x H x W, to three channels.

    Grey is repeated, alpha is composited over white; without alpha, two channels become red and green.
    """
    channels = images.shape[1]
    if channels == 2 and not alpha:
        return torch.cat((images, torch.full_like(images[:, :1], -1)), 1)
    if channels in (2, 4):
        opacity = (images[:, -1:] + 1) / 2
        images = images[:, :-1] * opacity + (1 - opacity)
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
