"""The data that a name or a path refers to: the values of `--data`, and of `data` in Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import create_model

from poise.core.config import Config, component_union, did_you_mean, find_components
from poise.core.validation import validate
from poise.data.config import DataConfig, ImageDataConfig, loading_memory
from poise.data.decode import SUFFIXES
from poise.data.listing import display_name
from poise.data.parquet_shards import ParquetConfig
from poise.data.paths import exists
from poise.data.shards import BRACES, ShardsConfig, content_of
from poise.data.source import DataSplits
from poise.data.tar_shards import TarConfig
from poise.data.torchvision_data import DATASETS
from poise.data.two_domain_kind import two_domain_kind
from poise.errors import DataError
from poise.utils.paths import expand_home
from poise.utils.printing import describe_type, print_line

SHARD_KINDS: dict[str, type[ShardsConfig]] = {"tar": TarConfig, "parquet": ParquetConfig}
"""The kinds of data that a folder of shards may be."""

FILE_KINDS = {".zip": "zip", ".npz": "npz"}
FILE_KINDS |= {suffix: kind for kind, config in SHARD_KINDS.items() for suffix in config.suffixes}
FILE_KINDS |= dict.fromkeys(SUFFIXES, "density")
"""The kind of data that a file is, by its suffix; a single image is a density of points."""

IDENTITY = ("kind", "path", "a", "b", "dataset")
"""The keys of a table `data` that say which data it is. The others say how it is read."""


def data_table(
    value: str, previous: dict[str, Any] | None = None, option: str = "--data", *, two_domains: bool = True
) -> dict[str, Any]:
    """The table `data` for a name or a path.

    A name takes precedence over a folder of the same name, with a note on stderr. A folder, a .zip or an .npz is read
    as the kind of the recipe if that has two domains. Otherwise an .npz, and without a recipe a folder or a .zip, is
    read as `pairs` or `domains` if its arrays or sub-folders call for it (`two_domain_kind`), with a note.

    Args:
        value: the name of a data set or of a toy, a path, or a kind and a path, such as `pairs:maps`.
        previous: the table `data` of the recipe, which is replaced. Its other keys are kept, see `kept_keys`.
        option: what an error names.
        two_domains: whether data of two domains is recognised.

    Raises:
        DataError: `value` is neither a known name nor an existing path.
    """
    configs = find_components(DataConfig, "poise.data")
    torchvision_names = {name.lower(): name for name in DATASETS}
    own_names = [
        kind
        for kind, config in configs.items()
        if "path" not in (fields := config.model_fields) and not any(one.is_required() for one in fields.values())
    ]
    kind, _, rest = value.partition(":")
    stated = kind if rest and "path" in getattr(configs.get(kind), "model_fields", ()) else ""
    path = expand_home(rest if stated and not exists(expand_home(value), option) else value)
    if not value:
        cure = "give a data set, a folder, a .zip or a .npz; for the current folder, give ."
        raise DataError("the name of the data is empty", where=option, cure=cure)
    if value in own_names:
        table: dict[str, Any] = {"kind": value}
    elif value.lower() in torchvision_names:
        table = {"kind": "torchvision", "dataset": torchvision_names[value.lower()]}
    elif exists(path, option) or _is_range(path):
        stated = stated if path != expand_home(value) else ""
        table = {
            "kind": stated or _kind_of(path, previous, option, two_domains),
            "path": path_text(_absolute(path), option),
        }
    elif path.is_symlink():
        what, found = "this link leads nowhere", f"'{value}', a link to {display_name(str(path.readlink()))}"
        raise DataError(what, where=option, found=found, cure="correct the link")
    elif "/" in value or stated:
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


def _absolute(path: Path) -> Path:
    """The absolute path without links, except that a file keeps its own name, whose suffix says what it is.

    In the cache of Hugging Face `x.parquet` is a link to a file that is called by its hash.
    """
    return path.parent.resolve() / path.name if path.is_file() else path.resolve()


def _is_range(path: Path) -> bool:
    """Whether a path stands for a range of shards. The range may be in the name of a folder if the suffix is theirs."""
    shards = FILE_KINDS.get(path.suffix.lower()) in SHARD_KINDS
    return BRACES.search(str(path) if shards else path.name) is not None


def _kind_of(path: Path, previous: Any, option: str, two_domains: bool) -> str:
    """The kind of data that a path is."""
    before = str(previous.get("kind")) if isinstance(previous, dict) and "kind" in previous else ""
    kind = FILE_KINDS.get(path.suffix.lower(), "folder")
    if path.is_dir():
        kind = _kind_of_shards(path, before, option) or "folder"
    if kind not in ("folder", "zip", "npz"):
        return kind
    of_recipe = find_components(DataConfig, "poise.data").get(before)
    if of_recipe is not None and issubclass(of_recipe, DataConfig) and of_recipe.two_domains:
        demanded, found = of_recipe.two_domains, two_domain_kind(path)
        if found is not None and demanded in found.others:
            what = f"{option} {path} is read as {demanded}, as the recipe demands, although {found.reason}"
            print_line(f"note: {what}; it is read as {found.kind} by {_choice(option, found.kind, path)}", err=True)
        return demanded
    found = None if not two_domains or (kind != "npz" and before) else two_domain_kind(path)
    if found is None:
        return kind
    choices = " or ".join(_choice(option, name, path) for name in found.others)
    what = f"{option} {path} has two domains, and {found.reason}: it is read as {found.kind}"
    print_line(f"note: {what}" + (f"; for another kind give {choices}" if choices else ""), err=True)
    return found.kind


def _kind_of_shards(folder: Path, before: str, option: str) -> str | None:
    """The kind of shards that a folder holds; None if there are none.

    If there are images beside them, such as the images of an image folder of Hugging Face beside its metadata.parquet,
    they are the data, unless the recipe is for shards of this kind; a note says how the shards are chosen.
    """
    shards, images = content_of(folder, [suffix for config in SHARD_KINDS.values() for suffix in config.suffixes])
    kinds = [kind for kind, config in SHARD_KINDS.items() if shards & {*config.suffixes}]
    if not images or before in kinds:
        return before if before in kinds else next(iter(kinds), None)
    if kinds:
        what = f"{option} {folder} has images and {' and '.join(sorted(shards))} files: the images are read"
        choices = " or ".join(_choice(option, kind, folder) for kind in kinds)
        print_line(f"note: {what}; for the files give {choices}", err=True)
    return None


def _choice(option: str, kind: str, path: Path) -> str:
    """The option that states the kind of data."""
    return f"{option} {shlex.quote(f'{kind}:{path}')}"


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


def data_config(
    value: str, previous: DataConfig | None = None, option: str = "--data", *, two_domains: bool = True
) -> DataConfig:
    """The same as a config.

    Raises:
        DataError: see `data_table`.
    """
    before = None if previous is None else previous.model_dump(mode="json", exclude_none=True)
    return table_config(data_table(value, before, option, two_domains=two_domains))


def load(
    data: str | Path | Mapping[str, Any] | DataConfig, *, data_root: str | Path | None = None, **options: Any
) -> DataSplits:
    """Read a data set, for training loops of your own; images are uint8 until you convert them.

    `splits.train` and `splits.held_out` (None if nothing is held out) are sources. `len(source)` is the number of
    images, and `source.gather(indices)` are those at indices, int64, B: `images`, uint8, B x H x W x C, and `labels`,
    int64, B, or None. `source.classes` are the names of the labels. A sample of two domains has the channels of both,
    and `source.domain_sources` are the images of each. Points are drawn: `source.draw(n, generator)`, float32, n x 2.

    Args:
        data: a folder, .zip or .npz of images, or the name of a data set, as after `--data`; a table `data` of a
            recipe, such as `{"kind": "pairs", "path": "maps"}`; or a config, such as `FolderConfig(path="faces")`.
        data_root: the folder that is searched for data sets given by name.
        options: other keys of the table: `size` (a side or (height, width), 32 by default), `channels`, `held_out`, ...

    Returns:
        The splits, with notes on how they were read, warnings about likely mistakes, and files that were skipped.

    Raises:
        RecipeError: an option is unknown or invalid.
        DataError: there is no such data, or it can't be read.
    """
    config = as_config(data, options)
    with loading_memory(config):
        return config.load(None if data_root is None else Path(data_root))


def as_config(data: str | Path | Mapping[str, Any] | DataConfig, options: Mapping[str, Any]) -> DataConfig:
    """The config of data that a caller gives in one of the forms of `load`.

    Raises:
        RecipeError, DataError: see `load`.
    """
    if isinstance(data, DataConfig):
        if not options:
            return data
        data = data.model_dump(mode="json", exclude_none=True)
    check_type(data)
    table = dict(data) if isinstance(data, Mapping) else data_table(str(data), option="data")
    return table_config(table | dict(options))


def check_type(data: object, *, tables: bool = True) -> None:
    """Refuse data that is neither a path, a name nor, where `tables` can be read, a table; such as a tensor of images.

    Raises:
        DataError: it is none of these.
    """
    if not isinstance(data, str | PathLike) and not (tables and isinstance(data, Mapping)):
        what = (
            "must be a path, the name of a data set, or a table"
            if tables
            else "must be a path or the name of a data set"
        )
        cure = 'save images in a file, uint8, N x H x W x C: np.savez("x.npz", images=images, labels=labels)'
        raise DataError(what, where="data", found=describe_type(data), cure=cure)


def table_config(table: dict[str, Any]) -> DataConfig:
    """The config that a table `data` describes.

    Raises:
        RecipeError: a key or a value is invalid.
    """
    any_data = component_union(DataConfig, "poise.data")
    model = create_model("DataTable", __base__=Config, data=(any_data, ...))
    config = getattr(validate(model, {"data": table}), "data")  # noqa: B009 - the field is made here
    assert isinstance(config, DataConfig)
    return config
