"""Second derivatives of convolutions at the price they should have.

A penalty on D's slope differentiates D by its input and then by its weights. PyTorch's own second derivative of a
convolution works out the weights' part as a convolution whose kernel is a whole map, and turns its operands about for
it; it is the plain gradient of a weight, for which there is a kernel. `Conv2d` says so. What that is worth is the last
two lines of `benchmarks/tricks.py`.

For y = x * w (convolution) and a gradient g of y there are, with <.,.> the sum of products,

    first    g_x = grad_x <g, x * w>          g_w = grad_w <g, x * w>
    second   of <v, g_x>: by g it is v * w, by w it is grad_w <g, v * w>
             of <v, g_w>: by g it is x * v, by x it is grad_x <g, x * v>

(StyleGAN's authors replace the operator too: Karras et al. 2020, arXiv:2006.06676, released code in PyTorch.)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class _Thread(threading.local):
    """What the graphs of one thread share; a graph keeps it, since a device may go backward in a thread of its own."""

    def __init__(self) -> None:
        self.mark = _Mark()


class _Mark:
    only_inputs = False
    """Whether a slope is being taken, for which no weight's gradient is wanted."""


_thread = _Thread()


def input_gradients(total: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """d total / d input for each input, of its shape, to be differentiated again.

    Convolutions' weights count as given: a weight that is itself a function of the input is not followed.
    """
    mark = _thread.mark
    mark.only_inputs = True
    try:
        return torch.autograd.grad(total, list(inputs), create_graph=True)
    finally:
        mark.only_inputs = False


class ConvGeometry(NamedTuple):
    """How a kernel is laid over a map."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x * w (+ b)."""
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, *wanted: bool) -> tuple[Tensor | None, ...]:
        """The gradients of <grad, x * w + b> by x, w and b, those that are wanted."""
        sizes, none = [len(weight)], [0] * len(self.stride)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, sizes, self.stride, self.padding, self.dilation, False, none, self.groups, list(wanted)
        )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, laid: ConvGeometry) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.laid, ctx.mark = laid, _thread.mark
        return laid.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        weights = not ctx.mark.only_inputs
        wanted = by_x, by_weight and weights, by_bias and weights
        return *_Gradients.apply(grad, *ctx.saved_tensors, ctx.laid, wanted), None


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, laid: ConvGeometry, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, weight)
        ctx.laid = laid
        return laid.backward(grad, x, weight, *wanted)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, at_x: Tensor | None, at_weight: Tensor | None, at_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad, x, weight = ctx.saved_tensors
        laid, (by_grad, by_x, by_weight, *_) = ctx.laid, ctx.needs_input_grad
        to_grad: list[Tensor] = []
        to_x = to_weight = None
        if at_x is not None:
            to_grad += [laid.forward(at_x, weight)] if by_grad else []
            to_weight = laid.backward(grad, at_x, weight, False, True, False)[1] if by_weight else None
        if at_weight is not None:
            to_grad += [laid.forward(x, at_weight)] if by_grad else []
            to_x = laid.backward(grad, x, at_weight, True, False, False)[0] if by_x else None
        if at_bias is not None and by_grad:
            to_grad += [at_bias[None, :, None, None].expand_as(grad)]
        return sum(to_grad[1:], to_grad[0]) if to_grad else None, to_x, to_weight, None, None


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, with the same numbers forward and back (in float32) and a cheaper second derivative."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.padding_mode != "zeros" or isinstance(self.padding, str)
        if plain or not (torch.is_grad_enabled() and weight.requires_grad and input.requires_grad):
            return super()._conv_forward(input, weight, bias)
        if torch.is_autocast_enabled(input.device.type):
            half = torch.get_autocast_dtype(input.device.type)
            input, weight, bias = input.to(half), weight.to(half), None if bias is None else bias.to(half)
        laid = ConvGeometry(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
        return _Convolution.apply(input, weight, bias, laid)  # type: ignore[return-value]
