"""One run of a study: trained or resumed in its run folder, and summarised as a `RunResult`."""

from __future__ import annotations

import errno
import json
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from poise.core.metrics_log import decode_number
from poise.errors import CheckpointError, DataError, DiskError, Diverged, OutOfMemory, PoiseError, RecipeError, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.changes import changes_from_json, describe_with_cause, in_force
from poise.runs.folder import RunFolder
from poise.study.budget import images_per_step
from poise.study.origin import check_origin, has_origin, recorded_origin
from poise.study.records import LARGEST, RunResult, State
from poise.training.train import train
from poise.utils.files import make_folder, write_json, write_text
from poise.utils.locks import file_lock
from poise.utils.printing import one_line
from poise.utils.system import disk_errors
from poise.utils.temporary import remove
from poise.version import __version__

LOCK_SECONDS = 60.0
"""How long a run waits for another process to end that writes to its folder: the worker of a study that was killed."""

CRASH = "crash.txt"
"""The file in a run folder with the traceback of an unexpected error."""

FULL = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO") if hasattr(errno, name))
"""The error numbers of a disk to which the other runs can't write either."""


class Job(NamedTuple):
    """One run to be trained; it can be sent to another process or machine.

    Attributes:
        table: the recipe in canonical form.
        folder: the run folder, whose name is that of the run, see `Arm.runs`.
        data_root: see `train`.
        device: see `train`.
        precision: see `train`.
        keep_checkpoints: whether the checkpoints are kept when the run has ended.
        trust_code: see `train`.
        origin: what the result must come from, see `origin.py`; if None, nothing is checked.
    """

    table: dict[str, Any]
    folder: Path
    data_root: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    keep_checkpoints: bool = False
    trust_code: bool = False
    origin: Mapping[str, str] | None = None


def run_job(job: Job) -> dict[str, Any]:
    """Train a run to its end with one thread, and return its result as JSON. A run that has ended is not trained again.

    The result is also written to `result.json` in the run folder, so that it is not lost if the caller is killed. The
    exception to this is the state "crashed": such a run is tried again when the study is resumed, and the traceback is
    in `crash.txt` in the run folder. An error of the user's code has that state too, because its class may not exist in
    the process that receives the result.

    Raises:
        DataError, DiskError: the run can't be trained, for a reason that would stop the other runs as well.
        Stopped: a signal has stopped the run; its state is saved.
    """
    torch.set_num_threads(1)
    try:
        return _result_of(job).model_dump(mode="json")
    except (DataError, DiskError, Stopped):
        raise
    except OSError as error:
        if error.errno in FULL:
            raise DiskError(error.strerror or str(error), where=str(error.filename or job.folder)) from None
        reason = f"{type(error).__name__}: {error}"
    except PoiseError as error:
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        with suppress(OSError, DiskError):
            make_folder(job.folder)
            write_text(job.folder / CRASH, traceback.format_exc())
    return crashed(job.folder.name, reason).model_dump(mode="json")


def crashed(run: str, reason: str) -> RunResult:
    """The result of a run that could not be trained, for an unexpected reason."""
    return RunResult(run=run, state="crashed", reason=one_line(reason), step=0, images=0)


def _result_of(job: Job) -> RunResult:
    """The result in `result.json`; or that of the run, trained or resumed if it has not ended."""
    _wait_for_lock(job.folder)
    path = job.folder / "result.json"
    recipe, folder = decode(job.table), RunFolder(job.folder)
    result = _read_result(path)
    if not has_origin(_origin_so_far(folder) if result is None else result.versions, job.origin or {}):
        folder.clean_up(start_over=True)
        result = None
    if result is not None:
        _remove_checkpoints(job)  # the process may have been killed before it removed them
        return result
    state: State = "done"
    reason, seconds = "", 0.0
    try:
        if not _has_ended(folder):
            seconds = _train(recipe, folder, job)
    except Diverged as error:
        state, reason = "diverged", _reason(error)
    except OutOfMemory as error:
        state, reason = "out of memory", _reason(error)
    result = summarise(recipe, folder, state, reason, cpu_seconds=seconds)
    try:
        check_origin(job.origin or {}, result.versions, str(job.folder))
    except PoiseError:
        folder.clean_up(start_over=True)  # the run begins again when the cause has been removed
        raise
    with disk_errors(job.folder):
        make_folder(job.folder)
    write_json(path, result.model_dump(mode="json"))
    _remove_checkpoints(job)
    return result


