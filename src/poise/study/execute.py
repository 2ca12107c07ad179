"""Trains the runs of a study that have no result yet, on one of the engines, and records every result."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from poise.engine.compute import choose_compute
from poise.errors import PoiseError, RecipeError, Stopped
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe
from poise.study.expand import Expansion, expand, steps_within_images
from poise.study.folder import StudyFolder
from poise.study.job import Job, run_job
from poise.study.local import WorkerDied
from poise.study.plan import Plan, read_plan
from poise.study.records import RunResult
from poise.study.timing import TimingFile
from poise.training.signals import Signals
from poise.training.train import train
from poise.user_code.loading import allow_user_code
from poise.utils.files import write_text
from poise.utils.printing import one_line

TICK = 0.5
"""Seconds between two updates of the view."""


class Executor(Protocol):
    """An engine: runs jobs elsewhere."""

    def submit(self, function: Callable[[Any], Any], job: Any, progress: Callable[[], Any]) -> Future[Any]:
        """See `LocalExecutor.submit`."""
        ...

    def stop(self) -> None:
        """See `LocalExecutor.stop`."""

    def shutdown(self) -> None:
        """See `LocalExecutor.shutdown`."""


class Options(NamedTuple):
    """How the runs of a study are trained; see `train`."""

    device: str = "auto"
    data_root: Path | None = None
    trust_code: bool = False


class StudyListener(Protocol):
    """Is notified as a study proceeds."""

    def on_message(self, sentence: str) -> None:
        """There is a message for the user."""

    def on_start(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        """The runs without a result are about to be trained."""

    def on_update(self, running: list[str]) -> None:
        """Called every half second with the hashes of the runs that are being trained."""

    def on_result(self, result: RunResult) -> None:
        """A run has ended."""

    def on_end(self) -> None:
        """The study has ended, with or without an error."""


def prepare(plan: Plan, folder: Path, timing: Path | None, options: Options) -> Expansion:
    """Expand a plan and check every recipe with its data, before anything is trained.

    Args:
        plan: the plan.
        folder: the folder of its file.
        timing: the file for measured times, if the budget is in seconds; None to keep nothing.
        options: see `Options`.

    Raises:
        RecipeError, DataError: an arm can't be trained; names it.
    """
    timed = functools.partial(train, device=options.device, precision=plan.precision, data_root=options.data_root)
    steps_for = functools.partial(steps_within_images, plan=plan)
    if plan.budget is not None and plan.budget.seconds is not None:
        times = TimingFile(timing, timed, device=options.device)
        seconds = plan.budget.seconds
        steps_for = lambda recipe: max(1, round(seconds / times.step_seconds(recipe)))  # noqa: E731
    expansion = expand(plan, folder, steps_for)
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    for arm in expansion.study.arms:
        recipe = expansion.recipes[next(iter(arm.runs.values()))]
        try:
            allow_user_code(recipe, options.trust_code)
            choose_compute(options.device, plan.precision, recipe)
            data = recipe.data.model_dump_json()
            if data not in shapes:
                source = recipe.data.load(options.data_root).train
                shapes[data] = (source.shape, len(source.classes))
            check_compatibility(recipe, *shapes[data]).raise_first()
        except RecipeError as error:
            where = f"{arm.base}, arm '{arm.name}': {error.where}"
            raise RecipeError(error.what, where=where, found=error.found, cure=error.cure) from None
    return expansion


def run_study(
    plan_file: Path,
    out: Path,
    executor: Callable[[], Executor],
    *,
    resume: bool = False,
    options: Options | None = None,
    listener: StudyListener,
) -> list[RunResult]:
    """Train all runs of a plan that have no result yet.

    Args:
        plan_file: the plan.
        out: the study's folder.
        executor: makes the engine, see `executor_of`.
        resume: whether the study in `out` is continued; the plan may have been extended.
        options: how the runs are trained.
        listener: is notified as the study proceeds.

    Returns:
        The results of all runs of the plan.

    Raises:
        RecipeError, DataError: before anything is trained.
        DiskError: a result could not be written; the study can be resumed.
        Stopped: a signal has stopped the study; all states are saved.
    """
    options = options or Options()
    plan, folder = read_plan(plan_file), StudyFolder(out)
    folder.check(resume=resume)
    again = f"poise study {shlex.quote(str(plan_file))} --out {shlex.quote(str(out))} --resume"
    with Signals(f"; continue with: {again}") as signals:
        expansion = prepare(plan, plan_file.parent, folder.timing if resume else None, options)
        with folder.claim() as note:
            for message in [note] if note else []:
                listener.on_message(message)
            write_text(folder.plan, plan_file.read_text("utf-8"))
            folder.write_study(expansion.study)
            results = {one.run: one for one in folder.read_results() if one.run in expansion.recipes}
            listener.on_start(expansion, results, folder)
            signals.deferred = True
            jobs = {
                key: _job(recipe, folder, plan, options)
                for key, recipe in expansion.recipes.items()
                if key not in results or results[key].state == "crashed"
            }
            try:
                if jobs:
                    _train_all(jobs, executor(), folder, results, signals, listener)
            finally:
                listener.on_end()
            if signals.requested_by:
                raise Stopped(f"stopped by {signals.requested_by}, results and states saved; continue with: {again}")
            return [results[key] for key in expansion.recipes]


def _job(recipe: Recipe, folder: StudyFolder, plan: Plan, options: Options) -> Job:
    return Job(
        recipe.canonical(),
        folder.runs.resolve() / recipe.hash,
        options.data_root,
        options.device,
        plan.precision,
        plan.keep_checkpoints,
        options.trust_code,
    )


def _train_all(
    jobs: dict[str, Job],
    engine: Executor,
    folder: StudyFolder,
    results: dict[str, RunResult],
    signals: Signals,
    listener: StudyListener,
) -> None:
    """Run the jobs and record their results, until all have ended or a signal asks to stop."""

    def submit(key: str) -> Future[Any]:
        return engine.submit(run_job, jobs[key], functools.partial(_progress, jobs[key].folder))

    try:
        pending = {submit(key): key for key in jobs}
        while pending and not signals.requested_by:
            for future in wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done:
                key = pending.pop(future)
                result = _result(future, key)
                if result is None:
                    pending[submit(key)] = key
                else:
                    _record(result, folder, results, listener)
            listener.on_update([key for future, key in pending.items() if future.running()])
    except BaseException:
        engine.stop()
        raise
    if not signals.requested_by:
        engine.shutdown()
        return
    engine.stop()
    for future, key in pending.items():
        if future.done() and not future.cancelled() and future.exception() is None and (one := _result(future, key)):
            _record(one, folder, results, listener)


def _result(future: Future[Any], key: str) -> RunResult | None:
    """The result of a job that has ended; None if it was stopped and must be submitted again.

    Raises:
        PoiseError: the job failed for a reason that would stop the other jobs as well.
    """
    try:
        return RunResult.model_validate(future.result())
    except (Stopped, CancelledError):
        return None
    except PoiseError:
        raise
    except WorkerDied as error:
        reason = f"{error} (killed, perhaps by the system for lack of memory)"
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
    return RunResult(run=key, state="crashed", reason=reason, step=0, images=0)


def _record(result: RunResult, folder: StudyFolder, results: dict[str, RunResult], listener: StudyListener) -> None:
    folder.append_result(result)
    results[result.run] = result
    listener.on_result(result)


def _progress(folder: Path) -> object:
    """A value that changes when the run in a folder makes progress: its newest files and their sizes."""
    files = (folder / "rows.jsonl", folder / "run.json", folder / "measures.jsonl")
    return [(file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None for file in files]
