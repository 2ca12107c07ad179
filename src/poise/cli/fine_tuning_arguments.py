"""Applies the options for fine-tuning to the table of a recipe: `--init-from`, `--init-players` and `--freeze`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poise.core.config import find_components
from poise.data.config import DataConfig
from poise.data.lookup import path_text
from poise.errors import CheckpointError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.toml import Table
from poise.runs.code_copies import copies_of_changed, replace_files
from poise.runs.folder import RunFolder
from poise.runs.reload import root_of_run
from poise.utils.paths import url_of

TRICK = "frozen_layers"


def recipe_of_run(run: str) -> Table:
    """The recipe of a run as a table, without the table `[init]` that says what the run itself started from.

    Raises:
        CheckpointError: there is no such run, or its recipe is damaged.
        RecipeError: it is in an object store.
    """
    _refuse_url(run)
    folder = RunFolder(Path(run))
    if not folder.recipe.is_file():
        found = "it has no recipe.toml" if folder.path.is_dir() else "it does not exist"
        if folder.path.is_file():
            found = "it is a file"
        parents = [parent for parent in folder.path.absolute().parents if (parent / "run.json").is_file()]
        cure = f"give the folder of the run, {parents[0]}" if parents else ""
        raise CheckpointError(f"not a run folder: {found}", where=f"--init-from {run}", cure=cure)
    table = {key: value for key, value in folder.read_recipe().items() if key != "init"}
    return _with_code_of(folder, table) if _python_files(table) else table


def _with_code_of(folder: RunFolder, table: Table) -> Table:
    """The table with the run's copies of Python files that are missing, or have changed since the run."""
    hashes = folder.read_info().get("code", {})
    copies = copies_of_changed(folder.parse_recipe(decode), folder.code, hashes)
    return replace_files(table, copies)


def _python_files(value: Any) -> bool:
    """Whether a table has a component that comes from a Python file."""
    if isinstance(value, dict):
        return value.get("kind") == "python" or any(map(_python_files, value.values()))
    return isinstance(value, list | tuple) and any(map(_python_files, value))


def keep_channels(table: Table, run: str) -> None:
    """Let new images have as many channels as those of the run, unless the recipe says how many; in place.

    The first layer of D and the last one of G would not fit otherwise.

    Raises:
        CheckpointError: `run.json` is missing or damaged.
    """
    data, info = table["data"], RunFolder(Path(run)).read_info()["data"]
    config = find_components(DataConfig, "poise.data").get(data.get("kind"))
    if config is not None and "channels" in config.model_fields and len(info["shape"]) == 3:
        data.setdefault("channels", info.get("parts") or info["shape"][0])


def root_of_init(run: str, given: Path | None, data: DataConfig) -> Path | None:
    """Where a named data set is looked for, see `root_of_run`, if `run` says which one it is.

    Raises:
        CheckpointError: `run.json` is missing or damaged.
        DataError: the folder is not there any more.
    """
    return root_of_run(given, RunFolder(Path(run)).read_info(), data, Path(run))


def apply_fine_tuning(
    table: Table, run: str | None, players: str | None, freeze: Sequence[str] | None, *, moved: bool = False
) -> None:
    """Change a recipe's table in place.

    Args:
        table: the recipe's table.
        run: the value of `--init-from`, a run folder.
        players: the value of `--init-players`, such as "g,d".
        freeze: the values of `--freeze`, such as "d:3" or "d:3,g:1".
        moved: whether `run` is a new path of the same run, as when a run is resumed.

    Raises:
        RecipeError: a value is invalid.
    """
    if run is not None:
        _refuse_url(run)
        previous = table.get("init")
        kept = dict(previous) if isinstance(previous, dict) else {}
        if not moved:
            kept.pop("sha256", None)
        table["init"] = {**kept, "from": path_text(Path(run).resolve(), "--init-from")}
    if players is not None:
        if not isinstance(table.get("init"), dict):
            raise RecipeError("needs a run to start from", where="--init-players", cure="give it with --init-from")
        table["init"]["players"] = _players(players)
    tricks = table.get("tricks", [])
    if freeze and isinstance(tricks, list | tuple):  # anything else is refused when the table is decoded
        others = [trick for trick in tricks if not (isinstance(trick, dict) and trick.get("kind") == TRICK)]
        table["tricks"] = [*others, {"kind": TRICK, **frozen_layers(freeze)}]


def _refuse_url(run: str) -> None:
    """A run names the one that it started from, which must be there when it is resumed."""
    if url_of(run) is not None:
        cure = "copy it to this machine, for example with aws s3 sync"
        raise RecipeError("a run in an object store can't be started from", where="--init-from", cure=cure)


def _players(value: str) -> list[str]:
    players = [player.strip() for player in value.split(",")]
    if not set(players) <= {"g", "d"}:
        raise RecipeError("must be g, d or g,d", where="--init-players", found=f"'{value}'")
    return players


def frozen_layers(values: Sequence[str]) -> dict[str, Any]:
    """The numbers of frozen layers by player, from texts such as "d:3" and "d:3,g:1"; 0 for a player not named.

    Raises:
        RecipeError: a text is invalid.
    """
    counts = {"d": 0, "g": 0}
    for value in values:
        for part in value.split(","):
            player, _, count = part.strip().partition(":")
            if player not in counts or not (count.isascii() and count.isdecimal()):
                cure = "give a player and a number of layers, such as d:3"
                raise RecipeError("is not valid", where="--freeze", found=f"'{part.strip()}'", cure=cure)
            counts[player] = int(count)
    return counts
