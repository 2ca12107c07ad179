"""What a run says about itself: to the user before the first step, and in `run.json`."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import torch

from poise.data.source import Bad, Finite, Source
from poise.errors import DiskError
from poise.files import make_folder, write_bytes, write_text
from poise.own.copies import contents
from poise.printing import counted
from poise.recipe.model import Recipe
from poise.system import on_disk
from poise.training.folder import RunFolder
from poise.training.game import Game
from poise.training.machine import Machine
from poise.training.watcher import Start

SHOWN_BAD = 10
WHO = {"g": "G", "d": "D", "e": "encoder"}


def parameters(game: Game) -> dict[str, int]:
    """How many weights each player has, and G's encoder."""
    nets = {side.value: player.net for side, player in game.players.items()}
    nets |= {} if game.g.encoder is None else {"e": game.g.encoder}
    return {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}


def start(
    recipe: Recipe, game: Game, source: Source, machine: Machine, first: int, notes: list[str], folder: RunFolder
) -> Start:
    """What there is to say before the first step."""
    sizes = parameters(game)
    data = counted(len(source), "picture") if isinstance(source, Finite) else "endless points"
    facts = [
        f"{recipe.data.tag()}: {data}, {'x'.join(map(str, source.shape))}",
        f"{' and '.join(f'{WHO[name]} {sizes[name]:,}' for name in WHO if name in sizes)} parameters",
        f"{machine.device}, {machine.precision}, {counted(torch.get_num_threads(), 'thread')}",
    ]
    return Start(
        name=recipe.name,
        first=first,
        steps=recipe.steps,
        batch=recipe.batch,
        lines=[*facts, *notes],
        equilibrium=recipe.objective.equilibrium,
        folder=str(folder.path),
    )


def data_facts(recipe: Recipe, source: Source, bad: int) -> dict[str, Any]:
    """The data, for `run.json`."""
    return {
        "kind": recipe.data.tag(),
        "fingerprint": source.fingerprint,
        "shape": list(source.shape),
        "classes": list(source.classes),
        "class_counts": list(source.class_counts),
        "count": len(source) if isinstance(source, Finite) else None,
        "bad": bad,
    }


def keep_code(recipe: Recipe, folder: RunFolder) -> None:
    """Copy the Python files that the recipe names, as they were when they ran: the run can be opened without them.

    Raises:
        DiskError: the disk refused.
    """
    for name, source in contents(recipe).items():
        with on_disk(folder.code):
            make_folder(folder.code)
        write_bytes(folder.code / name, source)


def list_bad(bad: list[Bad], folder: RunFolder) -> list[str]:
    """Every picture that could not be used, with its reason, to a file; sentences about the first few."""
    path = folder.path / "bad_images.csv"
    lines = StringIO()
    csv.writer(lines, lineterminator="\n").writerows([("name", "reason"), *bad])
    notes = [f"bad: {one.name}: {one.reason}" for one in bad[:SHOWN_BAD]]
    try:
        write_text(path, lines.getvalue())
    except DiskError as error:  # the run can do without the list
        more = f"and {len(bad) - SHOWN_BAD:,} more; " if len(bad) > SHOWN_BAD else ""
        return [*notes, f"{more}the list of all can't be written: {error}"]
    return notes + ([f"and {len(bad) - SHOWN_BAD:,} more; all are in {path}"] if len(bad) > SHOWN_BAD else [])
