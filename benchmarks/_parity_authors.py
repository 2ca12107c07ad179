"""Imports the authors' networks from a checkout of their repository, which is given by the user and not changed."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

STYLEGAN2_FILE, BIGGAN_FILE = Path("training/networks.py"), Path("BigGAN.py")
"""The files with the networks, relative to the checkout."""


class _AttributeDict(dict[str, Any]):
    """A dictionary whose items are attributes too, all that StyleGAN2's networks need of the authors' tools."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _TorchWithDtype(ModuleType):
    """The module `torch`, except that `torch.float32` is another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__("torch")
        self.float32 = dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextlib.contextmanager
def stylegan2_networks(checkout: Path, dtype: torch.dtype) -> Iterator[ModuleType]:
    """The module `training.networks` of NVlabs/stylegan2-ada-pytorch, for networks that compute in `dtype`.

    That code has float32 written into it; in the three modules that name it, it is replaced by `dtype`. The custom CUDA
    operations are not compiled; on the CPU the networks use the reference operations. The package `dnnlib`, of which
    the networks use a single class, needs packages that are not installed with poise, and is replaced too.
    """
    dnnlib, custom_ops = ModuleType("dnnlib"), ModuleType("torch_utils.custom_ops")
    dnnlib.EasyDict = _AttributeDict  # type: ignore[attr-defined]
    with _importable(checkout, dnnlib, custom_ops):
        networks = import_module("training.networks")
        for name in ("training.networks", "torch_utils.ops.upfirdn2d", "torch_utils.ops.conv2d_resample"):
            sys.modules[name].torch = _TorchWithDtype(dtype)  # type: ignore[attr-defined]
        yield networks


@contextlib.contextmanager
def biggan_networks(checkout: Path) -> Iterator[ModuleType]:
    """The module `BigGAN` of ajbrock/BigGAN-PyTorch; what it prints is dropped."""
    with _importable(checkout), contextlib.redirect_stdout(io.StringIO()):
        yield import_module("BigGAN")


@contextlib.contextmanager
def _importable(checkout: Path, *replaced: ModuleType) -> Iterator[None]:
    """Import from `checkout` while the context lasts; then its modules are forgotten, as their names are common ones.

    Args:
        checkout: the folder.
        replaced: modules that take the place of those with their names.
    """
    path, modules = list(sys.path), dict(sys.modules)
    names = {item.stem for item in checkout.iterdir()}
    sys.path.insert(0, str(checkout.resolve()))
    _forget(names)
    sys.modules.update({module.__name__: module for module in replaced})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:] = path
        _forget(names)
        sys.modules.update(modules)


def _forget(names: set[str]) -> None:
    """Remove the modules and packages with these names, so that the next import finds the first ones on the path."""
    for name in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[name]
