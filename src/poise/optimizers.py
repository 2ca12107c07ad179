"""Optimisers: each player has its own, with its own rate and schedule (tip T10; two rates: Heusel 2017, TTUR).

They are PyTorch's, called below the wrappers that its compiler needs (`Eager`): those import `torch._dynamo` at their
first call, which is a third of the time to the first step, and nothing here is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, Strict
from torch import nn

from poise.core.config import ComponentConfig
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import MoveContext

Share = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[Schedulable, in_range(0, below=1)]
Betas = Annotated[tuple[Beta, Beta], Strict(False)]
Parameters = Iterable[nn.Parameter] | list[dict[str, Any]]


class Eager(torch.optim.Optimizer):
    """Mixed into one of PyTorch's optimisers: the same arithmetic, reached without `torch._dynamo`.

    PyTorch wraps what it must not trace by `functools.wraps`, so the method itself is at the end of `__wrapped__`.
    Where a version wraps it in another way, the wrapper is called as it is: a slower start, and the same numbers.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See `torch.optim.Optimizer.add_param_group`."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def step(self, closure: Any = None) -> Any:
        """See `torch.optim.Optimizer.step`; without a gradient of its own, as there unless it is differentiable."""
        with torch.no_grad():
            return inspect.unwrap(getattr(super(), "step"))(self, closure)  # noqa: B009 - typed abstract in the base


class Adam(Eager, torch.optim.Adam):
    """`torch.optim.Adam`."""


class AdamW(Eager, torch.optim.AdamW):
    """`torch.optim.AdamW`."""


class SGD(Eager, torch.optim.SGD):
    """`torch.optim.SGD`."""


class RMSprop(Eager, torch.optim.RMSprop):
    """`torch.optim.RMSprop`."""


class OptimizerConfig(ComponentConfig):
    """An optimiser in a recipe; `lr` is a dial, set before every step."""

    lr: Annotated[Schedulable, in_range(0)] = 2e-4

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimiser over `parameters`, fused where the device has it."""
        raise NotImplementedError

    def group_options(self, context: MoveContext) -> dict[str, Any]:
        """What its parameter groups are set to before the step of `context`."""
        return {"lr": current_value(self.lr, context)}


class AdamBase(OptimizerConfig):
    """What Adam and AdamW share; both betas may be dials."""

    betas: Betas = (0.5, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    def group_options(self, context: MoveContext) -> dict[str, Any]:
        """Rate and betas."""
        return {
            "lr": current_value(self.lr, context),
            "betas": tuple(current_value(beta, context) for beta in self.betas),
        }


class AdamConfig(AdamBase):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980); for GANs with beta1 = 0.5 (Radford 2015)."""

    kind: Literal["adam"] = "adam"

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.Adam`, fused."""
        return Adam(parameters, lr=1.0, eps=self.eps, fused=True)


class AdamWConfig(AdamBase):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`, fused."""
        return AdamW(parameters, lr=1.0, eps=self.eps, weight_decay=self.weight_decay, fused=True)


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent, with heavy-ball momentum if it is above 0."""

    kind: Literal["sgd"] = "sgd"
    lr: Annotated[Schedulable, in_range(0)] = 1e-2
    momentum: Share = 0.0

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.SGD`, fused.

        The momentum starts as 0 and not as nothing: a first step that is not made would leave it unwritten otherwise.
        """
        optimizer = SGD(parameters, lr=1.0, momentum=self.momentum, fused=True)
        if self.momentum:
            for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return optimizer


class RMSPropConfig(OptimizerConfig):
    """RMSProp (Tieleman & Hinton 2012), as the Wasserstein GAN takes it (Arjovsky 2017, arXiv:1701.07875)."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[Schedulable, in_range(0)] = 5e-5
    alpha: Share = 0.99
    momentum: Share = 0.0
    eps: float = Field(default=1e-8, gt=0)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.RMSprop`, all weights at once; it has no fused form."""
        return RMSprop(parameters, lr=1.0, alpha=self.alpha, momentum=self.momentum, eps=self.eps, foreach=True)
