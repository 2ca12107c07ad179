"""What a run says about itself: to the user before the first step, and in `run.json`."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import torch

from poise.data.source import BadFile, SizedSource, Source
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.errors import DiskError
from poise.recipe.model import Recipe
from poise.runs.code_copies import code_contents
from poise.runs.folder import RunFolder
from poise.training.listener import StartInfo
from poise.utils.files import make_folder, write_bytes, write_text
from poise.utils.printing import count_noun
from poise.utils.system import disk_errors

SHOWN_BAD = 10
WHO = {"g": "G", "d": "D", "e": "encoder"}


def parameter_counts(game: Game) -> dict[str, int]:
    """How many weights each player has, and G's encoder."""
    nets = {side.value: player.net for side, player in game.players.items()}
    nets |= {} if game.g.encoder is None else {"e": game.g.encoder}
    return {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}


def start_info(
    recipe: Recipe,
    game: Game,
    source: Source,
    compute: ComputeSettings,
    first: int,
    notes: list[str],
    folder: RunFolder,
) -> StartInfo:
    """What there is to say before the first step."""
    sizes = parameter_counts(game)
    data = count_noun(len(source), "picture") if isinstance(source, SizedSource) else "endless points"
    facts = [
        f"{recipe.data.tag()}: {data}, {'x'.join(map(str, source.shape))}",
        f"{' and '.join(f'{WHO[name]} {sizes[name]:,}' for name in WHO if name in sizes)} parameters",
        f"{compute.device}, {compute.precision}, {count_noun(torch.get_num_threads(), 'thread')}",
    ]
    return StartInfo(
        name=recipe.name,
        first=first,
        steps=recipe.steps,
        batch=recipe.batch,
        lines=[*facts, *notes],
        equilibrium=recipe.objective.equilibrium,
        folder=str(folder.path),
    )


def data_info(recipe: Recipe, source: Source, bad: int) -> dict[str, Any]:
    """The data, for `run.json`."""
    return {
        "kind": recipe.data.tag(),
        "fingerprint": source.fingerprint,
        "shape": list(source.shape),
        "classes": list(source.classes),
        "class_counts": list(source.class_counts),
        "count": len(source) if isinstance(source, SizedSource) else None,
        "bad": bad,
    }


def copy_user_code(recipe: Recipe, folder: RunFolder) -> None:
    """Copy the Python files that the recipe names, as they were when they ran: the run can be opened without them.

    Raises:
        DiskError: the disk refused.
    """
    for name, source in code_contents(recipe).items():
        with disk_errors(folder.code):
            make_folder(folder.code)
        write_bytes(folder.code / name, source)


def write_bad_images(bad: list[BadFile], folder: RunFolder) -> list[str]:
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
