"""What `--data` may say: a data set's name, a toy's name, or a path to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.core.config import did_you_mean, find_components
from poise.data.source import DataConfig, ImageDataConfig
from poise.data.torchvision_data import DATASETS
from poise.errors import DataError
from poise.utils.printing import print_line

PATHS = {".zip": "zip", ".npz": "npz"}


def data_table(value: str, previous: dict[str, Any] | None, option: str = "--data") -> dict[str, Any]:
    """The recipe's `data` table for `words`; the picture size of the table `before` is kept.

    A name goes before a folder of the same name, and that is said on stderr.

    Raises:
        DataError: neither a name that is known nor a path that is there.
    """
    families = find_components(DataConfig, "poise.data")
    by_name = {name.lower(): name for name in DATASETS}
    plain = [kind for kind, entry in families.items() if "path" not in entry.model_fields and kind != "torchvision"]
    path = Path(value)
    if value in plain:
        table: dict[str, Any] = {"kind": value}
    elif value.lower() in by_name:
        table = {"kind": "torchvision", "dataset": by_name[value.lower()]}
    elif path.exists():
        kind = PATHS.get(path.suffix.lower(), "folder") if path.is_file() else "folder"
        table = {"kind": kind, "path": _text(path.resolve(), option)}
    else:
        cure = (
            did_you_mean(value.lower(), [*plain, *by_name]) if "/" not in value else "give a folder, a .zip or a .npz"
        )
        raise DataError("no such data", where=option, found=f"'{value}'", cure=cure)
    if "path" not in table and path.is_dir():
        also = f"there is also a folder ./{value} here: give ./{value} to use it"
        print_line(f"note: {option} {value} is the data set of this name; {also}", err=True)
    if issubclass(families[table["kind"]], ImageDataConfig) and previous and "size" in previous:
        table["size"] = previous["size"]
    return table


def _text(path: Path, where: str) -> str:
    """A path as a recipe holds it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        cure = "rename it: a recipe is UTF-8 text"
        raise DataError("the bytes of this path are no UTF-8", where=where, found=f"'{path}'", cure=cure) from None
    return str(path)


def relocate_table(value: str, previous: dict[str, Any], option: str = "--data") -> dict[str, Any]:
    """The table `before` with the same data at another place: all that says what is made of the pictures stays.

    Raises:
        DataError: see `data_table`.
    """
    table = data_table(value, previous, option)
    known = find_components(DataConfig, "poise.data")[table["kind"]].model_fields
    kept = {key: value for key, value in previous.items() if key in known and key != "path"}
    return {**kept, **table}


def relocate_config(value: str, previous: DataConfig) -> DataConfig:
    """The same for an entry.

    Raises:
        DataError: see `data_table`.
    """
    table = relocate_table(value, previous.model_dump(mode="json", exclude_none=True))
    entry = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(entry, DataConfig)
    return entry


def data_config(value: str, option: str) -> DataConfig:
    """The entry that `words`, given as the argument `where`, stand for.

    Raises:
        DataError: see `data_table`.
    """
    table = data_table(value, None, option)
    entry = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(entry, DataConfig)
    return entry
