"""Imports point one way (ARCHITECTURE.md draws it), without a circle, and what must be light is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "poise"

# a package may import from itself and from every package on a lower floor, for types as well; on the lowest floor,
# errors and utilities may import each other
FLOORS = [
    {"version", "retired", "errors", "utils"},
    {"core"},
    {"watch", "report", "truncation", "interpolation"},
    {"data", "latents", "networks", "objectives", "optimizers", "tempo"},
    {"tricks"},
    {"user_code"},
    {"measure"},
    {"functional"},
    {"recipe", "recipes"},
    {"tips"},
    {"engine"},
    {"runs"},
    {"training"},
    {"export"},
    {"ladder", "study", "alignment"},
    {"playground"},
    {"web"},
    {"cli"},
    {"api"},
    {"__init__", "__main__"},
]
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path) for path in modules()}


def package_of(module: str) -> str:
    return module.split(".")[0]


def imported(path: Path) -> set[str]:
    """Modules of poise that a file imports, be it when it runs or for its types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poise":
            parent = node.module.split(".")[1:]
            for alias in node.names:
                whole = ".".join([*parent, alias.name])
                found.add(whole if whole in NAMES else ".".join(parent))
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("poise.")}
    return {name for name in found if name and package_of(name) in FLOOR}


@cache
def imports() -> dict[str, set[str]]:
    """What every module imports."""
    return {name_of(path): imported(path) for path in modules()}


def test_imports_point_down() -> None:
    packages = {package_of(name) for name in imports()}
    assert packages <= set(FLOOR), "give it a floor in tests/test_imports.py and ARCHITECTURE.md"
    upward = []
    for name, found in imports().items():
        here = package_of(name)
        allowed = {package for package, floor in FLOOR.items() if floor < FLOOR[here] or package == here}
        upward += [f"{name} imports {module}" for module in found if FLOOR[here] and package_of(module) not in allowed]
    assert upward == [], "the second is not below the first"


def test_no_modules_import_each_other() -> None:
    """Raises graphlib.CycleError, which names the circle."""
    TopologicalSorter({name: found - {name} for name, found in imports().items()}).prepare()


GENERAL = (["base"], ["blocks"], ["critics"], ["sync_batch_norm"], ["translation"])
"""The modules of these packages that are no particular component: bases, layers, which part a network reads,
what a frozen network says, and what becomes of any network's batch norms."""


def test_training_knows_no_particular_trick_network_or_objective() -> None:
    found = [
        f"{name} imports {module}"
        for name, others in imports().items()
        for module in others
        if package_of(name) in ("engine", "runs", "training")
        and package_of(module) in ("tricks", "networks", "objectives")
        and module.split(".")[1:] not in GENERAL
    ]
    assert found == []


def test_the_step_is_a_page() -> None:
    assert len((SRC / "engine" / "step.py").read_text("utf-8").splitlines()) <= 140


@pytest.mark.parametrize("module", ["poise", "poise.cli", "poise.recipe.shipped", "poise.recipe.toml"])
def test_light_modules_import_neither_torch_nor_numpy(module: str) -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'scipy'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print({heavy} or '')"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_what_the_package_offers_is_what_it_says() -> None:
    """A module of the same name, once imported, would stand in a function's place."""
    code = "import poise.training.train, poise.runs.run, poise; assert callable(poise.train) and callable(poise.Run)"
    subprocess.run([sys.executable, "-c", code], check=True)
