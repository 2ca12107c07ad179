"""What `--data` may say: a data set's name, a toy's name, or a path to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.core.config import did_you_mean, find_components
from poise.data.source import DataConfig, ImageDataConfig
from poise.data.torchvision_data import SETS
from poise.errors import DataError
from poise.utils.printing import say

PATHS = {".zip": "zip", ".npz": "npz"}


def data_table(words: str, before: dict[str, Any] | None, where: str = "--data") -> dict[str, Any]:
    """The recipe's `data` table for `words`; the picture size of the table `before` is kept.

    A name goes before a folder of the same name, and that is said on stderr.

    Raises:
        DataError: neither a name that is known nor a path that is there.
    """
    families = find_components(DataConfig, "poise.data")
    by_name = {name.lower(): name for name in SETS}
    plain = [kind for kind, entry in families.items() if "path" not in entry.model_fields and kind != "torchvision"]
    path = Path(words)
    if words in plain:
        table: dict[str, Any] = {"kind": words}
    elif words.lower() in by_name:
        table = {"kind": "torchvision", "dataset": by_name[words.lower()]}
    elif path.exists():
        kind = PATHS.get(path.suffix.lower(), "folder") if path.is_file() else "folder"
        table = {"kind": kind, "path": _text(path.resolve(), where)}
    else:
        cure = (
            did_you_mean(words.lower(), [*plain, *by_name]) if "/" not in words else "give a folder, a .zip or a .npz"
        )
        raise DataError("no such data", where=where, found=f"'{words}'", cure=cure)
    if "path" not in table and path.is_dir():
        also = f"there is also a folder ./{words} here: give ./{words} to use it"
        say(f"note: {where} {words} is the data set of this name; {also}", err=True)
    if issubclass(families[table["kind"]], ImageDataConfig) and before and "size" in before:
        table["size"] = before["size"]
    return table


def _text(path: Path, where: str) -> str:
    """A path as a recipe holds it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        cure = "rename it: a recipe is UTF-8 text"
        raise DataError("the bytes of this path are no UTF-8", where=where, found=f"'{path}'", cure=cure) from None
    return str(path)


def relocate_table(words: str, before: dict[str, Any], where: str = "--data") -> dict[str, Any]:
    """The table `before` with the same data at another place: all that says what is made of the pictures stays.

    Raises:
        DataError: see `data_table`.
    """
    table = data_table(words, before, where)
    known = find_components(DataConfig, "poise.data")[table["kind"]].model_fields
    kept = {key: value for key, value in before.items() if key in known and key != "path"}
    return {**kept, **table}


def relocate_config(words: str, before: DataConfig) -> DataConfig:
    """The same for an entry.

    Raises:
        DataError: see `data_table`.
    """
    table = relocate_table(words, before.model_dump(mode="json", exclude_none=True))
    entry = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(entry, DataConfig)
    return entry


def data_config(words: str, where: str) -> DataConfig:
    """The entry that `words`, given as the argument `where`, stand for.

    Raises:
        DataError: see `data_table`.
    """
    table = data_table(words, None, where)
    entry = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(entry, DataConfig)
    return entry
