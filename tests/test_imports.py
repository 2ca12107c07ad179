"""Imports point one way (ARCHITECTURE.md draws it), and what must be light is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "poise"

# a room may import from itself and from every room on a lower floor
FLOORS = [
    {"printing"},
    {"parts"},
    {"errors"},
    {"system"},
    {"temporary"},
    {"files", "locks", "entries", "rows", "randomness", "derivatives", "console", "plotting", "caching", "progress"},
    {"core", "dials", "watch"},
    {"seams", "codes"},
    {"players", "tempo", "optimizers", "latents", "networks", "objectives", "data"},
    {"tricks", "sheets"},
    {"own"},
    {"measure"},
    {"functional"},
    {"recipe", "recipes"},
    {"tips"},
    {"training"},
    {"ladder"},
    {"cli"},
    {"library"},
    {"__init__", "__main__"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[0]


def imported(path: Path) -> list[str]:
    """Modules of poise that a file imports when it runs (not those it only needs for its types)."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poise":
            rest = node.module.split(".")[1:]
            found += [".".join([*rest, alias.name]) if not rest else ".".join(rest) for alias in node.names]
        if isinstance(node, ast.Import):
            found += [a.name.partition(".")[2] for a in node.names if a.name.startswith("poise.")]
    return [name for name in found if name and room_of(name) in FLOOR]


def name_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = room_of(name_of(path))
    assert here in FLOOR, f"'{here}' has no floor in tests/test_imports.py and ARCHITECTURE.md"
    for module in imported(path):
        there = room_of(module)
        lower = FLOOR[there] < FLOOR[here] or there == here
        assert lower, f"{name_of(path)} imports {module}, which is not below it"


@pytest.mark.parametrize("path", [p for p in modules() if "training" in p.parts], ids=name_of)
def test_training_knows_no_particular_trick_network_or_objective(path: Path) -> None:
    for module in imported(path):
        rest = module.split(".")[1:]
        assert room_of(module) != "tricks", f"{name_of(path)} imports {module}"
        assert room_of(module) not in ("networks", "objectives") or rest in (["base"], ["blocks"]), module


def test_the_step_is_a_page() -> None:
    for name in ("step.py",):
        assert len((SRC / "training" / name).read_text("utf-8").splitlines()) <= 140


@pytest.mark.parametrize("module", ["poise", "poise.cli", "poise.recipe.shipped", "poise.recipe.text"])
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
    code = (
        "import poise.training.begin, poise.training.run, poise; assert callable(poise.train) and callable(poise.Run)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
