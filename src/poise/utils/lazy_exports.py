"""The classes of a package's modules under the package's own name, imported on first use: `poise.tricks.R1`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A `__getattr__` and a `__dir__` for a package that exports the public classes of its modules.

    Args:
        package: its dotted name.
    """

    @cache
    def exports() -> dict[str, type]:
        path = import_module(package).__path__
        modules = [import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(path)]
        return {
            name: value
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
        }

    def get_attribute(name: str) -> Any:
        if name[:1].isupper() and name in exports():  # importing one module must not import all of them
            return exports()[name]
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get_attribute, lambda: sorted(exports())
