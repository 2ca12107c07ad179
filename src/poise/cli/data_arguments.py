"""Converts the value of `--data` into a recipe's table `data`: the name of a data set or of a toy, or a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.core.config import did_you_mean, find_components
from poise.data.source import DataConfig, ImageDataConfig
from poise.data.torchvision_data import DATASETS
from poise.errors import DataError
from poise.utils.printing import print_line

FILE_KINDS = {".zip": "zip", ".npz": "npz"}


def data_table(value: str, previous: dict[str, Any] | None, option: str = "--data") -> dict[str, Any]:
    """The table `data` for a name or a path.

    A name takes precedence over a folder of the same name, with a note on stderr.

    Args:
        value: the value of the option.
        previous: the table that is replaced, whose `size` and `mirror` are kept if the new data is images; or None.
        option: what an error names.

    Raises:
        DataError: `value` is neither a known name nor an existing path.
    """
    configs = find_components(DataConfig, "poise.data")
    torchvision_names = {name.lower(): name for name in DATASETS}
    own_names = [kind for kind, cls in configs.items() if "path" not in cls.model_fields and kind != "torchvision"]
    path = Path(value)
    if value in own_names:
        table: dict[str, Any] = {"kind": value}
    elif value.lower() in torchvision_names:
        table = {"kind": "torchvision", "dataset": torchvision_names[value.lower()]}
    elif path.exists():
        kind = FILE_KINDS.get(path.suffix.lower(), "folder") if path.is_file() else "folder"
        table = {"kind": kind, "path": path_text(path.resolve(), option)}
    elif "/" in value:
        raise DataError("no such data", where=option, found=f"'{value}'", cure="give a folder, a .zip or a .npz")
    else:
        cure = did_you_mean(value.lower(), [*own_names, *torchvision_names])
        raise DataError("no such data", where=option, found=f"'{value}'", cure=cure)
    if "path" not in table and path.is_dir():
        cure = f"to use the folder of the same name, give ./{value}"
        print_line(f"note: {option} {value} is taken as the name of a data set; {cure}", err=True)
    if previous and issubclass(configs[table["kind"]], ImageDataConfig):
        table |= {key: previous[key] for key in ("size", "mirror") if key in previous}
    return table


def path_text(path: Path, option: str) -> str:
    """A path as a string for a recipe.

    Raises:
        DataError: it is not valid UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        cure = "rename it: a recipe is UTF-8 text"
        raise DataError("the path is not valid UTF-8", where=option, found=f"'{path}'", cure=cure) from None
    return str(path)


def relocate_table(value: str, previous: dict[str, Any], option: str = "--data") -> dict[str, Any]:
    """The table `previous` with a new location of the same data; the keys for preprocessing and splits are kept.

    Args:
        value: the new location.
        previous: the table with the old location.
        option: what an error names.

    Raises:
        DataError: see `data_table`.
    """
    table = data_table(value, previous, option)
    fields = find_components(DataConfig, "poise.data")[table["kind"]].model_fields
    kept = {key: value for key, value in previous.items() if key in fields and key != "path"}
    return {**kept, **table}


def relocate_config(value: str, previous: DataConfig) -> DataConfig:
    """The same for a config instead of a table.

    Raises:
        DataError: see `data_table`.
    """
    return _validate(relocate_table(value, previous.model_dump(mode="json", exclude_none=True)))


def data_config(value: str, option: str) -> DataConfig:
    """The config for a name or a path.

    Raises:
        DataError: see `data_table`.
    """
    return _validate(data_table(value, None, option))


def _validate(table: dict[str, Any]) -> DataConfig:
    config = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(config, DataConfig)
    return config
