"""What a package exports of its modules under its own name, imported on first use: `poise.tricks.R1`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

NONE: Mapping[str, str] = MappingProxyType({})


def lazy_exports(
    package: str, families: Collection[str] = ("object",), functions: Mapping[str, str] = NONE
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A `__getattr__` and a `__dir__` for a package that exports the public classes of its modules, and functions.

    Args:
        package: its dotted name.
        families: the names of classes: of these and of their subclasses; by default of all.
        functions: the module of each function, whose name is that of no module.
    """

    @cache
    def classes() -> dict[str, type]:
        path = import_module(package).__path__
        modules = [import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(path)]
        return {
            name: value
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
            if any(base.__name__ in families for base in value.__mro__)
        }

    def get_attribute(name: str) -> Any:
        if name in functions:
            return getattr(import_module(f"{package}.{functions[name]}"), name)
        if name[:1].isupper() and name in classes():  # importing one module must not import all of them
            return classes()[name]
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get_attribute, lambda: sorted([*classes(), *functions])
