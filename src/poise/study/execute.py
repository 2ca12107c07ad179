"""Trains the runs of a study that have no result yet, on one of the engines, and records every result."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from poise.errors import DiskError, PoiseError, RecipeError, Stopped
from poise.recipe.model import Recipe
from poise.study.executor import Executor, WorkerDied
from poise.study.expand import Expansion
from poise.study.folder import StudyFolder, unused_results
from poise.study.job import Job, crashed, run_job
from poise.study.origin import add_sources, check_origins
from poise.study.plan import Plan, read_plan
from poise.study.prepare import Options, prepare, timing_file
from poise.study.records import RunResult, Study
from poise.training.signals import Signals
from poise.utils.files import make_folder, write_text
from poise.utils.printing import count_noun
from poise.utils.system import disk_errors

TICK = 0.5
"""Seconds between two updates of the view."""


class StudyListener(Protocol):
    """Is notified as a study proceeds."""

    def on_message(self, sentence: str) -> None:
        """There is a message for the user."""

    def on_start(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        """The runs without a result are about to be trained."""

    def on_update(self, running: list[str]) -> None:
        """Called every half second with the runs that are being trained."""

    def on_result(self, result: RunResult) -> None:
        """A run has ended."""

    def on_end(self) -> None:
        """The study has ended, with or without an error."""


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
    before = _check_folder(folder, plan, resume=resume)
    again = _resume_command(plan_file, out, options)
    unsaved = f"; continue with: {again}" if resume else " before the first run; there is nothing to save yet"
    with Signals(unsaved) as signals:
        times = timing_file(plan, folder.timing, options)
        expansion = prepare(plan, plan_file, times, options, before)
        folder.check_outside(expansion.recipes.values())
        if resume:
            _results_so_far(folder, expansion)  # before anything is written
        with folder.claim() as note:
            if _check_folder(folder, plan, resume=resume) != before:
                what = "another process has started this study with another plan meanwhile"
                raise RecipeError(what, where=f"--out {out}", cure="repeat the command")
            results, unused = _results_so_far(folder, expansion)
            check_origins(expansion.origins, expansion.study.arms, results)
            study, changed = add_sources(expansion.study, before if results else None)
            times.save()
            folder.write_study(study)  # first, as a study can be continued from then on
            write_text(folder.plan, plan_file.read_text("utf-8"))
            _copy_recipes(plan, plan_file.parent, folder)
            recipes = {key: recipe for key, recipe in expansion.recipes.items() if key not in results}
            origins = _origins_of_runs(expansion)
            jobs = {key: _job(key, recipe, folder, plan, options, origins[key]) for key, recipe in recipes.items()}
            for message in [one for one in (note, unused_results(unused), *changed) if one]:
                listener.on_message(message)
            signals.deferred = True
            listener.on_start(expansion, results, folder)
            try:
                if jobs:
                    _train_all(jobs, executor(), folder, results, signals, listener)
            finally:
                listener.on_end()
            if len(results) < len(expansion.recipes):
                raise Stopped(f"stopped by {signals.requested_by}, results and states saved; continue with: {again}")
            return [results[key] for key in expansion.recipes]


def _check_folder(folder: StudyFolder, plan: Plan, *, resume: bool) -> Study | None:
    """Check that the study of a plan can be started or continued in a folder.

    Returns:
        The study as it was last started; None if it is new.

    Raises:
        RecipeError, CheckpointError: see `StudyFolder.check` and `StudyFolder.check_same_study`.
    """
    folder.check(resume=resume)
    folder.check_same_study(plan.name)
    return folder.last_started(plan.name)


def _results_so_far(folder: StudyFolder, expansion: Expansion) -> tuple[dict[str, RunResult], int]:
    """See `StudyFolder.results_of`.

    Raises:
        RecipeError: the folder has results, and all of them are of other runs than those of the plan.
        CheckpointError: a result is damaged.
    """
    results, unused = folder.results_of(expansion.recipes)
    if unused and not results:
        raise RecipeError(
            "no result in this folder belongs to a run of this plan, as the plan or the recipes of poise have changed",
            where=f"--out {folder.path}",
            found=count_noun(unused, "result"),
            cure="start a new study with another --out, or continue this one with the plan and the poise that began it",
        )
    return results, unused


def _copy_recipes(plan: Plan, source: Path, folder: StudyFolder) -> None:
    """Copy the recipe files that the plan names, which lie beside or below it, so that its copy finds them too."""
    for base in plan.base.values():
        name = Path(base.recipe)
        if name.suffix == ".toml" and not name.is_absolute() and ".." not in name.parts:
            with disk_errors(folder.path):
                make_folder((folder.path / name).parent)
            write_text(folder.path / name, (source / name).read_text("utf-8"))


def _resume_command(plan_file: Path, out: Path, options: Options) -> str:
    """The command that continues a study with the same options; the number of workers may be another."""
    words = ["poise", "study", str(plan_file), "--out", str(out), "--resume"]
    words += ["--engine", options.engine] if options.engine != "local" else []
    words += ["--device", options.device] if options.device != "auto" else []
    words += ["--data-root", str(options.data_root)] if options.data_root is not None else []
    words += ["--trust-code"] if options.trust_code else []
    return shlex.join(words)


def _origins_of_runs(expansion: Expansion) -> dict[str, dict[str, str]]:
    """The origin of each run; see `origin.py`."""
    arms = expansion.study.arms
    return {run: expansion.origins.get((arm.base, arm.name), {}) for arm in arms for run in arm.runs.values()}


def _job(key: str, recipe: Recipe, folder: StudyFolder, plan: Plan, options: Options, origin: Mapping[str, str]) -> Job:
    return Job(
        recipe.canonical(),
        folder.runs.resolve() / key,
        options.data_root,
        options.device,
        plan.precision,
        plan.keep_checkpoints,
        options.trust_code,
        dict(origin),
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

    pending: dict[Future[Any], str] = {}
    try:
        pending |= {submit(key): key for key in jobs}
        while pending and not signals.requested_by:
            for future in wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done:
                key = pending.pop(future)
                if (result := _result(future, key)) is not None:
                    _record(result, folder, results, listener)
                elif not signals.requested_by:
                    pending[submit(key)] = key
            listener.on_update([key for future, key in pending.items() if future.running()])
    except BaseException:
        engine.stop()
        with suppress(DiskError):  # the first error is the one to report
            _record_ended(pending, folder, results, listener)
        raise
    if not pending:
        engine.shutdown()
        return
    engine.stop()
    _record_ended(pending, folder, results, listener)


def _record_ended(
    pending: dict[Future[Any], str], folder: StudyFolder, results: dict[str, RunResult], listener: StudyListener
) -> None:
    """Record the results of the runs that have ended, of those that were still pending when the study was stopped."""
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
        return crashed(key, f"{error} (killed, perhaps by the system for lack of memory)")
    except Exception as error:
        return crashed(key, f"{type(error).__name__}: {error}")


def _record(result: RunResult, folder: StudyFolder, results: dict[str, RunResult], listener: StudyListener) -> None:
    folder.append_result(result)
    results[result.run] = result
    listener.on_result(result)


def _progress(folder: Path) -> object:
    """A value that changes when the run in a folder makes progress that is not lost if its process dies."""
    return sorted(path.name for path in folder.glob("saves/step-*")), (folder / "result.json").is_file()
