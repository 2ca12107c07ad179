"""Trains a recipe in float64: `python double_precision_run.py RECIPE OUT PARTS`.

The environment says on how many ranks, and PARTS is the number of parts of a batch on each of them.
"""

import sys
from typing import Any

import torch
from torch import nn

from poise.recipe.decode import decode
from poise.recipe.shipped import load_recipe
from poise.training.train import train


def to_double(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs of a module, in float64 if they are in float32."""
    return tuple(x.double() if isinstance(x, torch.Tensor) and x.dtype == torch.float32 else x for x in inputs)


torch.set_default_dtype(torch.float64)
nn.modules.module.register_module_forward_pre_hook(to_double)
train(decode(load_recipe(sys.argv[1])), sys.argv[2], precision="fp32", accumulate=int(sys.argv[3]))
