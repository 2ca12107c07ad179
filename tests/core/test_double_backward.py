"""Convolutions whose gradients are their own: the same numbers as PyTorch's, and fewer of them asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, conv_transpose2d

from poise.core import double_backward
from poise.core.double_backward import Conv2d, ConvTranspose2d, input_gradients

KINDS: list[dict[str, Any]] = [
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 1},
    {"kernel_size": 3, "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 4, "stride": 2, "padding": 1, "transposed": True},
    {"kernel_size": 3, "stride": (2, 3), "padding": (0, 1), "output_padding": (1, 2), "transposed": True},
    {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False, "transposed": True},
]
every_kind = pytest.mark.parametrize("conv_options", KINDS, ids=str)


@pytest.fixture(params=["kernel", "product"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How gradients of weights are computed: by PyTorch's kernel, or as if all weights were large."""
    if request.param == "product":
        monkeypatch.setattr(double_backward, "FASTER", (torch.float32, torch.float64))
        monkeypatch.setattr(double_backward, "LARGE", 0)
        monkeypatch.setattr(double_backward, "LARGE_PER_PIXEL", 0)
    return request.param


def twins(conv_options: dict[str, Any], **kwargs: Any) -> tuple[Conv2d | ConvTranspose2d, nn.Module]:
    """Ours and PyTorch's, with the same weights."""
    torch.manual_seed(0)
    options = {"dtype": kwargs.get("dtype", torch.float64)} | conv_options
    transposed = options.pop("transposed", False)
    ours = (ConvTranspose2d if transposed else Conv2d)(4, 6, **options)
    theirs = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, **options)
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
def test_the_numbers_are_pytorchs(conv_options: dict[str, Any], way: str) -> None:
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
def test_against_differences(conv_options: dict[str, Any], way: str) -> None:
    net, _ = twins(conv_options)
    weights = list(net.parameters())

    def conv(x: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(dict(net.named_parameters()), given, strict=True)), (x,))

    assert gradcheck(conv, (maps(), *weights), fast_mode=True)
    assert gradgradcheck(conv, (maps(), *weights), fast_mode=True)


@pytest.mark.parametrize("layer", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("large", [True, False])
def test_only_the_gradient_of_a_large_weight_is_a_matrix_product(
    layer: type[Conv2d | ConvTranspose2d], large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []
    real = double_backward.weight_gradient

    def counted(*given: Any) -> Tensor:
        asked.append(real(*given))
        return asked[-1]

    monkeypatch.setattr(double_backward, "weight_gradient", counted)
    net = layer(64, 256 if large else 64, 4, 2, 1, bias=False)
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        out.float().square().sum().backward()  # in autocast, as the gradients of penalties
    assert len(asked) == large
    convolve = conv_transpose2d if layer is ConvTranspose2d else conv2d
    weight = net.weight.detach().bfloat16().float().requires_grad_()
    convolve(x.detach().bfloat16().float(), weight, stride=2, padding=1).backward(2 * out.detach().float())
    assert net.weight.grad is not None
    assert weight.grad is not None
    assert float((net.weight.grad - weight.grad).norm() / weight.grad.norm()) < 2**-8  # a rounding to bfloat16


def test_a_slope_asks_for_no_weights_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the kernel: by input alone for the slope; each weight once for the cost, once for the slope."""
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
