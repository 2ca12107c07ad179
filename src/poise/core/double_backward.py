"""Convolutions with faster gradients: of second order, and of first order by large weights.

A gradient penalty differentiates D with respect to its input and then with respect to its weights. PyTorch computes the
weights' part of a convolution's second derivative as a convolution whose kernel is a whole feature map, with its
operands transposed. But it is an ordinary weight gradient, for which there is a kernel, and `Conv2d` uses that one. The
last two lines that `benchmarks/tricks.py` prints show the gain.

For y = x * w (convolution) and a gradient g of y there are, with <.,.> the sum of products,

    first    g_x = grad_x <g, x * w>          g_w = grad_w <g, x * w>
    second   of <v, g_x>: by g it is v * w, by w it is grad_w <g, v * w>
             of <v, g_w>: by g it is x * v, by x it is grad_x <g, x * v>

For a transposed convolution the same holds, with its own forward pass and gradients.

On CPUs the kernel for the gradient of a weight is slow where the weight has far more entries than the maps have pixels,
as in the layers of 4 x 4 maps. There it is computed as a matrix product (`weight_gradient`); docs/notes/speed.md has
the measurements.

(StyleGAN's authors replace the operator too: Karras et al. 2020, arXiv:2006.06676, released code in PyTorch.)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

LARGE = 1 << 18
"""The smallest number of entries of a weight whose gradient is computed as a matrix product, on a CPU."""

FASTER = (torch.bfloat16, torch.float32)
"""The types of numbers for which this has been found to be faster."""

LARGE_PER_PIXEL = 1 << 10
"""The smallest number of these entries for each pixel of the smaller maps of the batch."""


class _Thread(threading.local):
    """A mark that the graphs of one thread share. A graph keeps it, as a device may run backward in its own thread."""

    def __init__(self) -> None:
        self.mark = _Mark()


class _Mark:
    only_inputs = False
    """Whether an input gradient is being computed, which needs no gradients of weights."""


_thread = _Thread()


def input_gradients(total: Tensor, inputs: Sequence[Tensor], *, differentiable: bool = True) -> tuple[Tensor, ...]:
    """d total / d input for each input, of the same shape, and differentiable again unless `differentiable` is false.

    The weights of convolutions count as constants: a weight that is itself a function of the input is not followed.
    """
    mark = _thread.mark
    mark.only_inputs = True
    try:
        return torch.autograd.grad(total, list(inputs), create_graph=differentiable)
    finally:
        mark.only_inputs = False


class ConvGeometry(NamedTuple):
    """Stride, padding, dilation and groups of a convolution, and whether it is transposed."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = (0, 0)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x * w (+ b)."""
        if self.transposed:
            sizes = self.stride, self.padding, self.output_padding
            return conv_transpose2d(x, weight, bias, *sizes, self.groups, self.dilation)
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, *output_mask: bool) -> tuple[Tensor | None, ...]:
        """The gradients of <grad, x * w + b> with respect to x, w and b, for those in `output_mask`."""
        for_x, for_weight, for_bias = output_mask
        small, large = (x, grad) if self.transposed else (grad, x)
        if for_weight and self._has_large_weight(small, weight):
            others = self._backward(grad, x, weight, for_x, False, for_bias) if for_x or for_bias else (None,) * 3
            return others[0], weight_gradient(small, large, weight, self.stride, self.padding), others[2]
        return self._backward(grad, x, weight, *output_mask)

    def _backward(self, grad: Tensor, x: Tensor, weight: Tensor, *output_mask: bool) -> tuple[Tensor | None, ...]:
        bias_sizes = [weight.shape[1] * self.groups if self.transposed else len(weight)]
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            bias_sizes,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            list(output_mask),
        )

    def _has_large_weight(self, small: Tensor, weight: Tensor) -> bool:
        pixels = len(small) * small.shape[2] * small.shape[3]
        fits = self.groups == 1 and set(self.dilation) == {1} and weight.device.type == "cpu"
        return fits and weight.dtype in FASTER and weight.numel() >= max(LARGE, LARGE_PER_PIXEL * pixels)


def weight_gradient(
    small: Tensor, large: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """The gradient of a convolution's weight as one matrix product: pixels of one map by windows of the other.

    Args:
        small: the gradient of the output, B x O x H' x W'; of a transposed convolution the input.
        large: the input, B x C x H x W; of a transposed convolution the gradient of the output.
        weight: the weight, O x C x h x w.
        stride: by how much windows of h x w are apart.
        padding: the zeros at both sides of `large`.

    Returns:
        sum over b, i, j of small[b, o, i, j] large[b, c, i s + m - p, j s + n - p], O x C x h x w.
    """
    (height, width), (top, left) = weight.shape[2:], padding
    windows = pad(large, (left, left, top, top)).unfold(2, height, stride[0]).unfold(3, width, stride[1])
    columns = windows.permute(0, 2, 3, 4, 5, 1).reshape(-1, height * width * weight.shape[1])
    rows = small.permute(0, 2, 3, 1).reshape(-1, len(weight))
    with torch.autocast(weight.device.type, enabled=False):
        return (rows.t() @ columns).unflatten(1, (height, width, -1)).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.mark = geometry, _thread.mark
        return geometry.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        weights = not ctx.mark.only_inputs
        output_mask = for_x, for_weight and weights, for_bias and weights
        return *_Gradients.apply(grad, *ctx.saved_tensors, ctx.geometry, output_mask), None


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, geometry: ConvGeometry, output_mask: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = geometry
        return geometry.backward(grad, x, weight, *output_mask)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, at_x: Tensor | None, at_weight: Tensor | None, at_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad, x, weight = ctx.saved_tensors
        geometry, (for_grad, for_x, for_weight, *_) = ctx.geometry, ctx.needs_input_grad
        to_grad: list[Tensor] = []
        to_x = to_weight = None
        if at_x is not None:
            to_grad += [geometry.forward(at_x, weight)] if for_grad else []
            to_weight = geometry.backward(grad, at_x, weight, False, True, False)[1] if for_weight else None
        if at_weight is not None:
            to_grad += [geometry.forward(x, at_weight)] if for_grad else []
            to_x = geometry.backward(grad, x, at_weight, True, False, False)[0] if for_x else None
        if at_bias is not None and for_grad:
            to_grad += [at_bias[None, :, None, None].expand_as(grad)]
        return sum(to_grad[1:], to_grad[0]) if to_grad else None, to_x, to_weight, None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """x * w (+ b), B x O x H' x W', with faster gradients; the forward pass and what they are is unchanged.

    The weight may be computed from a parameter, as by an equalised learning rate, but not from x (see
    `input_gradients`).
    """
    if not (torch.is_grad_enabled() and weight.requires_grad and x.requires_grad):
        return geometry.forward(x, weight, bias)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        half = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(half), weight.to(half), None if bias is None else bias.to(half)
    return _Convolution.apply(x, weight, bias, geometry)  # type: ignore[return-value]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with faster gradients.

    In float32 the output and first gradients are equal to the bit, except for the gradient of a large weight.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        geometry = ConvGeometry(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
        return convolve(input, weight, bias, geometry)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with faster gradients, as `Conv2d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """B x C x H x W to the larger maps."""
        if output_size is not None or self.padding_mode != "zeros":
            return super().forward(input, output_size)
        sizes = self.stride, self.padding, self.dilation, self.groups
        geometry = ConvGeometry(*sizes, transposed=True, output_padding=self.output_padding)  # type: ignore[arg-type]
        return convolve(input, self.weight, self.bias, geometry)
