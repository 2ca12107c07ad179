"""Shell completion of recipes, tips, devices and paths. It imports no torch, so that the shell answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


def recipes(incomplete: str) -> Iterator[tuple[str, str]]:
    """Shipped recipes with their descriptions, `.toml` files and folders."""
    from poise.recipe.shipped import list_recipes

    for recipe in list_recipes():
        if recipe.name.startswith(incomplete):
            yield recipe.name, recipe.about
    yield from paths(incomplete, ".toml")


def plans(incomplete: str) -> Iterator[tuple[str, str]]:
    """`.toml` files and folders."""
    yield from paths(incomplete, ".toml")


def data(incomplete: str) -> Iterator[tuple[str, str]]:
    """The embedded digits, folders, and files of the kinds that hold images."""
    if "digits".startswith(incomplete):
        yield "digits", "5,000 handwritten digits, which come with poise"
    yield from paths(incomplete, ".zip", ".npz", ".tar", ".parquet", ".arrow")


def paths(incomplete: str, *suffixes: str) -> Iterator[tuple[str, str]]:
    """Files with one of the suffixes, and folders, which end in a slash."""
    folder, slash, name = incomplete.rpartition("/")
    for path in _sorted_entries(Path(f"{folder}{slash}")):
        if path.name.startswith(name) and not path.name.startswith((".", "-")):
            if path.suffix.lower() in suffixes:
                yield f"{folder}{slash}{path.name}", ""
            elif path.is_dir():
                yield f"{folder}{slash}{path.name}/", ""


def _sorted_entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def tips(incomplete: str) -> Iterator[tuple[str, str]]:
    """Tips by name, and by id in upper or lower case."""
    from poise.tips.catalogue import tips as catalogue

    for tip in catalogue():
        if tip.name.startswith(incomplete):
            yield tip.name, tip.id
        if tip.id.lower().startswith(incomplete.lower()):
            yield tip.id, tip.name


def devices(incomplete: str) -> list[str]:
    """Names of devices."""
    return [device for device in DEVICES if device.startswith(incomplete)]


def precisions(incomplete: str) -> list[str]:
    """Names of precisions."""
    return [precision for precision in PRECISIONS if precision.startswith(incomplete)]
