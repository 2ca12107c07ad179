"""Checks of the files that a command reads and writes, made before any work is done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from poise.errors import CheckpointError, RecipeError
from poise.utils.paths import refuse_url, url_of
from poise.utils.printing import print_line
from poise.utils.system import refuse_unwritable_folder

if TYPE_CHECKING:
    from poise.runs.run import Run


def check_writable(path: Path, suffixes: tuple[str, ...], option: str) -> None:
    """Check that `path` has one of the suffixes, and that its folder exists and can be written to.

    Args:
        path: the file to be written.
        suffixes: with their dots.
        option: what an error names.

    Raises:
        RecipeError: it has none of them, is a folder, or its folder does not exist.
        DiskError: its folder can't be written to.
    """
    refuse_url(path, option)
    if path.suffix.lower() not in suffixes:
        allowed = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise RecipeError(
            f"must end in {allowed}", where=option, found=f"'{path}'", cure=f"write {path.stem}{suffixes[0]}"
        )
    if path.is_dir():
        raise RecipeError("is a folder", where=option, found=f"'{path}'", cure="give the name of a file")
    if not path.parent.is_dir():
        raise RecipeError("its folder does not exist", where=option, found=f"'{path.parent}'", cure="create it first")
    refuse_unwritable_folder(path.parent, option)


def check_code_beside(out: Path, code: Mapping[str, bytes]) -> None:
    """Check that Python files can be written beside an exported file without replacing others.

    Args:
        out: the exported file.
        code: the contents of the Python files by their names.

    Raises:
        RecipeError: there is a file of this name with other contents.
    """
    for name, content in code.items():
        path = out.parent / name
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            what = f"the generator needs {name} beside it, as it was when the run was trained"
            cure = "export into another folder"
            raise RecipeError(what, where="--out", found=f"another {name} in '{out.parent}'", cure=cure)


def check_run(run: Path) -> None:
    """Check that `run` is a run folder. One in an object store is checked when it is opened.

    Raises:
        CheckpointError: it is not.
    """
    if url_of(run) is not None or (run / "run.json").is_file():
        return
    if not run.exists():
        raise CheckpointError("not a run folder: it does not exist", where=str(run))
    cure = f"poise runs {shlex.quote(str(run))} lists the runs in it" if any(run.glob("*/run.json")) else ""
    raise CheckpointError("not a run folder: it has no run.json", where=str(run), cure=cure)


def output_in_run(run: Path, name: str) -> Path:
    """The file in a run folder that a command writes without `--out`.

    Raises:
        RecipeError: the run is in an object store, to which nothing is written.
    """
    if url_of(run) is not None:
        what = "a run in an object store is only read, so the result needs a place"
        raise RecipeError(what, where="--out", cure=f"name a file on this machine, such as --out {name}")
    return run / name


def check_license(identifier: str | None) -> None:
    """Check the form of a licence's identifier.

    Raises:
        RecipeError: it can't be one.
    """
    if identifier is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}", identifier):
        cure = "use an identifier such as mit, apache-2.0, cc-by-nc-4.0 or other"
        raise RecipeError("not an identifier of a licence", where="--license", found=f"'{identifier}'", cure=cure)


def read_moved_data(run: Run, data: str | None, data_root: Path | None) -> None:
    """Let a run read its data from where `--data` and `--data-root` say.

    Raises:
        DataError: there is nothing of this name.
    """
    from poise.data.lookup import data_config

    run.read_data_from(None if data is None else data_config(data, run.recipe.data), data_root)


def report_skipped_checkpoints(run: Run) -> None:
    """Print which damaged checkpoints were skipped in favour of older ones."""
    for description in run.skipped_checkpoints:
        print_line(f"skipped a damaged checkpoint: {description}", err=True)
