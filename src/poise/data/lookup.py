"""The data that a name or a path refers to: the values of `--data`, and of `data` in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.core.config import did_you_mean, find_components
from poise.data.decode import SUFFIXES
from poise.data.source import DataConfig, ImageDataConfig
from poise.data.torchvision_data import DATASETS
from poise.errors import DataError
from poise.utils.printing import print_line

FILE_KINDS = {".zip": "zip", ".npz": "npz"} | dict.fromkeys(SUFFIXES, "density")
"""The kind of data that a file is, by its suffix; a single image is a density of points."""

IDENTITY = ("kind", "path", "dataset")
"""The keys of a table `data` that say which data it is. The others say how it is read."""


def data_table(value: str, previous: dict[str, Any] | None = None, option: str = "--data") -> dict[str, Any]:
    """The table `data` for a name or a path.

    A name takes precedence over a folder of the same name, with a note on stderr.

    Args:
        value: the name of a data set or of a toy, or a path.
        previous: the table `data` of the recipe, which is replaced. Its other keys are kept, see `kept_keys`.
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
    kept, dropped = kept_keys(previous if isinstance(previous, dict) else {}, table["kind"])
    if dropped:
        names = ", ".join(f"data.{key}" for key in dropped)
        note = f"{names} of the recipe: not kept, as data of kind '{table['kind']}' has no such key"
        print_line(f"note: {option} {value}: {note}", err=True)
    return {**kept, **table}


def kept_keys(previous: dict[str, Any], kind: str) -> tuple[dict[str, Any], list[str]]:
    """What is kept of a table `data` if other data takes its place: how images are read and split.

    All keys are kept for data of the same kind. For another kind of images, those that it has too are kept, unless they
    have the default of the previous kind: then the default of the new kind applies. The keys of a toy describe its
    distribution, so another toy has none of them.

    Args:
        previous: the table that is replaced.
        kind: the kind of the new data.

    Returns:
        The keys that are kept, with their values, and the names of keys for images that are dropped.
    """
    configs = find_components(DataConfig, "poise.data")
    options = {key: value for key, value in previous.items() if key not in IDENTITY}
    old, new = configs.get(str(previous.get("kind"))), configs[kind]
    if old is new or old is None:
        return {key: value for key, value in options.items() if key in new.model_fields}, []
    if not (issubclass(old, ImageDataConfig) and issubclass(new, ImageDataConfig)):
        return {}, []
    fields = old.model_fields
    decided = {key: value for key, value in options.items() if key in fields and fields[key].default != value}
    kept = {key: value for key, value in decided.items() if key in new.model_fields}
    return kept, [key for key in decided if key not in kept]


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


def data_config(value: str, previous: DataConfig | None = None, option: str = "--data") -> DataConfig:
    """The same as a config.

    Raises:
        DataError: see `data_table`.
    """
    before = None if previous is None else previous.model_dump(mode="json", exclude_none=True)
    return table_config(data_table(value, before, option))


def table_config(table: dict[str, Any]) -> DataConfig:
    """The config that a table `data` describes.

    Raises:
        pydantic.ValidationError: a key or a value is invalid.
    """
    config = find_components(DataConfig, "poise.data")[table["kind"]].model_validate(table)
    assert isinstance(config, DataConfig)
    return config
