"""What must be the same on all ranks of a run, which may be on machines that are set up differently."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from poise.engine.compute import ComputeSettings
from poise.errors import DataError, PoiseError, RecipeError
from poise.recipe.model import DATA_LOCATION, Recipe
from poise.recipe.toml import dotted_fields
from poise.runs.folder import RunFolder
from poise.tips.verdicts import PACKAGE, file_hash
from poise.training.agreement import Agreement
from poise.user_code.loading import code_hash
from poise.utils.files import write_bytes
from poise.utils.temporary import remove, temporary_name

SECONDS_TO_SEE = 30.0
"""How long a rank looks for a file that rank 0 has written. Network file systems keep what they have read of a folder
for some time: NFS for 30 seconds, unless the folder is listed again."""

MAX_FIELDS = 3
"""How many fields of two recipes an error names."""


def check_same_start(agreement: Agreement, recipe: Recipe, compute: ComputeSettings, *, resume: bool) -> None:
    """Refuse to train together with a rank that would train something else, for example on another machine.

    All ranks raise the same error.

    Raises:
        RecipeError: a rank has another version of poise, torch, NumPy or the custom code, another recipe (wherever its
            data is), or another precision or number of parts of a batch; or it starts a run that others resume.
    """
    if agreement.ranks.size > 1:
        text = json.dumps(start_facts(recipe, compute, resume=resume))
        refuse_other_start([json.loads(one) for one in agreement.texts(text)])


def start_facts(recipe: Recipe, compute: ComputeSettings, *, resume: bool) -> dict[str, Any]:
    """What must be the same on all ranks before the data is loaded, and the name of the machine."""
    versions = compute.settings()["versions"]
    return {
        "machine": socket.gethostname(),
        "versions": {name: versions[name] for name in ("poise", "torch", "numpy")},
        "source": _source_hash(),
        "code": sorted(code_hash(recipe).values()),
        "recipe": {
            path: value for path, value in dotted_fields(recipe.canonical()).items() if path not in NOT_COMPARED
        },
        "precision": compute.precision,
        "accumulate": compute.accumulate,
        "resume": resume,
    }


NOT_COMPARED = ("init.from", *DATA_LOCATION)
"""The fields of a recipe that may differ between machines: places whose contents are compared."""


def refuse_other_start(facts: Sequence[Mapping[str, Any]]) -> None:
    """Compare the `start_facts` of all ranks, in their order, with those of rank 0.

    Raises:
        RecipeError: see `check_same_start`.
    """
    first = facts[0]
    for rank, other in enumerate(facts):
        where = f"rank {rank} on {other['machine']}"
        for name, version in other["versions"].items():
            if version != first["versions"][name]:
                found = f"{version}, but {first['versions'][name]} on rank 0"
                cure = "install the same version on all machines"
                raise RecipeError(f"has another version of {name}", where=where, found=found, cure=cure)
        if other["source"] != first["source"]:
            cure = "install the same version on all machines"
            raise RecipeError("has other source files of poise than rank 0", where=where, cure=cure)
        if other["resume"] != first["resume"]:
            found = "a run to resume" if other["resume"] else "none"
            raise _not_shared(where, f"{found}, unlike rank 0")
        if other["recipe"] != first["recipe"]:
            cure = "give the same command and the same files on all machines"
            found = _different_fields(first["recipe"], other["recipe"])
            raise RecipeError("has another recipe than rank 0", where=where, found=found, cure=cure)
        if other["code"] != first["code"]:
            cure = "copy the Python files of the recipe to all machines"
            raise RecipeError("has another version of the custom code than rank 0", where=where, cure=cure)
        for option in ("precision", "accumulate"):
            if other[option] != first[option]:
                found = f"{other[option]}, but {first[option]} on rank 0"
                cure = f"choose one for all: --{option} {first[option]}"
                raise RecipeError(f"has another --{option}", where=where, found=found, cure=cure)


def _different_fields(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The fields of two recipes that differ, with their values."""
    paths = sorted(path for path in first.keys() | other.keys() if first.get(path) != other.get(path))
    named = [f"{path} {other.get(path, 'none')} instead of {first.get(path, 'none')}" for path in paths[:MAX_FIELDS]]
    more = [f"{len(paths) - MAX_FIELDS} more fields"] if len(paths) > MAX_FIELDS else []
    return ", ".join([*named, *more])


def _source_hash() -> str:
    """SHA-256 of the Python files of the package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {file_hash(path)}\n".encode())
    return digest.hexdigest()


def check_same_data(agreement: Agreement, fingerprint: str) -> None:
    """Refuse to train together with a rank that has read other data. All ranks raise the same error.

    Raises:
        DataError: the fingerprint of a rank's data differs.
    """
    if agreement.ranks.size == 1:
        return
    for rank, text in enumerate(texts := agreement.texts(json.dumps([socket.gethostname(), fingerprint]))):
        machine, other = json.loads(text)
        if other != (first := json.loads(texts[0])[1]):
            found = f"fingerprint {other}, but {first} on rank 0"
            cure = "copy the data to all machines, or put it where all of them see it"
            raise DataError("has other data", where=f"rank {rank} on {machine}", found=found, cure=cure)


def check_shared_folder(agreement: Agreement, folder: RunFolder) -> None:
    """Refuse a run folder that is another one on the machine of another rank. Rank 0 has claimed it.

    Rank 0 writes a file of an unused name, for which the others look for up to `SECONDS_TO_SEE`.

    Raises:
        RecipeError: this rank doesn't see it.
        RankFailed: another rank doesn't.
        DiskError: it can't be written.
    """
    if agreement.ranks.size == 1:
        return
    mark = folder.path / temporary_name(f"ranks-{uuid4().hex}")
    try:
        if agreement.ranks.leads:
            write_bytes(mark, b"")
        name = agreement.texts(mark.name)[0]
        if not agreement.ranks.leads and not _appears(folder, name):
            where = f"--out {folder.path}"
            raise _not_shared(
                where, f"another one on {socket.gethostname()}, which lacks a file that rank 0 has written"
            )
        agreement.on()
    finally:
        if agreement.ranks.leads:
            with suppress(OSError):
                remove(mark)


def _appears(folder: RunFolder, name: str) -> bool:
    """Whether a file is in the folder, now or soon."""
    end = time.monotonic() + SECONDS_TO_SEE
    while True:
        with suppress(OSError):
            list(folder.path.absolute().parent.iterdir())  # a network file system then asks its server again
            if folder.path / name in folder.path.iterdir():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)


def _not_shared(where: str, found: str) -> PoiseError:
    cure = "choose an --out on a file system that all machines share"
    return RecipeError("the ranks don't see the same run folder", where=where, found=found, cure=cure)
