"""A run's data, read again: it must be what the run was trained on, wherever it lies now."""

from __future__ import annotations

from pathlib import Path

from poise.data.source import DataConfig, DataSplits
from poise.errors import DataError


def reload_data(data: DataConfig, fingerprint: str | None, run: Path, data_root: Path | None = None) -> DataSplits:
    """The data of a run.

    Args:
        data: where it is.
        fingerprint: what it was when the run began; None if that is not known.
        run: the run folder.
        data_root: where data sets by name are looked for.

    Raises:
        DataError: it is not there, or is other data; says how to name its place.
    """
    place = getattr(data, "path", None)
    cure = "if it lies elsewhere now, say where with --data" if place is not None else ""
    try:
        loaded = data.load(data_root)
    except DataError as error:
        if place is None or Path(place).expanduser().exists():
            raise
        raise DataError(error.what, where=error.where, found=error.found, cure=cure) from None
    found = loaded.train.fingerprint
    if fingerprint is not None and found != fingerprint:
        told = f"{data.tag()}{f' {place}' if place else ''} with fingerprint {found}, where the run has {fingerprint}"
        raise DataError("the data is not what this run was trained on", where=str(run), found=told, cure=cure)
    return loaded


def moved_note(old: DataConfig, new: DataConfig) -> list[str]:
    """A note, if the data is read from another place than before."""
    before, now = (getattr(data, "path", None) or data.tag() for data in (old, new))
    return [] if before == now else [f"the data is read from {now} now, no longer from {before}"]
