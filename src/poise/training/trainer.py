"""The run around the step: step, row, sheet, save until it is done. `begin.py` is how it comes to it.

A monitor hears every row. Where its alarm says that the run can't go on like this, the loop goes back to the last save
and tries at a lower rate; `guard.py` is between the two.
"""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from typing import Any, NoReturn

from torch import Tensor

from poise.core.metrics_log import Row, Stat
from poise.data.source import DataSplits
from poise.engine.compute import ComputeSettings
from poise.errors import CheckpointError, DiskError, Diverged, Stopped
from poise.recipe.model import Recipe
from poise.runs import checkpoint
from poise.runs.folder import RunFolder
from poise.runs.jsonl import MAX_ATTEMPTS, JsonLinesFile
from poise.runs.run import Run
from poise.training import run_info
from poise.training.alarms import AlarmHandler, AlarmTriggered
from poise.training.evaluation import PeriodicEvaluator
from poise.training.listener import ProgressListener
from poise.training.recorder import Recorder, SampleGrids
from poise.training.signals import SignalReceived, Signals
from poise.training.state import TrainState
from poise.utils.files import sync_file, write_json, write_text
from poise.utils.printing import count_noun
from poise.watch.logs import measures_to_metrics


class Trainer:
    """One run in progress: everything between the data and the last save."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        compute: ComputeSettings,
        data: DataSplits,
        notes: list[str],
        listener: ProgressListener,
        signals: Signals,
        *,
        resume: bool,
    ) -> None:
        self.recipe, self.folder, self.data = recipe, folder, data
        self.listener, self.signals, self.notes = listener, signals, list(notes)
        self.state = TrainState(recipe, compute, data)
        if resume:
            self.notes += self.state.resume(folder.saves)
        self.first, self.failed = self.state.steps_done, 0
        self.recorder = Recorder(folder, self.first, listener.on_message)
        self.evaluator = None
        if recipe.measure:
            self.evaluator = PeriodicEvaluator(
                recipe, data, folder, self.first, compute.device, listener.on_message, signals.interrupt
            )
        self.alarm_handler = AlarmHandler(recipe, folder, self.first, listener)
        if self.first:
            folder.read_alarms(until=self.first, most=self.state.alarms)  # refused here, before anything is written
        self.started = time.perf_counter()

    def run(self) -> Run:
        """Train to the end.

        Raises:
            PoiseError: see `train`.
        """
        ended = "failed"
        try:
            self._open()
            self.signals.deferred = True
            self._steps()
            self._end()
            ended = "done"
            if self.evaluator is not None and (told := self.evaluator.summary()):
                self.listener.on_message(told)
            if alarms := self.alarm_handler.summary():
                self.listener.on_message(f"done, with {alarms}")
        except (Stopped, SignalReceived, KeyboardInterrupt):
            ended = "stopped"
            raise
        finally:
            self.signals.deferred = True  # a further signal must not break off what follows
            self.listener.on_end()
            if ended != "done":
                with suppress(DiskError):
                    self._write_info(ended)
        return Run(self.folder.path, trust_code=True)  # it has run already

    def _end(self) -> None:
        """Only what `run.json` says is done, is done: like any save, that has three tries."""
        for left in reversed(range(MAX_ATTEMPTS)):
            try:
                self._write_info("done")
                self.folder.clean_up(start_over=False)  # what could not be removed at once
                return
            except DiskError:
                if not left:
                    raise

    @property
    def done(self) -> int:
        """Steps done."""
        return self.state.steps_done

    def _steps(self) -> None:
        self.started = time.perf_counter()
        self.told = (self.done, self.state.seconds)
        if self.done == 0:
            self._sample_grid()
        elif (
            self.evaluator is not None and self.evaluator.is_due(self.done) and not self.evaluator.has_result(self.done)
        ):
            self._measure(self.evaluator)  # a signal broke it off
            if self.signals.requested_by:
                self._stop(self.signals.requested_by)
        while self.done < self.recipe.steps:
            try:
                self._step()
            except AlarmTriggered as triggered:
                self._roll_back(triggered)

    def _step(self) -> None:
        """One step, and whatever is due after it."""
        log, end = self.recipe.log, self.recipe.steps
        row_due = self.done + 1 == end or (self.done + 1) % log.rows == 0
        if row_due:
            self.state.diagnostics.before_step()
        self.state.step()
        last, measured = self.done == end, True
        if row_due:
            self._row()
        if last or self.done % log.samples == 0:
            self._sample_grid()
        if self.evaluator is not None and self.evaluator.is_due(self.done):
            measured = self._measure(self.evaluator)
        asked = self.signals.requested_by  # read once: it may come at any time
        if last or self.done % log.saves == 0 or asked:
            self._save(must=last or asked is not None)
        self.listener.on_step(self.done)
        if asked and not (last and measured):
            self._stop(asked)

    def _stop(self, asked: str) -> NoReturn:
        cure = f"continue with: poise train --resume --out {shlex.quote(str(self.folder.path))}"
        raise Stopped(f"stopped by {asked} after step {self.done}, state saved; {cure}")

    def _row(self) -> None:
        seconds, here = self._seconds(), self.state
        bad = here.describe_non_finite()
        stats = here.step_metrics.reduce() | here.diagnostics.compute()
        rate = (self.done - self.told[0]) * self.recipe.batch / max(1e-9, seconds - self.told[1])
        stats["time/images_per_second"] = Stat.of(rate)
        self.told = (self.done, seconds)
        row = Row(self.done, self.done * self.recipe.batch, round(seconds, 3), stats)
        self.recorder.row(row)
        self.listener.on_row(row)
        self.alarm_handler.process(self.done, stats, f"{bad}; no such step was made" if bad else "")

    def _sample_grid(self) -> None:
        self.recorder.sample_grid(self.sample_grids.draw(self.state.game.sampling_network()), self.done)

    def _measure(self, gauge: PeriodicEvaluator) -> bool:
        """Measure; weights that are the best so far are kept beside the newest ones.

        Returns:
            False if a signal broke it off; a resumed run measures first.
        """
        began, shown = time.perf_counter(), self.state.game.sampling_network()
        if bad := self.state.first_non_finite_tensor(shown):
            self.alarm_handler.not_finite(self.done, f"{bad} of what samples come from")
            return True
        try:
            result = gauge.evaluate(self.state.game, self.done)
        except SignalReceived:
            return False
        if gauge.is_best(self.done):
            try:
                checkpoint.write(self.folder.best, self.done, *self._checkpoint_contents())
                checkpoint.prune(self.folder.best, 1)
            except (OSError, CheckpointError, DiskError) as error:
                self.listener.on_message(f"could not keep the best weights, of step {self.done}: {error}")
            except Diverged as error:
                self.alarm_handler.not_finite(self.done, error.where)
        self.listener.on_message(gauge.describe(result, self.done))
        self.told = (self.told[0], self.told[1] + time.perf_counter() - began)  # no part of the training's pace
        self.alarm_handler.process(self.done, measures_to_metrics(gauge.to_json(result, self.done)))
        return True

    def _save(self, *, must: bool) -> None:
        """Save; a refusing disk is survived until it has refused three times in a row, or this save must be."""
        if not self.state.step_metrics.all_finite():  # since the last row: what is spoiled is not saved
            self.alarm_handler.not_finite(self.done, self.state.describe_non_finite() or "a reading")
        try:
            for lines in self._lines():
                lines.flush()
                sync_file(lines.path)  # a save stands on them: the monitor hears them again
            checkpoint.write(self.folder.saves, self.done, *self._checkpoint_contents())
            checkpoint.prune(self.folder.saves, self.recipe.log.keep)
            self.failed = 0
            self._write_info("running")
        except Diverged as error:
            self.alarm_handler.not_finite(self.done, error.where)
            if must:  # the alarm's policy was to go on: there is nothing to end with
                raise
        except (OSError, CheckpointError, DiskError) as error:
            self.failed += 1
            if must or self.failed >= MAX_ATTEMPTS:
                raise DiskError(f"could not save: {error}", where=str(self.folder.saves)) from None
            self.listener.on_message(f"could not save at step {self.done}, training goes on: {error}")

    def _lines(self) -> list[JsonLinesFile]:
        return [
            self.recorder.rows,
            self.alarm_handler.alarms,
            *([self.evaluator.lines] if self.evaluator is not None else []),
        ]

    def _checkpoint_contents(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], frozenset[str]]:
        return *self.state.checkpoint_contents(
            self._seconds(), self.alarm_handler.num_written
        ), self.state.non_finite_buffers

    def _seconds(self) -> float:
        return self.state.seconds + time.perf_counter() - self.started

    def _roll_back(self, triggered: AlarmTriggered) -> None:
        """To the last save, or the beginning, with lower rates.

        Raises:
            Diverged: it had to too often, or the alarm ends the run.
        """
        alarm, how = triggered.alarm, self.alarm_handler.monitoring
        where = f"{alarm.detector} at step {alarm.step:,}"
        if triggered.stops or self.state.num_rollbacks >= how.roll_backs:
            after = (
                "" if triggered.stops else f" after {count_noun(self.state.num_rollbacks, 'return')} to earlier saves"
            )
            raise Diverged(f"{alarm.message}{after}", where=where, cure=f"{alarm.advice}; earlier saves are kept")
        seconds = self._seconds()
        self.state.roll_back(self.folder.saves)
        self.state.seconds, self.started = seconds, time.perf_counter()
        self.told = (self.done, seconds)
        self.recorder.roll_back(self.done)
        self.alarm_handler.roll_back(self.done)
        if self.evaluator is not None:
            self.evaluator.roll_back(self.done)
            checkpoint.delete_after(self.folder.best, self.done)
        times = f"{self.state.num_rollbacks} of {how.roll_backs}"
        self.listener.on_message(
            f"back to step {self.done:,}, return {times}; rates are multiplied with {self.state.lr_scale:g}"
        )

    def _open(self) -> None:
        """The first writing: everything has been checked."""
        self.folder.clean_up(start_over=self.folder.start_over)
        write_text(self.folder.recipe, self.recipe.to_toml())
        self._write_info("running")
        run_info.copy_user_code(self.recipe, self.folder)
        if self.data.bad_files:
            self.notes += run_info.write_bad_images(self.data.bad_files, self.folder)
        checkpoint.prune(self.folder.saves, self.recipe.log.keep)
        checkpoint.delete_after(
            self.folder.best, -1 if self.evaluator is not None and self.evaluator.settings_changed else self.first
        )
        self.recorder.open()
        self.alarm_handler.resume_at(self.state.alarms, self.first)
        here, recipe = self.state, self.recipe
        real = here.source.preview(recipe.log.sheet)
        classes = len(here.source.classes) if recipe.labels.g else 0
        alpha = getattr(recipe.data, "alpha", True)
        self.sample_grids = SampleGrids(recipe.latent, recipe.log.sheet, real, here.streams, classes, alpha=alpha)
        self.notes += self.sample_grids.notes
        self.listener.on_start(
            run_info.start_info(recipe, here.game, here.source, here.compute, self.first, self.notes, self.folder)
        )

    def _write_info(self, how: str) -> None:
        here = self.state
        info: dict[str, Any] = {
            "name": self.recipe.name,
            "state": how,
            "step": self.done,
            "steps": self.recipe.steps,
            "seconds": round(self._seconds(), 3),
            "recipe": self.recipe.hash,
            **here.reproducibility_info(),
            "data": run_info.data_info(self.recipe, here.source, len(self.data.bad_files)),
            "parameters": run_info.parameter_counts(here.game),
        }
        if here.num_rollbacks:
            info["setbacks"] = here.num_rollbacks
        if self.alarm_handler.counts:
            info["alarms"] = dict(self.alarm_handler.counts)
        if self.evaluator is not None and (best := self.evaluator.best_info()):
            info["best"] = best
        write_json(self.folder.info, info)
