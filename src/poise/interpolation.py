"""Linear and spherical interpolation between latents (tip T03; White 2016, arXiv:1609.04468)."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core.types import check_floating_point


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Linear interpolation: (1 - t) a + t b, exact at t = 0 and t = 1; beyond them it extrapolates.

    Args:
        a: latents, ... x d, floating point; t and the result have their type, if b has it too.
        b: latents that can be broadcast with a.
        t: a number, or a tensor that can be broadcast with both, such as n x 1 for n points of a path.

    Returns:
        The latents, of the shape to which a, b and t are broadcast.

    Raises:
        ValueError: latents are integers, or the shapes cannot be broadcast.
    """
    t = _check_inputs(a, b, t)
    return torch.where(t == 1, b, a + t * (b - a))


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Spherical linear interpolation between `a` and `b`, along their last dimension.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle between a and b (Shoemake 1985; for
    latents White 2016, arXiv:1609.04468). Exact at t = 0 and t = 1; beyond them it goes on along the great circle. If
    that is not unique (parallel or opposite vectors, or one of length zero), the interpolation is linear. Types of 16
    bits are computed in float32, and the result has the type of a.

    Args:
        a: latents, ... x d, floating point.
        b: latents that can be broadcast with a.
        t: a number, or a tensor that can be broadcast with both, such as n x 1 for n points of a path.

    Returns:
        The latents, of the shape to which a, b and t are broadcast.

    Raises:
        ValueError: latents are integers, or the shapes cannot be broadcast.
    """
    check_floating_point(a)
    check_floating_point(b)
    if torch.finfo(a.dtype).bits < 32:
        return slerp(a.float(), b.float(), t).to(a.dtype)
    t = _check_inputs(a, b, t)
    unit_a, unit_b = (x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) for x in (a, b))
    # atan2 of the chord lengths of the half-angle is accurate at small and wide angles, unlike acos of the dot product
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1, keepdim=True), (unit_a + unit_b).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    is_zero = (a == 0).all(-1, keepdim=True) | (b == 0).all(-1, keepdim=True)
    linear = is_zero | (sine.abs() < 1e3 * torch.finfo(a.dtype).eps)
    safe = torch.where(linear, torch.ones_like(sine), sine)
    arc = ((1 - t) * angle).sin() / safe * a + (t * angle).sin() / safe * b
    path = torch.where(linear, lerp(a, b, t), arc)
    return torch.where(t == 0, a, torch.where(t == 1, b, path))


def _check_inputs(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """The fraction t as a tensor like a; a ValueError if the latents or the shapes do not allow an interpolation."""
    check_floating_point(a)
    check_floating_point(b)
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device)
    try:
        torch.broadcast_shapes(a.shape, b.shape, t.shape)
    except RuntimeError:
        shapes = f"a: {tuple(a.shape)}, b: {tuple(b.shape)}, t: {tuple(t.shape)}"
        raise ValueError(f"the shapes cannot be broadcast, found {shapes}; n fractions are t of shape (n, 1)") from None
    return t
