"""Runs and folders of runs in an object store: which of their files a command needs. See `utils/remote.py`."""

from __future__ import annotations

import re
from pathlib import Path

from poise.errors import CheckpointError, RecipeError
from poise.utils.paths import url_of
from poise.utils.remote import RemoteFolder

LOGS = r"(rows|measures|alarms)\.jsonl"

RUN = re.compile(r"run\.json|recipe\.toml|measures\.jsonl|code/[^/]+|(saves|best)/step-\d+/(MANIFEST|state)\.json")
"""What is read of a run that generates samples, besides the tensors of the checkpoint that is used."""

RUN_LOGS = re.compile(rf"run\.json|recipe\.toml|{LOGS}")
"""What is read of a run whose progress is shown."""

RUNS = re.compile(
    rf"([^/]+/){{0,3}}(run\.json|recipe\.toml|{LOGS}|ladder/figures\.json|study\.json|plan\.toml|results\.jsonl)"
)
"""What is read of the runs, studies and ladders up to three levels below a folder."""

ON_DEMAND = re.compile(r"([^/]+/){0,3}(samples/step-\d+\.png|ladder/[^/]+\.png|frames\.bin)")
"""The images and frames of those runs, of which the live page shows a few."""


def open_remote(path: str | Path) -> RemoteFolder | None:
    """The folder in an object store that a path names; None if it is one of this machine.

    Raises:
        RecipeError, DiskError: see `RemoteFolder`.
    """
    url = url_of(path)
    return None if url is None else RemoteFolder(url)


def open_remote_run(path: str | Path, files: re.Pattern[str] = RUN) -> RemoteFolder | None:
    """The run in an object store that a path names, with the files fetched; None if it is one of this machine.

    Raises:
        RecipeError, DiskError: see `RemoteFolder`.
        CheckpointError: it is no run.
    """
    remote = open_remote(path)
    if remote is not None:
        remote.refresh(files)
        if not (remote.local / "run.json").is_file():
            if not remote.names():
                remote.discard()
            raise CheckpointError("not a run folder: it has no run.json", where=remote.url)
    return remote


def local_run(path: Path) -> Path:
    """A run folder of this machine, or the mirror of one in an object store with what shows its progress.

    Raises:
        RecipeError, DiskError, CheckpointError: see `open_remote_run`.
    """
    remote = open_remote_run(path, RUN_LOGS)
    return path if remote is None else remote.local


def open_remote_runs(path: Path) -> RemoteFolder | None:
    """The folder of runs in an object store that a path names, mirrored; None if it is one of this machine.

    Raises:
        RecipeError, DiskError: see `RemoteFolder`; or there is no such folder.
    """
    remote = open_remote(path)
    if remote is not None:
        remote.refresh(RUNS, ON_DEMAND)
        if not remote.names():
            remote.discard()
            raise RecipeError("no such folder, or an empty one", where=remote.url, cure="check the URL")
    return remote
