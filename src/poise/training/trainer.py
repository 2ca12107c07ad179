"""The training loop: steps, logged rows, sample grids, evaluations and checkpoints. `train.py` prepares it.

A monitor sees every row. If the policy of one of its alarms is `roll_back`, the loop returns to the last checkpoint and
continues with lower learning rates; `alarms.py` connects the two.
"""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from pathlib import Path
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
from poise.training.initial_weights import InitialWeights, describe_initial_weights
from poise.training.listener import ProgressListener
from poise.training.recorder import Recorder, SampleGrids
from poise.training.signals import SignalReceived, Signals
from poise.training.state import TrainState
from poise.training.trackers.choose import TRACKERS
from poise.utils.files import sync_file, write_json, write_text
from poise.utils.printing import count_noun
from poise.utils.progress import reporting
from poise.watch.logs import measures_to_metrics


class Trainer:
    """Trains one run, from its first step to its last checkpoint.

    Args:
        recipe: the recipe.
        folder: the run folder.
        compute: device and precision.
        data: the data splits.
        notes: messages that the listener gets before the first step.
        listener: notified as the run proceeds.
        signals: says whether the run has been asked to stop.
        resume: whether to continue from the newest checkpoint in `folder`.
        initial: the weights that the players start from.
    """

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
        initial: InitialWeights | None = None,
    ) -> None:
        self.recipe, self.folder, self.data = recipe, folder, data
        self.listener, self.signals, self.notes = listener, signals, list(notes)
        self.state = TrainState(recipe, compute, data, None if initial is None else initial.tensors)
        if initial is not None:
            self.notes += describe_initial_weights(initial, self.state.game)
        if resume:
            self.notes += self.state.resume(folder.saves)
        self.first, self.failed_saves = self.state.steps_done, 0
        trackers = [TRACKERS[name]() for name in recipe.log.to]
        self.recorder = Recorder(folder, self.first, listener.on_message, trackers, recipe.canonical())
        self.evaluator = None
        if recipe.measure:
            self.evaluator = PeriodicEvaluator(
                recipe, data, folder, self.first, compute.device, listener.on_message, signals.interrupt
            )
        self.alarm_handler = AlarmHandler(recipe, folder, self.first, listener)
        if self.first:
            folder.read_alarms(
                until=self.first, most=self.state.alarms
            )  # raises an error, if any, before anything is written
        self.started = time.perf_counter()

    def run(self) -> Run:
        """Train to the last step.

        Raises:
            PoiseError: see `poise.training.train.train`.
        """
        outcome = "failed"
        try:
            self._open()
            self.signals.deferred = True
            self._train()
            self._finish()
            outcome = "done"
            for message in self._closing_messages():
                self.listener.on_message(message)
        except (Stopped, SignalReceived, KeyboardInterrupt):
            outcome = "stopped"
            raise
        finally:
            self.signals.deferred = True  # another signal must not interrupt what follows
            self.recorder.close(outcome)
            self.listener.on_end()
            if outcome != "done":
                with suppress(DiskError):
                    self._write_info(outcome)
        return Run(self.folder.path, trust_code=True)  # the code has been run already

    def _finish(self) -> None:
        """Write to `run.json` that the run is done; like any checkpoint, this is tried up to three times."""
        for remaining in reversed(range(MAX_ATTEMPTS)):
            try:
                self._write_info("done")
                self.folder.clean_up(start_over=False)  # files that could not be removed earlier
                return
            except DiskError:
                if not remaining:
                    raise

    def _closing_messages(self) -> list[str]:
        """The best measure, where the samples are, and last how the run has ended."""
        evaluator, folder = self.evaluator, self.folder
        summary, option = "", ""
        if evaluator is not None:
            summary = evaluator.summary()
            option = " --best" if evaluator.best_is_kept and not evaluator.is_best(self.done) else ""
        grid = max(folder.samples.glob("step-*.png"), default=folder.path)
        return [
            *([summary] if summary else []),
            f"samples: {grid}",
            f"to generate more samples: poise sample {shlex.quote(str(folder.path))}{option}",
            self.alarm_handler.summary(),
        ]

    @property
    def done(self) -> int:
        """The number of steps done."""
        return self.state.steps_done

    def _train(self) -> None:
        self.started = time.perf_counter()
        self._last_row = (self.done, self.state.seconds)
        if self.done == 0:
            self._sample_grid()
        elif (
            self.evaluator is not None and self.evaluator.is_due(self.done) and not self.evaluator.has_result(self.done)
        ):
            self._evaluate(self.evaluator)  # a signal interrupted it before
            if self.signals.requested_by:
                self._stop(self.signals.requested_by)
        while self.done < self.recipe.steps:
            try:
                self._step()
            except AlarmTriggered as triggered:
                self._roll_back(triggered)

    def _step(self) -> None:
        """Make one step and everything that is due after it."""
        log, end = self.recipe.log, self.recipe.steps
        row_due = self.done + 1 == end or (self.done + 1) % log.rows == 0
        if row_due:
            self.state.diagnostics.before_step()
        self.state.step()
        last, evaluated = self.done == end, True
        if row_due:
            self._row()
        if last or self.done % log.samples == 0:
            self._sample_grid()
        if self.evaluator is not None and self.evaluator.is_due(self.done):
            evaluated = self._evaluate(self.evaluator)
        requested_by = self.signals.requested_by  # read only once, because a signal may arrive at any time
        if last or self.done % log.saves == 0 or requested_by:
            self._save(required=last or requested_by is not None)
        self.listener.on_step(self.done)
        if requested_by and not (last and evaluated):
            self._stop(requested_by)

    def _stop(self, requested_by: str) -> NoReturn:
        cure = f"continue with: poise train --resume --out {shlex.quote(str(self.folder.path))}"
        raise Stopped(f"stopped by {requested_by} after step {self.done}, state saved; {cure}")

    def _row(self) -> None:
        seconds = self._seconds()
        non_finite = self.state.describe_non_finite()
        stats = self.state.step_metrics.reduce() | self.state.diagnostics.compute()
        last_step, last_seconds = self._last_row
        rate = (self.done - last_step) * self.recipe.batch / max(1e-9, seconds - last_seconds)
        stats["time/images_per_second"] = Stat.of(rate)
        self._last_row = (self.done, seconds)
        row = Row(self.done, self.done * self.recipe.batch, round(seconds, 3), stats)
        self.recorder.row(row)
        self.listener.on_row(row)
        self.alarm_handler.process(self.done, stats, f"{non_finite}; that update was skipped" if non_finite else "")

    def _sample_grid(self) -> None:
        with reporting(f"drawing the sample grid of step {self.done:,}"):
            self.recorder.sample_grid(self.sample_grids.draw(self.state.game.sampling_network()), self.done)

    def _evaluate(self, evaluator: PeriodicEvaluator) -> bool:
        """Evaluate the run; if the weights are the best so far, keep a checkpoint of them in `best/`.

        Returns:
            False if a signal has interrupted the evaluation; the resumed run evaluates first.
        """
        started, net = time.perf_counter(), self.state.game.sampling_network()
        if name := self.state.first_non_finite_tensor(net):
            self.alarm_handler.not_finite(self.done, f"{name} of the network that samples are drawn from")
            return True
        try:
            result = evaluator.evaluate(self.state.game, self.done)
        except SignalReceived:
            return False
        if evaluator.is_best(self.done):
            try:
                self._write_checkpoint(self.folder.best, keep=1)
            except (OSError, CheckpointError, DiskError) as error:
                self.listener.on_message(f"could not keep the best weights, those of step {self.done}: {error}")
            except Diverged as error:
                self.alarm_handler.not_finite(self.done, error.where)
        self.listener.on_message(evaluator.describe(result, self.done))
        last_step, last_seconds = self._last_row
        self._last_row = (last_step, last_seconds + time.perf_counter() - started)  # not part of the training speed
        metrics = measures_to_metrics(evaluator.to_json(result, self.done))
        self.recorder.scalars(self.done, {name: stat.mean for name, stat in metrics.items()})
        self.alarm_handler.process(self.done, metrics)
        return True

    def _save(self, *, required: bool) -> None:
        """Write a checkpoint.

        If the disk can't be written, training continues until three checkpoints in succession have failed.

        Args:
            required: whether the run can't continue without this checkpoint.
        """
        if not self.state.step_metrics.all_finite():  # in the steps since the last row
            self.alarm_handler.not_finite(self.done, self.state.describe_non_finite() or "a logged value")
        try:
            for file in self._log_files():
                file.flush()
                sync_file(file.path)  # a resumed run needs all lines up to its checkpoint
            self._write_checkpoint(self.folder.saves, keep=self.recipe.log.keep)
            self.failed_saves = 0
            self._write_info("running")
        except Diverged as error:
            self.alarm_handler.not_finite(self.done, error.where)
            if required:  # the alarm's policy was to continue, but there is no state to stop with
                raise
        except (OSError, CheckpointError, DiskError) as error:
            self.failed_saves += 1
            if required or self.failed_saves >= MAX_ATTEMPTS:
                raise DiskError(f"could not save: {error}", where=str(self.folder.saves)) from None
            self.listener.on_message(f"could not save at step {self.done}, training continues: {error}")

    def _write_checkpoint(self, folder: Path, *, keep: int) -> None:
        with reporting(f"writing the checkpoint of step {self.done:,}"):
            checkpoint.write(folder, self.done, *self._checkpoint_contents())
            checkpoint.prune(folder, keep)

    def _log_files(self) -> list[JsonLinesFile]:
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
        """Return to the last checkpoint, or to the beginning, with lower learning rates.

        Raises:
            Diverged: the run has been rolled back too often, or the alarm stops it.
        """
        alarm, max_rollbacks = triggered.alarm, self.alarm_handler.monitoring.roll_backs
        where = f"{alarm.detector} at step {alarm.step:,}"
        if triggered.stops or self.state.num_rollbacks >= max_rollbacks:
            after = "" if triggered.stops else f" after {count_noun(self.state.num_rollbacks, 'roll-back')}"
            raise Diverged(f"{alarm.message}{after}", where=where, cure=f"{alarm.advice}; earlier checkpoints are kept")
        seconds = self._seconds()
        self.state.roll_back(self.folder.saves)
        self.state.seconds, self.started = seconds, time.perf_counter()
        self._last_row = (self.done, seconds)
        self.recorder.roll_back(self.done)
        self.alarm_handler.roll_back(self.done)
        if self.evaluator is not None:
            self.evaluator.roll_back(self.done)
            checkpoint.delete_after(self.folder.best, self.done)
        count = f"roll-back {self.state.num_rollbacks} of {max_rollbacks}"
        self.listener.on_message(
            f"back to step {self.done:,} ({count}); learning rates are multiplied by {self.state.lr_scale:g}"
        )

    def _open(self) -> None:
        """Start to write to the run folder, after all checks have passed."""
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
        state, recipe = self.state, self.recipe
        real = state.source.preview(recipe.log.sheet)
        classes = len(state.source.classes) if recipe.labels.g else 0
        alpha = getattr(recipe.data, "alpha", True)
        self.sample_grids = SampleGrids(recipe.latent, recipe.log.sheet, real, state.streams, classes, alpha=alpha)
        self.notes += self.sample_grids.notes
        self.listener.on_start(
            run_info.start_info(recipe, state.game, state.source, state.compute, self.first, self.notes, self.folder)
        )

    def _write_info(self, run_state: str) -> None:
        """Write `run.json`."""
        state = self.state
        info: dict[str, Any] = {
            "name": self.recipe.name,
            "state": run_state,
            "step": self.done,
            "steps": self.recipe.steps,
            "seconds": round(self._seconds(), 3),
            "recipe": self.recipe.hash,
            **state.reproducibility_info(),
            "data": run_info.data_info(self.recipe, state.source, len(self.data.bad_files)),
            "parameters": run_info.parameter_counts(state.game),
        }
        if state.num_rollbacks:
            info["setbacks"] = state.num_rollbacks
        if self.alarm_handler.counts:
            info["alarms"] = dict(self.alarm_handler.counts)
        if self.evaluator is not None and (best := self.evaluator.best_info()):
            info["best"] = best
        write_json(self.folder.info, info)
