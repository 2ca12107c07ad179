"""The classes of a package's modules under the package's own name: `poise.tricks.R1`, found when it is asked for."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A `__getattr__` and a `__dir__` for a package whose modules define its parts.

    Args:
        package: its name.
    """

    @cache
    def found() -> dict[str, type]:
        home = import_module(package)
        modules = [import_module(f"{package}.{one.name}") for one in pkgutil.iter_modules(home.__path__)]
        return {
            name: thing
            for module in modules
            for name, thing in vars(module).items()
            if isinstance(thing, type) and thing.__module__ == module.__name__ and not name.startswith("_")
        }

    def attribute(name: str) -> Any:
        if name[:1].isupper() and name in found():  # a class; whoever imports a module must not import them all
            return found()[name]
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return attribute, lambda: sorted(found())
