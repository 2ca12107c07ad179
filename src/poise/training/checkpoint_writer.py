"""When a run can't be saved: a full disk is tolerated for a while, weights that are not finite raise an alarm.

`poise.runs.checkpoint` writes the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from poise.errors import CheckpointError, DiskError, Diverged
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.folder import RunFolder
from poise.runs.jsonl import MAX_ATTEMPTS, JsonLinesFile
from poise.training import due
from poise.training.alarms import NOT_FINITE, AlarmHandler
from poise.training.state import TrainState
from poise.utils.files import sync_file
from poise.utils.progress import reporting
from poise.utils.system import disk_errors


class CheckpointWriter:
    """Writes the checkpoints of one run.

    Args:
        folder: the run folder.
        state: what is saved.
        alarm_handler: gets an alarm if a tensor is not finite.
        logs: the files of which a resumed run needs all lines up to its checkpoint.
        write_info: writes `run.json`.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: TrainState,
        alarm_handler: AlarmHandler,
        logs: Sequence[JsonLinesFile],
        write_info: Callable[[], None],
    ) -> None:
        self.folder, self.state, self.alarm_handler, self.logs = folder, state, alarm_handler, logs
        self.write_info, self.notify = write_info, alarm_handler.listener.on_message
        self.failures = 0
        """The number of checkpoints in succession that could not be written."""
        self.info_failures = 0
        """The number of times in succession that `run.json` could not be written after a checkpoint."""
        self.newest_step = state.steps_done
        """The step that a resumed run would continue from."""
        self._told_of_skipping = False

    def save(self, seconds: float, *, required: bool) -> None:
        """Write a checkpoint to `saves/`, then `run.json`.

        Args:
            seconds: the training time so far.
            required: whether the run can't continue without this checkpoint, which is then tried three times at once.
                Otherwise a failure is only reported, until three checkpoints in succession have failed.

        Raises:
            AlarmTriggered: a number is not finite, and the policy of the alarm is to roll back or to stop.
            Diverged: a number is not finite, and the checkpoint is required.
            DiskError: the disk can't be written, or `run.json` three times in succession.
        """
        step = self.state.steps_done
        if not self.state.step_metrics.all_finite():  # in the steps since the last row
            self.alarm_handler.not_finite(step, self.state.describe_non_finite() or "a logged value")
        try:
            self._write_after_logs(seconds, MAX_ATTEMPTS if required else 1)
            self.failures, self.newest_step = 0, step
        except Diverged as error:
            self.alarm_handler.not_finite(step, error.where)
            if required:  # the alarm's policy was to continue, but there is no state to stop with
                raise
            self._tell_of_skipping(step, error.where)
        except (CheckpointError, DiskError) as error:
            self.failures += 1
            if required or self.failures >= MAX_ATTEMPTS:
                cure = f"step {step:,} could not be saved: when the disk can be written again, continue with: "
                cure += self.folder.resume_command
                raise DiskError(error.what, where=error.where, found=error.found, cure=cure) from None
            self.notify(f"could not save at step {step}, training continues: {error}")
        else:
            self._write_info(step)

    def _write_after_logs(self, seconds: float, attempts: int) -> None:
        """Write a checkpoint to `saves/`, after all lines that a run needs that is resumed from it.

        Raises:
            DiskError, CheckpointError: all attempts have failed.
            Diverged: a tensor is not finite.
        """
        for remaining in reversed(range(attempts)):
            try:
                for file in self.logs:
                    file.flush()
                    with disk_errors(file.path):
                        sync_file(file.path)
                self._write(self.folder.saves, seconds)
                with disk_errors(self.folder.saves):
                    self.prune()
                return
            except (CheckpointError, DiskError):
                if not remaining:
                    raise

    def _write_info(self, step: int) -> None:
        """Write `run.json` beside a checkpoint that has been written, from which the run can be resumed without it.

        Raises:
            DiskError: it is the third failure in succession.
        """
        try:
            self.write_info()
            self.info_failures = 0
        except DiskError as error:
            self.info_failures += 1
            if self.info_failures >= MAX_ATTEMPTS:
                raise
            self.notify(f"the checkpoint of step {step} is saved, but run.json could not be updated: {error}")

    def _tell_of_skipping(self, step: int, name: str) -> None:
        """Say, once, that there is no checkpoint of weights that are not finite, unless an alarm has said so."""
        if self.alarm_handler.monitoring.policy_of(NOT_FINITE) == "off" and not self._told_of_skipping:
            self._told_of_skipping = True
            self.notify(f"no checkpoint of step {step}, nor of later steps, as long as {name} is not finite")

    def save_best(self, seconds: float, settings: Mapping[str, Any]) -> None:
        """Replace the checkpoint in `best/`; a failure is only reported.

        Args:
            seconds: the training time so far.
            settings: those of the measurement (`settings_of`), for the manifest.

        Raises:
            AlarmTriggered: a number is not finite, and the policy of the alarm is to roll back or to stop.
        """
        step = self.state.steps_done
        try:
            self._write(self.folder.best, seconds, {"measure": settings})
            with disk_errors(self.folder.best):
                checkpoint_folder.prune(self.folder.best, 1)
        except (CheckpointError, DiskError) as error:
            self.notify(f"could not keep the best weights, those of step {step}: {error}")
        except Diverged as error:
            self.alarm_handler.not_finite(step, error.where)

    def prune(self) -> None:
        """Delete the checkpoints of `saves/` that are neither among the newest nor needed for a roll-back."""
        recipe, horizon = self.state.recipe, self.alarm_handler.horizon
        checkpoint_folder.prune(self.folder.saves, recipe.log.keep, horizon, partial(due.saves, recipe))

    def _write(self, folder: Path, seconds: float, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        step, state = self.state.steps_done, self.state
        tensors, contents, manifest = state.checkpoint_contents(seconds, self.alarm_handler.num_written)
        with reporting(f"writing the checkpoint of step {step:,}"), disk_errors(folder):
            checkpoint.write(folder, step, tensors, contents, {**manifest, **facts}, state.non_finite_buffers)
