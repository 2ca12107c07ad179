"""The convolution whose second derivative is its own: the same numbers as PyTorch's, and fewer of them asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from poise.core.double_backward import Conv2d, input_gradients

KINDS: list[dict[str, Any]] = [
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 1},
    {"kernel_size": 3, "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": 1, "groups": 2},
]
every_kind = pytest.mark.parametrize("conv_options", KINDS, ids=str)


def twins(conv_options: dict[str, Any], **kwargs: Any) -> tuple[Conv2d, nn.Conv2d]:
    """Ours and PyTorch's, with the same weights."""
    torch.manual_seed(0)
    ours = Conv2d(4, 6, **conv_options, dtype=kwargs.get("dtype", torch.float64))
    theirs = nn.Conv2d(4, 6, **conv_options, dtype=kwargs.get("dtype", torch.float64))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def maps(dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(3, 4, 6, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return made.to(memory_format=torch.channels_last).requires_grad_()


def penalised(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The slope, and the gradients by input and weights of a cost that reads both the output and the slope."""
    out = net(x)
    (slope,) = input_gradients((out**3).sum(), [x])
    cost = slope.square().mean() + out.square().mean()
    wanted = {"x": x, **dict(net.named_parameters())}
    found = torch.autograd.grad(cost, list(wanted.values()))
    return {"out": out, "slope": slope, **dict(zip(wanted, found, strict=True))}


@every_kind
def test_the_numbers_are_pytorchs(conv_options: dict[str, Any]) -> None:
    ours, theirs = twins(conv_options)
    mine, other = penalised(ours, maps()), penalised(theirs, maps())
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert torch.allclose(tensor, other[name], rtol=1e-10, atol=1e-12), name


@every_kind
def test_forward_and_first_gradient_are_pytorchs_to_the_bit(conv_options: dict[str, Any]) -> None:
    ours, theirs = twins(conv_options, dtype=torch.float32)
    found = []
    for net in (ours, theirs):
        x = maps(torch.float32)
        out = net(x)
        out.square().sum().backward()
        found.append([out, x.grad, *(w.grad for w in net.parameters())])
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other)


@every_kind
def test_against_differences(conv_options: dict[str, Any]) -> None:
    net, _ = twins(conv_options)
    weights = list(net.parameters())

    def conv(x: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(dict(net.named_parameters()), given, strict=True)), (x,))

    assert gradcheck(conv, (maps(), *weights))
    assert gradgradcheck(conv, (maps(), *weights), fast_mode=True)


def test_a_slope_asks_for_no_weights_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the kernel: by input alone for the slope; each weight once for the cost, once for the slope."""
    from poise.core import double_backward

    asked: list[tuple[bool, ...]] = []
    real = double_backward.ConvGeometry.backward

    def counted(self: double_backward.ConvGeometry, *given: Any) -> Any:
        asked.append(given[3:])
        return real(self, *given)

    monkeypatch.setattr(double_backward.ConvGeometry, "backward", counted)
    net = nn.Sequential(Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2), Conv2d(4, 1, 3))
    x = maps(torch.float32)
    (slope,) = input_gradients(net(x).sum(), [x])
    assert asked == [(True, False, False)] * 2
    asked.clear()
    slope.square().sum().backward(inputs=list(net.parameters()))
    assert (False, True, False) in asked
    assert len(asked) <= 4


def test_where_no_second_derivative_can_be_wanted_it_is_pytorchs_own() -> None:
    """Nothing to differentiate, a frozen player, a reading without gradients."""
    net, x = Conv2d(4, 6, 3), maps(torch.float32)
    assert type(net(x).grad_fn).__name__ == "_ConvolutionBackward"
    assert type(net(x.detach()).grad_fn).__name__ == "ConvolutionBackward0"
    net.requires_grad_(False)
    assert type(net(x).grad_fn).__name__ == "ConvolutionBackward0"
    with torch.no_grad():
        assert net(x).grad_fn is None


def test_other_paddings_are_pytorchs() -> None:
    for item in ({"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}):
        ours, theirs = twins({"kernel_size": 3, **item})
        assert torch.equal(ours(maps()), theirs(maps()))


def test_in_half_precision() -> None:
    """Under autocast the output is bfloat16, the weights' gradients are float32 and near those in float32."""
    ours, theirs = twins(KINDS[0], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(maps(torch.float32))
    assert out.dtype == torch.bfloat16
    conv_options = []
    for net, half in ((ours, True), (theirs, False)):
        x = maps(torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = net(x)
        (slope,) = input_gradients(out.float().pow(2).sum(), [x])
        slope.float().square().sum().backward()
        assert net.weight.grad is not None
        assert net.weight.grad.dtype == torch.float32
        conv_options.append(net.weight.grad.flatten())
    assert float(torch.cosine_similarity(conv_options[0], conv_options[1], dim=0)) > 0.999


def test_spectral_norm_goes_through_it() -> None:
    net = torch.nn.utils.parametrizations.spectral_norm(Conv2d(4, 6, 3))
    x = maps(torch.float32)
    (slope,) = input_gradients(net(x).sum(), [x])
    slope.square().sum().backward()
    grad = net.parametrizations.weight.original.grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert grad.any()
