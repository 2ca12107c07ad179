"""The training loop: steps, rows, sample grids, frames, evaluations and checkpoints. `train.py` prepares it.

A monitor sees every row. If the policy of one of its alarms is `roll_back`, the loop returns to a checkpoint from
before the sign of failure and continues with lower learning rates; `alarms.py` connects the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from poise.core.metrics_log import Row, Stat
from poise.core.types import Side
from poise.data.source import DataSplits
from poise.engine.compute import ComputeSettings
from poise.errors import DiskError, Diverged, Stopped
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe
from poise.runs import checkpoint_folder
from poise.runs.changes import in_force
from poise.runs.folder import RunFolder
from poise.runs.jsonl import MAX_ATTEMPTS
from poise.runs.run import Run
from poise.runs.sample_view import SampleView
from poise.training import due, run_info
from poise.training.agreement import CONTINUE, ROLL_BACK, STOP, Agreement, resumable
from poise.training.alarms import AlarmHandler, AlarmTriggered, last_sound_step
from poise.training.checkpoint_writer import CheckpointWriter
from poise.training.evaluation import PeriodicEvaluator
from poise.training.frames import FrameClock, FrameDrawer, has_frames
from poise.training.initial_weights import InitialWeights, describe_initial_weights
from poise.training.listener import ProgressListener
from poise.training.rank_checks import check_division
from poise.training.recorder import Recorder, SampleGrids
from poise.training.signals import SignalReceived, Signals
from poise.training.state import TrainState
from poise.training.stopwatch import Stopwatch
from poise.training.trackers.choose import TRACKERS
from poise.training.trials import begin_trial
from poise.utils.files import write_json, write_text
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
        agreement: the communication with the other ranks, which this one leads.
        resume: whether to continue from the newest checkpoint in `folder`.
        initial: the weights that the players start from.
        original: the recipe that the run was started with, if it has been changed on the advice of alarms.
        data_root: the folder in which a named data set was looked for, if one was given.
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
        agreement: Agreement,
        *,
        resume: bool,
        initial: InitialWeights | None = None,
        original: Recipe | None = None,
        data_root: Path | None = None,
    ) -> None:
        self.folder, self.data, self.data_root = folder, data, data_root
        self.agreement = agreement
        self.listener, self.signals, self.notes = listener, signals, list(notes)
        tensors, classes = (None, ()) if initial is None else (initial.tensors, initial.classes)
        copies, ranks = folder.critics if resume else None, self.agreement.ranks
        self.state = TrainState(recipe, compute, data, tensors, copies, ranks, original, classes)
        if initial is not None:
            self.notes += describe_initial_weights(initial, self.state.game, data.train.classes)
        self.notes += self.state.critics.notes
        if resume:
            self.notes += self.state.resume(folder.saves)
        self.first = self.state.steps_done
        self._written: Recipe | None = None
        """The recipe that is in `recipe.toml`, once this process has written it."""
        trackers = [TRACKERS[name]() for name in recipe.log.to]
        self.recorder = Recorder(folder, self.first, listener.on_message, trackers, recipe.canonical())
        self.frames: FrameDrawer | None = None
        self.evaluator = None
        if recipe.measure:
            self.evaluator = PeriodicEvaluator(
                recipe, data, folder, self.first, compute.device, listener.on_message, signals.interrupt
            )
            self.notes += self.evaluator.notes
        self.alarm_handler = AlarmHandler(recipe, folder, self.first, listener, self.state.returns)
        logs = [self.recorder.rows, self.alarm_handler.alarms, *([self.evaluator.lines] if self.evaluator else [])]
        self.checkpoints = CheckpointWriter(
            folder, self.state, self.alarm_handler, logs, partial(self._write_info, "running")
        )
        if self.first:
            folder.read_alarms(
                until=self.first, most=self.state.alarms
            )  # raises an error, if any, before anything is written
        self.stopwatch = Stopwatch(self.state.seconds, self.first)

    def run(self) -> Run:
        """Train to the last step.

        Raises:
            PoiseError: see `poise.training.train.train`.
        """
        with self.session():
            while self.done < self.recipe.steps:
                self.step()
        return Run(self.folder.path, trust_code=True)  # the code has been run already

    @contextmanager
    def session(self) -> Iterator[None]:
        """Open the run folder for the steps that are made in this block.

        The block makes all steps or raises an error, such as that of `stop`. At its end `run.json` gets the state of
        the run: done, stopped or failed.
        """
        with resumable(self.folder), self.agreement.failures(), self._outcome():
            self._open()
            self.signals.deferred = True
            self._begin()
            self.agreement.on()
            self.state.share()
            yield
            self._finish()
            self.agreement.on()

    @contextmanager
    def _outcome(self) -> Iterator[None]:
        """Write to `run.json` how the block has ended."""
        outcome = "failed"
        try:
            yield
            outcome = "done"
            translates = self.recipe.network.direction is not None and len(self.data.train.shape) == 3
            labelled = self.recipe.labels.g is not None
            for message in run_info.closing_messages(
                self.folder,
                self.done,
                self.alarm_handler,
                self.evaluator,
                translates=translates,
                labelled=labelled,
                changes=in_force(self.state.changes),
            ):
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

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the changes that the run has made on the advice of alarms."""
        return self.state.recipe

    @property
    def done(self) -> int:
        """The number of steps done."""
        return self.state.steps_done

    def _begin(self) -> None:
        """Do what is due before the first step: a sample grid and a frame, or what the run was stopped before."""
        self.stopwatch = Stopwatch(self.state.seconds, self.first)  # the time of the preparations does not count
        if self.frames is not None:
            self.frame_clock = FrameClock(self.recipe.log.frames)
        if self.done == 0:
            self._sample_grid()
            self._frame(always=True)
            return
        try:
            self._make_up()
        except AlarmTriggered as triggered:
            self._roll_back(triggered)

    def _make_up(self) -> None:
        """Do what is due after the last step that was made: an evaluation that was interrupted, or the end of the run.

        A run that is resumed with as many steps as it has made has ended without knowing it.
        """
        done, folder, ends = self.done, self.folder, self.done == self.recipe.steps
        lacks_row = ends and not any(row["step"] == done for row in folder.read_rows(done))
        lacks_grid = ends and not folder.sample_grid(done).is_file()
        if lacks_row:
            self._row()
        if lacks_grid:
            self._sample_grid()
        evaluator = self.evaluator if due.evaluates(self.recipe, done) else None
        lacks_result = evaluator is not None and not evaluator.has_result(done)
        if evaluator is not None and lacks_result:
            self._evaluate(evaluator)
        if lacks_row or lacks_grid:
            self._frame(always=True)
        if lacks_row:
            # in the checkpoint, the values of the row are still to be logged
            self.checkpoints.save(self.stopwatch.seconds, required=True)
        if self.signals.requested_by and lacks_result:
            self._stop(self.signals.requested_by)

    def step(self, mover: Side | None = None, *, log_now: bool = False) -> None:
        """Make one step and everything that is due after it, or roll back if an alarm demands it.

        Args:
            mover: the player whose single move is the whole step; None for the moves that the tempo decides.
            log_now: whether a row is logged after this step, and a frame drawn, even if none is due.

        Raises:
            PoiseError: see `poise.training.train.train`.
        """
        try:
            self._step(mover, log_now=log_now)
        except AlarmTriggered as triggered:
            self._roll_back(triggered)

    def _step(self, mover: Side | None, *, log_now: bool) -> None:
        recipe = self.recipe
        row_due = log_now or due.logs_row(recipe, self.done + 1)
        if row_due:
            self.state.diagnostics.before_step()
        with self.agreement.step():
            if mover is None:
                self.state.step()
            else:
                self.state.step_of(mover)
        last, evaluated, averaged = self.done == recipe.steps, True, due.averages_metrics(recipe, self.done)
        if averaged:
            self.state.average_metrics()
        if row_due:
            self._row()
        if due.draws_samples(recipe, self.done):
            self._sample_grid()
        if self.evaluator is not None and due.evaluates(recipe, self.done):
            evaluated = self._evaluate(self.evaluator)
        self._frame(always=last or log_now)
        requested_by = self._requested_by()
        if requested_by and not averaged:
            self.state.average_metrics()
        if due.saves(recipe, self.done) or requested_by:
            self.checkpoints.save(self.stopwatch.seconds, required=last or requested_by is not None)
            self.agreement.on()
        self.listener.on_step(self.done)
        if requested_by and not (last and evaluated):
            self._stop(requested_by)

    def _requested_by(self) -> str | None:
        """Who has asked this or another rank to stop. It is read once in a step, as a signal may arrive at any time."""
        own = self.signals.requested_by
        order = self.agreement.on(STOP if own else CONTINUE)
        return own or ("a signal to another rank" if order == STOP else None)

    def stop(self, requested_by: str) -> NoReturn:
        """Save the state between two steps and stop.

        Raises:
            Stopped: the state is saved; `requested_by` says who wanted the run to stop.
            Diverged, DiskError: there is no state that can be saved.
        """
        try:
            self.checkpoints.save(self.stopwatch.seconds, required=True)
        except AlarmTriggered as triggered:
            self._roll_back(triggered)
        self._stop(requested_by)

    def _stop(self, requested_by: str) -> NoReturn:
        cure = f"continue with: {self.folder.resume_command}"
        raise Stopped(f"stopped by {requested_by} after step {self.done}, state saved; {cure}")

    def _row(self) -> None:
        seconds, rate = self.stopwatch.seconds, self.stopwatch.steps_per_second(self.done)
        non_finite = self.state.describe_non_finite()
        stats = self.state.step_metrics.reduce() | self.state.diagnostics.compute()
        if rate:  # otherwise all steps were made by an earlier process
            stats["time/images_per_second"] = Stat.of(rate * self.recipe.batch)
        row = Row(self.done, self.done * self.recipe.batch, round(seconds, 3), stats)
        self.recorder.row(row)
        self.listener.on_row(row)
        self.alarm_handler.process(self.done, stats, f"{non_finite}; that update was skipped" if non_finite else "")

    def _sample_grid(self) -> None:
        with reporting(f"drawing the sample grid of step {self.done:,}"):
            self.recorder.sample_grid(self.sample_grids.draw(self.state.game.sampling_network()), self.done)

    def _frame(self, *, always: bool) -> None:
        """Draw a frame of a GAN on 2-D points if one is due, or `always`."""
        frames = self.frames
        if frames is not None and (always or self.frame_clock.is_due()):
            with self.frame_clock.running():
                self.recorder.frame(lambda: frames.draw(self.state.game, self.done), frames.header)

    def _evaluate(self, evaluator: PeriodicEvaluator) -> bool:
        """Evaluate the run; if the weights are the best so far, keep a checkpoint of them in `best/`.

        Returns:
            False if a signal has interrupted the evaluation; the resumed run evaluates first.
        """
        started, net = self.stopwatch.seconds, self.state.game.sampling_network()
        if name := self.state.first_non_finite_tensor(net):
            self.alarm_handler.not_finite(self.done, f"{name} of the network that samples are drawn from")
            return True
        try:
            result = evaluator.evaluate(self.state.game, self.done)
        except SignalReceived:
            return False
        if evaluator.is_best(self.done):
            self.checkpoints.save_best(self.stopwatch.seconds, evaluator.settings)
        self.listener.on_message(evaluator.describe(result, self.done))
        self.stopwatch.exclude(self.stopwatch.seconds - started)
        metrics = measures_to_metrics(evaluator.to_json(result, self.done))
        self.recorder.scalars(self.done, {name: stat.mean for name, stat in metrics.items()})
        self.alarm_handler.process(self.done, metrics)
        return True

    def _roll_back(self, triggered: AlarmTriggered) -> None:
        """Return to the last checkpoint from before the sign began, with lower learning rates or a changed recipe.

        If all are later, it is the oldest one; if there are none, or the sign was there from the first row on, it is
        the beginning. Later checkpoints are deleted first, so that the other ranks, and a run that is resumed after a
        crash, start from the same one.

        Raises:
            Diverged: the run has been rolled back too often, or the alarm stops it.
            DiskError: a later checkpoint can't be deleted.
        """
        alarm, max_rollbacks = triggered.alarm, self.alarm_handler.monitoring.roll_backs
        where = f"{alarm.detector} at step {alarm.step:,}"
        if triggered.stops or self.state.num_rollbacks >= max_rollbacks:
            after = "" if triggered.stops else f", after {count_noun(self.state.num_rollbacks, 'roll-back')}"
            kept = "; earlier checkpoints are kept" if any(self.folder.saves.glob("step-*")) else ""
            raise Diverged(f"{alarm.message}{after}", where=where, cure=f"{triggered.advice}{kept}")
        sound = last_sound_step(alarm)
        best = self.folder.best if sound < alarm.step else None
        is_due, knows_beginning = partial(due.saves, self.recipe), self.state.knows_beginning
        step = checkpoint_folder.return_to(self.folder.saves, sound, best, is_due, knows_beginning=knows_beginning)
        before = self.recipe
        trial = begin_trial(self.state, alarm, step, self._check) if triggered.advises else None
        self.agreement.on(ROLL_BACK)
        left = self.state.roll_back(self.folder.saves)
        self.checkpoints.newest_step = self.done
        self.agreement.on()
        self.state.share()
        self.stopwatch.count_from(self.done)
        if trial is not None:
            self._use_changed_recipe()
            left += [warning for warning in self._check(self.recipe) if warning not in self._check(before)]
        self.recorder.roll_back(self.done)
        self.alarm_handler.roll_back(self.done)
        if self.evaluator is not None:
            self.evaluator.roll_back(self.done)
            checkpoint_folder.delete_after(self.folder.best, self.done)
        count = f"roll-back {self.state.num_rollbacks} of {max_rollbacks}"
        place = run_info.describe_return(self.done, alarm, sound)
        rates = f"learning rates are multiplied by {self.state.lr_scale:g}"
        tried = [rates] if trial is None else [*trial.messages, *([rates] if trial.lowers else [])]
        for message in [*(trial.skipped if trial else []), f"{place} ({count}); {'; '.join(tried)}", *left]:
            self.listener.on_message(message)

    def _check(self, recipe: Recipe) -> list[str]:
        """The warnings about a recipe with which the run is to be continued.

        Raises:
            RecipeError: it does not fit together, or not to the data, so that the run can't be continued with it.
        """
        source, state = self.data.train, self.state
        findings = check_compatibility(recipe, source.shape, len(source.classes), source.parts)
        findings.raise_first()
        check_division(recipe, state.ranks, state.compute.accumulate)
        return [f"{warning.field}: {warning.message}; {warning.cure}" for warning in findings.warnings]

    def _use_changed_recipe(self) -> None:
        """Let the surroundings of the training state follow its recipe; the folder does with the next checkpoint."""
        self.recorder.run = self.recorder.run._replace(config=self.recipe.canonical())
        self.alarm_handler.recipe = self.recipe
        if self.evaluator is not None:
            self.evaluator.recipe = self.recipe
        if self.frames is not None:
            state = self.state
            self.frames = FrameDrawer(self.recipe, state.source, state.sampling_latent, state.streams)

    def _open(self) -> None:
        """Start to write to the run folder, after all checks have passed."""
        self.folder.clean_up(start_over=self.folder.start_over)
        self._write_info("running")
        run_info.copy_user_code(self.recipe, self.folder)
        self.state.critics.write_copies(self.folder.critics)
        if self.data.bad_files:
            self.notes += run_info.write_bad_images(self.data.bad_files, self.folder)
        self.checkpoints.prune()
        checkpoint_folder.delete_after(self.folder.best, self.first)
        self.recorder.open()
        self.alarm_handler.resume_at(self.state.alarms, self.first)
        state, recipe = self.state, self.recipe
        real = state.source.preview(recipe.log.sheet)
        classes = len(state.source.classes) if recipe.labels.g else 0
        view = SampleView.of(recipe, self.data)
        self.sample_grids = SampleGrids(
            state.sampling_latent, recipe.log.sheet, real, state.streams, classes, view=view
        )
        self.notes += self.sample_grids.notes
        if has_frames(recipe, state.source):
            self.frames = FrameDrawer(recipe, state.source, state.sampling_latent, state.streams)
        self.listener.on_start(
            run_info.start_info(recipe, state.game, state.source, state.compute, self.first, self.notes, self.folder)
        )

    def _write_info(self, run_state: str) -> None:
        """Write `run.json`, and before it `recipe.toml` if there is a first or a new checkpoint of a changed recipe."""
        if self._written is not self.recipe and run_state in ("running", "done"):
            write_text(self.folder.recipe, self.recipe.to_toml())
            self._written = self.recipe
        best = None if self.evaluator is None else self.evaluator.best_info()
        counts, root = self.alarm_handler.counts, self.data_root
        info = run_info.run_json(self.state, run_state, self.stopwatch.seconds, counts, best, root)
        if run_state == "stopped":  # perhaps without a checkpoint of this step, as another rank is lost
            info["step"] = self.checkpoints.newest_step
        write_json(self.folder.info, info)
