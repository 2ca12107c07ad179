"""Loads the data of an existing run and checks that it is what the run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poise.data.config import DataConfig
from poise.data.source import DataSplits
from poise.errors import DataError
from poise.utils.paths import expand_home

DATA_ROOT = "data_root"
"""The key of `run.json` for the folder that `--data-root` named, as an absolute path."""

RELATIVE = "relative paths start at {}: run the command where the run was started; "
"""The cure for a relative path that is not found, for example because a run is resumed from another folder."""


def root_of_run(given: Path | None, info: Mapping[str, Any], data: DataConfig, run: Path) -> Path | None:
    """The folder in which the named data set of a run is looked for: the given one, or that of the run's last start.

    Args:
        given: what `--data-root` says; None if it is absent.
        info: the contents of `run.json`; empty if it can't be read.
        data: the data's configuration.
        run: the run folder.

    Returns:
        The folder; None for the default.

    Raises:
        DataError: the folder of the last start is needed and is not there any more.
    """
    recorded = info.get(DATA_ROOT)
    if given is not None or not isinstance(recorded, str):
        return given
    root = Path(recorded)
    if root.is_dir():
        return root
    if not data.uses_root:
        return None
    cure = "give the folder that contains the data set now with --data-root"
    raise DataError("the folder of the run's data set is not there", where=str(run), found=recorded, cure=cure)


def _divided_otherwise(data: DataConfig) -> list[str]:
    """A cure if earlier versions of poise may have given data of this kind another fingerprint; none otherwise."""
    contents = ["images and their flips (data.mirror)"] if getattr(data, "mirror", False) else []
    contents += ["samples of several images"] if data.tag() == "tar" else []
    use = "the version of poise that started the run must be used, as later ones divide it otherwise"
    return [f"if it has {' or '.join(contents)}, {use}"] if contents else []


def reload_data(data: DataConfig, fingerprint: str | None, run: Path, data_root: Path | None = None) -> DataSplits:
    """Load the data of a run.

    Args:
        data: the data's configuration.
        fingerprint: the data's fingerprint when the run began; None if it is not known.
        run: the run folder.
        data_root: the folder in which named data sets are looked for.

    Raises:
        DataError: the data is missing or differs; suggests `--data`.
    """
    option = "its new path with --data"
    if len(data.paths) > 1:
        option = "the new folder of both with --data, or when training is continued, their new "
        option += "paths with --set data.a=PATH --set data.b=PATH"
    cure = f"if it has moved, give {option}" if data.paths else ""
    try:
        splits = data.load(data_root)
    except DataError as error:
        if all(expand_home(path).exists() for path in data.paths):
            raise
        start = "" if all(expand_home(path).is_absolute() for path in data.paths) else RELATIVE.format(Path.cwd())
        raise DataError(error.what, where=error.where, found=error.found, cure=start + cure) from None
    loaded, place = splits.train.fingerprint, " and ".join(data.paths)
    if fingerprint is not None and loaded != fingerprint:
        found = f"{data.tag()}{f' {place}' if place else ''} with fingerprint {loaded}, but the run has {fingerprint}"
        if data.paths:
            cure = "these are other images, or some were added, removed or changed; if those of the run are elsewhere, "
            cure += f"give {option}; to train on these, start a new run, with --init-from to keep the weights"
        cure = "; ".join([*filter(None, [cure]), *_divided_otherwise(data)])
        raise DataError("the data is not what this run was trained on", where=str(run), found=found, cure=cure)
    return splits


def moved_note(old: DataConfig, new: DataConfig) -> list[str]:
    """A note if the data is read from another path than before."""
    before, now = (" and ".join(data.paths) or data.tag() for data in (old, new))
    return [] if before == now else [f"the data is now read from {now} instead of {before}"]