def _reason(error: PoiseError) -> str:
    """An error without its cure, which is about a run of its own."""
    return one_line(f"{error.where}: {error.what}" if error.where else error.what)


def _wait_for_lock(folder: Path) -> None:
    """Wait until no other process writes to the run folder.

    Raises:
        RecipeError: one still does after `LOCK_SECONDS`; says which.
    """
    lock, end = folder / "run.lock", time.monotonic() + LOCK_SECONDS
    while lock.is_file():
        try:
            with file_lock(lock, str(folder)):
                return
        except RecipeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _train(recipe: Recipe, folder: RunFolder, job: Job) -> float:
    """Train a run, from its newest checkpoint if it has a valid one.

    Returns:
        The CPU time in seconds; 0 if it is not known, because the run was resumed.
    """

    def train_run(*, resume: bool) -> None:
        if not resume and folder.path.is_dir():
            folder.clean_up(start_over=True)
        train(
            recipe,
            folder.path,
            resume=resume,
            device=job.device,
            precision=job.precision,
            data_root=job.data_root,
            trust_code=job.trust_code,
        )

    if any(folder.saves.glob("step-*")):
        try:
            train_run(resume=True)
            return 0.0
        except CheckpointError:  # no checkpoint is valid, or a log is damaged
            pass
    started = time.process_time()
    train_run(resume=False)
    return time.process_time() - started


def summarise(recipe: Recipe, folder: RunFolder, state: State, reason: str = "", cpu_seconds: float = 0.0) -> RunResult:
    """The result of a run that has ended.

    Args:
        recipe: its recipe.
        folder: its run folder.
        state: how it ended.
        reason: the reason of a failure.
        cpu_seconds: the CPU time; 0 if it is not known, because the run was interrupted.
    """
    info: dict[str, Any] = {}
    if folder.info.is_file():  # not if the memory was too small for the data or the networks
        info = folder.read_info()
    step, lines = info.get("step", 0), folder.read_measures()
    final = lines[-1] if lines and lines[-1]["step"] == recipe.steps and state == "done" else {}
    names = recipe.measure.measures if recipe.measure else ()
    curves = {
        name: [
            (line["step"], value) for line in lines for key, value in _rounded(line["measures"]).items() if key == name
        ]
        for name in names
    }
    changes = in_force(changes_from_json(info.get("changes", [])))
    device = {"device": str(info["device"])} if "device" in info else {}
    return RunResult(
        run=folder.path.name,
        state=state,
        reason=reason,
        step=step,
        images=step * images_per_step(recipe),
        values=_rounded(final.get("measures", {})),
        floor=_rounded(final.get("floor", {})),
        curves={name: curve for name, curve in curves.items() if curve},
        changes=list(map(describe_with_cause, changes)),
        cpu_seconds=round(cpu_seconds, 2),
        versions={"poise": __version__, "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        | device
        | recorded_origin(info),
    )


def _rounded(values: dict[str, Any]) -> dict[str, float]:
    """The values up to `LARGEST`, with seven significant digits, so that `results.jsonl` stays small."""
    numbers = {name: decode_number(value) for name, value in values.items()}
    return {name: float(f"{number:.7g}") for name, number in numbers.items() if abs(number) <= LARGEST}


def _read_result(path: Path) -> RunResult | None:
    with suppress(OSError, ValueError, ValidationError):
        return RunResult.model_validate(json.loads(path.read_bytes()))
    return None


def _origin_so_far(folder: RunFolder) -> dict[str, str]:
    """The origin of an unfinished run; empty if there is none."""
    with suppress(Exception):
        return recorded_origin(folder.read_info())
    return {}


def _has_ended(folder: RunFolder) -> bool:
    """Whether the run was trained to its end, but its result was not written."""
    with suppress(Exception):
        return folder.read_info()["state"] == "done"
    return False


def _remove_checkpoints(job: Job) -> None:
    """Remove what is large and not needed for a report: checkpoints and TensorBoard's events."""
    if job.keep_checkpoints:
        return
    folder = RunFolder(job.folder)
    with disk_errors(job.folder):
        for path in (folder.saves, folder.best, folder.tensorboard):
            if path.is_dir():
                remove(path)
