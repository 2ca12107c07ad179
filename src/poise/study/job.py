"""One run of a study: trained or resumed in its run folder, and summarised as a `RunResult`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from poise.errors import Diverged, OutOfMemory
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.folder import RunFolder
from poise.study.expand import images_per_step
from poise.study.records import RunResult, State
from poise.training.train import train
from poise.utils.files import write_json
from poise.utils.system import disk_errors
from poise.utils.temporary import remove
from poise.version import __version__


class Job(NamedTuple):
    """One run to be trained; it can be sent to another process or machine.

    Attributes:
        table: the recipe in canonical form.
        folder: the run folder, whose name is the hash of the recipe.
        data_root: see `train`.
        device: see `train`.
        precision: see `train`.
        keep_checkpoints: whether the checkpoints are kept when the run has ended.
        trust_code: see `train`.
    """

    table: dict[str, Any]
    folder: Path
    data_root: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    keep_checkpoints: bool = False
    trust_code: bool = False


def run_job(job: Job) -> dict[str, Any]:
    """Train a run to its end and return its result as JSON; a run that has ended before is not trained again.

    The result is also written to `result.json` in the run folder, so that it is not lost if the caller is killed.

    Raises:
        DataError, DiskError: the run can't be trained, for a reason that would stop the other runs as well.
        Stopped: a signal has stopped the run; its state is saved.
    """
    path = job.folder / "result.json"
    if (result := _read_result(path)) is not None:
        _remove_checkpoints(job)  # the process may have been killed before it removed them
        return result.model_dump(mode="json")
    recipe, folder = decode(job.table), RunFolder(job.folder)
    state: State = "done"
    reason = ""
    first, started = _newest_checkpoint(folder), time.process_time()
    try:
        if not _has_ended(folder):
            train(
                recipe,
                job.folder,
                resume=first > 0,
                device=job.device,
                precision=job.precision,
                data_root=job.data_root,
                trust_code=job.trust_code,
            )
    except Diverged as error:
        state, reason = "diverged", str(error)
    except OutOfMemory as error:
        state, reason = "out of memory", str(error)
    seconds = time.process_time() - started if first == 0 else 0.0
    result = summarise(recipe, folder, state, reason, cpu_seconds=seconds)
    write_json(path, result.model_dump(mode="json"))
    _remove_checkpoints(job)
    return result.model_dump(mode="json")


def summarise(recipe: Recipe, folder: RunFolder, state: State, reason: str = "", cpu_seconds: float = 0.0) -> RunResult:
    """The result of a run that has ended.

    Args:
        recipe: its recipe.
        folder: its run folder.
        state: how it ended.
        reason: the reason of a failure.
        cpu_seconds: the CPU time; 0 if it is not known, because the run was interrupted.
    """
    info, lines = folder.read_info(), folder.read_measures()
    final = lines[-1] if lines and lines[-1]["step"] == recipe.steps and state == "done" else {}
    names = recipe.measure.measures if recipe.measure else ()
    curves = {
        name: [(line["step"], _round(line["measures"][name])) for line in lines if name in line["measures"]]
        for name in names
    }
    device = {key: str(info[key]) for key in ("device", "precision") if key in info}
    return RunResult(
        run=recipe.hash,
        state=state,
        reason=reason,
        step=info["step"],
        images=info["step"] * images_per_step(recipe),
        values={name: _round(value) for name, value in final.get("measures", {}).items()},
        floor={name: _round(value) for name, value in final.get("floor", {}).items()},
        curves={name: curve for name, curve in curves.items() if curve},
        cpu_seconds=round(cpu_seconds, 2),
        versions={"poise": __version__, "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"} | device,
    )


def _round(value: float) -> float:
    """Seven significant digits, so that `results.jsonl` stays small."""
    return float(f"{value:.7g}")


def _read_result(path: Path) -> RunResult | None:
    with suppress(OSError, ValueError, ValidationError):
        return RunResult.model_validate(json.loads(path.read_bytes()))
    return None


def _newest_checkpoint(folder: RunFolder) -> int:
    """The step of the newest checkpoint; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in folder.saves.glob("step-*")), default=0)


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
