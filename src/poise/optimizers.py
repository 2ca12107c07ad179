"""Optimisers. Each player has its own, with its own learning rate and schedule (tip T10; TTUR: Heusel et al. 2017).

They are PyTorch's optimisers without the wrappers for its compiler (`Eager`). These wrappers import `torch._dynamo` at
their first call, which takes a third of the time to the first step, and poise does not compile.
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

Fraction = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[Schedulable, in_range(0, below=1)]
Betas = Annotated[tuple[Beta, Beta], Strict(False)]
Parameters = Iterable[nn.Parameter] | list[dict[str, Any]]


class Eager(torch.optim.Optimizer):
    """A mixin for PyTorch's optimisers that calls the same methods without importing `torch._dynamo`.

    PyTorch wraps methods that it must not trace with `functools.wraps`, so the chain of `__wrapped__` leads to the
    original method. If a version of PyTorch wraps them differently, the wrapper is called: the start is slower, and the
    results are the same.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See `torch.optim.Optimizer.add_param_group`."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def step(self, closure: Any = None) -> Any:
        """See `torch.optim.Optimizer.step`. Runs without gradients, as there unless `differentiable` is set."""
        with torch.no_grad():
            return inspect.unwrap(getattr(super(), "step"))(self, closure)  # noqa: B009 - abstract in the type stubs


class Adam(Eager, torch.optim.Adam):
    """`torch.optim.Adam`; see `Eager`."""


class AdamW(Eager, torch.optim.AdamW):
    """`torch.optim.AdamW`; see `Eager`."""


class SGD(Eager, torch.optim.SGD):
    """`torch.optim.SGD`; see `Eager`."""


class RMSprop(Eager, torch.optim.RMSprop):
    """`torch.optim.RMSprop`; see `Eager`."""


class OptimizerConfig(ComponentConfig):
    """An optimiser in a recipe; `lr`, the learning rate, may be a schedule and is set before every step.

    The fields mean what they mean in PyTorch. Their defaults are those of GANs where these differ: `lr` is 2e-4 for
    Adam (Radford 2015), 1e-2 for SGD and 5e-5 for RMSProp (Arjovsky 2017).
    """

    lr: Annotated[Schedulable, in_range(0)] = 2e-4

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimiser of `parameters`, in its fused implementation if it has one."""
        raise NotImplementedError

    def group_options(self, context: MoveContext) -> dict[str, Any]:
        """The options that its parameter groups are given before the step of `context`."""
        return {"lr": current_value(self.lr, context)}


class AdamBase(OptimizerConfig):
    """The base class of Adam and AdamW.

    `betas` are the decays of the running means of the gradient and of its square, (0.5, 0.999) by default and each of
    them a number below 1 or a schedule; `eps` is added to the root of the latter.
    """

    betas: Betas = (0.5, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    def group_options(self, context: MoveContext) -> dict[str, Any]:
        """The learning rate and the betas."""
        return {
            "lr": current_value(self.lr, context),
            "betas": tuple(current_value(beta, context) for beta in self.betas),
        }


class AdamConfig(AdamBase):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980); for GANs usually with beta1 = 0.5 (Radford 2015)."""

    kind: Literal["adam"] = "adam"

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.Adam`, fused."""
        return Adam(parameters, lr=1.0, eps=self.eps, fused=True)


class AdamWConfig(AdamBase):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Before each update the weights are multiplied by 1 - lr `weight_decay`.
    """

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`, fused."""
        return AdamW(parameters, lr=1.0, eps=self.eps, weight_decay=self.weight_decay, fused=True)


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent, with heavy-ball momentum if `momentum`, 0 to below 1, is above 0."""

    kind: Literal["sgd"] = "sgd"
    lr: Annotated[Schedulable, in_range(0)] = 1e-2
    momentum: Fraction = 0.0

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.SGD`, fused.

        The momentum buffers are created as zeros here: if the first step is skipped, PyTorch would leave them
        uninitialised.
        """
        optimizer = SGD(parameters, lr=1.0, momentum=self.momentum, fused=True)
        if self.momentum:
            for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return optimizer


class RMSPropConfig(OptimizerConfig):
    """RMSProp, as in the Wasserstein GAN (Arjovsky 2017, arXiv:1701.07875).

    Hinton's lecture 6e (2012): https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf. `alpha` is the
    decay of the running mean of the squared gradient, by whose root plus `eps` the gradient is divided; `momentum` is
    that of the updates.
    """

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[Schedulable, in_range(0)] = 5e-5
    alpha: Fraction = 0.99
    momentum: Fraction = 0.0
    eps: float = Field(default=1e-8, gt=0)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.RMSprop` in its `foreach` implementation; it has no fused one."""
        return RMSprop(parameters, lr=1.0, alpha=self.alpha, momentum=self.momentum, eps=self.eps, foreach=True)
